/** The columns of the table and which of them fit. */

/** Below this width in px, names stand above labels and values above rates. */
const COMPACT = 560;
/** The usual width of a character, in px. */
const LETTER = 7;
const GAP = 12;

/** The least width of each column, in px. Those of texts depend on their lengths. */
export const WIDTHS = {
  name: 90, labels: 90, value: 94, rate: 84, trend: 124, p50: 76, p90: 76, p99: 76, max: 76, source: 44,
};

/** What makes room, in this order. Texts are cut before sources and rates are left out. */
const SPARED = ["p90", "max", "p50", "p99", "trend", "texts", "source", "rate", "labels"];
const CUT = 110;

/**
 * Choose the columns for a width.
 * @param {number} width in px
 * @param {{histograms: number, source: number, name: number, labels: number}} has the numbers of
 *   histograms, and of characters of the longest name and labels, and of the longest source if there
 *   are several: without it, the rows of two servers look the same
 */
export function layOut(width, { histograms, source, name, labels }) {
  const compact = width < COMPACT;
  const left = { ...WIDTHS };
  if (!source) delete left.source;
  if (!labels) delete left.labels;
  if (compact || !histograms) for (const id of SPARED.slice(0, 4)) delete left[id];
  if (compact) return { columns: Object.keys(left), compact, template: "1fr auto 60px 92px", rowHeight: 46, trend: [60, 28] };
  const fit = (id, size) => {
    if (id in left) left[id] = Math.max(left[id], size);
  };
  fit("name", Math.min(name, 30) * LETTER + 28);
  fit("labels", Math.min(labels, 36) * LETTER);
  fit("source", Math.min(source, 16) * (LETTER + 1));
  const shares = { name: 1 + name, labels: 1 + labels, source: 1 };
  for (const id of SPARED) {
    if (Object.values(left).reduce((sum, least) => sum + least + GAP, 16) <= width) break;
    if (id !== "texts") delete left[id];
    else for (const text in shares) if (text in left) left[text] = Math.min(left[text], CUT);
  }
  const template = Object.entries(left)
    .map(([id, least]) => (id in shares ? `minmax(${least}px, ${shares[id]}fr)` : `${least}px`)).join(" ");
  return { columns: Object.keys(left), compact, template, rowHeight: 26, trend: [124, 20] };
}
