/** The page: connects the server, the table, the charts and the controls. */

import { Charts } from "./charts.js";
import { clock, find, make, save, setText } from "./dom.js";
import { toCsv } from "./export.js";
import { State } from "./frames.js";
import { fillHelp, listen } from "./keys.js";
import { readLink, writeLink } from "./link.js";
import { showValue } from "./numbers.js";
import { Group, MAX_LOOK, PERCENTILES, Rows } from "./rows.js";
import { Server } from "./server.js";
import { Sources } from "./sources.js";
import { Table } from "./table.js";
import { visible } from "./text.js";
import { TimeBar } from "./timebar.js";

const WINDOWS = [10, 60, 300, 0];
const SORTS = ["name", "labels", "value", "rate", "trend", ...PERCENTILES, "source"];
/** The number of milliseconds between requests for figures. */
const LOOK = 1000;

/** Return ascending numbers as differences: proxies limit the length of an address. */
function relative(ids) {
  const sorted = ids.toSorted((a, b) => a - b);
  return sorted.map((id, at) => id - (at ? sorted[at - 1] : 0));
}

class App {
  constructor() {
    this.live = new State();
    /** The state at an earlier time, or at a pause; null while live. */
    this.held = null;
    /** The shown time; null while live. */
    this.at = null;
    this.window = 60;
    this.rows = new Rows();
    /** Figures of histograms and groups, by number or key. */
    this.figures = new Map();
    this.rows.figures = this.figures;
    this.link = readLink();
    this.server = new Server((frame) => this.onFrame(frame), (state, text) => this.onServer(state, text));
    this.table = new Table(this.rows, {
      onSort: (column) => this.sortBy(column),
      onOpen: (line) => this.open(line),
      isCharted: (series) => this.charts.has(series),
      figures: (line) => this.figures.get(line instanceof Group ? line.key : line.id),
      redraw: () => this.redraw(),
    });
    this.charts = new Charts(this.server, {
      onChange: () => this.chartsChanged(),
      onZoom: () => this.drawSpans(),
      figures: (series) => this.figures.get(series.id),
    });
    this.sources = new Sources({ onChoose: (no) => this.chooseSource(no), onList: () => this.showSources() });
    this.timebar = new TimeBar({ onTime: (at) => this.goTo(at), onBack: (seconds) => this.back(seconds) });
    this.connection = ["connecting", ""];
    /** The times in ms that frames took to draw, for tests. */
    this.drawTimes = [];
    this.#prepare();
    listen(this);
    this.server.start();
    setInterval(() => this.#everySecond(), LOOK);
  }

  #drawing = false;
  #force = false;
  #looking = false;
  #asked = 0;
  #seriesChanged = false;

  get state() {
    return this.held ?? this.live;
  }

  // What the server says

  onFrame(frame) {
    this.live.apply(frame);
    if (frame.head.whole || frame.head.series || frame.head.gone) this.#seriesChanged = true;
    if (this.link) this.#restore();
    this.redraw();
  }

  onServer(state, text) {
    this.connection = [state, text];
    this.redraw();
  }

  /** Restore what the link says, once its series are known. */
  #restore() {
    const { link } = this;
    this.link = null;
    if (link.source) {
      const source = [...this.live.sources.values()].find(({ name }) => name === link.source);
      if (source) this.chooseSource(source.no);
    }
    for (const { name, mode } of link.charts) this.charts.add(name, mode);
    if (link.at !== null) this.goTo(link.at);
  }

  // Drawing

  redraw(force = false) {
    this.#force ||= force;
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      const started = performance.now();
      this.#draw(started);
      this.drawTimes.push(performance.now() - started);
      if (this.drawTimes.length > 600) this.drawTimes.splice(0, 300);
    });
  }

  #draw(now) {
    const { state } = this;
    const changed = this.rows.update(state, now) || this.#force;
    this.#force = false;
    this.table.draw(state, changed);
    this.#drawHead();
    this.sources.draw(this.live);
    this.timebar.draw(this.live, this.at);
    if (this.#seriesChanged) {
      this.#seriesChanged = false;
      this.charts.follow(state, this.#end(), this.at === null, true);
      this.#fillGroups();
    }
  }

  #end() {
    return this.at ?? this.live.history?.to ?? Math.floor(this.live.time);
  }

  #drawHead() {
    const [connection, reason] = this.connection;
    const { live } = this;
    const recorded = live.sources.size > 0 && [...live.sources.values()].every(({ state }) => state === "recording");
    const mode = find("mode");
    const texts = { connecting: "CONNECTING", stalled: "STALLED", lost: "OFFLINE", denied: "NO ACCESS", hidden: "IDLE" };
    let look = "";
    let text = texts[connection];
    if (connection === "stalled" || connection === "lost" || connection === "denied") look = "bad";
    else if (this.at !== null) {
      look = "held";
      text = `HELD ${clock(this.at)}`;
    } else if (connection === "live") {
      look = recorded ? "" : "live";
      text = recorded ? "RECORDING" : "LIVE";
    }
    mode.className = `mode ${look}`;
    setText(mode, text);
    const notice = find("notice");
    notice.hidden = look !== "bad" || !reason;
    setText(notice, notice.hidden ? "" : `${reason[0].toUpperCase()}${reason.slice(1)}.`);
    const total = this.state.series.size.toLocaleString("en");
    const listed = this.rows.matching.length.toLocaleString("en");
    const all = !this.rows.filterText && this.rows.source === null;
    setText(find("count"), all ? `${total} series` : `${listed} of ${total}`);
    let rate = 0;
    let known = false;
    for (const source of live.sources.values()) {
      if (source.rate == null) continue;
      known = true;
      rate += source.rate;
    }
    setText(find("events"), known && !recorded ? `${showValue(rate, null, { width: 7 })} events/s` : "");
    setText(find("pause"), this.at === null ? "Pause" : "Live");
    const empty = find("empty");
    empty.hidden = this.rows.lines.length > 0;
    if (!empty.hidden) setText(empty, this.#emptyText());
    document.title = look === "bad" ? `${text}: metrics-tcp` : "metrics-tcp";
  }

  #emptyText() {
    if (this.connection[0] !== "live") return "";
    if (this.state.series.size) return "No series match the filter.";
    const sources = [...this.live.sources.values()];
    if (!sources.length) return "Waiting for sources.";
    const names = sources.map(({ name }) => name).slice(0, 5).join(", ");
    if (sources.some(({ state }) => state === "connected")) return `Connected to ${names}.\nNo events yet.`;
    return `Waiting for ${names}.\nThis page connects as soon as a server listens there.`;
  }

  // Figures of what is on the screen

  async #everySecond() {
    if (document.hidden || !this.live.epoch && !this.live.series.size) return;
    const { state } = this;
    this.charts.follow(state, this.#end(), this.at === null, false);
    if (this.at === null || !this.charts.all.every((chart) => chart.t.length)) this.charts.update(state);
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

  async #look() {
    const lines = this.table.visibleLines;
    const ids = new Set();
    const groups = [];
    for (const line of lines) {
      if (line.kind !== "histogram") continue;
      if (line instanceof Group) groups.push(line);
      else ids.add(line.id);
    }
    for (const { series } of this.charts.all) if (series?.kind === "histogram") ids.add(series.id);
    if (PERCENTILES.includes(this.rows.sort)) {
      for (const row of this.rows.matching) {
        if (ids.size >= MAX_LOOK) break;
        if (row.kind === "histogram") ids.add(row.id);
      }
    }
    await this.look([...ids], groups);
  }

  /** Fetch figures of histograms and of groups of them. */
  async look(ids, groups = []) {
    if (!ids.length && !groups.length) return;
    const asked = ++this.#asked;
    const at = this.at === null ? "" : `&at=${Math.round(this.at)}`;
    let left = MAX_LOOK - ids.length;
    const fitting = groups.filter((group) => (left -= group.rows.length) >= 0);
    const sums = fitting.map((group) => relative(group.rows.map(({ id }) => id)).join("+")).join();
    const answer = await this.server.json(
      `look?relative=1&ids=${relative(ids).join()}&window=${this.window}${at}${sums ? `&groups=${sums}` : ""}`);
    if (asked !== this.#asked) return;
    for (const [id, figures] of Object.entries(answer.series)) this.figures.set(Number(id), figures);
    fitting.forEach((group, index) => {
      const figures = answer.groups?.[index];
      if (figures) this.figures.set(group.key, figures);
    });
    if (this.figures.size > 4 * MAX_LOOK) this.figures.clear();
    this.redraw();
  }

  /** Complete the trends of visible rows that began before the page did. */
  async #fillTrends() {
    const { live } = this;
    if (this.at !== null || !live.history) return;
    const rows = this.table.visibleLines
      .filter((line) => !(line instanceof Group) && !line.filled && !line.gone).slice(0, 50);
    if (!rows.length) return;
    const to = Math.floor(live.time);
    const answer = await this.server.json(
      `history?ids=${rows.map(({ id }) => id).join()}&from=${to - 60}&to=${to}&points=60`);
    for (const row of rows) {
      const data = answer.series[row.id];
      if (row.gone) continue;
      if (data && answer.step === 1) live.backfill(row, answer.t, data.value ?? data.rate);
      row.filled = true;
    }
    this.table.recolor();
    this.redraw();
  }

  // Actions

  open(line) {
    if (line instanceof Group) {
      this.rows.fold(line);
      this.redraw();
    } else this.charts.toggle(line);
  }

  openChosen() {
    if (this.table.chosen) this.open(this.table.chosen);
  }

  sortBy(column) {
    this.rows.sortBy(column);
    this.#arranged();
  }

  sortNext(by) {
    const known = this.table.columns.map(({ id }) => id);
    const at = known.indexOf(this.rows.sort);
    this.sortBy(known[(at + by + known.length) % known.length]);
  }

  #arranged() {
    find("sort").value = this.rows.sort;
    this.figures.clear();
    this.table.toTop();
    this.redraw();
    this.save();
    this.#everySecond();
  }

  setFilter(text) {
    this.rows.setFilter(text);
    const error = find("filter-error");
    error.hidden = !this.rows.filterError;
    setText(error, this.rows.filterError);
    find("filter").setAttribute("aria-invalid", !!this.rows.filterError);
    this.table.toTop();
    this.redraw();
    this.save();
  }

  focusFilter() {
    find("filter").focus();
    find("filter").select();
  }

  leaveFilter() {
    this.table.grid.focus();
  }

  chooseSource(no) {
    find("source-window").close();
    const chosen = this.rows.source === no ? null : no;
    this.rows.showSource(chosen);
    this.sources.chosen = chosen;
    this.table.toTop();
    this.redraw();
    this.save();
  }

  groupBy(grouping) {
    this.rows.groupBy(grouping);
    this.#fillGroups();
    this.#arranged();
  }

  groupNext(by) {
    const groupings = this.rows.groupings();
    const at = groupings.indexOf(this.rows.grouping);
    this.groupBy(groupings[(at + by + groupings.length) % groupings.length]);
  }

  foldAll() {
    this.rows.foldAll();
    this.redraw();
  }

  #fillGroups() {
    const groupings = this.rows.groupings();
    const { grouping } = this.rows;
    if (!groupings.includes(grouping)) groupings.push(grouping);
    const select = find("group");
    const key = groupings.join("\n");
    if (select.key !== key) {
      select.key = key;
      select.replaceChildren(...groupings.map((one) =>
        make("option", { value: one ?? "" }, one === null ? "none" : visible(one.replace(/^label:/, "")))));
    }
    select.value = grouping ?? "";
  }

  setWindow(window) {
    this.window = window;
    find("window").value = window;
    this.figures.clear();
    this.redraw();
    this.save();
    this.#everySecond();
  }

  windowNext(by) {
    const at = WINDOWS.indexOf(this.window) + by;
    if (WINDOWS[at] !== undefined) this.setWindow(WINDOWS[at]);
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
    if (at >= to) this.goTo(null);
    else this.goTo(Math.max(Math.ceil(history?.from ?? time), Math.floor(at)));
  }

  /** Show what the table showed at a time; null for now. */
  async goTo(at) {
    const asked = (this.going = (this.going ?? 0) + 1);
    if (at === null) {
      this.#hold(null, null);
      return;
    }
    try {
      const frame = await this.server.frame(`table?at=${Math.round(at)}`);
      if (asked !== this.going) return;
      const state = new State();
      // Series keep the descriptions that the stream has said.
      state.apply(frame);
      for (const source of this.live.sources.values()) {
        if (!state.sources.has(source.no)) state.sources.set(source.no, source);
      }
      this.#hold(state, at);
    } catch (error) {
      this.onServer(this.connection[0], error.message);
      setText(find("chart-error"), error.message);
    }
  }

  #hold(state, at) {
    this.held = state;
    this.at = at;
    this.live.changes.reset = true;
    this.figures.clear();
    this.rows.replaced();
    this.#seriesChanged = true;
    this.charts.follow(this.state, this.#end(), at === null, true);
    this.charts.update(this.state);
    this.redraw(true);
    this.save();
    this.#everySecond();
  }

  stepBack() {
    if (this.charts.zoomed) this.charts.zoom(null);
    else if (find("filter").value) {
      find("filter").value = "";
      this.setFilter("");
    } else if (document.activeElement === find("filter")) this.leaveFilter();
    else if (this.rows.grouping) this.groupBy(null);
    else if (this.charts.all.length) this.charts.clear();
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
    const ids = rows.filter(({ kind }) => kind === "histogram").map(({ id }) => id).slice(0, MAX_LOOK);
    await this.look(ids).catch(() => {});
    save(new Blob([toCsv(state, rows, this.figures)], { type: "text/csv" }), "csv");
  }

  toggleTheme() {
    const dark = document.documentElement.dataset.theme !== "dark";
    try {
      localStorage.setItem("txmetrics-theme", dark ? "dark" : "light");
    } catch {
      // Storage may be forbidden; the choice then lasts as long as the page.
    }
    this.#setTheme(dark);
  }

  #setTheme(dark) {
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    setText(find("theme"), dark ? "Light" : "Dark");
    this.table.recolor();
    this.charts.recolor();
    this.redraw(true);
  }

  chartsChanged() {
    find("side").hidden = !this.charts.all.length;
    this.drawSpans();
    this.redraw(true);
    this.save();
  }

  drawSpans() {
    for (const button of document.querySelectorAll("[data-span]")) {
      const chosen = !this.charts.zoomed && Number(button.dataset.span) === this.charts.span;
      button.setAttribute("aria-pressed", chosen);
    }
    find("unzoom").hidden = !this.charts.zoomed;
  }

  /** Keep the state of the page in its address. */
  save() {
    if (this.link) return;
    const source = this.live.sources.get(this.rows.source);
    writeLink({
      filter: this.rows.filterText, sort: this.rows.sort, descending: this.rows.descending,
      group: this.rows.grouping, source: source?.name ?? null, window: this.window,
      range: this.charts.span, at: this.at, charts: this.charts.all,
    });
  }

  #prepare() {
    const { link } = this;
    const dark = matchMedia("(prefers-color-scheme: dark)");
    let chosen = null;
    try {
      chosen = localStorage.getItem("txmetrics-theme");
    } catch {
      // See toggleTheme.
    }
    this.#setTheme(chosen ? chosen === "dark" : dark.matches);
    dark.addEventListener("change", () => this.#setTheme(dark.matches));
    fillHelp(find("help-text"));
    find("sort").replaceChildren(...SORTS.map((sort) => make("option", { value: sort }, sort)));
    if (SORTS.includes(link.sort)) this.rows.setSort(link.sort, link.descending);
    find("sort").value = this.rows.sort;
    if (link.group) this.rows.groupBy(link.group);
    if (WINDOWS.includes(link.window)) this.window = link.window;
    find("window").value = this.window;
    if (link.range !== null) this.charts.span = link.range;
    find("filter").value = link.filter;
    this.setFilter(link.filter);
    this.drawSpans();
    const on = (id, event, action) => find(id).addEventListener(event, action);
    on("filter", "input", () => this.setFilter(find("filter").value));
    on("sort", "change", () => {
      const sort = find("sort").value;
      this.sortBy(sort);
    });
    on("group", "change", () => this.groupBy(find("group").value || null));
    on("window", "change", () => this.setWindow(Number(find("window").value)));
    on("pause", "click", () => this.togglePause());
    on("csv", "click", () => this.saveCsv());
    on("theme", "click", () => this.toggleTheme());
    on("help", "click", () => this.showHelp());
    on("unzoom", "click", () => this.charts.zoom(null));
    on("close-charts", "click", () => this.charts.clear());
    for (const button of document.querySelectorAll("[data-span]")) {
      button.addEventListener("click", () => this.charts.setSpan(Number(button.dataset.span)));
    }
    window.addEventListener("resize", () => {
      this.charts.draw();
      this.redraw(true);
    });
  }
}

// Also for the tests, and for a user's console.
globalThis.metrics = new App();

