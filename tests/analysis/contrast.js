// [number of checks, [[ratio, what], ...] of those under 4.5, the page's colour]: WCAG 2's contrast of every text with
// what lies behind it, of marks (scaled from 3:1), and 0 for a control or mark without a label.
const channel = (v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
const luminance = (colour) => {
  const [r, g, b] = numbers(colour).map(channel);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (one, other) => {
  const [a, b] = [luminance(one), luminance(other)];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
};
const ground = (element) => {
  for (; element; element = element.parentElement) {
    const colour = getComputedStyle(element).backgroundColor;
    if (numbers(colour)[3] !== 0) return colour;
  }
  return "rgb(255, 255, 255)";
};
const behind = (element) => ground(element instanceof SVGElement ? element.ownerSVGElement.parentElement : element);
const ink = (element) => getComputedStyle(element)[element instanceof SVGElement ? "fill" : "color"];
const hasText = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());

const texts = [...document.querySelectorAll("body *")].filter(
  (e) => hasText(e) && e.getClientRects().length && !["SCRIPT", "STYLE", "OPTION"].includes(e.tagName),
);
const checks = texts.map((e) => [contrast(ink(e), behind(e)), `${e.tagName} ${e.textContent.slice(0, 40)}`]);
for (const e of document.querySelectorAll("input, select")) checks.push([e.labels.length ? 9 : 0, `label of ${e.outerHTML}`]);
for (const e of document.querySelectorAll("#plot .mark")) {
  checks.push([e.getAttribute("aria-label") ? 9 : 0, `label of ${e.outerHTML}`]);
  if (!e.classList.contains("beaten")) checks.push([(contrast(ink(e), behind(e)) * 4.5) / 3, `mark ${e.dataset.point}`]);
}
answer = [checks.length, checks.filter(([ratio]) => ratio < 4.5), getComputedStyle(document.body).backgroundColor];
