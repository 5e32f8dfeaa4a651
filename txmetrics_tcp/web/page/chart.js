/** A chart of one series. Loaded with the first chart. */

import { clock, make, save, setText } from "./dom.js";
import { drawHeat } from "./heat.js";
import { showRate, showValue } from "./numbers.js";
import { valueText } from "./table.js";

const { uPlot } = globalThis;
const MODES = { counter: ["rate"], gauge: ["value"], histogram: ["percentiles", "heatmap", "rate"] };
const FIELDS = {
  rate: ["rate"], value: ["value"], percentiles: ["p50", "p90", "p99", "max"], heatmap: [],
};
/** How near the cursor a mark must be, in px, for its text to be shown. */
const NEAR = 6;
/** The age in seconds from which on the newest numbers are shown with their time. */
const OLD = 10;

/** The distances of lines for bytes. */
const BINARY = Array.from({ length: 66 }, (_, power) => 2 ** (power - 2));

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** A chart of one series. */
export class Chart {
  constructor(charts, name, mode) {
    this.charts = charts;
    this.name = name;
    this.mode = mode;
    this.series = null;
    this.zero = true;
    this.t = [];
    this.fields = {};
    this.heat = null;
    this.step = 0;
    this.range = null;
    this.plot = null;
    this.mark = make("span", { class: "mark" });
    this.title = make("span", { class: "text" });
    this.labels = make("span", { class: "labels" });
    this.now = make("span", { class: "now" });
    this.help = make("p", { class: "help" });
    this.readout = make("div", { class: "readout" });
    this.figures = make("div", { class: "figures" });
    this.body = make("div", { class: "plot" });
    this.modes = make("select", { "aria-label": "kind of chart", onchange: () => this.setMode(this.modes.value) });
    this.base = make("button", {
      type: "button", title: "start the scale at zero", "aria-pressed": "true", onclick: () => this.setZero(!this.zero),
    }, "0");
    const button = (text, title, onclick) => make("button", { type: "button", title, "aria-label": title, onclick }, text);
    this.element = make("section", { class: "chart" },
      make("header", {},
        make("h2", {}, this.mark, this.title, this.labels), this.now,
        make("div", { class: "tools" }, this.modes, this.base,
          button("PNG", "save the chart as PNG", () => this.savePicture()),
          button("×", "close the chart", () => charts.remove(this)))),
      this.help, this.readout, this.body, this.figures);
  }

  /** Take the series that has this chart's name now. */
  bind(series, source) {
    const described = this.series?.metric === series.metric;
    this.series = series;
    if (described) return;
    const { kind } = series;
    if (!MODES[kind].includes(this.mode)) [this.mode] = MODES[kind];
    this.element.classList.add(kind);
    this.mark.textContent = kind[0].toUpperCase();
    this.mark.title = kind;
    this.title.textContent = series.shown;
    this.labels.textContent = series.shownLabels.map((pair) => pair.join("=")).join("  ");
    this.help.textContent = [series.metric.help, source].filter(Boolean).join(" · ");
    this.element.setAttribute("aria-label", `chart of ${series.shown} ${this.labels.textContent}`);
    this.modes.replaceChildren(...MODES[kind].map((mode) => make("option", { value: mode }, mode)));
    this.modes.value = this.mode;
    this.modes.hidden = MODES[kind].length < 2;
    this.base.hidden = kind !== "gauge" && this.mode !== "percentiles";
    this.setZero(kind !== "gauge");
  }

  setMode(mode) {
    this.mode = mode;
    this.modes.value = mode;
    this.base.hidden = this.series.kind !== "gauge" && mode !== "percentiles";
    this.forget();
    this.charts.changed();
  }

  setZero(zero) {
    this.zero = zero;
    this.base.setAttribute("aria-pressed", zero);
    this.rebuild();
  }

  forget() {
    this.t = [];
    this.fields = {};
    this.heat = null;
    this.rebuild();
  }

  rebuild() {
    this.plot?.destroy();
    this.plot = null;
  }

  get wanted() {
    return FIELDS[this.mode];
  }

  /** Take an answer of `history`: add to what is there, or replace it. */
  take(times, step, data, more) {
    if (this.mode === "heatmap") {
      this.t = times;
      this.heat = data.heat ?? null;
      this.step = step;
      return;
    }
    if (!more || step !== this.step) {
      this.t = [];
      this.fields = {};
    }
    this.step = step;
    const [from] = this.charts.range();
    let cut = this.t.length;
    while (cut && times.length && this.t[cut - 1] >= times[0] - step / 2) cut--;
    let start = 0;
    while (start < cut && this.t[start] < from - 10) start++;
    this.t = this.t.slice(start, cut).concat(times);
    for (const name of this.wanted) {
      this.fields[name] = (this.fields[name] ?? []).slice(start, cut).concat(data[name] ?? times.map(() => null));
    }
  }

  text(value, width) {
    if (value == null) return "–";
    const { metric, kind } = this.series;
    if (this.mode === "rate") return showRate(value, kind === "histogram" ? null : metric.unit, { width });
    return showValue(value, metric.unit, { width });
  }

  draw(state) {
    if (!this.series) return;
    setText(this.now, valueText(state, this.series, 26));
    this.drawFigures();
    const width = this.body.clientWidth;
    if (!width) return;
    if (!this.plot) this.make(width);
    else if (this.plot.width !== width) this.plot.setSize({ width, height: this.plot.height });
    const data = this.mode === "heatmap" ? [this.t, this.t.map(() => null)]
      : [this.t, ...this.wanted.map((name) => this.fields[name] ?? [])];
    this.plot.setData(data, false);
    const [min, max] = this.charts.range();
    this.plot.setScale("x", { min, max });
    this.drawReadout();
  }

  drawFigures() {
    const figures = this.series.kind === "histogram" ? this.charts.figures(this.series) : null;
    this.figures.hidden = !figures;
    if (!figures) return;
    const { unit } = this.series.metric;
    const texts = ["min", "p50", "p90", "p99", "p999", "max", "mean"]
      .map((name) => [name, figures[name] == null ? "–" : showValue(figures[name], unit, { width: 10 })]);
    texts.push(["count", showValue(figures.count ?? 0, null, { whole: true, width: 12 })]);
    while (this.figures.children.length < texts.length) {
      this.figures.append(make("div", {}, make("span", { class: "label" }), make("span", {})));
    }
    texts.forEach(([name, text], at) => {
      setText(this.figures.children[at].children[0], name);
      setText(this.figures.children[at].children[1], text);
    });
  }

  /** The place of the last time that has a number, or of the last one if none has. */
  #newest() {
    const last = this.t.length - 1;
    let at = last;
    while (at > 0 && this.wanted.every((name) => this.fields[name]?.[at] == null)) at--;
    return this.wanted.some((name) => this.fields[name]?.[at] != null) ? at : last;
  }

  /** Show the numbers at the cursor, or the newest. */
  drawReadout() {
    const { cursor } = this.plot;
    let at = cursor.idx;
    const onCursor = cursor.left >= 0 && at != null && at < this.t.length;
    if (!onCursor) at = this.#newest();
    const parts = this.mode === "heatmap" ? [this.heat ? "samples by size" : "no samples"]
      : this.wanted.map((name) => `${name} ${this.text(this.fields[name]?.[at], 12)}`);
    if (onCursor || this.charts.end - this.t[at] > OLD) parts.unshift(clock(this.t[at]));
    if (onCursor) {
      const near = this.charts.marks().filter(({ t }) =>
        Math.abs(this.plot.valToPos(t, "x") - cursor.left) <= NEAR);
      if (near.length) parts.push(`⚑ ${near.map(({ text }) => text).join("; ")}`);
    }
    setText(this.readout, parts.join("   "));
  }

  make(width) {
    const color = css(`--${this.series.kind}`);
    const grid = { stroke: css("--grid"), width: 1 };
    const axis = { stroke: css("--dim"), font: `11px ${css("--sans") || "sans-serif"}`, grid, ticks: { show: false } };
    const series = this.wanted.map((name, at) => {
      const strength = { p50: 1, p90: 0.75, p99: 0.5, max: 0.32 }[name] ?? 1;
      const hex = Math.round(strength * 255).toString(16).padStart(2, "0");
      return {
        label: name,
        stroke: color + hex,
        width: name === "max" ? 1 : 1.5,
        fill: this.mode === "rate" && at === 0 ? `${color}1f` : undefined,
        points: { show: (plot, _, from, to) => to - from < 3, size: 4 },
        spanGaps: false,
      };
    });
    if (this.mode === "heatmap") series.push({ paths: () => null, points: { show: false } });
    const bands = this.mode === "percentiles" ? [
      { series: [2, 1], fill: `${color}26` }, { series: [3, 2], fill: `${color}14` },
    ] : [];
    const heat = this.mode === "heatmap";
    const bytes = this.series.metric.unit === "bytes";
    this.plot = new uPlot({
      width,
      height: 150,
      legend: { show: false },
      padding: [8, 26, 0, 0],
      cursor: {
        sync: { key: "charts" },
        drag: { x: true, y: false, setScale: false, dist: 4 },
        y: false,
        points: { show: !heat, size: 6 },
      },
      scales: {
        x: { auto: false },
        y: {
          range: (_, low, high) => {
            if (heat) return [0, Math.max(1, (this.heat?.bounds.length ?? 2) - 1)];
            if (low == null) return [0, 1];
            if (this.zero) return [Math.min(0, low * 1.05), high > 0 ? high * 1.08 : low < 0 ? 0 : 1];
            return uPlot.rangeNum(low, high, 0.1, false);
          },
        },
      },
      axes: [
        { ...axis, size: 24, space: 58, values: (_, splits) => splits.map((t) => clock(t, this.charts.span < 900)) },
        {
          ...axis, size: 66, space: 26, gap: 4,
          values: (_, splits) => splits.map((value) => {
            if (!heat) return this.text(value, 9);
            const bound = this.heat?.bounds[value];
            return bound === undefined ? "" : showValue(bound, this.series.metric.unit, { width: 9 });
          }),
          incrs: heat ? [1, 2, 4, 5, 10, 20, 40, 50, 100] : bytes ? BINARY : undefined,
        },
      ],
      series: [{}, ...series],
      bands,
      hooks: {
        drawClear: heat ? [(plot) => drawHeat(plot, this.t, this.step, this.heat, color)] : [],
        draw: [(plot) => this.drawMarks(plot)],
        setCursor: [() => this.plot && this.drawReadout()],
        setSelect: [(plot) => {
          const { left, width: size } = plot.select;
          if (size < 4) return;
          this.charts.zoom(plot.posToVal(left, "x"), plot.posToVal(left + size, "x"));
          plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        }],
      },
    }, [[], ...series.map(() => [])], this.body);
    this.plot.over.addEventListener("dblclick", () => this.charts.zoom(null));
  }

  /** Draw flags where events were lost, a server restarted, or a connection ended. */
  drawMarks(plot) {
    const { ctx, bbox } = plot;
    const ratio = devicePixelRatio;
    ctx.save();
    const drawn = new Set();
    for (const { t, kind } of this.charts.marks()) {
      const x = plot.valToPos(t, "x", true);
      // One of several losses in the same place is enough.
      const place = `${kind} ${Math.round(x / (8 * ratio))}`;
      if (drawn.has(place)) continue;
      drawn.add(place);
      if (kind === "connect" || x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.strokeStyle = ctx.fillStyle = css(kind === "restart" ? "--warn" : "--bad");
      ctx.lineWidth = ratio;
      ctx.setLineDash([2 * ratio, 3 * ratio]);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      ctx.beginPath();
      ctx.moveTo(x, bbox.top - 6 * ratio);
      ctx.lineTo(x + 8 * ratio, bbox.top - 2 * ratio);
      ctx.lineTo(x, bbox.top + 2 * ratio);
      ctx.fill();
    }
    ctx.restore();
  }

  /** Save the chart with its title. */
  savePicture() {
    const { canvas } = this.plot.ctx;
    const ratio = devicePixelRatio;
    const head = 44 * ratio;
    const picture = make("canvas", { width: canvas.width, height: canvas.height + head });
    const context = picture.getContext("2d");
    context.fillStyle = css("--panel");
    context.fillRect(0, 0, picture.width, picture.height);
    context.fillStyle = css("--text");
    context.font = `600 ${13 * ratio}px ${css("--sans")}`;
    const labels = this.labels.textContent;
    context.fillText(`${this.title.textContent}  ${labels}`, 12 * ratio, 18 * ratio, picture.width - 24 * ratio);
    context.fillStyle = css("--dim");
    context.font = `${11 * ratio}px ${css("--sans")}`;
    const [from, to] = this.charts.range();
    const day = new Date(to * 1000).toLocaleDateString();
    context.fillText(`${day}, ${clock(from)} to ${clock(to)}   ${this.readout.textContent}`, 12 * ratio, 35 * ratio);
    context.drawImage(canvas, 0, head);
    picture.toBlob((blob) => save(blob, "png"));
  }
}
