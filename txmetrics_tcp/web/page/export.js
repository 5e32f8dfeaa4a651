/** The listed series as CSV, with the columns of the terminal viewer's export. */

const FIGURES = ["min", "p50", "p90", "p99", "p999", "max"];
const COLUMNS = ["source", "kind", "name", "labels", "unit", "value", "rate", "window_count", "window_sum",
  "window_partial", ...FIGURES, "description"];

/**
 * Where a spreadsheet finds a formula: at the start of a cell, or after a semicolon, which separates
 * cells in many countries. Some also accept the wide and small forms of the first character.
 */
const FORMULA = /(^|;)(?=[ "]*[-=+@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b])/g;

const text = (value) => `"${value.replaceAll(FORMULA, "$1'").replaceAll('"', '""')}"`;
const number = (value) =>
  value == null ? '""' : typeof value === "number" && !Number.isFinite(value)
    ? { NaN: "nan", Infinity: "inf", "-Infinity": "-inf" }[value] : String(value);

/**
 * @param {import("./frames.js").State} state
 * @param {import("./frames.js").Series[]} rows
 * @param {Map<number, object>} figures those of histograms, by the number of the series
 */
export function toCsv(state, rows, figures) {
  const lines = [COLUMNS.map(text)];
  for (const row of rows) {
    const { kind, metric } = row;
    const found = kind === "histogram" ? figures.get(row.id) : null;
    lines.push([
      text(state.sources.get(row.source)?.name ?? ""), text(kind), text(row.shown),
      text(row.shownLabels.map((pair) => pair.join("=")).join(" ")), text(metric.unit ?? ""),
      number(state.value(row)), number(state.rate(row)), number(found?.count), number(found?.sum),
      text(found ? String(!!found.partial) : ""), ...FIGURES.map((name) => number(found?.[name])),
      text(metric.help),
    ]);
  }
  return `${lines.map((cells) => cells.join()).join("\r\n")}\r\n`;
}
