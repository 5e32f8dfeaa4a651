/** The charts: one for each chosen series, with a common time axis, cursor and zoom. */

import { find, make } from "./dom.js";
import { seriesName } from "./link.js";

const MAX_CHARTS = 24;
/** The number of seconds that are fetched again: percentiles change until their step ends. */
const OVERLAP = 6;
/** The number of steps from which on all are fetched again, which are longer then. */
const MAX_STEPS = 1000;

/** Load what draws charts, with the first of them. */
let loading;
const load = () => (loading ??= new Promise((onload, onerror) => {
  document.head.append(make("script", { src: "page/uplot.js", onload, onerror }));
}).then(() => import("./chart.js")));

/** All charts. */
export class Charts {
  /** @param {import("./app.js").App} app */
  constructor(app) {
    this.app = app;
  }

  /** @type {import("./chart.js").Chart[]} */
  all = [];
  /** The number of seconds on the axis; 0 for all that the server has. */
  span = 300;
  /** The shown time that was chosen with the mouse; null for none. */
  zoomed = null;
  end = 0;
  #marks = [];
  #busy = false;
  #again = false;

  /** The first and last second of the time axis. */
  range() {
    if (this.zoomed) return this.zoomed;
    const from = this.span ? this.end - this.span : this.app.past[0];
    return [Math.min(from, this.end - 10), this.end];
  }

  /** The losses, restarts and disconnections in the shown time. */
  marks() {
    const [from, to] = this.range();
    return this.#marks.filter(({ t, kind }) => t >= from && t <= to && kind !== "connect");
  }

  sourceOf(series) {
    return this.app.state.sources.get(series.source)?.name ?? "";
  }

  /** Whether a chart shows one of the present series, which are other objects after a restart. */
  knows = ({ series }) => this.app.state.series.get(series?.id) === series;

  has(series) {
    return this.all.some((chart) => chart.series === series);
  }

  /** Add a chart of a series, or remove it. */
  toggle(series) {
    const chart = this.all.find((one) => one.series === series);
    if (chart) this.remove(chart);
    else this.add(this.#nameOf(series), "", series);
  }

  /** Add a chart; of a link only the name of the series is known. */
  async add(name, mode, series) {
    const module = await load().catch(() => (loading = null));
    // It could not be loaded, or was asked for twice.
    if (!module || this.has(series)) return;
    if (this.all.length >= MAX_CHARTS) this.remove(this.all[0]);
    const chart = new module.Chart(this, name, mode);
    this.all.push(chart);
    find("charts").append(chart.element);
    if (series) chart.bind(series);
    else this.#bind();
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
    for (const chart of this.all) this.remove(chart);
  }

  zoom(from, to) {
    this.zoomed = from === null ? null : [from, to];
    this.#refetch();
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
    this.app.changed();
    this.update();
  }

  /** Follow the app's state and its last second. */
  follow(end) {
    if (end < this.end || end > this.end + 30) this.#refetch();
    this.end = end;
    this.#bind();
  }

  /** Fetch what is missing, and draw. */
  async update() {
    this.#again = true;
    if (this.#busy) return;
    this.#busy = true;
    while (this.#again) {
      this.#again = false;
      // The next request may succeed; the mode shows whether the server answers.
      await this.#fetch().catch(() => {});
      this.draw();
    }
    this.#busy = false;
  }

  draw() {
    for (const chart of this.all) chart.draw(this.app.state);
  }

  #refetch() {
    for (const chart of this.all) chart.t = [];
  }

  async #fetch() {
    if (!this.app.isKnown) return;
    const [from, to] = this.range();
    const queries = Map.groupBy(this.all.filter(this.knows), (chart) => {
      const { mode, step, t } = chart;
      const heat = mode === "heatmap";
      chart.asked = t;
      const start = !heat && step === 1 && t.length > OVERLAP && t.length < MAX_STEPS ? t.at(-1) - OVERLAP : from;
      return `from=${start}&to=${to}&heat=${Number(heat)}`;
    });
    for (const [query, charts] of queries) {
      const ids = charts.map(({ series }) => series.id).join();
      const answer = await this.app.server.json(`history?ids=${ids}&${query}`);
      for (const chart of charts) chart.take(answer);
      const start = answer.t[0] - answer.step;
      this.#marks = this.#marks.filter(({ t }) => t >= from && t < start).concat(answer.marks);
    }
  }

  /** Give each chart the present series of its name. */
  #bind() {
    const lost = new Map(this.all.filter((chart) => !this.knows(chart)).map((chart) => [chart.name, chart]));
    if (!lost.size) return;
    for (const series of this.app.state.series.values()) lost.get(this.#nameOf(series))?.bind(series);
  }

  #nameOf(series) {
    return (series.link ??= seriesName(series, this.sourceOf(series)));
  }
}
