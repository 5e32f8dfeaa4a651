/**
 * The state of all series, kept up to date by binary frames from the server.
 *
 * A frame is `u32 total, u32 headLen, u32 k, u32 version`, a JSON head of `headLen` bytes with padding,
 * k numbers of series (u32) and k values (f64), little endian.
 */

import { naturalKey, visible } from "./text.js";

const HEADER = 16;
/** The number of seconds that trends cover. */
export const HISTORY = 60;
const KEPT = HISTORY + 4;
const RATE_WINDOW = 10;
const MAX_FRAME = 1 << 28;
const MAX_TEXTS = 10000;

/** Splits a stream of bytes into frames. */
export class FrameReader {
  #parts = [];
  #length = 0;
  #wanted = 4;

  /**
   * @param {Uint8Array} bytes
   * @returns {Uint8Array[]} the frames that are complete now
   */
  push(bytes) {
    this.#parts.push(bytes);
    this.#length += bytes.length;
    const frames = [];
    while (this.#length >= this.#wanted) {
      const all = this.#joined();
      const total = new DataView(all.buffer, all.byteOffset).getUint32(0, true);
      if (total < HEADER || total > MAX_FRAME) throw new RangeError(`a frame of ${total} bytes`);
      if (all.length < total) {
        this.#wanted = total;
        break;
      }
      frames.push(all.subarray(0, total));
      this.#parts = [all.subarray(total)];
      this.#length -= total;
      this.#wanted = 4;
    }
    return frames;
  }

  #joined() {
    if (this.#parts.length === 1) return this.#parts[0];
    const all = new Uint8Array(this.#length);
    let at = 0;
    for (const part of this.#parts) {
      all.set(part, at);
      at += part.length;
    }
    this.#parts = [all];
    return all;
  }
}

/**
 * Decode a frame.
 * @param {Uint8Array} bytes
 * @returns {{head: object, version: number, ids: Uint32Array, values: Float64Array}}
 */
export function decodeFrame(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const headLength = view.getUint32(4, true);
  const count = view.getUint32(8, true);
  const head = JSON.parse(new TextDecoder().decode(bytes.subarray(HEADER, HEADER + headLength)));
  // Copies are aligned, and do not keep a whole chunk of the stream alive.
  const first = HEADER + headLength;
  const ids = new Uint32Array(bytes.slice(first, first + 4 * count).buffer);
  const second = first + 4 * count;
  const values = new Float64Array(bytes.slice(second, second + 8 * count).buffer);
  return { head, version: view.getUint32(12, true), ids, values };
}

/**
 * A series.
 * @typedef {object} Series
 * @property {number} id its number on the server
 * @property {number} slot its place in arrays
 * @property {string} kind
 * @property {string} name
 * @property {string[][]} labels pairs of label name and value
 * @property {number} source the number of its source
 * @property {object} metric kind, name, unit and help, common to all series of the metric
 */

/** All series with their values and the last minute of each. */
export class State {
  constructor() {
    this.reset();
  }

  reset() {
    this.epoch = null;
    this.time = 0;
    this.history = null;
    /** @type {Map<number, Series>} */
    this.series = new Map();
    this.sources = new Map();
    this.notes = [];
    this.changes = { reset: true, added: [], gone: 0 };
    this.histograms = 0;
    this.values = new Float64Array(0);
    this.#metrics = new Map();
    this.#names = new Map();
    this.#big = new Map();
    this.#texts = new Map();
    this.#bases = new Float64Array(0);
    this.#since = new Float64Array(0);
    this.#changed = new Float64Array(0);
    this.#columns = Array.from({ length: KEPT }, () => new Float64Array(0));
    this.#slots = 0;
    this.#free = [];
    this.#second = null;
  }

  #metrics;
  #names;
  #big;
  #texts;
  #bases;
  // The second from which on a slot's values were seen.
  #since;
  // When a slot's value changed last.
  #changed;
  // The value of each slot at the end of a second, by the second modulo their number. Values of
  // counters and histograms are corrected when their base changes.
  #columns;
  #slots;
  #free;
  #second;

  /** The current second. */
  get second() {
    return this.#second;
  }

  /**
   * Apply a frame.
   * @param {ReturnType<typeof decodeFrame>} frame
   */
  apply({ head, ids, values }) {
    if (head.whole) {
      const { notes, sources } = this;
      const same = head.epoch === this.epoch;
      this.reset();
      this.epoch = head.epoch;
      if (same) Object.assign(this, { notes, sources });
    }
    this.#advance(head.t);
    this.time = head.t;
    if (head.history) this.history = head.history;
    for (const source of head.sources ?? []) this.#setSource(source);
    for (const [no, kind, name, unit, help] of head.metrics ?? []) {
      const text = { kind, name, shown: visible(name), unit: unit && visible(unit).slice(0, 40), help: visible(help ?? "") };
      this.#metrics.set(no, Object.assign(this.#metrics.get(no) ?? {}, text));
    }
    for (const [no, names] of head.names ?? []) this.#names.set(no, names);
    for (const id of head.gone ?? []) this.#remove(id);
    const needed = this.#slots + (head.series?.length ?? 0);
    if (needed > this.values.length) this.#grow(Math.max(64, Math.ceil(needed * 1.25)));
    for (const entry of head.series ?? []) this.#add(entry, head);
    for (const [id, base] of Object.entries(head.base ?? {})) this.#setBase(Number(id), base);
    this.#setValues(ids, values, head);
    for (const [id, text] of Object.entries(head.big ?? {})) {
      const series = this.series.get(Number(id));
      if (series) this.#big.set(series.slot, BigInt(text));
    }
    if (head.whole) this.#fillPast(head.ago ?? [[], [], RATE_WINDOW]);
    for (const note of head.notes ?? []) this.#note(note);
  }

  /** The value of a series: a bigint from 2^53 on. */
  value(series) {
    return this.#big.get(series.slot) ?? this.values[series.slot];
  }

  /** The change per second over the last ten seconds. */
  rate({ slot }) {
    const from = Math.max(this.#second - RATE_WINDOW, this.#since[slot]);
    const start = from === this.#second ? this.#second : from + 1;
    const column = from === this.#second ? null : this.#columns[from % KEPT];
    if (!column) return 0;
    const rate = (this.values[slot] - column[slot]) / Math.max(1, this.time - start);
    return Number.isNaN(rate) ? 0 : rate;
  }

  /** The number of seconds since a series changed. */
  age({ slot }) {
    return Math.max(0, this.time - this.#changed[slot]);
  }

  /**
   * The last minute: for a gauge the value at the end of each second, for others the increase in
   * each. NaN where it is not known.
   * @param {Series} series
   * @param {Float64Array} into of length `HISTORY`
   */
  trend({ slot, kind, seen }, into) {
    const gauge = kind === "gauge";
    for (let at = 0; at < HISTORY; at++) {
      const second = this.#second - HISTORY + at;
      const value = this.#columns[(second + KEPT) % KEPT][slot];
      into[at] = second < seen ? NaN
        : gauge ? value : value - this.#columns[(second - 1 + KEPT) % KEPT][slot];
    }
    return into;
  }

  /**
   * Complete the last minute of a series from the server's history.
   * @param {Series} series
   * @param {number[]} times the ends of steps of a second
   * @param {(number|null)[]} numbers values of a gauge, or increases
   */
  backfill(series, times, numbers) {
    const { slot, kind } = series;
    const oldest = this.#second - KEPT + 2;
    const column = (second) => this.#columns[(second + KEPT) % KEPT];
    let first = series.seen;
    for (let at = times.length - 1; at >= 0; at--) {
      const second = Math.round(times[at]) - 1;
      if (second < oldest) break;
      if (second >= series.seen) continue;
      const number = numbers[at];
      if (kind === "gauge") column(second)[slot] = number ?? NaN;
      else column(second - 1)[slot] = column(second)[slot] - (number ?? 0);
      first = second;
    }
    series.seen = first;
    series.filled = true;
  }

  /** Return a copy that later frames do not change. */
  clone() {
    const copy = new State();
    for (const name of ["epoch", "time", "history", "histograms"]) copy[name] = this[name];
    copy.series = new Map(this.series);
    copy.sources = new Map(this.sources);
    copy.notes = [...this.notes];
    copy.values = this.values.slice();
    copy.#big = new Map(this.#big);
    copy.#bases = this.#bases.slice();
    copy.#since = this.#since.slice();
    copy.#changed = this.#changed.slice();
    copy.#columns = this.#columns.map((column) => column.slice());
    copy.#slots = this.#slots;
    copy.#second = this.#second;
    return copy;
  }

  /** Return and forget which series came and went since the last call. */
  takeChanges() {
    const changes = this.changes;
    this.changes = { reset: false, added: [], gone: 0 };
    return changes;
  }

  #advance(time) {
    const second = Math.floor(time);
    if (this.#second === null || second < this.#second) {
      this.#second = second;
      return;
    }
    const first = Math.max(this.#second, second - KEPT);
    for (let gone = first; gone < second; gone++) this.#columns[gone % KEPT].set(this.values);
    this.#second = second;
  }

  #setSource(source) {
    if (source.state === "removed") this.sources.delete(source.no);
    else this.sources.set(source.no, { ...source, name: visible(source.name) });
  }

  #add([id, metricNo, values, source, namesNo], head) {
    const metric = this.#metrics.get(metricNo);
    const names = this.#names.get(namesNo) ?? [];
    const slot = this.#free.pop() ?? this.#slots++;
    const labels = [];
    const shownLabels = [];
    let sortKey = (metric.sortKey ??= `${naturalKey(metric.shown)}\x00${metric.name}`);
    values.forEach((value, at) => {
      const name = this.#text(names[at]);
      const text = this.#text(value);
      labels.push([names[at], value]);
      shownLabels.push([name.shown, text.shown]);
      sortKey += `\x00${name.key}\x01${text.key}`;
    });
    sortKey += `\x00${this.sources.get(source)?.name ?? ""}`;
    const series = {
      id, slot, kind: metric.kind, name: metric.name, labels, source, metric,
      shown: metric.shown, shownLabels, sortKey, seen: this.#second, filled: false,
      folded: null, link: null, gone: false,
    };
    if (this.series.has(id)) this.#remove(id);
    this.series.set(id, series);
    this.histograms += series.kind === "histogram";
    this.changes.added.push(series);
    const gauge = series.kind === "gauge";
    // The past of a first frame's series follows in #fillPast.
    if (!head.whole) for (const column of this.#columns) column[slot] = gauge ? NaN : 0;
    this.#bases[slot] = 0;
    // The increase of a counter is known from its base on.
    const watched = Math.floor(this.sources.get(source)?.since ?? 0) - 1;
    const since = gauge ? this.#second : Math.max(this.#second - RATE_WINDOW, watched);
    this.#since[slot] = Math.min(this.#second, since);
    this.#changed[slot] = head.t;
    this.values[slot] = NaN;
  }

  #remove(id) {
    const series = this.series.get(id);
    if (!series) return;
    this.series.delete(id);
    this.histograms -= series.kind === "histogram";
    this.changes.gone++;
    series.gone = true;
    this.#big.delete(series.slot);
    this.#free.push(series.slot);
  }

  #setBase(id, base) {
    const series = this.series.get(id);
    if (!series || series.kind === "gauge") return;
    const change = base - this.#bases[series.slot];
    this.#bases[series.slot] = base;
    for (const column of this.#columns) column[series.slot] += change;
  }

  #setValues(ids, values, head) {
    for (let at = 0; at < ids.length; at++) {
      const series = this.series.get(ids[at]);
      if (!series) continue;
      this.values[series.slot] = values[at];
      this.#changed[series.slot] = head.t;
      if (this.#big.size) this.#big.delete(series.slot);
    }
  }

  /** Fill the seconds before a first frame: the last with a straight line, for rates. */
  #fillPast([ids, numbers, seconds]) {
    const befores = this.values.slice();
    this.#changed.fill(this.time - RATE_WINDOW);
    this.#since.fill(this.#second - RATE_WINDOW);
    ids.forEach((id, at) => {
      const slot = this.series.get(id)?.slot;
      if (slot === undefined) return;
      befores[slot] = numbers[at];
      this.#changed[slot] = this.time;
    });
    for (let second = this.#second - 1; second > this.#second - KEPT; second--) {
      const column = this.#columns[(second + KEPT) % KEPT];
      const share = Math.min(1, (this.time - second - 1) / seconds);
      for (let slot = 0; slot < this.#slots; slot++) {
        column[slot] = this.values[slot] + (befores[slot] - this.values[slot]) * share;
      }
    }
  }

  /** Return a label's text for the screen and its key for sorting; most occur in many series. */
  #text(text) {
    let known = this.#texts.get(text);
    if (!known) {
      const shown = visible(text);
      known = { shown, key: naturalKey(shown) };
      if (this.#texts.size > MAX_TEXTS) this.#texts.clear();
      this.#texts.set(text, known);
    }
    return known;
  }

  #note(note) {
    const known = this.notes.some((one) => one.t === note.t && one.text === note.text);
    if (!known) this.notes.push(note);
    if (this.notes.length > 200) this.notes.shift();
  }

  #grow(size) {
    const larger = (array) => {
      const copy = new Float64Array(size);
      copy.set(array);
      return copy;
    };
    this.values = larger(this.values);
    this.#bases = larger(this.#bases);
    this.#since = larger(this.#since);
    this.#changed = larger(this.#changed);
    this.#columns = this.#columns.map(larger);
  }
}
