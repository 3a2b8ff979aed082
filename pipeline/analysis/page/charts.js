/* A figure's data (interactive.py: panels and series) as a Vega-Lite chart: drawn, redrawn, highlighted, saved. */

const dark = matchMedia("(prefers-color-scheme: dark)");
const MARKS = ["squares", "bands", "lines", "rules", "points", "texts"];
const [LEFT, PANEL] = [82, 290];  // pixels: a panel's axis with the space beside it, and the least width of a panel beside another one

async function unpacked(id) {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (c) => c.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

function short(value) {
  if (value === null || value === undefined) return "-";
  for (const [factor, prefix] of [[1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "K"]]) {
    if (Math.abs(value) >= 0.9995 * factor) return Number((value / factor).toPrecision(3)) + prefix;
  }
  return String(Number(value.toPrecision(4)));
}

function axisOf(scale, channel, room) {
  const places = Object.keys(scale.ticks).map(Number);
  const large = Math.max(...scale.domain.map(Math.abs)) >= 1000, wide = scale.logarithmic && scale.domain[1] > 5 * scale.domain[0];
  const number = large ? "replace(format(datum.value, '.3~s'), 'k', 'K')" : "format(datum.value, '.4~g')";
  const labelExpr = places.length ? `${JSON.stringify(scale.ticks)}[toString(datum.value)]`
    : wide ? `indexof('125', slice(format(datum.value, 'e'), 0, 1)) >= 0 ? ${number} : ''` : number;
  const crowded = channel === "x" && places.length && 7 * Object.values(scale.ticks).join("  ").length > room;
  const own = places.length ? { values: places, grid: false } : { tickCount: Math.max(3, Math.round(room / 80)) };
  return {
    title: 6.7 * scale.title.length > room && scale.title.includes(" (") ? scale.title.split(/ (?=\()/) : scale.title || null,
    scale: { type: scale.logarithmic ? "log" : "linear", domain: scale.domain, nice: false, ...(scale.logarithmic ? {} : { zero: false }) },
    axis: { labelExpr, labelOverlap: true, labelAngle: crowded ? -30 : 0, ...own },
  };
}

/* A bar that reaches 0 on a logarithmic axis, where 0 has no place, ends far beyond the frame, which cuts it. */
function placedBar(panel, bar) {
  const onto = ({ logarithmic, domain }, end) => (logarithmic && end <= 0 ? domain[0] / 1e6 : end);
  return { ...bar, x: onto(panel.x, bar.x), x2: onto(panel.x, bar.x2), y: onto(panel.y, bar.y), y2: onto(panel.y, bar.y2) };
}

function layersOf(panel, series, room, number, legend) {
  const names = Object.keys(series), scales = {
    color: { domain: names, range: names.map((name) => series[name].colour) },
    shape: { domain: names, range: names.map((name) => series[name].shape) },
  };
  const [x, y] = [axisOf(panel.x, "x", room.width), axisOf(panel.y, "y", room.height)];
  return MARKS.filter((kind) => panel[kind].length).map((kind, turn) => {
    const { mark, encoding } = structuredClone(templates[kind]);
    Object.assign(encoding.x, x);
    Object.assign(encoding.y, y);
    for (const [channel, scale] of Object.entries(scales)) {
      if (encoding[channel] && encoding[channel].field === "s") Object.assign(encoding[channel], { scale }, legend ? {} : { legend: null });
    }
    const params = turn ? {} : { params: [{ ...templates.zoom, name: `zoom${number}` }] };
    return { data: { values: panel[kind] }, mark: { ...mark, clip: kind !== "texts" }, encoding, ...params };
  });
}

function specOf(chart, width, on, legend) {
  for (const panel of chart.panels) for (const point of panel.points) describePoint(panel, point);
  const widest = chart.panels.length === 4 ? 2 : 3;
  const columns = Math.max(1, Math.min(chart.panels.length, widest, Math.floor(width / PANEL)));
  const panels = chart.panels.map((panel, number) => {
    const names = Object.values(panel.y.ticks), labels = Math.max(0, ...names.map((name) => 6 * name.length));
    const across = Math.max(140, Math.floor(width / columns) - LEFT - labels);
    const room = { width: across, height: names.length ? 22 * names.length : chart.height || Math.max(220, Math.min(340, 0.62 * across)) };
    const rules = panel.rules.map((bar) => placedBar(panel, bar));
    const titled = { ...panel, rules, y: { ...panel.y, title: panel.y.title || chart.panels[0].y.title }, texts: placed(panel, room) };
    return { ...room, title: chart.panels.length > 1 ? panel.title : "", layer: layersOf(titled, chart.series, room, number, legend) };
  });
  const spec = { $schema: "https://vega.github.io/schema/vega-lite/v6.json", concat: panels, columns, spacing: 18,
    params: [{ name: "on", value: on }], config: configOf(legend) };
  return dark.matches && !legend ? inDark(spec) : spec;
}

/* Names beside their points where they cover no point and no name before; left out where there is no such place, as on a phone. */
function placed(panel, { width, height }) {
  const share = ({ domain: [low, high], logarithmic }, v) => (logarithmic ? Math.log(v / low) / Math.log(high / low) : (v - low) / (high - low));
  const pixels = ({ x, y }) => [share(panel.x, x) * width, (1 - share(panel.y, y)) * height];
  const taken = [...panel.texts, ...panel.points].map(pixels).map(([x, y]) => [x - 5, y - 5, x + 5, y + 5]);
  const shared = (a, b) => Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0])) * Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));
  const outside = ([left, top, right, bottom]) => (left < 0 || right > width || top < 0 || bottom > height ? 1e4 : 0);
  return panel.texts.flatMap((text) => {
    if (!text.beside) return [text];
    const [x, y] = pixels(text), wide = 6.5 * text.t.length;
    const sides = [[8, 15], [8, -5], [-8 - wide, 15], [-8 - wide, -5], [-wide / 2, -10], [-wide / 2, 20], [16, 26], [16, -16], [-16 - wide, 26]];
    const boxes = sides.map(([dx, dy]) => ({ dx, dy, box: [x + dx, y + dy - 9, x + dx + wide, y + dy + 2] }));
    const cost = ({ box }) => outside(box) + taken.reduce((sum, other) => sum + shared(box, other), 0);
    const { dx, dy, box } = boxes.reduce((a, b) => (cost(b) < cost(a) ? b : a));
    if (cost({ box }) > wide / 4) return [];
    taken.push(box);
    return [{ ...text, dx, dy }];
  });
}

function describePoint(panel, point) {
  const read = (scale, value) => scale.ticks[value] || short(value);
  point.tip ||= { ...(point.n ? { title: point.n } : {}), series: point.s, [panel.x.title || "x"]: read(panel.x, point.x), [panel.y.title || "y"]: read(panel.y, point.y) };
  point.l ||= `${point.s}: ${read(panel.x, point.x)}, ${read(panel.y, point.y)}`;
}

function configOf(legend) {
  const css = getComputedStyle(document.documentElement), colour = (name) => (legend ? LIGHT[name] : css.getPropertyValue(`--${name}`).trim());
  const [ink, quiet, rule] = ["ink", "quiet", "rule"].map(colour);
  const text = { labelColor: quiet, titleColor: ink, labelFontSize: 12, titleFontSize: 12.5, titleFontWeight: "normal" };
  return {
    font: "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif", background: legend ? "white" : "transparent",
    axis: { ...text, gridColor: rule, gridOpacity: 0.6, domainColor: quiet, tickColor: rule, titlePadding: 8 },
    title: { color: ink, fontSize: 13 }, view: { stroke: null }, legend: { ...text, orient: "bottom", columns: 3 },
  };
}
const LIGHT = { ink: "#1b1d21", quiet: "#565b63", rule: "#d5d8de" };

function inDark(spec) {
  let text = JSON.stringify(spec);
  for (const [light, other] of Object.entries(data.dark)) text = text.replaceAll(`"${light}"`, `"${other}"`);
  return JSON.parse(text);
}

/* One chart in its place: `chart` is read whenever it is drawn. */
class Drawn {
  constructor(place, name, chart) {
    Object.assign(this, { place, name, chart, on: [], pointed: [] });
    place.classList.add("chart");
    this.legend = place.appendChild(Object.assign(document.createElement("ul"), { className: "legend" }));
    this.plot = place.appendChild(Object.assign(document.createElement("div"), { className: "drawing" }));
    const saves = place.appendChild(Object.assign(document.createElement("p"), { className: "save quiet" }));
    saves.append("Save as ", ...["svg", "png"].map((kind) => button(kind.toUpperCase(), () => this.save(kind))));
  }

  async draw() {
    const chart = this.chart();
    this.entries(chart.series);
    const spec = specOf(chart, this.plot.clientWidth || 600, this.on, false);
    const made = await vegaEmbed(this.plot, spec, { actions: false, renderer: "svg", tooltip: { theme: "custom" } });
    if (this.view) this.view.finalize();
    this.view = made.view;
    this.reach();
    this.plot.dataset.drawn = Number(this.plot.dataset.drawn || 0) + 1;
  }

  /* Tab reaches every point, and Vega's own description of it is what a screen reader says. */
  reach() {
    for (const mark of this.plot.querySelectorAll('[aria-roledescription="point"]')) {
      const { n, beaten } = mark.__data__.datum;
      mark.tabIndex = 0;
      mark.classList.add("mark");
      mark.classList.toggle("beaten", Boolean(beaten));
      if (n) mark.dataset.point = n;
    }
  }

  entries(series) {
    const before = document.activeElement && document.activeElement.dataset.series;
    this.legend.replaceChildren(...Object.entries(series).map(([name, look]) => {
      const entry = button("", () => this.toggle(name));
      entry.dataset.series = name;
      entry.setAttribute("aria-pressed", this.on.includes(name));
      entry.append(swatch(look), name);
      for (const event of ["mouseenter", "focus"]) entry.addEventListener(event, () => this.highlight([name]));
      for (const event of ["mouseleave", "blur"]) entry.addEventListener(event, () => this.highlight([]));
      const item = document.createElement("li");
      item.append(entry);
      return item;
    }));
    if (before) this.legend.querySelector(`[data-series="${CSS.escape(before)}"]`)?.focus();
  }

  toggle(name) {
    this.on = this.on.includes(name) ? this.on.filter((other) => other !== name) : [...this.on, name];
    for (const entry of this.legend.querySelectorAll("button")) entry.setAttribute("aria-pressed", this.on.includes(entry.dataset.series));
    this.highlight([]);
    this.place.dispatchEvent(new Event("highlight"));
  }

  highlight(pointed) {
    if (this.view) this.view.signal("on", [...this.on, ...pointed]).run();
  }

  async save(kind) {
    const spec = vegaLite.compile(specOf(structuredClone(this.chart()), 840, this.on, true)).spec;
    const url = await new vega.View(vega.parse(spec), { renderer: "none" }).toImageURL(kind, kind === "png" ? 2 : 1);
    Object.assign(document.createElement("a"), { href: url, download: `${this.name}.${kind}` }).click();
  }
}

function button(text, pressed) {
  const made = Object.assign(document.createElement("button"), { type: "button", textContent: text });
  made.addEventListener("click", pressed);
  return made;
}

/* The series' symbol, as Vega draws it. */
function swatch({ colour, shape, dash }) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  made.setAttribute("viewBox", "-8 -8 16 16");
  made.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  const known = { circle: "M5,0A5,5,0,1,1,-5,0A5,5,0,1,1,5,0Z", square: "M-4.5,-4.5H4.5V4.5H-4.5Z", diamond: "M0,-6L6,0L0,6L-6,0Z",
    cross: "M-2,-5.5H2V-2H5.5V2H2V5.5H-2V2H-5.5V-2H-2Z", "triangle-up": "M0,-5.5L5.2,4H-5.2Z", "triangle-down": "M0,5.5L5.2,-4H-5.2Z",
    "triangle-left": "M-5.5,0L4,-5.2V5.2Z", "triangle-right": "M5.5,0L-4,-5.2V5.2Z", stroke: "M-8,0H8" };
  path.setAttribute("d", known[shape] || shape);
  if (!known[shape]) path.setAttribute("transform", "scale(6)");
  const shown = (dark.matches && data.dark[colour]) || colour;
  path.setAttribute("style", shape === "stroke" ? `fill: none; stroke: ${shown}; stroke-width: 2.4; stroke-dasharray: ${dash || "none"}` : `fill: ${shown}`);
  made.append(path);
  return made;
}
