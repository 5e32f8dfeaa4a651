/** The table. Only the rows on the screen are in the document. */

import { layOut } from "./columns.js";
import { find, make, setText } from "./dom.js";
import { HISTORY } from "./frames.js";
import { showRate, showValue } from "./numbers.js";
import { Group, PERCENTILES } from "./rows.js";
import { trendPaths } from "./spark.js";

const STALE = 30;
/** The number of rows kept above and below the visible ones. */
const MARGIN = 2;

/** Format the value or the rate of a series or a group; those of histograms are numbers of samples. */
function text(show, what, state, line, width) {
  // Different metrics, and gauges, have no sum.
  if (line.summable === false) return "";
  const number = line instanceof Group ? line[what](state) : state[what](line);
  const whole = what === "value" && line.kind !== "gauge";
  return show(number, line.kind === "histogram" ? null : line.metric.unit, { whole, width });
}

/** Format the value of a series or a group. */
export const valueText = (state, line, width = 12) => text(showValue, "value", state, line, width);

function percentileText(number, isPartial, line) {
  if (line.kind !== "histogram") return "";
  return number == null ? "–" : showValue(number, line.metric.unit, { width: 9 }) + (isPartial ? "*" : "");
}

export class Table {
  /** @param {import("./app.js").App} app */
  constructor(app) {
    this.app = app;
    /** The chosen series or group. */
    this.chosen = null;
    this.grid = find("grid");
    this.head = find("head");
    /** Its rows have the properties `line`, the series or group that they show, and `cells`. */
    this.body = find("body");
    this.grid.addEventListener("scroll", () => app.redraw(), { passive: true });
    this.body.addEventListener("click", ({ target }) => {
      // It is between rows if the mouse moved to another one.
      const line = target.closest("[role=row]")?.line;
      if (!line) return;
      this.choose(app.rows.lines.indexOf(line));
      app.open(line);
    });
  }

  #layout = layOut(0, {});
  #layoutKey = "";
  #at = -1;
  #trend = new Float64Array(HISTORY);
  /** The second whose trends are drawn. */
  second = null;

  /** The series and groups on the screen, and a few near it. */
  get present() {
    return Array.from(this.body.children, ({ line }) => line);
  }

  get #height() {
    return this.grid.clientHeight - this.head.offsetHeight;
  }

  get pageSize() {
    return Math.floor(this.#height / this.#layout.rowHeight) - 1;
  }

  draw(state) {
    const { lines, lengths } = this.app.rows;
    this.#arrange(layOut(this.grid.clientWidth, { ...lengths, histograms: state.histograms, sources: state.sources.size }));
    const { rowHeight } = this.#layout;
    this.grid.ariaRowCount = lines.length + 1;
    this.body.style.height = `${lines.length * rowHeight}px`;
    if (this.chosen && lines[this.#at] !== this.chosen) this.#findChosen(lines);
    const { children } = this.body;
    const size = Math.min(lines.length, Math.ceil(this.grid.clientHeight / rowHeight) + 2 * MARGIN);
    while (children.length > size) this.body.lastChild.remove();
    while (children.length < size) this.body.append(this.#makeRow());
    const first = Math.max(0, Math.min(Math.floor(this.grid.scrollTop / rowHeight) - MARGIN, lines.length - size));
    const trends = this.second !== state.second;
    this.second = state.second;
    for (let at = first; at < first + size; at++) this.#fill(children[at % size], lines[at], at, state, trends);
    const chosen = [...children].find(({ line }) => line === this.chosen);
    this.grid.setAttribute("aria-activedescendant", chosen?.id ?? "");
  }

  /** Choose the line `by` places further down. */
  move(by) {
    this.choose(this.#at + by);
  }

  /** Choose the line at a place, or the one nearest to it. */
  choose(at) {
    const { lines } = this.app.rows;
    this.#at = Math.max(0, Math.min(at, lines.length - 1));
    this.chosen = lines[this.#at] ?? null;
    const { rowHeight } = this.#layout;
    const top = this.#at * rowHeight;
    this.grid.scrollTop = Math.max(top + rowHeight - this.#height, Math.min(top, this.grid.scrollTop));
    this.app.redraw();
  }

  /** Find the chosen line in other lines, also if it is another object after a restart. */
  #findChosen(lines) {
    const { key, sortKey, kind } = this.chosen;
    this.#at = lines.findIndex((line) => line.key === key && line.sortKey === sortKey && line.kind === kind);
    this.chosen = lines[this.#at] ?? null;
  }

  #arrange(layout) {
    const { columns, compact, template } = this.#layout = layout;
    const { sort, descending } = this.app.rows;
    const key = `${columns} ${template} ${sort} ${descending}`;
    if (key === this.#layoutKey) return;
    this.#layoutKey = key;
    this.grid.style.setProperty("--columns", template);
    this.grid.classList.toggle("compact", compact);
    this.grid.ariaColCount = columns.length;
    this.body.replaceChildren();
    this.head.replaceChildren(...columns.map((id) => make("div", {
      role: "columnheader",
      class: `cell ${id}`,
      ariaSort: id !== sort ? "none" : descending ? "descending" : "ascending",
      onclick: () => this.app.set("sort", id),
    }, id === "trend" && !compact ? "trend, 60 s" : id)));
    find("sort").replaceChildren(...columns.map((id) => new Option(id, id, false, id === sort)));
  }

  #makeRow() {
    const cells = {};
    for (const id of this.#layout.columns) cells[id] = make("div", { role: "gridcell", class: `cell ${id}` });
    cells.name.append(make("span", { class: "mark" }), make("span", { class: "text" }));
    cells.trend?.append(find("trend").content.cloneNode(true));
    const row = make("div", { role: "row", id: `row-${this.body.children.length}` }, ...Object.values(cells));
    return Object.assign(row, { cells });
  }

  #fill(row, line, at, state, trends) {
    const { app } = this;
    const { cells } = row;
    const { kind } = line;
    const isGroup = line instanceof Group;
    const fresh = row.line !== line;
    if (fresh) {
      row.line = line;
      const { metric, shown = line.title, shownLabels = [] } = line;
      const [mark, text] = cells.name.children;
      setText(mark, !isGroup ? kind[0].toUpperCase() : line.folded ? "▸" : "▾");
      mark.title = kind ?? "";
      setText(text, shown);
      cells.name.title = metric.help ? `${shown}: ${metric.help}` : shown;
      if (cells.labels) {
        cells.labels.replaceChildren(...isGroup ? [`${line.rows.length.toLocaleString("en")} series`]
          : shownLabels.flatMap(([label, value]) => [make("span", { class: "label" }, `${label}=`), `${value} `]));
        cells.labels.title = cells.labels.textContent;
      }
    }
    if (cells.source) setText(cells.source, state.sources.get(line.source)?.brief ?? "");
    row.style.transform = `translateY(${at * this.#layout.rowHeight}px)`;
    row.ariaRowIndex = at + 2;
    row.ariaSelected = line === this.chosen;
    const chosen = line === this.chosen ? "chosen" : "";
    const charted = app.charts.has(line) ? "charted" : "";
    const stale = !isGroup && state.age(line) > STALE ? "stale" : "";
    row.className = `row ${isGroup ? "group" : kind} ${chosen} ${charted} ${stale}`;
    setText(cells.value, valueText(state, line));
    if (cells.rate) setText(cells.rate, text(showRate, "rate", state, line, 11));
    const figures = app.figures(line);
    for (const id of PERCENTILES) if (cells[id]) setText(cells[id], percentileText(figures?.[id], figures?.partial, line));
    if (!cells.trend || !trends && !fresh) return;
    const trend = isGroup ? [] : state.trend(line, this.#trend);
    const pictures = cells.trend.querySelectorAll("path");
    trendPaths(trend, kind !== "gauge").forEach((path, part) => pictures[part].setAttribute("d", path));
  }
}
