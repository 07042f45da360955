// Pictures: lines over time (uPlot draws them), the small lines of the tiles, and bars of depths.

import uPlot from "./uplot/uPlot.esm.js";
import { drawn, make, setText } from "./elements.js";
import { clock, count } from "./figures.js";

const HEIGHT = 168;
const TOLD_MS = 5000; // between two changes of what screen readers are told
const SPARK = { width: 120, height: 32, points: 60 };
const LEAST_DEPTHS = 6;

/** The value of a colour of the style sheet, as a canvas understands it. */
function colour(name) {
  const probe = make("span");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

const faded = (rgb, alpha) => rgb.replace("rgb(", "rgba(").replace(")", `, ${alpha})`);

/** `lines` are {of, label, colour, filled?}, where `of` names a series; `format` shows a value. */
export class LineChart {
  constructor({ title, hint, lines, format, empty = "Nothing to draw yet: the first seconds are being collected." }) {
    this.title = title;
    this.lines = lines;
    this.format = format;
    this.toldAt = 0;
    this.plot = null;
    this.values = lines.map(() => make("output", {}));
    this.at = make("span", { className: "faint at" });
    const legend = make(
      "ul",
      { className: "legend" },
      ...lines.map((line, index) => make("li", { className: `swatch ${line.colour}` }, line.label, " ", this.values[index])),
    );
    this.canvas = make("div", { className: "plot", role: "img", "aria-label": title });
    this.empty = make("p", { className: "empty" }, empty);
    this.element = make(
      "figure",
      { className: "card chart" },
      make("figcaption", {}, make("h2", {}, title), make("p", { className: "faint" }, hint, " ", this.at)),
      legend,
      this.canvas,
      this.empty,
    );
    new ResizeObserver(() => this.#fit()).observe(this.canvas);
    document.addEventListener("themechange", () => this.#begin());
  }

  /** Draw the last `seconds` of the series. */
  update(series, seconds) {
    this.span = seconds;
    this.data = [series.times, ...this.lines.map((line) => series.values[line.of])];
    const hasAny = this.data.slice(1).some((values) => values.some((value) => value !== null));
    this.empty.hidden = hasAny;
    this.canvas.hidden = !hasAny;
    if (!hasAny) return;
    if (!this.plot) this.#begin();
    else this.plot.setData(this.data);
    if (this.hovered == null) this.#show(null);
    this.#tell(series);
  }

  #begin() {
    this.plot?.destroy();
    this.plot = null;
    if (!this.data || !this.canvas.clientWidth) return; // out of sight: when it comes back
    this.plot = new uPlot(this.#options(), this.data, this.canvas);
  }

  #options() {
    const faint = colour("faint"), rule = colour("rule"), font = "11px system-ui, sans-serif";
    const axis = { stroke: faint, font, ticks: { show: false }, grid: { stroke: rule, width: 1 } };
    return {
      width: this.canvas.clientWidth,
      height: HEIGHT,
      legend: { show: false },
      padding: [8, 4, 0, 0],
      cursor: { drag: { x: false, y: false }, sync: { key: "dashboard" }, y: false, points: { size: 7 } },
      scales: {
        x: { time: true, range: (plot, low, high) => [high - this.span, high] },
        y: { range: (plot, low, high) => [0, high > 0 ? high * 1.12 : 1] },
      },
      axes: [
        { ...axis, grid: { show: false }, space: 80, size: 24, values: (plot, splits) => splits.map((each) => clock(each * 1000).slice(0, 5)) },
        { ...axis, size: 62, space: 36, values: (plot, splits) => splits.map((each) => this.format(each)) },
      ],
      series: [
        {},
        ...this.lines.map((line) => {
          const stroke = colour(line.colour);
          return { stroke, width: 1.75, fill: line.filled ? faded(stroke, 0.14) : undefined, points: { show: false } };
        }),
      ],
      hooks: { setCursor: [(plot) => this.#show(plot.cursor.idx ?? null)] },
    };
  }

  #show(index) {
    this.hovered = index;
    const at = index ?? this.data[0].length - 1;
    this.values.forEach((output, line) => setText(output, this.format(this.data[line + 1][at])));
    setText(this.at, index === null ? "" : `at ${clock(this.data[0][at] * 1000)}`);
  }

  #fit() {
    const width = this.canvas.clientWidth;
    if (!width) return;
    if (this.plot) this.plot.setSize({ width, height: HEIGHT });
    else this.#begin();
  }

  #tell(series) {
    if (performance.now() - this.toldAt < TOLD_MS) return;
    this.toldAt = performance.now();
    const told = this.lines.map((line) => {
      const known = series.values[line.of].filter((value) => value !== null);
      if (!known.length) return `${line.label}: nothing yet`;
      const [low, high] = [Math.min(...known), Math.max(...known)].map(this.format);
      return `${line.label}: now ${this.format(series.last(line.of))}, from ${low} to ${high}`;
    });
    this.canvas.setAttribute("aria-label", `${this.title}. ${told.join("; ")}.`);
  }
}

/** A figure with a small line under it. `href` leads to more. */
export class Tile {
  constructor({ title, colour: name, href }) {
    this.value = make("strong", {}, "–");
    this.note = make("span", { className: "faint" });
    this.line = drawn("path", { class: "line" });
    this.area = drawn("path", { class: "area" });
    const spark = drawn(
      "svg",
      { class: `spark ${name}`, viewBox: `0 0 ${SPARK.width} ${SPARK.height}`, preserveAspectRatio: "none", "aria-hidden": "true" },
      this.area,
      this.line,
    );
    const inside = [make("span", { className: "name" }, title), this.value, this.note, spark];
    this.element = href ? make("a", { className: "tile", href }, ...inside) : make("div", { className: "tile" }, ...inside);
  }

  update(text, note, values) {
    setText(this.value, text);
    setText(this.note, note);
    const recent = values.slice(-SPARK.points);
    const high = Math.max(1e-9, ...recent.filter((value) => value !== null)) * 1.1;
    const points = recent
      .map((value, index) => [((index + SPARK.points - recent.length) / (SPARK.points - 1)) * SPARK.width, value])
      .filter(([, value]) => value !== null)
      .map(([x, value]) => `${x.toFixed(1)} ${(SPARK.height - 1 - (value / high) * (SPARK.height - 2)).toFixed(1)}`);
    const path = points.length > 1 ? `M${points.join("L")}` : "";
    const ends = points.length > 1 ? [points[0], points.at(-1)].map((point) => point.split(" ")[0]) : [];
    this.line.setAttribute("d", path);
    this.area.setAttribute("d", path && `${path}L${ends[1]} ${SPARK.height}L${ends[0]} ${SPARK.height}Z`);
  }
}

/** How many connections have how much waiting for them, as bars whose length goes by the logarithm. */
export class DepthBars {
  constructor() {
    this.element = make("dl", { className: "bars" });
    this.rows = [];
  }

  update(depths) {
    const last = depths.findLastIndex((row) => row.connections > 0);
    const shown = depths.slice(0, Math.max(LEAST_DEPTHS, last + 1));
    const most = Math.log1p(Math.max(1, ...depths.map((row) => row.connections)));
    while (this.rows.length < shown.length) this.rows.push(this.#row());
    this.rows.forEach(({ name, number, bar, parts }, index) => {
      const row = shown[index];
      for (const part of parts) part.hidden = !row;
      if (!row) return;
      const next = depths[index + 1]?.from;
      setText(name, row.from === 0 ? "none" : next === undefined ? `${count(row.from)} and more` : next - 1 === row.from ? count(row.from) : `${count(row.from)} to ${count(next - 1)}`);
      setText(number, count(row.connections));
      bar.style.width = `${(Math.log1p(row.connections) / most) * 100}%`;
      bar.dataset.tone = row.from === 0 ? "good" : row.from < 64 ? "warn" : "bad";
    });
  }

  #row() {
    const name = make("dt"), number = make("span"), bar = make("i", { "aria-hidden": "true" });
    const value = make("dd", {}, make("span", { className: "track" }, bar), number);
    this.element.append(name, value);
    return { name, number, bar, parts: [name, value] };
  }
}
