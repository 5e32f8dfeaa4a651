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
const STEADY = new Set(["name", "labels", "source", "kind"]);

/** The order of texts by code units, which all natural keys are made for. */
export const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

/**
 * Return rows in the order of numbers, and those of equal numbers in their present order. It is
 * several times faster than a sort that calls a function to compare two rows.
 */
function inOrder(rows, numbers) {
  const sorted = numbers.toSorted();
  const taken = new Uint32Array(sorted.length);
  const result = new Array(sorted.length);
  rows.forEach((row, at) => {
    let first = 0;
    let last = sorted.length - 1;
    while (first < last) {
      const middle = (first + last) >> 1;
      if (sorted[middle] < numbers[at]) first = middle + 1;
      else last = middle;
    }
    result[first + taken[first]++] = row;
  });
  return result;
}

/**
 * The line above a group of series. Different metrics, such as packets and errors, have no sum.
 */
export class Group {
  constructor(title, rows, folded) {
    this.title = title;
    this.rows = rows;
    this.folded = folded;
    const [first] = rows;
    const { kind, name } = first;
    this.summable = kind !== "gauge" &&
      rows.every((row) => row.kind === kind && row.name === name && row.metric.unit === first.metric.unit);
    this.kind = this.summable ? kind : null;
    this.unit = this.summable ? first.metric.unit : null;
    this.key = `group ${title}`;
  }

  /** The sum of the values, exact from 2^53 on. */
  value(state) {
    let sum = 0;
    for (const row of this.rows) sum += state.values[row.slot];
    if (sum < Number.MAX_SAFE_INTEGER) return sum;
    return this.rows.reduce((total, row) => total + BigInt(state.value(row)), 0n);
  }

  rate(state) {
    let sum = 0;
    for (const row of this.rows) sum += state.rate(row);
    return sum;
  }
}

export class Rows {
  constructor() {
    this.lines = [];
    /** The series that match, sorted, including those of folded groups. */
    this.matching = [];
    this.filterText = "";
    this.filterError = "";
    this.sort = "name";
    this.descending = false;
    /** null, or "name", or "label:NAME". */
    this.grouping = null;
    this.folded = new Set();
    /** The number of the only source that is listed; null for all. */
    this.source = null;
    /** The largest numbers of characters of names and labels. */
    this.lengths = { name: 0, labels: 0 };
    /** The figures of histograms by id, for sorting by a percentile. */
    this.figures = new Map();
    this.#filter = () => true;
    this.#dirty = true;
  }

  #filter;
  #dirty;
  #refilter = true;
  #arranged = -Infinity;
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
    if (column === this.sort) this.descending = !this.descending;
    else {
      this.sort = column;
      this.descending = !STEADY.has(column);
    }
    this.#dirty = true;
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
    const titles = this.lines.filter((line) => line instanceof Group).map((group) => group.title);
    const all = titles.every((title) => this.folded.has(title));
    this.folded = new Set(all ? [] : titles);
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

  /** The groupings that exist: none, by name, and by each of the most common labels. */
  groupings() {
    const labels = [...this.#labels].sort((a, b) => b[1] - a[1]).slice(0, MAX_GROUPINGS);
    return [null, "name", ...labels.map(([label]) => `label:${label}`).sort()];
  }

  /**
   * Follow the state.
   * @returns {boolean} whether the lines changed
   */
  update(state, now) {
    const { reset, added, gone } = state.takeChanges();
    if (reset || this.#refilter) {
      this.#refilter = false;
      this.#labels.clear();
      this.#take([...state.series.values()], []);
    } else if (added.length || gone) {
      this.#take(added.filter((row) => !row.gone), gone ? this.#named.filter((row) => !row.gone) : this.#named);
    }
    if (!this.#dirty) {
      const moves = !STEADY.has(this.sort);
      if (!moves || now < this.#arranged + REARRANGE) return false;
    }
    this.#dirty = false;
    this.#arranged = now;
    this.#arrange(state);
    return true;
  }

  #take(added, kept) {
    for (const row of added) {
      for (const [label] of row.labels) this.#labels.set(label, (this.#labels.get(label) ?? 0) + 1);
    }
    const wanted = added.filter((row) =>
      (this.source === null || row.source === this.source) && this.#filter(row));
    if (!kept.length) this.lengths = { name: 0, labels: 0 };
    for (const { shown, shownLabels } of wanted) {
      const labels = shownLabels.reduce((sum, pair) => sum + pair[0].length + pair[1].length + 2, 0);
      if (shown.length > this.lengths.name) this.lengths.name = shown.length;
      if (labels > this.lengths.labels) this.lengths.labels = labels;
    }
    this.#named = kept.concat(wanted);
    if (wanted.length) this.#named.sort((a, b) => compare(a.sortKey, b.sortKey));
    this.#dirty = true;
  }

  #arrange(state) {
    this.matching = this.#sorted(state);
    this.lines = this.grouping ? this.#grouped(state) : this.matching;
  }

  #sorted(state) {
    const rows = this.#named;
    if (this.sort === "name") return this.descending ? rows.toReversed() : rows;
    const key = this.#keys(state);
    const sign = this.descending ? -1 : 1;
    if (STEADY.has(this.sort)) {
      const keys = new Map(rows.map((row) => [row, key(row)]));
      return rows.toSorted((a, b) => sign * compare(keys.get(a), keys.get(b)));
    }
    // Rows without a number come last.
    const known = [];
    const unknown = [];
    const numbers = new Float64Array(rows.length);
    for (const row of rows) {
      const number = sign * key(row);
      if (Number.isNaN(number)) unknown.push(row);
      else numbers[known.push(row) - 1] = number;
    }
    return inOrder(known, numbers.subarray(0, known.length)).concat(unknown);
  }

  #keys(state) {
    const scales = new Map();
    const scale = ({ kind, metric: { unit } }) => {
      if (kind === "histogram") return 1;
      let known = scales.get(unit);
      if (known === undefined) scales.set(unit, (known = baseScale(unit)));
      return known;
    };
    switch (this.sort) {
      case "labels": return (row) => row.shownLabels.map((pair) => pair.map(naturalKey).join("=")).join(" ");
      case "source": return (row) => state.sources.get(row.source)?.name ?? "";
      case "kind": return (row) => row.kind;
      case "value": return (row) => state.values[row.slot] * scale(row);
      case "rate": return (row) => state.rate(row) * scale(row);
      case "trend": return (row) => -state.age(row);
      default: return (row) => {
        const number = this.figures.get(row.id)?.[this.sort];
        return number == null ? NaN : number * baseScale(row.metric.unit);
      };
    }
  }

  #grouped(state) {
    const members = new Map();
    const label = this.grouping.startsWith("label:") ? this.grouping.slice(6) : null;
    for (const row of this.matching) {
      let title = row.shown;
      if (label !== null) {
        const pair = row.labels.find(([name]) => name === label);
        title = pair ? visible(`${label}=${pair[1]}`) : `without ${visible(label)}`;
      }
      if (members.has(title)) members.get(title).push(row);
      else members.set(title, [row]);
    }
    const groups = [...members].map(([title, rows]) => new Group(title, rows, this.folded.has(title)));
    const keys = new Map(groups.map((group) => [group, naturalKey(group.title)]));
    const sign = this.descending ? -1 : 1;
    groups.sort((a, b) => compare(keys.get(a), keys.get(b)));
    if (this.sort === "name" && this.descending) groups.reverse();
    if (this.sort === "value" || this.sort === "rate") {
      const sums = new Map(groups.map((group) =>
        [group, group.summable ? Number(group[this.sort](state)) * baseScale(group.kind === "counter" ? group.unit : null) : null]));
      groups.sort((a, b) => {
        const [first, second] = [sums.get(a), sums.get(b)];
        return (first === null) - (second === null) || sign * (first - second);
      });
    }
    return groups.flatMap((group) => (group.folded ? [group] : [group, ...group.rows]));
  }
}
