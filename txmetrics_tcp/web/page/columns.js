/** The columns of the table and which of them fit. */

import { PERCENTILES } from "./rows.js";

/** Below this width in px, names stand above labels and values above rates. */
const COMPACT = 560;
/** The usual width of a character, in px. */
const LETTER = 7;
const GAP = 12;

/** What makes room, in this order. Texts are cut before sources and rates are left out. */
const SPARED = ["p90", "max", "p50", "p99", "trend", "texts", "source", "rate", "labels"];
const CUT = 110;

/**
 * Choose the columns for a width.
 * @param {number} width in px
 * @param {{histograms: number, sources: number, name: number, labels: number}} has the numbers of
 *   histograms and sources, and of characters of the longest name and labels
 */
export function layOut(width, { histograms, sources, name, labels }) {
  const compact = width < COMPACT;
  const widths = {
    name: Math.max(90, Math.min(name, 30) * LETTER + 28), labels: Math.max(90, Math.min(labels, 34) * LETTER),
    value: 94, rate: 84, trend: 124, p50: 76, p90: 76, p99: 76, max: 76, source: 112,
  };
  const shares = { name: 1 + name, labels: 1 + labels, source: 1 };
  const leaveOut = (id) => delete widths[id];
  // Without it, the rows of two servers look the same.
  if (sources < 2) leaveOut("source");
  if (!labels) leaveOut("labels");
  if (compact || !histograms) PERCENTILES.forEach(leaveOut);
  for (const id of compact ? [] : SPARED) {
    if (Object.values(widths).reduce((sum, one) => sum + one + GAP, 16) <= width) break;
    if (id !== "texts") leaveOut(id);
    else for (const text in shares) if (text in widths) widths[text] = Math.min(widths[text], CUT);
  }
  const columns = Object.keys(widths);
  if (compact) return { columns, compact, template: "1fr auto 60px 92px", rowHeight: 46 };
  const template = columns.map((id) => (id in shares ? `minmax(${widths[id]}px, ${shares[id]}fr)` : `${widths[id]}px`)).join(" ");
  return { columns, compact, template, rowHeight: 26 };
}
