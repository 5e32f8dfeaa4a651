/** The listed lines: filtering, sorting and grouping. Does not touch the document. */

import { parseFilter } from "./filter.js";
import { baseScale } from "./numbers.js";
import { naturalKey, visible } from "./text.js";

/** The least time in ms between sorts by a changing number. */
const REARRANGE = 1000;
const MAX_GROUPINGS = 12;
/** The largest number of series whose percentiles are compared; the server's limit of a request. */
export const MAX_LOOK = 2000;
export const PERCENTILES = ["p50", "p90", "p99", "max"];
/** The columns whose texts never change. */
const STEADY = new Set(["name", "labels", "source"]);

/** The factor that makes the values of lines comparable; those of histograms are counts. */
const scale = ({ kind, metric }) => (kind === "histogram" ? 1 : baseScale(metric.unit));

/** What columns are sorted by, of a series and the state; other columns have percentiles. */
const KEYS = {
  // A link may have any word.
  __proto__: null,
  name: (row) => row.sortKey,
  labels: (row) => naturalKey(row.labelText),
  source: (row, state) => state.sources.get(row.source)?.name ?? "",
  value: (row) => row.value * scale(row),
  rate: (row, state) => state.rate(row) * scale(row),
  trend: (row, state) => -state.age(row),
};

/**
 * Return lines in the order of their keys, which are texts or numbers, and those of equal keys in
 * their present order. Lines without a number come last.
 */
function ordered(lines, key, descending = false) {
  const sign = descending ? -1 : 1;
  const keys = lines.map(key);
  const [known, unknown] = [[], []];
  keys.forEach((one, at) => (Number.isNaN(one) ? unknown : known).push(at));
  known.sort((a, b) => (keys[a] < keys[b] ? -sign : keys[a] > keys[b] ? sign : 0));
  return [...known, ...unknown].map((at) => lines[at]);
}

/** The line above a group of series. Different metrics, such as packets and errors, have no sum. */
export class Group {
  constructor(title, rows, folded) {
    this.title = title;
    this.rows = rows;
    this.folded = folded;
    const [{ kind, metric }] = rows;
    this.summable = kind !== "gauge" && rows.every((row) => row.metric === metric);
    this.kind = this.summable ? kind : null;
    this.metric = metric;
    this.key = `group ${title}`;
  }

  /** The sum of the values, exact from 2^53 on. */
  value(state) {
    const sum = this.rows.reduce((total, row) => total + row.value, 0);
    if (sum < Number.MAX_SAFE_INTEGER) return sum;
    return this.rows.reduce((total, row) => total + BigInt(state.value(row)), 0n);
  }

  rate(state) {
    return this.rows.reduce((total, row) => total + state.rate(row), 0);
  }
}

export class Rows {
  lines = [];
  /** The series that match, sorted, including those of folded groups. */
  matching = [];
  filterText = "";
  filterError = "";
  sort = "name";
  descending = false;
  /** null, or "name", or "label:NAME". */
  grouping = null;
  folded = new Set();
  /** The number of the only source that is listed; null for all. */
  source = null;
  /** The largest numbers of characters of names and labels. */
  lengths = { name: 0, labels: 0 };
  /** The figures of histograms by series, for sorting by a percentile, and those of groups by key. */
  figures = new Map();

  #filter = () => true;
  #refilter = true;
  #dirty = true;
  #arranged = 0;
  /** The number of series of each label. */
  #labels = new Map();
  /** The series that match, in the order of their names. */
  #named = [];

  /** Show the series that match. An invalid filter leaves the last one in force. */
  setFilter(text) {
    this.filterText = text.trim();
    this.filterError = "";
    try {
      this.#filter = parseFilter(text);
      this.#refilter = true;
    } catch (error) {
      this.filterError = error.message;
    }
  }

  sortBy(column) {
    this.setSort(column, column === this.sort ? !this.descending : !STEADY.has(column));
  }

  setSort(column, descending) {
    this.sort = column;
    this.descending = descending;
    this.#dirty = true;
  }

  groupBy(grouping) {
    this.grouping = grouping;
    this.folded.clear();
    this.#dirty = true;
  }

  fold(group) {
    if (!this.folded.delete(group.title)) this.folded.add(group.title);
    this.#dirty = true;
  }

  foldAll() {
    // Only groups have a title.
    const titles = this.lines.flatMap(({ title }) => title ?? []);
    this.folded = new Set(titles.every((title) => this.folded.has(title)) ? [] : titles);
    this.#dirty = true;
  }

  showSource(no) {
    this.source = no;
    this.#refilter = true;
  }

  /** The state is another one. */
  replaced() {
    this.#refilter = true;
  }

  /** The groupings that exist: none, by name, by each of the most common labels, and the present one. */
  groupings() {
    const labels = [...this.#labels].sort((a, b) => b[1] - a[1]).slice(0, MAX_GROUPINGS);
    return [...new Set([null, "name", ...labels.map(([label]) => `label:${label}`).sort(), this.grouping])];
  }

  /** Follow the state. */
  update(state, now) {
    const { reset, added, gone } = state.takeChanges();
    if (reset || this.#refilter) {
      this.#refilter = false;
      this.#labels.clear();
      this.#take([...state.series.values()], []);
    } else if (added.length || gone) this.#take(added, this.#named);
    if (!this.#dirty && (STEADY.has(this.sort) || now < this.#arranged + REARRANGE)) return;
    this.#dirty = false;
    this.#arranged = now;
    const key = KEYS[this.sort] ?? ((row) => (this.figures.get(row)?.[this.sort] ?? NaN) * baseScale(row.metric.unit));
    this.matching = ordered(this.#named, (row) => key(row, state), this.descending);
    this.lines = this.grouping ? this.#grouped(state) : this.matching;
  }

  #take(added, kept) {
    for (const [label] of added.flatMap(({ labels }) => labels)) {
      this.#labels.set(label, (this.#labels.get(label) ?? 0) + 1);
    }
    const wanted = added.filter((row) => row.source === (this.source ?? row.source) && this.#filter(row));
    this.#named = ordered([...kept, ...wanted].filter(({ gone }) => !gone), KEYS.name);
    const longest = (text) => this.#named.reduce((most, row) => Math.max(most, row[text].length), 0);
    this.lengths = { name: longest("shown"), labels: longest("labelText") };
    this.#dirty = true;
  }

  #grouped(state) {
    const label = this.grouping.replace(/^label:/, "");
    const titleOf = (row) => {
      if (this.grouping === "name") return row.shown;
      const pair = row.labels.find(([name]) => name === label);
      return visible(pair ? `${label}=${pair[1]}` : `without ${label}`);
    };
    let groups = Array.from(Map.groupBy(this.matching, titleOf),
      ([title, rows]) => new Group(title, rows, this.folded.has(title)));
    groups = ordered(groups, ({ title }) => naturalKey(title), this.sort === "name" && this.descending);
    if (this.sort === "value" || this.sort === "rate") {
      const sum = (group) => (group.summable ? Number(group[this.sort](state)) * scale(group) : NaN);
      groups = ordered(groups, sum, this.descending);
    }
    return groups.flatMap((group) => (group.folded ? [group] : [group, ...group.rows]));
  }
}
