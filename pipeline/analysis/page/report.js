"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const metric = (key) => data.metrics.find((m) => m.key === key);
const state = { x: data.x, y: data.y, beaten: true, hidden: new Set() };
const settingOf = (key) => data.settings.find((setting) => key.startsWith(`${setting}_`));

const shapes = {
  o: "M5,0A5,5,0,1,1,-5,0A5,5,0,1,1,5,0Z", s: "M-4.5,-4.5H4.5V4.5H-4.5Z", "^": "M0,-5.5L5.2,4H-5.2Z", v: "M0,5.5L5.2,-4H-5.2Z",
  D: "M0,-6L6,0L0,6L-6,0Z", P: "M-2,-5.5H2V-2H5.5V2H2V5.5H-2V2H-5.5V-2H-2Z", "<": "M-5.5,0L4,-5.2V5.2Z", ">": "M5.5,0L-4,-5.2V5.2Z",
  p: "M0,-5.5L5.2,-1.7L3.2,4.4H-3.2L-5.2,-1.7Z", d: "M0,-6L3.6,0L0,6L-3.6,0Z",
  "*": "M0,-7L1.7,-2.3L6.7,-2.2L2.7,0.9L4.1,5.7L0,2.8L-4.1,5.7L-2.7,0.9L-6.7,-2.2L-1.7,-2.3Z",
  X: "M-5.5,-3L-3,-5.5L0,-2.5L3,-5.5L5.5,-3L2.5,0L5.5,3L3,5.5L0,2.5L-3,5.5L-5.5,3L-2.5,0Z",
};

function element(name, attributes, parent) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (parent) parent.append(made);
  return made;
}

function short(value) {
  if (value === null || value === undefined) return "-";
  for (const [factor, prefix] of [[1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "K"]]) {
    if (Math.abs(value) >= 0.9995 * factor) return Number((value / factor).toPrecision(3)) + prefix;
  }
  return String(Number(value.toPrecision(4)));
}

function ticks(low, high, logarithmic) {
  if (logarithmic) {
    const decades = Math.log10(high / low);
    const steps = decades > 3 ? [1] : decades > 1.6 ? [1, 3] : decades > 0.5 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9];
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
      for (const step of steps) found.push(step * 10 ** power);
    }
    return found.filter((value) => value >= low && value <= high);
  }
  const raw = (high - low) / 6;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

function scale(values, logarithmic, from, to) {
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (logarithmic) {
    const room = high > low ? (high / low) ** 0.06 : 2;
    [low, high] = [low / room, high * room];
  } else {
    const room = high > low ? (high - low) * 0.06 : Math.abs(high) * 0.1 || 1;
    [low, high] = [low - room, high + room];
  }
  const share = logarithmic ? (v) => Math.log(v / low) / Math.log(high / low) : (v) => (v - low) / (high - low);
  return { at: (v) => from + (to - from) * share(v), ticks: ticks(low, high, logarithmic) };
}

function dominated(point, others, x, y) {
  const cost = (p, m) => (m.lower ? 1 : -1) * p.values[m.key];
  return others.some((other) => cost(other, x) <= cost(point, x) && cost(other, y) <= cost(point, y)
    && (cost(other, x) < cost(point, x) || cost(other, y) < cost(point, y)));
}

function describe(point) {
  const values = data.shown.map((key) => `${metric(key).label}: ${short(point.values[key])}`);
  return `${point.name} (${point.series}, size ${point.size})\n${values.join(" · ")}`;
}

function draw() {
  const [x, y] = [metric(state.x), metric(state.y)];
  const usable = (value, m) => value !== null && value !== undefined && (!m.logarithmic || value > 0);
  const all = data.points.filter((p) => usable(p.values[x.key], x) && usable(p.values[y.key], y) && !state.hidden.has(p.series));
  const families = Map.groupBy ? Map.groupBy(all, (p) => p.family) : all.reduce((m, p) => m.set(p.family, [...(m.get(p.family) || []), p]), new Map());
  const beaten = new Set(all.filter((p) => dominated(p, families.get(p.family), x, y)));
  const points = all.filter((p) => state.beaten || !beaten.has(p));
  const width = Math.max(320, Math.min($("plot").clientWidth || 900, 1100)), height = Math.max(300, width * 0.5);
  const box = { left: 58, right: width - 14, top: 12, bottom: height - 46 };
  const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `${y.label} against ${x.label}` });
  $("tip").hidden = true;
  $("plot").replaceChildren(svg, $("tip"));
  if (!points.length) {
    element("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, svg).textContent = "No point has both numbers.";
    return;
  }
  const across = scale(points.map((p) => p.values[x.key]), x.logarithmic, box.left, box.right);
  const up = scale(points.map((p) => p.values[y.key]), y.logarithmic, box.bottom, box.top);
  axes(svg, box, across, up, x, y, width, height);
  for (const [family, members] of families) {
    const line = members.filter((p) => !beaten.has(p)).sort((a, b) => a.values[x.key] - b.values[x.key]);
    const d = line.map((p) => `${across.at(p.values[x.key])},${up.at(p.values[y.key])}`).join("L");
    const look = data.series[family], own = look ? { class: "front own", style: `--light: ${look.light}; --dark: ${look.dark}` } : { class: "front" };
    if (line.length) element("path", { ...own, d: `M${d}`, "stroke-dasharray": family.startsWith("vanilla") ? "none" : "6 4" }, svg);
  }
  for (const point of points) mark(svg, point, across.at(point.values[x.key]), up.at(point.values[y.key]), beaten.has(point));
}

function axes(svg, box, across, up, x, y, width, height) {
  for (const value of across.ticks) {
    const at = across.at(value);
    element("line", { class: "grid", x1: at, x2: at, y1: box.top, y2: box.bottom }, svg);
    element("text", { class: "tick", x: at, y: box.bottom + 17, "text-anchor": "middle" }, svg).textContent = short(value);
  }
  for (const value of up.ticks) {
    const at = up.at(value);
    element("line", { class: "grid", x1: box.left, x2: box.right, y1: at, y2: at }, svg);
    element("text", { class: "tick", x: box.left - 7, y: at + 4, "text-anchor": "end" }, svg).textContent = short(value);
  }
  const better = (m, less, more) => (m.lower ? less : more);
  element("text", { x: (box.left + box.right) / 2, y: height - 8, "text-anchor": "middle" }, svg).textContent = `${x.label} (${better(x, "← better", "better →")})`;
  element("text", { transform: `translate(13 ${(box.top + box.bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, svg).textContent = `${y.label} (${better(y, "← better", "better →")})`;
}

function mark(svg, point, x, y, beaten) {
  const style = data.series[point.series];
  const attributes = { class: beaten ? "mark beaten" : "mark", d: shapes[style.marker], transform: `translate(${x} ${y}) scale(1.15)`, tabindex: 0, role: "img" };
  const made = element("path", { ...attributes, style: `--light: ${style.light}; --dark: ${style.dark}`, "data-point": point.name }, svg);
  made.setAttribute("aria-label", `${describe(point)}${beaten ? ", dominated" : ""}`);
  for (const event of ["mouseenter", "focus", "click"]) made.addEventListener(event, () => tell(point, made));
  for (const event of ["mouseleave", "blur"]) made.addEventListener(event, () => { $("tip").hidden = true; });
  if (!beaten) element("text", { class: "tick", x: x + 8, y: y + 15 }, svg).textContent = point.size;
}

function tell(point, mark) {
  $("detail").textContent = describe(point);
  const [box, at] = [$("plot").getBoundingClientRect(), mark.getBoundingClientRect()];
  const tip = $("tip");
  tip.replaceChildren(Object.assign(document.createElement("strong"), { textContent: point.name }));
  for (const key of new Set([state.x, state.y])) tip.append(`\n${metric(key).label}: ${short(point.values[key])}`);
  tip.hidden = false;
  tip.style.left = `${Math.max(0, Math.min(at.right - box.left + 6, box.width - tip.offsetWidth))}px`;
  tip.style.top = `${at.top - box.top - tip.offsetHeight - 6}px`;
}

function choice(type, name, checked, parent, ...content) {
  const label = document.createElement("label"), box = document.createElement("input");
  label.className = "check";
  Object.assign(box, { type, name, checked });
  label.append(box, ...content);
  $(parent).append(label);
  return box;
}

function controls() {
  for (const axis of ["x", "y"]) {
    for (const m of data.metrics.filter((m) => m.lower !== null)) $(axis).add(new Option(m.label, m.key));
    $(axis).addEventListener("change", () => { state[axis] = $(axis).value; remember(); });
  }
  $("beaten").addEventListener("change", () => { state.beaten = $("beaten").checked; remember(); });
  for (const setting of data.settings) {
    const box = choice("radio", "setting", false, "settings", setting.replaceAll("_", "-"));
    box.value = setting;
    box.addEventListener("change", () => choose(setting));
  }
  for (const family of new Set(Object.values(data.series).map((style) => style.family))) {
    const box = choice("checkbox", family, true, "families", family);
    const members = Object.keys(data.series).filter((name) => data.series[name].family === family);
    box.addEventListener("change", () => { for (const name of members) toggle(name, box.checked); remember(); });
  }
  for (const [name, style] of Object.entries(data.series)) {
    const swatch = element("svg", { viewBox: "-7 -7 14 14", "aria-hidden": "true" });
    element("path", { class: "mark", d: shapes[style.marker], style: `--light: ${style.light}; --dark: ${style.dark}` }, swatch);
    const box = choice("checkbox", name, true, "series", swatch, name);
    box.addEventListener("change", () => { toggle(name, box.checked); remember(); });
  }
}

function toggle(name, shown) {
  state.hidden[shown ? "delete" : "add"](name);
}

function choose(setting) {
  for (const axis of ["x", "y"]) {
    const other = state[axis].replace(settingOf(state[axis]) || " ", setting);
    if (metric(other)) state[axis] = other;
  }
  remember();
}

function reflect() {
  for (const axis of ["x", "y"]) $(axis).value = state[axis];
  $("beaten").checked = state.beaten;
  for (const box of $("series").querySelectorAll("input")) box.checked = !state.hidden.has(box.name);
  for (const box of $("families").querySelectorAll("input")) {
    const shown = Object.keys(data.series).filter((name) => data.series[name].family === box.name).map((name) => !state.hidden.has(name));
    box.checked = shown.some(Boolean);
    box.indeterminate = box.checked && !shown.every(Boolean);
  }
  for (const box of $("settings").querySelectorAll("input")) box.checked = [settingOf(state.x), settingOf(state.y)].includes(box.value);
  draw();
}

function remember() {
  const hash = new URLSearchParams({ x: state.x, y: state.y });
  if (state.hidden.size) hash.set("hide", [...state.hidden].join(";"));
  if (!state.beaten) hash.set("front", "1");
  history.replaceState(null, "", `#${hash}`);
  reflect();
}

function recall() {
  const hash = new URLSearchParams(location.hash.slice(1));
  if (location.hash && !hash.has("x")) return reflect();
  for (const axis of ["x", "y"]) if (metric(hash.get(axis))) state[axis] = hash.get(axis);
  state.hidden = new Set((hash.get("hide") || "").split(";").filter((name) => data.series[name]));
  state.beaten = !hash.has("front");
  reflect();
}

function sortable(table) {
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const order = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const key = (row) => row.cells[column].dataset.value === undefined ? row.cells[column].textContent : Number(row.cells[column].dataset.value);
      const compare = (a, b) => typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
      const rows = [...table.tBodies[0].rows].sort((a, b) => compare(key(a), key(b)) * (order === "ascending" ? 1 : -1));
      table.tBodies[0].append(...rows);
    });
  });
}

document.querySelectorAll(".scripted").forEach((section) => { section.hidden = false; });
document.querySelectorAll("table.sortable").forEach(sortable);
controls();
recall();
window.addEventListener("hashchange", recall);
window.addEventListener("resize", draw);
