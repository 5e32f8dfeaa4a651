/**
 * The state of all series, kept up to date by binary frames from the server.
 *
 * A frame is `u32 total, u32 headLen, u32 k, u32 version`, a JSON head of `headLen` bytes with padding,
 * k numbers of series (u32) and k values (f64), little endian.
 */

import { naturalKey, visible } from "./text.js";

const HEADER = 16;
const MAX_FRAME = 1 << 28;
/** The number of seconds that trends cover. */
export const HISTORY = 60;
const KEPT = HISTORY + 4;
const RATE_WINDOW = 10;
const MAX_NOTES = 200;

/** Where the past of a series has a second. */
const place = (second) => (second + KEPT) % KEPT;

/** Splits a stream of bytes into frames. */
export class FrameReader {
  #bytes = new Uint8Array(0);
  #length = 0;

  /**
   * @param {Uint8Array} bytes
   * @returns {ReturnType<typeof decodeFrame>[]} the frames that are complete now
   */
  push(bytes) {
    const length = this.#length + bytes.length;
    if (length > this.#bytes.length) {
      const larger = new Uint8Array(2 * length);
      larger.set(this.#bytes);
      this.#bytes = larger;
    }
    this.#bytes.set(bytes, this.#length);
    const { buffer } = this.#bytes;
    const view = new DataView(buffer);
    const frames = [];
    let at = 0;
    while (length - at >= HEADER) {
      const total = view.getUint32(at, true);
      if (total < HEADER || total > MAX_FRAME) throw new RangeError("not a frame");
      if (at + total > length) break;
      frames.push(decodeFrame(buffer.slice(at, at + total)));
      at += total;
    }
    this.#bytes.copyWithin(0, at, length);
    this.#length = length - at;
    return frames;
  }
}

/**
 * Decode a frame.
 * @param {ArrayBuffer} buffer
 * @returns {{head: object, ids: Uint32Array, values: Float64Array}}
 */
export function decodeFrame(buffer) {
  const [, length, count] = new Uint32Array(buffer, 0, 3);
  const first = HEADER + length;
  return {
    head: JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, HEADER, length))),
    ids: new Uint32Array(buffer, first, count),
    values: new Float64Array(buffer, first + 4 * count, count),
  };
}

/**
 * A series.
 * @typedef {object} Series
 * @property {number} id its number on the server
 * @property {string} kind
 * @property {string} name
 * @property {string[][]} labels pairs of label name and value
 * @property {string} shown the name for the screen
 * @property {string[][]} shownLabels the labels for the screen
 * @property {string} labelText all of them
 * @property {number} source the number of its source
 * @property {object} metric kind, name, unit and help, common to all series of the metric
 * @property {string} sortKey its place among all series
 * @property {number} value
 * @property {?bigint} big the exact value from 2^53 on
 * @property {number} changed when the value changed last
 * @property {number} since the second from which on rates are known
 * @property {number} seen the second from which on the trend is known
 * @property {number} base what the value was when its source began to follow it
 * @property {Float64Array} past the value at the end of each second; those of counters and histograms
 *   are corrected when the base changes
 */

/** All series with their values and the last minute of each. */
export class State {
  epoch = null;
  time = 0;
  second = 0;
  history = null;
  /** @type {Map<number, Series>} */
  series = new Map();
  /** Metrics and lists of label names, by the numbers that series have for them. */
  metrics = new Map();
  names = new Map();
  sources = new Map();
  notes = [];
  histograms = 0;
  changes = { reset: true, added: [] };

  /**
   * Apply a frame.
   * @param {ReturnType<typeof decodeFrame>} frame
   */
  apply({ head, ids, values }) {
    // It says everything again, also all sources and notes.
    if (head.whole) Object.assign(this, new State(), { epoch: head.epoch });
    const {
      t, sources = [], metrics = [], names = [], gone = [], series = [], base = {}, big = {}, notes = [],
      history = this.history,
    } = head;
    this.history = history;
    // A recording has ended.
    this.#advance(history?.to ?? t);
    for (const source of sources) {
      if (source.state === "removed") this.sources.delete(source.no);
      else this.sources.set(source.no, { ...source, name: visible(source.name) });
    }
    for (const [no, kind, name, unit, help] of metrics) {
      const shown = visible(name);
      // Its series show the new description.
      this.metrics.set(no, Object.assign(this.metrics.get(no) ?? {}, {
        kind, name, shown, unit: unit && visible(unit).slice(0, 40), help: visible(help ?? ""),
        sortKey: `${naturalKey(shown)}\0${name}`,
      }));
    }
    for (const [no, list] of names) this.names.set(no, list);
    for (const id of gone) this.#remove(id);
    for (const definition of series) this.#add(definition);
    for (const [id, value] of Object.entries(base)) this.#setBase(this.series.get(Number(id)), value);
    ids.forEach((id, at) => {
      const one = this.series.get(id);
      one.value = values[at];
      one.big = null;
      one.changed = t;
    });
    for (const [id, text] of Object.entries(big)) this.series.get(Number(id)).big = BigInt(text);
    if (head.whole) this.#fillPast(head.ago ?? [[], [], 1]);
    this.notes = [...this.notes, ...notes].slice(-MAX_NOTES);
  }

  /** The value of a series: a bigint from 2^53 on. */
  value({ big, value }) {
    return big ?? value;
  }

  /** The change per second over the last ten seconds; 0 where it is not known. */
  rate({ past, since, value }) {
    const from = Math.max(this.second - RATE_WINDOW, since);
    return (value - past[place(from)]) / Math.max(1, this.time - from - 1) || 0;
  }

  /** The number of seconds since a series changed. */
  age({ changed }) {
    return Math.max(0, this.time - changed);
  }

  /**
   * The last minute: for a gauge the value at the end of each second, for others the increase in
   * each. NaN where it is not known.
   * @param {Series} series
   * @param {Float64Array} into of length `HISTORY`
   */
  trend({ kind, past, seen }, into) {
    for (let at = 0; at < HISTORY; at++) {
      const second = this.second - HISTORY + at;
      const before = kind === "gauge" ? 0 : past[place(second - 1)];
      into[at] = second < seen ? NaN : past[place(second)] - before;
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
    const { kind, past } = series;
    for (let at = times.length - 1; at >= 0; at--) {
      const second = Math.round(times[at]) - 1;
      if (second < this.second - KEPT + 2) break;
      if (second >= series.seen) continue;
      if (kind === "gauge") past[place(second)] = numbers[at] ?? NaN;
      else past[place(second - 1)] = past[place(second)] - numbers[at];
      series.seen = second;
    }
  }

  /** Return a copy that later frames do not change. */
  clone() {
    const series = new Map();
    for (const [id, one] of this.series) series.set(id, { ...one, past: one.past.slice() });
    return Object.assign(new State(), this, { series, sources: new Map(this.sources), changes: { reset: true } });
  }

  /** Return and forget which series came and went since the last call. */
  takeChanges() {
    const { changes } = this;
    this.changes = { added: [] };
    return changes;
  }

  #advance(time) {
    const second = Math.floor(time);
    for (let ended = Math.max(this.second, second - KEPT); ended < second; ended++) {
      for (const { past, value } of this.series.values()) past[place(ended)] = value;
    }
    this.second = second;
    this.time = time;
  }

  #add([id, metricNo, values, sourceNo, namesNo]) {
    const metric = this.metrics.get(metricNo);
    const { kind, name, shown } = metric;
    const names = this.names.get(namesNo);
    const source = this.sources.get(sourceNo);
    const labels = values.map((value, at) => [names[at], value]);
    const shownLabels = labels.map((pair) => pair.map(visible));
    const gauge = kind === "gauge";
    const series = {
      id, kind, name, shown, labels, shownLabels, metric, source: sourceNo,
      labelText: shownLabels.map((pair) => pair.join("=")).join(" "),
      sortKey: `${metric.sortKey}\0${naturalKey(shownLabels.flat().join("\0"))}\0${source?.name ?? ""}`,
      value: NaN, big: null, changed: this.time,
      // The increase of a counter is known from its base on.
      since: gauge ? this.second : Math.floor(Math.min(this.second, source?.since ?? 0)) - 1,
      seen: this.second, base: 0, past: new Float64Array(KEPT).fill(gauge ? NaN : 0), filled: false,
    };
    this.series.set(id, series);
    this.histograms += kind === "histogram";
    this.changes.added.push(series);
  }

  #remove(id) {
    const series = this.series.get(id);
    if (!series) return;
    this.series.delete(id);
    this.histograms -= series.kind === "histogram";
    this.changes.gone = series.gone = true;
  }

  #setBase(series, base) {
    if (series.kind === "gauge") return;
    const change = base - series.base;
    series.base = base;
    series.past = series.past.map((value) => value + change);
  }

  /** Fill the seconds before a first frame: the last with a straight line, for rates. */
  #fillPast([ids, numbers, seconds]) {
    const befores = new Map(ids.map((id, at) => [id, numbers[at]]));
    for (const series of this.series.values()) {
      const { id, past, value } = series;
      const change = (befores.get(id) ?? value) - value;
      series.since = this.second - RATE_WINDOW;
      series.changed = this.time - (befores.has(id) ? 0 : RATE_WINDOW);
      for (let second = this.second - 1; second > this.second - KEPT; second--) {
        past[place(second)] = value + change * Math.min(1, (this.time - second - 1) / seconds);
      }
    }
  }
}
