/** A chart of one series. Loaded with the first chart, after uPlot. */
/* global uPlot */

import { clock, make, save, setText } from "./dom.js";
import { drawHeat } from "./heat.js";
import { showRate, showValue } from "./numbers.js";
import { valueText } from "./table.js";

const MODES = { counter: ["rate"], gauge: ["value", "zero-based"], histogram: ["percentiles", "heatmap", "rate"] };
/** The lines of each kind of chart, with their opacity. */
const VALUE = { value: "ff" };
const PERCENTILES = { p50: "ff", p90: "bf", p99: "80", max: "52" };
const LINES = {
  rate: { rate: "ff" }, value: VALUE, "zero-based": VALUE, percentiles: PERCENTILES, heatmap: PERCENTILES,
};
/** What stands below the chart of a histogram. */
const FIGURES = ["min", "p50", "p90", "p99", "p999", "max", "mean", "count"];
/** How near the cursor a mark must be, in px, for its text to be shown. */
const NEAR = 6;
/** The age in seconds from which on the newest numbers are shown with their time. */
const OLD = 10;
/** The distances of lines for bytes, and for the buckets of a heatmap. */
const BINARY = Array.from({ length: 64 }, (_, power) => 2 ** power);
const FONT = "px system-ui, sans-serif";

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`);
const span = (name, text) => make("span", { class: name }, text);

/** A chart of one series. */
export class Chart {
  series = null;
  /** The ends of steps; `fields` has the numbers of each line. */
  t = [];
  step = 0;
  now = span("now", "");
  readout = make("div", { class: "readout" });
  body = make("div", { class: "plot" });
  figures = make("div", { class: "figures" });
  modes = make("select", { "aria-label": "kind of chart", onchange: () => this.setMode(this.modes.value) });

  constructor(charts, name, mode) {
    this.charts = charts;
    this.name = name;
    this.mode = mode;
    this.tools = make("div", { class: "tools" }, this.modes,
      make("button", { title: "save the chart as PNG", onclick: () => this.savePicture() }, "PNG"),
      make("button", { "aria-label": "close the chart", onclick: () => charts.remove(this) }, "×"));
    this.element = make("section", { class: "chart" }, name, this.tools);
  }

  /** Take the series that has this chart's name now. */
  bind(series) {
    if (series === this.series) return;
    this.series = series;
    const { kind, metric, shown, labelText } = series;
    const modes = MODES[kind];
    this.title = `${shown}  ${labelText}`;
    this.element.className = `chart ${kind}`;
    const help = [metric.help, this.charts.sourceOf(series)].filter(Boolean).join(" · ");
    this.element.replaceChildren(
      make("header", {},
        make("h2", {}, span("mark", kind[0].toUpperCase()), span("text", shown), span("labels", labelText)),
        this.now, this.tools),
      make("p", { class: "help" }, help), this.readout, this.body, this.figures);
    this.modes.replaceChildren(...modes.map((mode) => make("option", {}, mode)));
    this.modes.hidden = modes.length < 2;
    this.setMode(modes.includes(this.mode) ? this.mode : modes[0]);
  }

  setMode(mode) {
    this.mode = mode;
    this.modes.value = mode;
    this.t = [];
    this.fields = Object.fromEntries(Object.keys(LINES[mode]).map((name) => [name, []]));
    this.heat = { bounds: [], counts: [] };
    this.rebuild();
    this.charts.changed();
  }

  rebuild() {
    this.plot?.destroy();
    this.plot = null;
  }

  /** Take an answer of `history`: add it to the times before it. */
  take({ t, step, series }) {
    const data = series[this.series.id];
    // The chart may have begun again since it asked.
    if (!data || this.t !== this.asked) return;
    const first = this.t.findIndex((one) => one >= this.charts.range()[0]);
    // Heatmaps come whole. Of other steps nothing is kept.
    const kept = data.heat || step !== this.step ? 0 : this.t.filter((time) => time < t[0]).length;
    const join = (before, after) => before.slice(first, kept).concat(after);
    this.t = join(this.t, t);
    for (const name in this.fields) this.fields[name] = join(this.fields[name], data[name]);
    this.heat = data.heat ?? this.heat;
    this.step = step;
  }

  /** Format a number of a line, or a figure. */
  text(name, value, width) {
    if (value == null) return "–";
    const { kind, metric } = this.series;
    const show = name === "rate" ? showRate : showValue;
    const counts = name === "count" || (name === "rate" && kind === "histogram");
    return show(value, counts ? null : metric.unit, { width });
  }

  draw(state) {
    const width = this.body.clientWidth;
    // It has no series yet, or is not on the screen.
    if (!width) return;
    setText(this.now, valueText(state, this.series, 26));
    if (this.series.kind === "histogram") {
      const figures = this.charts.app.figures(this.series);
      this.figures.replaceChildren(...FIGURES.map((name) =>
        make("div", {}, span("label", name), this.text(name, figures?.[name], 10))));
    }
    if (this.plot?.width !== width) this.rebuild();
    this.plot ??= this.#make(width);
    this.plot.setData([this.t, ...Object.values(this.fields)]);
    this.#drawReadout(this.plot);
  }

  /** Show the numbers at the cursor, or the newest. */
  #drawReadout({ cursor, valToPos }) {
    const fields = Object.entries(this.fields);
    const onCursor = cursor.left >= 0 && cursor.idx in this.t;
    const at = onCursor ? cursor.idx
      : this.t.findLastIndex((_, index) => fields.some(([, numbers]) => numbers[index] !== null));
    const parts = fields.map(([name, numbers]) => `${name} ${this.text(name, numbers[at], 12)}`);
    if (onCursor || this.charts.end - this.t[at] > OLD) parts.unshift(clock(this.t[at]));
    for (const { t, text } of this.charts.marks()) {
      if (Math.abs(valToPos(t, "x") - cursor.left) <= NEAR) parts.push(`⚑ ${text}`);
    }
    setText(this.readout, parts.join("   "));
  }

  #make(width) {
    const { kind, metric } = this.series;
    const heat = this.mode === "heatmap";
    const color = css(kind);
    const axis = { stroke: css("dim"), font: `11${FONT}`, grid: { stroke: css("grid"), width: 1 }, ticks: { show: false } };
    return new uPlot({
      width,
      height: 150,
      padding: [8, 26, 0, 0],
      legend: { show: false },
      cursor: {
        sync: { key: "charts" },
        drag: { dist: 4 },
        y: false,
        bind: { dblclick: () => () => this.charts.zoom(null) },
      },
      scales: {
        x: { range: () => this.charts.range() },
        y: {
          range: (_, low, high) => {
            if (heat) return [0, Math.max(1, this.heat.bounds.length - 1)];
            if (this.mode === "value") return uPlot.rangeNum(low, high, 0.1, true);
            return uPlot.rangeNum(Math.min(0, low), Math.max(0, high) || 1, 0.1, true);
          },
        },
      },
      axes: [
        { ...axis, size: 24, space: 58, values: (_, times) => times.map((t) => clock(t)) },
        {
          ...axis, size: 66, space: 22, incrs: (heat || metric.unit === "bytes") && BINARY,
          values: (_, numbers) => numbers.map((number) => this.text(this.mode, heat ? this.heat.bounds[number] : number, 9)),
        },
      ],
      series: [{}, ...Object.entries(LINES[this.mode]).map(([name, opacity]) => ({
        show: !heat,
        stroke: color + opacity,
        width: 1.5,
        fill: name === "rate" && `${color}1f`,
      }))],
      bands: [{ series: [2, 1], fill: `${color}26` }, { series: [3, 2], fill: `${color}14` }],
      hooks: {
        drawClear: [(plot) => drawHeat(plot, this.t, this.step, this.heat, color)],
        draw: [(plot) => this.#drawMarks(plot)],
        setCursor: [(plot) => this.#drawReadout(plot)],
        setSelect: [({ select, posToVal }) =>
          this.charts.zoom(posToVal(select.left, "x"), posToVal(select.left + select.width, "x"))],
      },
    }, [[]], this.body);
  }

  /** Draw flags where events were lost, a server restarted, or a connection ended. */
  #drawMarks({ ctx, bbox, valToPos }) {
    const size = 6 * devicePixelRatio;
    ctx.save();
    ctx.globalAlpha = 0.7;
    for (const { t, kind } of this.charts.marks()) {
      const x = valToPos(t, "x", true);
      ctx.fillStyle = css(kind === "restart" ? "warn" : "bad");
      ctx.fillRect(x, bbox.top - size, devicePixelRatio, bbox.height + size);
      ctx.fillRect(x, bbox.top - size, size, size);
    }
    ctx.restore();
  }

  /** Save the chart with its title. */
  savePicture() {
    if (!this.plot) return;
    const { canvas } = this.plot.ctx;
    const head = 28 * devicePixelRatio;
    const picture = make("canvas", { width: canvas.width, height: canvas.height + head });
    const context = picture.getContext("2d");
    context.fillStyle = css("panel");
    context.fillRect(0, 0, picture.width, picture.height);
    context.drawImage(canvas, 0, head);
    context.scale(devicePixelRatio, devicePixelRatio);
    context.fillStyle = css("text");
    context.font = `13${FONT}`;
    const day = new Date(this.charts.end * 1000).toLocaleDateString();
    context.fillText(`${this.title}  ${day}`, 12, 18, this.plot.width - 24);
    picture.toBlob((blob) => save(blob, "png"));
  }
}
