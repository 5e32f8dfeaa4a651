/** The page: connects the server, the table, the charts and the controls. */

import { Charts } from "./charts.js";
import { WIDTHS } from "./columns.js";
import { clock, find, save, setText } from "./dom.js";
import { toCsv } from "./export.js";
import { State } from "./frames.js";
import { listen } from "./keys.js";
import { readLink, writeLink } from "./link.js";
import { showValue } from "./numbers.js";
import { Group, MAX_LOOK, PERCENTILES, Rows } from "./rows.js";
import { Server } from "./server.js";
import { Sources } from "./sources.js";
import { Table } from "./table.js";
import { visible } from "./text.js";
import { TimeBar } from "./timebar.js";

const WINDOWS = [10, 60, 300, 0];
/** The largest number of series whose past the server returns at once. */
const MAX_PAST = 50;
const THEME = "txmetrics-theme";
const DARK = matchMedia("(prefers-color-scheme: dark)");

/** The text and the look of each mode. */
const MODES = {
  connecting: ["CONNECTING", ""],
  live: ["LIVE", "live"],
  recording: ["RECORDING", ""],
  stalled: ["STALLED", "bad"],
  lost: ["OFFLINE", "bad"],
  denied: ["NO ACCESS", "bad"],
  hidden: ["IDLE", ""],
};

/** Return what is some places after an item of a list; the first one follows the last. */
const next = (list, item, by) => list.at((list.indexOf(item) + by) % list.length);

/** Return the numbers of series as differences: proxies limit the length of an address. */
function relative(rows) {
  const ids = rows.map(({ id }) => id).sort((a, b) => a - b);
  return ids.map((id, at) => id - (ids[at - 1] ?? 0));
}

class App {
  constructor() {
    this.live = new State();
    /** The state at an earlier time, or at a pause; null while live. */
    this.held = null;
    /** The shown time; null while live. */
    this.at = null;
    this.rows = new Rows();
    /** What the address says, until it is restored. */
    this.link = readLink();
    this.window = this.link.window ?? 60;
    this.connection = ["connecting", ""];
    /** Why the last request for an earlier time failed. */
    this.failure = "";
    /** The times in ms that frames took to draw, for tests. */
    this.drawTimes = [];
    this.server = new Server((frame) => this.#onFrame(frame), (...connection) => {
      this.connection = connection;
      this.redraw();
    });
    this.table = new Table(this);
    this.sources = new Sources(this);
    this.timebar = new TimeBar(this);
    this.charts = new Charts(this.server, {
      onChange: () => this.changed(),
      onZoom: () => {},
      figures: (series) => this.figures(series),
    });
    this.#prepare();
    listen(this);
    this.server.start();
    setInterval(() => this.#everySecond(), 1000);
  }

  #drawing = false;
  #looking = false;
  #wanted = null;

  get state() {
    return this.held ?? this.live;
  }

  /** The figures of a histogram or of a group of them. */
  figures(line) {
    return this.rows.figures.get(line.key ?? line.id);
  }

  #onFrame(frame) {
    this.live.apply(frame);
    if (this.link) this.#restore();
    if (frame.head.whole) this.#follow(true);
    this.redraw();
  }

  /** Restore what the link says, once its series are known. */
  #restore() {
    const { source, charts, at } = this.link;
    this.link = null;
    const found = [...this.live.sources.values()].find(({ name }) => name === source);
    if (found) this.chooseSource(found.no);
    for (const { name, mode } of charts) this.charts.add(name, mode);
    if (at !== null) this.goTo(at);
  }

  // Drawing

  redraw() {
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      const started = performance.now();
      this.rows.update(this.state, started);
      this.table.draw(this.state);
      this.#drawFacts();
      this.sources.draw(this.live);
      this.timebar.draw(this.live, this.at);
      if (this.drawTimes.push(performance.now() - started) > 600) this.drawTimes.shift();
    });
  }

  /** Draw what surrounds the table. */
  #drawFacts() {
    const { live, rows, failure } = this;
    const sources = [...live.sources.values()];
    const recorded = sources.length && sources.every(({ state }) => state === "recording");
    const [connection, reason] = this.connection;
    let [mode, look] = MODES[recorded && connection === "live" ? "recording" : connection];
    const isBad = look === "bad";
    if (this.at !== null && !isBad) [mode, look] = [`HELD ${clock(this.at)}`, "held"];
    const rate = sources.reduce((sum, source) => sum + source.rate, 0);
    const total = this.state.series.size.toLocaleString("en");
    const listed = rows.matching.length.toLocaleString("en");
    const texts = {
      mode,
      notice: isBad ? reason : failure,
      events: `${showValue(rate, null, { width: 7 })} events/s`,
      count: listed === total ? `${total} series` : `${listed} of ${total}`,
      "filter-error": rows.filterError,
      empty: rows.lines.length || connection !== "live" ? "" : this.#emptyText(sources),
      pause: this.at === null ? "Pause" : "Live",
    };
    for (const [id, text] of Object.entries(texts)) {
      setText(find(id), text);
      find(id).hidden = !text;
    }
    find("mode").className = `mode ${look}`;
    document.title = isBad ? `${mode}: metrics-tcp` : "metrics-tcp";
  }

  #emptyText(sources) {
    if (this.state.series.size) return "No series match the filter.";
    const names = sources.map(({ name }) => name).slice(0, 5).join(", ");
    if (!names) return "Waiting for sources.";
    if (sources.some(({ state }) => state === "connected")) return `Connected to ${names}.\nNo events yet.`;
    return `Waiting for ${names}.\nThis page connects as soon as a server listens there.`;
  }

  // Figures of what is on the screen

  async #everySecond() {
    if (document.hidden) return;
    this.#follow(false);
    if (this.at === null || this.charts.all.some(({ t }) => !t.length)) this.charts.update(this.state);
    this.#fillGroups();
    if (this.#looking) return;
    this.#looking = true;
    try {
      await this.#look();
      await this.#fillTrends();
    } catch {
      // The next request may succeed; the mode shows whether the server answers.
    } finally {
      this.#looking = false;
    }
  }

  #follow(seriesChanged) {
    const end = this.at ?? this.live.history?.to ?? Math.floor(this.live.time);
    this.charts.follow(this.state, end, this.at === null, seriesChanged);
  }

  async #look() {
    const { present } = this.table;
    const groups = present.filter((line) => line instanceof Group && line.kind === "histogram");
    const rows = present.filter((line) => !(line instanceof Group)).concat(this.charts.all.flatMap(({ series }) => series ?? []));
    if (PERCENTILES.includes(this.rows.sort)) rows.push(...this.rows.matching);
    const before = this.rows.figures;
    const figures = await this.#figuresOf(rows, groups);
    // Others may have been asked for meanwhile.
    if (this.rows.figures !== before) return;
    this.rows.figures = figures;
    this.redraw();
  }

  /** Fetch the figures of histograms, by number, and of groups of them, by key. */
  async #figuresOf(rows, groups = []) {
    const histograms = [...new Set(rows)].filter(({ kind }) => kind === "histogram").slice(0, MAX_LOOK);
    let left = MAX_LOOK - histograms.length;
    const fitting = groups.filter((group) => (left -= group.rows.length) >= 0);
    if (!histograms.length && !fitting.length) return new Map();
    const at = this.at === null ? "" : `&at=${Math.round(this.at)}`;
    const sums = fitting.map((group) => relative(group.rows).join("+"));
    const answer = await this.server.json(
      `look?relative=1&ids=${relative(histograms)}&window=${this.window}${at}&groups=${sums}`);
    return new Map([
      ...Object.entries(answer.series).map(([id, figures]) => [Number(id), figures]),
      ...fitting.map(({ key }, index) => [key, answer.groups[index]]),
    ]);
  }

  /** Complete the trends of visible rows that began before the page did. */
  async #fillTrends() {
    const { live } = this;
    if (this.at !== null || !live.history) return;
    const rows = this.table.present.filter(({ filled, gone }) => filled === false && !gone).slice(0, MAX_PAST);
    if (!rows.length) return;
    const to = Math.floor(live.time);
    const answer = await this.server.json(`history?ids=${rows.map(({ id }) => id)}&from=${to - 60}&to=${to}&points=60`);
    for (const row of rows) {
      const data = answer.series[row.id];
      if (row.gone) continue;
      if (data && answer.step === 1) live.backfill(row, answer.t, data.value ?? data.rate);
      row.filled = true;
    }
    this.table.redrawTrends();
    this.redraw();
  }

  // Actions

  /** Chart a series, or close its chart; fold or unfold a group. */
  open(line) {
    if (line instanceof Group) {
      this.rows.fold(line);
      this.redraw();
    } else if (line) this.charts.toggle(line);
  }

  foldAll() {
    this.rows.foldAll();
    this.redraw();
  }

  sortBy(column) {
    this.rows.sortBy(column);
    this.#relisted();
  }

  sortNext(by) {
    this.sortBy(next(this.table.columns, this.rows.sort, by));
  }

  setFilter(text) {
    this.rows.setFilter(text);
    this.#relisted();
  }

  /** Show only the series of a source, or again all. */
  chooseSource(no) {
    find("source-window").close();
    this.rows.showSource(this.rows.source === no ? null : no);
    this.#relisted();
  }

  groupBy(grouping) {
    this.rows.groupBy(grouping);
    this.#relisted();
  }

  groupNext(by) {
    this.groupBy(next(this.rows.groupings(), this.rows.grouping, by));
  }

  setWindow(window) {
    this.window = window;
    this.#retimed();
  }

  windowNext(by) {
    this.setWindow(WINDOWS[WINDOWS.indexOf(this.window) + by] ?? this.window);
  }

  togglePause() {
    if (this.at !== null) this.goTo(null);
    else this.#hold(this.live.clone(), Math.floor(this.live.time));
  }

  /** Show the time this many seconds before the shown one. */
  back(seconds) {
    const { history, time } = this.live;
    const to = history?.to ?? time;
    const at = (this.at ?? to) - seconds;
    this.goTo(at >= to ? null : Math.max(Math.ceil(history?.from ?? time), Math.floor(at)));
  }

  /** Show what the table showed at a time; null for now. */
  async goTo(at) {
    this.#wanted = at;
    if (at === null) {
      this.#hold(null, null);
      return;
    }
    try {
      const frame = await this.server.frame(`table?at=${Math.round(at)}`);
      if (this.#wanted !== at) return;
      const state = new State();
      state.apply(frame);
      state.sources = new Map([...this.live.sources, ...state.sources]);
      this.#hold(state, at);
    } catch (error) {
      this.failure = error.message;
      this.redraw();
    }
  }

  #hold(state, at) {
    this.held = state;
    this.at = this.#wanted = at;
    this.failure = "";
    this.rows.replaced();
    this.table.redrawTrends();
    this.#follow(true);
    this.charts.update(this.state);
    this.#retimed();
  }

  stepBack() {
    const filter = find("filter");
    if (this.charts.zoomed) this.charts.zoom(null);
    else if (filter.value) this.setFilter(filter.value = "");
    else if (document.activeElement === filter) this.table.grid.focus();
    else if (this.rows.grouping) this.groupBy(null);
    else this.charts.clear();
  }

  showHelp() {
    find("help-window").showModal();
  }

  showSources() {
    this.sources.fillList(this.live);
    find("source-window").showModal();
  }

  async saveCsv() {
    const { state } = this;
    const rows = [...this.rows.matching];
    const figures = await this.#figuresOf(rows).catch(() => new Map());
    save(new Blob([toCsv(state, rows, figures)], { type: "text/csv" }), "csv");
  }

  toggleTheme() {
    localStorage.setItem(THEME, document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    this.#setTheme();
  }

  /** Use the colors that were chosen, or else those of the system. */
  #setTheme() {
    const theme = localStorage.getItem(THEME) ?? (DARK.matches ? "dark" : "light");
    document.documentElement.dataset.theme = theme;
    setText(find("theme"), theme === "dark" ? "Light" : "Dark");
    this.table.redrawTrends();
    this.charts.recolor();
    this.redraw();
  }

  // Settings

  /** Other series are listed, or in another order. */
  #relisted() {
    this.table.grid.scrollTop = 0;
    this.changed();
    this.#everySecond();
  }

  /** Figures of another time are wanted. */
  #retimed() {
    this.rows.figures = new Map();
    this.changed();
    this.#everySecond();
  }

  /** Show the settings in the controls and in the address. */
  changed() {
    const { rows, charts } = this;
    find("sort").value = rows.sort;
    find("window").value = this.window;
    find("filter").ariaInvalid = !!rows.filterError;
    find("side").hidden = !charts.all.length;
    find("unzoom").hidden = !charts.zoomed;
    for (const button of document.querySelectorAll("[data-span]")) {
      button.ariaPressed = !charts.zoomed && Number(button.dataset.span) === charts.span;
    }
    this.redraw();
    if (this.link) return;
    writeLink({
      filter: rows.filterText, sort: rows.sort, descending: rows.descending, group: rows.grouping,
      source: this.live.sources.get(rows.source)?.name ?? null, window: this.window,
      range: charts.span, at: this.at, charts: charts.all,
    });
  }

  /** Offer the labels of the series for grouping. */
  #fillGroups() {
    const groupings = this.rows.groupings();
    const key = groupings.join("\n");
    const select = find("group");
    if (select.key !== key) {
      select.key = key;
      select.replaceChildren(...groupings.map((one) =>
        new Option(one === null ? "none" : visible(one.replace(/^label:/, "")), one ?? "")));
    }
    select.value = this.rows.grouping ?? "";
  }

  #prepare() {
    const { link } = this;
    this.#setTheme();
    DARK.addEventListener("change", () => this.#setTheme());
    find("sort").replaceChildren(...Object.keys(WIDTHS).map((id) => new Option(id)));
    find("filter").value = link.filter;
    this.rows.setFilter(link.filter);
    this.rows.setSort(link.sort, link.descending);
    this.rows.groupBy(link.group);
    this.charts.span = link.range ?? this.charts.span;
    this.#relisted();
    const inputs = {
      filter: (text) => this.setFilter(text),
      sort: (column) => this.sortBy(column),
      group: (grouping) => this.groupBy(grouping || null),
      window: (window) => this.setWindow(Number(window)),
    };
    const clicks = {
      pause: () => this.togglePause(),
      csv: () => this.saveCsv(),
      theme: () => this.toggleTheme(),
      help: () => this.showHelp(),
      unzoom: () => this.charts.zoom(null),
      "close-charts": () => this.charts.clear(),
    };
    document.addEventListener("input", ({ target: { id, value } }) => inputs[id]?.(value));
    document.addEventListener("click", ({ target: { id, dataset } }) => {
      clicks[id]?.();
      if (dataset.span) this.charts.setSpan(Number(dataset.span));
      if (dataset.back) this.back(Number(dataset.back));
    });
    new ResizeObserver(() => {
      this.charts.draw();
      this.redraw();
    }).observe(this.table.grid);
  }
}

// Also for the tests, and for a user's console.
globalThis.metrics = new App();
