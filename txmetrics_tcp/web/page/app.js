/** The page: connects the server, the table, the charts and the controls. */

import { Charts } from "./charts.js";
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

const THEME = "txmetrics-theme";

/** The text and the look of each state of the connection. */
const MODES = {
  connecting: ["CONNECTING", ""],
  live: ["LIVE", "live"],
  stalled: ["STALLED", "bad"],
  lost: ["OFFLINE", "bad"],
  denied: ["NO ACCESS", "bad"],
  hidden: ["IDLE", ""],
};

/** Return the numbers of series as differences: proxies limit the length of an address. */
function relative(rows) {
  const ids = rows.map(({ id }) => id).sort((a, b) => a - b);
  return ids.map((id, at) => id - (ids[at - 1] ?? 0));
}

export class App {
  constructor() {
    this.live = new State();
    /** The state at an earlier time, or at a pause; null while live. */
    this.held = null;
    /** The shown time; null while live. */
    this.at = null;
    this.window = 60;
    this.rows = new Rows();
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
    this.charts = new Charts(this);
    this.#listen();
    this.#setTheme();
    this.server.start();
    setInterval(() => this.#everySecond(), 1000);
  }

  #frame = null;
  #looking = false;
  #wanted = null;
  #settings = {
    filter: (text) => this.rows.setFilter(text),
    sort: (column) => this.rows.sortBy(column),
    group: (grouping) => this.rows.groupBy(grouping || null),
    source: (no) => {
      find("source-window").close();
      this.rows.showSource(this.rows.source === no ? null : no);
    },
    window: (seconds) => {
      this.window = Number(seconds);
      this.rows.figures = new Map();
    },
  };

  /** The shown state. */
  get state() {
    return this.held ?? this.live;
  }

  /** Whether the server knows the shown series. After a restart, their numbers mean others. */
  get isKnown() {
    return this.connection[0] === "live" && this.state.epoch === this.live.epoch;
  }

  /** The first and the last second that the server can show. */
  get past() {
    const { history, time } = this.live;
    const to = Math.floor(history?.to ?? time);
    return [Math.ceil(history?.from ?? to), to];
  }

  /** The figures of a histogram or of a group of them. */
  figures(line) {
    return this.rows.figures.get(line.key ?? line);
  }

  #onFrame(frame) {
    const isFirst = this.live.epoch === null;
    this.live.apply(frame);
    // The table takes all series when it shows the present again.
    if (this.held) this.live.takeChanges();
    if (isFirst) this.#restore();
    if (frame.head.whole) this.#follow();
    this.redraw();
  }

  /** Restore what the link says, when its series are known. */
  #restore() {
    const { rows, charts } = this;
    const link = readLink();
    // The menu rejects what it does not have.
    find("window").value = link.window;
    this.window = Number(find("window").value);
    find("filter").value = link.filter;
    rows.setFilter(link.filter);
    rows.setSort(link.sort, link.descending);
    rows.groupBy(link.group);
    rows.showSource([...this.live.sources.values()].find(({ name }) => name === link.source)?.no ?? null);
    charts.span = link.range;
    for (const { name, mode } of link.charts) charts.add(name, mode);
    this.goTo(link.at);
  }

  // Drawing

  redraw() {
    this.#frame ??= requestAnimationFrame(() => {
      this.#frame = null;
      const started = performance.now();
      this.rows.update(this.state, started);
      this.table.draw(this.state);
      this.#drawFacts();
      this.sources.draw(this.live);
      this.timebar.draw();
      if (this.drawTimes.push(performance.now() - started) > 600) this.drawTimes.shift();
    });
  }

  /** Draw what surrounds the table. */
  #drawFacts() {
    const { live, rows, at } = this;
    const [connection, reason] = this.connection;
    let [mode, look] = MODES[connection];
    const isBad = look === "bad";
    if (at !== null && !isBad) [mode, look] = [`HELD ${clock(at)}`, "held"];
    else if (look === "live" && live.history?.to != null) [mode, look] = ["RECORDING", ""];
    const rate = [...live.sources.values()].reduce((sum, source) => sum + source.rate, 0);
    const total = this.state.series.size.toLocaleString("en");
    const listed = rows.matching.length.toLocaleString("en");
    const empty = this.state.series.size ? "No series match the filter."
      : "No events yet.\nThis page connects as soon as a server listens.";
    const texts = {
      mode,
      notice: isBad ? reason : this.failure,
      events: mode === "RECORDING" ? "" : `${showValue(rate, null, { width: 7 })} events/s`,
      count: listed === total ? `${total} series` : `${listed} of ${total}`,
      "filter-error": rows.filterError,
      empty: rows.lines.length || connection !== "live" ? "" : empty,
      pause: at === null ? "Pause" : "Live",
    };
    for (const [id, text] of Object.entries(texts)) {
      setText(find(id), text);
      find(id).hidden = !text;
    }
    find("mode").className = `mode ${look}`;
    find("filter").ariaInvalid = !!rows.filterError;
  }

  #everySecond() {
    if (document.hidden) return;
    this.#follow();
    this.charts.update();
    this.#fillGroups();
    this.#look();
  }

  #follow() {
    this.charts.follow(this.at ?? this.past[1]);
  }

  // Figures and trends of what is on the screen

  async #look() {
    if (this.#looking) return;
    this.#looking = true;
    const { rows, table, charts } = this;
    const before = rows.figures;
    const lines = [...table.present, ...charts.all.filter(charts.knows).map(({ series }) => series)];
    if (PERCENTILES.includes(rows.sort)) lines.push(...rows.matching);
    try {
      const figures = await this.#figuresOf(lines);
      // Those of another time may be wanted now.
      if (rows.figures === before) rows.figures = figures;
      await this.#fillTrends();
      this.redraw();
    } catch {
      // The next request may succeed; the mode shows whether the server answers.
    } finally {
      this.#looking = false;
    }
  }

  /** Fetch the figures of histograms, by series, and of groups of them, by key. */
  async #figuresOf(lines) {
    if (!this.isKnown) return this.rows.figures;
    const rows = [];
    const groups = [];
    let left = MAX_LOOK;
    for (const line of lines) {
      const size = line.rows?.length ?? 1;
      if (line.kind !== "histogram" || size > left) continue;
      left -= size;
      (line instanceof Group ? groups : rows).push(line);
    }
    if (left === MAX_LOOK) return new Map();
    const sums = groups.map((group) => relative(group.rows).join("+"));
    const at = this.at === null ? "" : `&at=${Math.round(this.at)}`;
    const answer = await this.server.json(`look?relative=1&ids=${relative(rows)}&groups=${sums}&window=${this.window}${at}`);
    return new Map([
      ...rows.map((row) => [row, answer.series[row.id]]),
      ...groups.map(({ key }, index) => [key, answer.groups[index]]),
    ]);
  }

  /** Complete the trends that began before the page did. */
  async #fillTrends() {
    // The server returns the past of 50 series at most.
    const rows = this.table.present.filter(({ filled }) => filled === false).slice(0, 50);
    if (this.held || !rows.length) return;
    const to = Math.floor(this.live.time);
    const answer = await this.server.json(`history?ids=${rows.map(({ id }) => id)}&from=${to - 60}&to=${to}&points=60`);
    for (const row of rows) {
      const data = answer.series[row.id];
      row.filled = true;
      if (data && !row.gone) this.live.backfill(row, answer.t, data.value ?? data.rate);
    }
    this.table.second = null;
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

  /** Change a setting. To choose the present column or source again reverses the order, or shows all. */
  set(name, value) {
    this.#settings[name](value);
    this.table.grid.scrollTop = 0;
    this.changed();
  }

  /** Choose the option of a menu that is `by` places further down; the first one follows the last. */
  step(id, by) {
    const options = [...find(id).options];
    this.set(id, options.at((find(id).selectedIndex + by) % options.length).value);
  }

  togglePause() {
    if (this.held) this.goTo(null);
    else this.goTo(Math.floor(this.live.time), this.live.clone());
  }

  /** Show the time this many seconds before the shown one. */
  back(seconds) {
    const [from, to] = this.past;
    const at = (this.at ?? to) - seconds;
    this.goTo(at < to ? Math.max(from, at) : null);
  }

  /**
   * Show the series as they were.
   * @param {?number} at the time; null for now
   * @param {?State} state their state at that time, if it is known
   */
  async goTo(at, state = null) {
    this.#wanted = at;
    this.failure = "";
    try {
      if (at !== null && !state) {
        const frame = await this.server.frame(`table?at=${Math.round(at)}`);
        frame.head.sources = [...this.live.sources.values()];
        state = new State();
        state.apply(frame);
      }
    } catch (error) {
      if (this.#wanted === at) this.failure = error.message;
      this.redraw();
      return;
    }
    // Another time may be wanted now.
    if (this.#wanted !== at) return;
    this.held = state;
    this.at = at;
    this.rows.figures = new Map();
    this.rows.replaced();
    this.#follow();
    this.charts.update();
    this.changed();
  }

  stepBack() {
    const filter = find("filter");
    if (this.charts.zoomed) this.charts.zoom(null);
    else if (filter.value) this.set("filter", filter.value = "");
    else if (document.activeElement === filter) this.table.grid.focus();
    else if (this.rows.grouping) this.set("group", null);
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
    const { state, rows: { matching } } = this;
    const figures = await this.#figuresOf(matching).catch(() => new Map());
    save(new Blob([toCsv(state, matching, figures)], { type: "text/csv" }), "csv");
  }

  toggleTheme() {
    localStorage.setItem(THEME, document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    this.#setTheme();
  }

  /** Use the colors that were chosen, or else those of the system. */
  #setTheme() {
    const theme = localStorage.getItem(THEME) ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    document.documentElement.dataset.theme = theme;
    setText(find("theme"), theme === "dark" ? "Light" : "Dark");
    this.charts.recolor();
  }

  /** Show what was set, also in the controls and in the address. */
  changed() {
    const { rows, charts } = this;
    find("sort").value = rows.sort;
    find("window").value = this.window;
    find("side").hidden = !charts.all.length;
    find("unzoom").hidden = !charts.zoomed;
    for (const button of document.querySelectorAll("[data-span]")) {
      button.ariaPressed = !charts.zoomed && Number(button.dataset.span) === charts.span;
    }
    this.#fillGroups();
    this.redraw();
    // When the lines are drawn.
    requestAnimationFrame(() => this.#look());
    if (this.live.epoch === null) return;
    writeLink({
      filter: rows.filterText, sort: rows.sort, descending: rows.descending, group: rows.grouping,
      source: this.live.sources.get(rows.source)?.name ?? null, window: this.window,
      range: charts.span, at: this.at, charts: charts.all,
    });
  }

  /** Offer the labels of the series for grouping. */
  #fillGroups() {
    const { grouping } = this.rows;
    const groupings = this.rows.groupings();
    const select = find("group");
    const key = JSON.stringify([groupings, grouping]);
    if (select.key === key) return;
    select.key = key;
    select.replaceChildren(...groupings.map((one) =>
      new Option(visible(one?.replace("label:", "") ?? "none"), one ?? "", false, one === grouping)));
  }

  #listen() {
    listen(this);
    for (const id of ["filter", "sort", "group", "window"]) find(id).oninput = ({ target }) => this.set(id, target.value);
    document.addEventListener("click", ({ target: { dataset: { span, back } } }) => {
      if (span) this.charts.setSpan(Number(span));
      if (back) this.back(Number(back));
    });
    find("unzoom").onclick = () => this.charts.zoom(null);
    find("close-charts").onclick = () => this.charts.clear();
    new ResizeObserver(() => {
      this.charts.draw();
      this.redraw();
    }).observe(this.table.grid);
  }
}

// Also for the tests, and for a user's console.
globalThis.metrics = new App();
