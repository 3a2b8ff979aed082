/* The page: the plot whose axes the reader chooses, the figures as they come into view, the table of all cells. */

const $ = (id) => document.getElementById(id);
const metric = (key) => data.metrics.find((m) => m.key === key);
const families = [...new Set(data.points.map((point) => point.family))];
const state = { x: data.x, y: data.y, beaten: true, hidden: new Set() };
const settingOf = (key) => data.settings.find((setting) => key.startsWith(`${setting}_`));
const main = new Drawn($("plot"), "plot", chosen);

function dominated(point, others, x, y) {
  const cost = (p, m) => (m.lower ? 1 : -1) * p.values[m.key];
  return others.some((other) => cost(other, x) <= cost(point, x) && cost(other, y) <= cost(point, y)
    && (cost(other, x) < cost(point, x) || cost(other, y) < cost(point, y)));
}

function describe(point) {
  const values = data.shown.map((key) => `${metric(key).label}: ${short(point.values[key])}`);
  return `${point.name} (${point.series}, size ${point.size}). ${values.join(" · ")}`;
}

function directed(m) {
  return `${m.label} (${m.lower ? "← better" : "better →"})`;
}

/* From end to end of the points with their bars, and some room. */
function scaleOf(m, points) {
  const ends = points.flatMap((p) => [-1, 0, 1].map((side) => p.values[m.key] + side * (p.spread[m.key] || 0)));
  const shown = points.length ? ends.filter((end) => !m.logarithmic || end > 0) : [1, 2];
  let [low, high] = [Math.min(...shown), Math.max(...shown)];
  const room = m.logarithmic ? (high > low ? (high / low) ** 0.06 : 2) : high > low ? (high - low) * 0.06 : Math.abs(high) * 0.1 || 1;
  [low, high] = m.logarithmic ? [low / room, high * room] : [low - room, high + room];
  return { title: directed(m), logarithmic: m.logarithmic, domain: [low, high], ticks: {} };
}

/* The chart of the chosen axes: each family's front and each series' as lines, points that their family beats faint. */
function chosen() {
  const [x, y] = [metric(state.x), metric(state.y)];
  const usable = (value, m) => value !== null && value !== undefined && (!m.logarithmic || value > 0);
  const all = data.points.filter((p) => usable(p.values[x.key], x) && usable(p.values[y.key], y) && !state.hidden.has(p.family));
  const beaten = new Set(all.filter((p) => dominated(p, all.filter((other) => other.family === p.family), x, y)));
  const points = all.filter((p) => state.beaten || !beaten.has(p));
  $("none").hidden = points.length > 0;
  const panel = { title: "", x: scaleOf(x, points), y: scaleOf(y, points), squares: [], bands: [], lines: [], rules: [], points: [], texts: [] };
  const series = {};
  for (const family of families.filter((name) => all.some((p) => p.family === name))) {
    const members = all.filter((p) => p.family === family), look = data.families[family];
    const front = members.filter((p) => !beaten.has(p)).sort((a, b) => a.values[x.key] - b.values[x.key]);
    if (front.length > 1) {
      series[`${family} front`] = { colour: look.colour, shape: "stroke", dash: look.dash.join(" ") };
      panel.lines.push(...front.map((p, i) => ({ s: `${family} front`, o: 1, k: family, d: look.dash, w: 1.6, i, x: p.values[x.key], y: p.values[y.key] })));
    }
    for (const p of members) series[p.series] = data.series[p.series];
  }
  for (const p of points) {
    const [at, up] = [p.values[x.key], p.values[y.key]], o = beaten.has(p) ? data.beaten : 1, s = p.series;
    const tip = { title: p.name, series: s, size: p.size, ...Object.fromEntries([x, y].map((m) => [m.label, short(p.values[m.key])])) };
    panel.points.push({ s, o, x: at, y: up, n: p.name, tip, beaten: beaten.has(p), l: `${describe(p)}${beaten.has(p) ? ", dominated" : ""}` });
    const [across, along] = [p.spread[x.key], p.spread[y.key]];
    if (across) panel.rules.push({ s, o, x: at - across, x2: at + across, y: up, y2: up });
    if (along) panel.rules.push({ s, o, x: at, x2: at, y: up - along, y2: up + along });
  }
  panel.texts = points.filter((p) => !beaten.has(p)).map((p) => ({ t: p.size, c: "#000000", a: "left", x: p.values[x.key], y: p.values[y.key], beside: true }));
  return { panels: [panel], series, height: Math.round(Math.max(280, Math.min(420, 0.48 * $("plot").clientWidth))) };
}

function choice(type, name, parent, changed) {
  const label = document.createElement("label"), box = document.createElement("input");
  label.className = "check";
  Object.assign(box, { type, name, value: name });
  box.addEventListener("change", () => changed(box));
  label.append(box, name.replaceAll("_", "-"));
  $(parent).append(label);
  return box;
}

function controls() {
  for (const axis of ["x", "y"]) {
    for (const m of data.metrics.filter((m) => m.lower !== null)) $(axis).add(new Option(m.label, m.key));
    $(axis).addEventListener("change", () => { state[axis] = $(axis).value; remember(); });
  }
  $("beaten").addEventListener("change", () => { state.beaten = $("beaten").checked; remember(); });
  for (const setting of data.settings) choice("radio", setting, "settings", () => choose(setting)).name = "setting";
  for (const family of families) choice("checkbox", family, "families", (box) => { state.hidden[box.checked ? "delete" : "add"](family); remember(); });
  $("plot").addEventListener("highlight", address);
  $("plot").addEventListener("focusin", (event) => { if (event.target.dataset.point) $("detail").textContent = event.target.getAttribute("aria-label"); });
  $("plot").addEventListener("click", (event) => event.target.dataset.point && event.target.focus());
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
  for (const box of $("families").querySelectorAll("input")) box.checked = !state.hidden.has(box.value);
  for (const box of $("settings").querySelectorAll("input")) box.checked = [settingOf(state.x), settingOf(state.y)].includes(box.value);
  return main.draw();
}

function address() {
  const hash = new URLSearchParams({ x: state.x, y: state.y });
  if (state.hidden.size) hash.set("hide", [...state.hidden].join(";"));
  if (main.on.length) hash.set("on", main.on.join(";"));
  if (!state.beaten) hash.set("front", "1");
  history.replaceState(null, "", `#${hash}`);
}

function remember() {
  address();
  reflect();
}

function recall() {
  const hash = new URLSearchParams(location.hash.slice(1)), listed = (key) => (hash.get(key) || "").split(";").filter(Boolean);
  if (location.hash && !hash.has("x")) return reflect();
  for (const axis of ["x", "y"]) if (metric(hash.get(axis))) state[axis] = hash.get(axis);
  state.hidden = new Set(listed("hide").filter((name) => families.includes(name)));
  main.on = listed("on");
  state.beaten = !hash.has("front");
  return reflect();
}

/* Headers that sort, and a choice of columns: the first ones to begin with, all by a click. */
function sortable(table) {
  const heads = [...table.querySelectorAll("thead th")];
  heads.forEach((head, column) => {
    const sort = button("", () => {
      const order = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", order);
      const key = (row) => row.cells[column].dataset.value === undefined ? row.cells[column].textContent : Number(row.cells[column].dataset.value);
      const compare = (a, b) => typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
      const rows = [...table.tBodies[0].rows].sort((a, b) => compare(key(a), key(b)) * (order === "ascending" ? 1 : -1));
      table.tBodies[0].append(...rows);
    });
    sort.append(...head.childNodes);
    head.append(sort);
  });
  columns(heads);
}

function columns(heads) {
  const style = document.head.appendChild(document.createElement("style"));
  const boxes = heads.slice(1).map((head) => {
    const box = choice("checkbox", head.textContent, "columns", show);
    box.checked = head.dataset.main !== undefined;
    return box;
  });
  const every = button("", () => { const all = !boxes.every((box) => box.checked); boxes.forEach((box, i) => { box.checked = all || heads[i + 1].dataset.main !== undefined; }); show(); });
  every.id = "every";
  $("columns").before(every);
  function show() {
    const hidden = boxes.flatMap((box, i) => (box.checked ? [] : [`.sortable :is(th, td):nth-child(${i + 2})`]));
    style.textContent = hidden.length ? `${hidden.join(", ")} { display: none; }` : "";
    every.textContent = hidden.length ? `Show all ${heads.length} columns` : "Show the main columns";
    $("chosen").textContent = `${heads.length - hidden.length} of ${heads.length} columns`;
  }
  show();
}

async function start() {
  document.querySelectorAll(".scripted").forEach((section) => { section.hidden = false; });
  document.querySelectorAll("table.sortable").forEach(sortable);
  controls();
  const [library, figures] = await Promise.all([unpacked("library"), unpacked("charts")]);
  new Function(library)();
  const charts = JSON.parse(figures), drawn = new Set([main]);
  await recall();
  const seen = new IntersectionObserver((entries) => {
    for (const { target } of entries.filter((entry) => entry.isIntersecting)) {
      seen.unobserve(target);
      const made = new Drawn(target, target.dataset.chart, () => charts[target.dataset.chart]);
      drawn.add(made);
      made.draw();
    }
  }, { rootMargin: "600px" });
  document.querySelectorAll("[data-chart]").forEach((place) => seen.observe(place));
  const redraw = () => drawn.forEach((each) => each.draw());
  let width = innerWidth, waiting;
  window.addEventListener("resize", () => { clearTimeout(waiting); if (innerWidth !== width) waiting = setTimeout(redraw, 150); width = innerWidth; });
  dark.addEventListener("change", redraw);
  window.addEventListener("hashchange", recall);
}

start();
