/** The charts: one for each chosen series, with a common time axis, cursor and zoom. */

import { find, make } from "./dom.js";
import { seriesName } from "./link.js";

const MAX_CHARTS = 24;
const POINTS = 600;
/** The number of seconds that are fetched again: percentiles change until their step ends. */
const OVERLAP = 6;

/** Load what draws charts, with the first of them. */
let loading = null;
const load = () => (loading ??= new Promise((resolve, reject) => {
  const script = make("script", { src: new URL("uplot.js", import.meta.url).href, onload: resolve, onerror: reject });
  document.head.append(script);
}).then(() => import("./chart.js")));

/** All charts. */
export class Charts {
  /**
   * @param {import("./server.js").Server} server
   * @param {{onChange: Function, figures: Function, onZoom: Function}} hooks
   */
  constructor(server, hooks) {
    this.server = server;
    this.hooks = hooks;
    this.pane = find("charts");
    /** @type {import("./chart.js").Chart[]} */
    this.all = [];
    /** The number of seconds on the axis; 0 for all that the server has. */
    this.span = 300;
    /** The shown time that was chosen with the mouse; null for none. */
    this.zoomed = null;
    this.end = 0;
    this.live = true;
    this.error = "";
  }

  #state = null;
  #epoch = null;
  #marks = [];
  #busy = false;
  #again = false;

  figures(series) {
    return this.hooks.figures(series);
  }

  /** The first and last second of the time axis. */
  range() {
    if (this.zoomed) return this.zoomed;
    const from = this.span ? this.end - this.span : this.#state?.history?.from ?? this.end - 600;
    return [Math.min(from, this.end - 10), this.end];
  }

  marks() {
    return this.#marks;
  }

  has(series) {
    return this.all.some((chart) => chart.series === series);
  }

  /** Add a chart of a series, or remove it. */
  toggle(series) {
    const chart = this.all.find((one) => one.series === series);
    if (chart) this.remove(chart);
    else this.add(this.#nameOf(series), "", series);
  }

  async add(name, mode, series = null) {
    const { Chart } = await load();
    if (this.all.length >= MAX_CHARTS) this.remove(this.all[0]);
    const chart = new Chart(this, name, mode);
    if (series) chart.bind(series, this.#sourceOf(series));
    this.all.push(chart);
    this.pane.append(chart.element);
    this.changed();
    if (series) chart.element.scrollIntoView({ block: "nearest" });
  }

  remove(chart) {
    chart.rebuild();
    chart.element.remove();
    this.all = this.all.filter((one) => one !== chart);
    this.changed();
  }

  clear() {
    for (const chart of [...this.all]) this.remove(chart);
  }

  zoom(from, to) {
    this.zoomed = from === null ? null : [from, to];
    for (const chart of this.all) chart.t = [];
    this.hooks.onZoom();
    this.changed();
  }

  setSpan(span) {
    this.span = span;
    this.zoom(null);
  }

  recolor() {
    for (const chart of this.all) chart.rebuild();
    this.draw();
  }

  changed() {
    this.hooks.onChange();
    this.update(this.#state);
  }

  /** Follow the state: the numbers of series change when the server starts again. */
  follow(state, end, live, seriesChanged) {
    if (live !== this.live || Math.abs(end - this.end) > 30) for (const chart of this.all) chart.t = [];
    this.#state = state;
    this.end = end;
    this.live = live;
    if (state.epoch !== this.#epoch) this.#epoch = state.epoch;
    else if (!seriesChanged && this.all.every((chart) => chart.series && !chart.series.gone)) return;
    const missing = new Map(this.all.map((chart) => [chart.name, chart]));
    for (const series of state.series.values()) {
      const chart = missing.get(this.#nameOf(series));
      if (chart) chart.bind(series, this.#sourceOf(series));
    }
  }

  /** Fetch what is missing, and draw. */
  async update(state) {
    if (!state) return;
    if (this.#busy) {
      this.#again = true;
      return;
    }
    this.#busy = true;
    try {
      await this.#fetch();
      this.error = "";
    } catch (error) {
      this.error = error.message;
    } finally {
      this.#busy = false;
    }
    this.draw();
    if (this.#again) {
      this.#again = false;
      this.update(this.#state);
    }
  }

  draw() {
    if (this.#state) for (const chart of this.all) chart.draw(this.#state);
  }

  async #fetch() {
    const [from, to] = this.range();
    const requests = new Map();
    for (const chart of this.all) {
      if (!chart.series) continue;
      const heat = chart.mode === "heatmap";
      const more = !heat && this.live && !this.zoomed && chart.step === 1 && chart.t.length > OVERLAP;
      const start = more ? chart.t.at(-1) - OVERLAP : from;
      const key = `${heat} ${more} ${start.toFixed(0)}`;
      if (!requests.has(key)) requests.set(key, { heat, more, start, charts: [] });
      requests.get(key).charts.push(chart);
    }
    for (const { heat, more, start, charts } of requests.values()) {
      const ids = charts.map(({ series }) => series.id).join();
      const answer = await this.server.json(
        `history?ids=${ids}&from=${start.toFixed(3)}&to=${to.toFixed(3)}&points=${POINTS}${heat ? "&heat=1" : ""}`);
      for (const chart of charts) {
        const data = answer.series[chart.series.id];
        if (data) chart.take(answer.t, answer.step, data, more);
      }
      this.#addMarks(answer.marks ?? []);
    }
    this.#addMarks(this.#state.notes);
  }

  #addMarks(marks) {
    const known = new Set(this.#marks.map(({ t, text }) => `${t} ${text}`));
    for (const mark of marks) if (!known.has(`${mark.t} ${mark.text}`)) this.#marks.push(mark);
    if (this.#marks.length > 1000) this.#marks.splice(0, this.#marks.length - 1000);
  }

  #sourceOf(series) {
    return this.#state?.sources.get(series.source)?.name ?? "";
  }

  #nameOf(series) {
    return (series.link ??= seriesName(series, this.#sourceOf(series)));
  }
}
