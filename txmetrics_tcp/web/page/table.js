/** The table. Only the rows on the screen are in the document. */

import { layOut } from "./columns.js";
import { find, make, setText } from "./dom.js";
import { HISTORY } from "./frames.js";
import { showRate, showValue } from "./numbers.js";
import { Group, PERCENTILES } from "./rows.js";
import { drawTrend } from "./spark.js";

const STALE = 30;
/** The number of rows kept above and below the visible ones. */
const MARGIN = 2;

/** Format the value of a series or a group. */
export function valueText(state, line, width = 12) {
  const whole = line.kind !== "gauge";
  const unit = line.kind === "histogram" ? null : line.unit ?? line.metric?.unit;
  const value = line instanceof Group ? line.value(state) : state.value(line);
  return showValue(value, unit, { whole, width });
}

export function rateText(state, line, width = 11) {
  const unit = line.kind === "histogram" ? null : line.unit ?? line.metric?.unit;
  const rate = line instanceof Group ? line.rate(state) : state.rate(line);
  return showRate(rate, unit, { width });
}

const briefName = ({ brief, name }) => brief ?? name;

export class Table {
  /**
   * @param {import("./rows.js").Rows} rows
   * @param {{onSort: Function, onOpen: Function, isCharted: Function, figures: Function}} hooks
   */
  constructor(rows, hooks) {
    this.rows = rows;
    this.hooks = hooks;
    this.chosen = null;
    this.grid = find("grid");
    this.head = find("head");
    this.body = find("body");
    this.#layout = layOut(0, {});
    this.grid.addEventListener("scroll", () => this.hooks.redraw(), { passive: true });
    new ResizeObserver(() => this.hooks.redraw()).observe(this.grid);
    this.body.addEventListener("click", (event) => {
      const element = event.target.closest("[role=row]");
      if (element?.line) {
        this.choose(this.rows.lines.indexOf(element.line));
        this.hooks.onOpen(element.line);
      }
    });
  }

  #layout;
  #layoutKey = "";
  #several = false;
  #pool = [];
  #state = null;
  #at = 0;
  #trend = new Float64Array(HISTORY);
  #second = null;
  #colors = {};
  #first = 0;
  #last = 0;

  /** The lines on the screen. */
  get visibleLines() {
    return this.rows.lines.slice(this.#first, this.#last);
  }

  get pageSize() {
    return Math.max(1, Math.floor((this.grid.clientHeight - this.head.offsetHeight) / this.#layout.rowHeight) - 1);
  }

  get columns() {
    return this.#layout.columns;
  }

  /** The theme changed. */
  recolor() {
    const style = getComputedStyle(document.documentElement);
    for (const kind of ["counter", "gauge", "histogram"]) {
      this.#colors[kind] = style.getPropertyValue(`--${kind}`).trim();
    }
    this.#second = null;
  }

  /** Draw what has changed. */
  draw(state, linesChanged) {
    this.#state = state;
    const layout = layOut(this.grid.clientWidth, {
      histograms: state.histograms > 0, source: this.#sourceLength(state), ...this.rows.lengths,
    });
    const several = state.sources.size > 1;
    const key = `${layout.columns.map(({ id }) => id).join()} ${layout.compact && several}`;
    if (layout.template !== this.#layout.template || !this.#layoutKey) {
      this.grid.style.setProperty("--columns", layout.template);
    }
    this.#layout = layout;
    if (key !== this.#layoutKey) this.#rebuild(key, several);
    this.#drawTitles();
    const { lines } = this.rows;
    if (linesChanged) {
      this.#followChosen();
      this.grid.setAttribute("aria-rowcount", lines.length + 1);
      const height = `${lines.length * layout.rowHeight}px`;
      if (this.body.style.height !== height) this.body.style.height = height;
    }
    const top = this.grid.scrollTop;
    const shown = Math.ceil(this.grid.clientHeight / layout.rowHeight);
    this.#first = Math.max(0, Math.min(Math.floor(top / layout.rowHeight), lines.length - shown));
    this.#last = Math.min(lines.length, this.#first + shown);
    const first = Math.max(0, this.#first - MARGIN);
    const last = Math.min(lines.length, this.#last + MARGIN);
    const size = shown + 2 * MARGIN;
    while (this.#pool.length < size) this.#pool.push(this.#makeRow());
    const trends = this.#second !== state.second;
    this.#second = state.second;
    const used = new Set();
    for (let index = first; index < last; index++) {
      const row = this.#pool[index % this.#pool.length];
      used.add(row);
      this.#fill(row, lines[index], index, trends);
    }
    for (const row of this.#pool) {
      if (!used.has(row) && row.line) {
        row.line = null;
        row.element.hidden = true;
        row.element.line = null;
      }
    }
    if (this.chosen) this.grid.setAttribute("aria-activedescendant", `row-${this.#at % this.#pool.length}`);
    else this.grid.removeAttribute("aria-activedescendant");
  }

  /** Choose the line `by` places further down. */
  move(by) {
    const { lines } = this.rows;
    if (!lines.length) return;
    const at = this.chosen ? this.#at + by : by < 0 ? 0 : this.#first;
    this.choose(Math.max(0, Math.min(lines.length - 1, at)));
  }

  choose(index) {
    const line = this.rows.lines[index];
    if (!line) return;
    this.chosen = line;
    this.#at = index;
    const { rowHeight } = this.#layout;
    const room = this.grid.clientHeight - this.head.offsetHeight;
    const top = index * rowHeight;
    if (top < this.grid.scrollTop) this.grid.scrollTop = top;
    else if (top + rowHeight > this.grid.scrollTop + room) this.grid.scrollTop = top + rowHeight - room;
    this.hooks.redraw();
  }

  /** Scroll to the first line. */
  toTop() {
    this.grid.scrollTop = 0;
  }

  #followChosen() {
    if (!this.chosen) return;
    const { lines } = this.rows;
    const same = (line) => line === this.chosen ||
      (line instanceof Group ? line.key === this.chosen.key
        : !(this.chosen instanceof Group) && line.sortKey === this.chosen.sortKey && line.kind === this.chosen.kind);
    const at = same(lines[this.#at] ?? {}) ? this.#at : lines.findIndex(same);
    this.chosen = at < 0 ? null : lines[at];
    this.#at = Math.max(0, at);
  }

  /** The largest number of characters of sources; 0 if there is only one. */
  #sourceLength({ sources }) {
    if (sources.size < 2) return 0;
    return Math.max(...[...sources.values()].map((source) => briefName(source).length));
  }

  #rebuild(key, several) {
    this.#layoutKey = key;
    this.#several = several;
    for (const row of this.#pool) row.element.remove();
    this.#pool = [];
    this.grid.classList.toggle("compact", this.#layout.compact);
    this.grid.setAttribute("aria-colcount", this.#layout.columns.length);
    this.head.replaceChildren(...this.#layout.columns.map(({ id, title, number }) =>
      make("div", { role: "columnheader", class: `cell ${id}${number ? " number" : ""}` },
        make("button", { type: "button", tabIndex: -1, onclick: () => this.hooks.onSort(id) }, title))));
  }

  #drawTitles() {
    this.#layout.columns.forEach(({ id }, at) => {
      const title = this.head.children[at];
      const order = id === this.rows.sort ? (this.rows.descending ? "descending" : "ascending") : "none";
      if (title.getAttribute("aria-sort") !== order) title.setAttribute("aria-sort", order);
    });
  }

  #makeRow() {
    const cells = {};
    const element = make("div", { role: "row", class: "row", id: `row-${this.#pool.length}` });
    for (const { id, number } of this.#layout.columns) {
      const cell = make("div", { role: "gridcell", class: `cell ${id}${number ? " number" : ""}` });
      cells[id] = cell;
      element.append(cell);
      if (id === "name") {
        cells.mark = make("span", { class: "mark" });
        cells.text = make("span", { class: "text" });
        cell.append(cells.mark, cells.text);
        if (this.#layout.compact) {
          cells.labels = make("span", { class: "labels" });
          cell.append(cells.labels);
          if (this.#several) {
            cells.source = make("span", { class: "source" });
            cell.append(cells.source);
          }
        }
      }
      if (id === "trend") {
        cells.canvas = make("canvas", { "aria-hidden": "true" });
        cell.append(cells.canvas);
      }
      if (this.#layout.compact && id === "value") {
        cells.value = make("span", {});
        cells.rate = make("span", { class: "rate" });
        cell.append(cells.value, cells.rate);
      }
    }
    this.body.append(element);
    return { element, cells, line: null, index: -1 };
  }

  #fill(row, line, index, trends) {
    const { element, cells } = row;
    const isGroup = line instanceof Group;
    const fresh = row.line !== line;
    if (row.index !== index || row.height !== this.#layout.rowHeight) {
      row.index = index;
      row.height = this.#layout.rowHeight;
      element.style.transform = `translateY(${index * row.height}px)`;
      element.setAttribute("aria-rowindex", index + 2);
    }
    if (fresh) {
      row.line = line;
      element.line = line;
      element.hidden = false;
      this.#describe(cells, line, isGroup);
    }
    const charted = !isGroup && this.hooks.isCharted(line);
    const chosen = line === this.chosen;
    const state = this.#state;
    const kind = isGroup ? `group${line.folded ? " folded" : ""}` : line.kind;
    const stale = !isGroup && state.age(line) > STALE;
    const names = `row ${kind}${chosen ? " chosen" : ""}${charted ? " charted" : ""}${stale ? " stale" : ""}`;
    if (element.className !== names) {
      element.className = names;
      element.setAttribute("aria-selected", chosen);
    }
    const known = !isGroup || line.summable;
    setText(cells.value, known ? valueText(state, line) : "");
    if (cells.rate) setText(cells.rate, known ? rateText(state, line) : "");
    const figures = line.kind === "histogram" ? this.hooks.figures(line) : null;
    for (const name of PERCENTILES) {
      if (!cells[name]) continue;
      const number = figures?.[name];
      const unit = line.unit ?? line.metric?.unit;
      const text = line.kind !== "histogram" ? "" : number == null ? "–"
        : showValue(number, unit, { width: 9 }) + (figures.partial ? "*" : "");
      setText(cells[name], text);
    }
    if (cells.canvas && (trends || fresh)) {
      if (isGroup) cells.canvas.getContext("2d").clearRect(0, 0, 9999, 99);
      else drawTrend(cells.canvas, state.trend(line, this.#trend), line.kind !== "gauge", this.#colors[line.kind], this.#layout.trend);
    }
  }

  #describe(cells, line, isGroup) {
    if (isGroup) {
      setText(cells.mark, line.folded ? "▸" : "▾");
      setText(cells.text, line.title);
      cells.name.title = line.title;
      if (cells.labels) this.#showLabels(cells.labels, [["", `${line.rows.length.toLocaleString("en")} series`]]);
      if (cells.source) setText(cells.source, "");
      return;
    }
    setText(cells.mark, line.kind[0].toUpperCase());
    cells.mark.title = line.kind;
    setText(cells.text, line.shown);
    cells.name.title = line.metric.help ? `${line.shown}: ${line.metric.help}` : line.shown;
    if (cells.labels) {
      this.#showLabels(cells.labels, line.shownLabels);
      cells.labels.title = line.shownLabels.map((pair) => pair.join("=")).join(" ");
    }
    if (cells.source) {
      const source = this.#state.sources.get(line.source);
      setText(cells.source, source ? briefName(source) : "");
      cells.source.title = source?.name ?? "";
    }
  }

  /** Set the text of labels in the elements that are there. */
  #showLabels(cell, pairs) {
    while (cell.children.length < 2 * pairs.length) {
      cell.append(make("span", { class: "label" }), make("span"));
    }
    [...cell.children].forEach((part, at) => {
      const pair = pairs[at >> 1];
      setText(part, !pair ? "" : at % 2 ? `${pair[1]} ` : pair[0] && `${pair[0]}=`);
    });
  }
}
