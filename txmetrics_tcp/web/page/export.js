/** The listed series as CSV, with the columns of the terminal viewer's export. */

import { SPECIAL } from "./numbers.js";

const FIGURES = ["min", "p50", "p90", "p99", "p999", "max"];
const COLUMNS = ["source", "kind", "name", "labels", "unit", "value", "rate", "window_count", "window_sum",
  "window_partial", ...FIGURES, "description"];

/**
 * Where a spreadsheet finds a formula: at the start of a cell, or after a semicolon, which separates
 * cells in many countries. Some also accept the wide and small forms of the first character.
 */
const FORMULA = /(^|;)(?=[ "]*[-=+@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b])/g;

const text = (value) => `"${value.replaceAll(FORMULA, "$1'").replaceAll('"', '""')}"`;
const number = (value) => SPECIAL[value] ?? value ?? '""';

/**
 * @param {import("./frames.js").State} state
 * @param {import("./frames.js").Series[]} rows
 * @param {Map<object, object>} figures those of histograms, by series
 */
export function toCsv(state, rows, figures) {
  const lines = rows.map((row) => {
    const { kind, metric } = row;
    const found = kind === "histogram" ? figures.get(row) : null;
    return [
      ...[state.sources.get(row.source)?.name ?? "", kind, row.shown, row.labelText, metric.unit ?? ""].map(text),
      ...[state.value(row), state.rate(row), found?.count, found?.sum].map(number),
      text(found ? `${!!found.partial}` : ""), ...FIGURES.map((name) => number(found?.[name])), text(metric.help),
    ];
  });
  return [COLUMNS.map(text), ...lines].map((cells) => `${cells.join()}\r\n`).join("");
}
