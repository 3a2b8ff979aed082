// [number of checks, what fails]: names, labels, order and keyboard operation, as WCAG 2.2 AA asks of this page's parts.
for (const details of document.querySelectorAll("details")) details.open = true;
document.getElementById("every").click();
const every = (selector) => [...document.querySelectorAll(selector)];
const failures = [];
let count = 0;
const check = (holds, what) => { count += 1; if (!holds) failures.push(what); };
const told = (element) => element.outerHTML.slice(0, 90);
const name = (element) => (element.getAttribute("aria-label") || element.alt || element.textContent).trim();

check(document.documentElement.lang === "en", "language");
check(document.title.trim(), "title");
check(every("h1").length === 1 && every("main").length === 1, "one h1 and one main");
every("h1, h2, h3, h4").reduce((before, heading) => {
  const level = Number(heading.tagName[1]);
  check(level <= before + 1, `${told(heading)} skips a level`);
  return level;
}, 0);
check(every("[id]").length === new Set(every("[id]").map((element) => element.id)).size, "ids are unique");
for (const link of every('a[href^="#"]')) check(document.getElementById(link.hash.slice(1)), `target of ${told(link)}`);
for (const element of every("img, a, button, summary, option, section h2, nav, figcaption, [role]").filter((element) => !element.closest("svg.marks") || element.matches(".mark"))) check(name(element) || element.id === "detail", `name of ${told(element)}`);
for (const control of every("input, select")) check(control.labels.length && name(control.labels[0]), `label of ${told(control)}`);
for (const group of every("fieldset")) check(group.firstElementChild.tagName === "LEGEND" && name(group), `legend of ${told(group)}`);
for (const head of every("th")) check(["row", "col"].includes(head.scope) && name(head), `scope and name of ${told(head)}`);
for (const table of every("table")) check(table.caption || table.closest('[role="region"][aria-label]'), `name of ${told(table)}`);
for (const element of every("*")) {
  const scrolls = ["auto", "scroll"].includes(getComputedStyle(element).overflowX) && element.scrollWidth > element.clientWidth + 1;
  if (scrolls && element !== document.documentElement) check(element.tabIndex === 0, `keyboard reaches what scrolls: ${told(element)}`);
}

const operable = every("a, button, input, select, summary, [tabindex]");
for (const element of operable) {
  element.focus();
  check(document.activeElement === element && element.tabIndex === 0, `focus on ${told(element)}`);
  if (!element.matches("a, svg *")) {
    const { width, height } = (element.closest("label") || element).getBoundingClientRect();
    check(Math.min(width, height) >= 24 || element.closest("th"), `size of ${told(element)}: ${width} × ${height}`);
  }
}
for (const element of every("[onclick], [onkeydown]")) check(false, `handler without a control: ${told(element)}`);
answer = [count, failures];
