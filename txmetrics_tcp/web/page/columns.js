/** The columns of the table and which of them fit. */

/** Below this width, names stand above labels and rates below values. */
const COMPACT = 560;

const COLUMNS = [
  // id, title, least width in px, share of the spare width, numbers?, rank (the highest is left out first)
  ["name", "name", 150, 2, false, 0],
  ["labels", "labels", 180, 3, false, 1],
  ["value", "value", 94, 0, true, 0],
  ["rate", "rate", 84, 0, true, 2],
  ["trend", "trend, 60 s", 124, 0, false, 4],
  ["p50", "p50", 76, 0, true, 6],
  ["p90", "p90", 76, 0, true, 8],
  ["p99", "p99", 76, 0, true, 5],
  ["max", "max", 76, 0, true, 7],
  // Without it, the rows of two servers look the same.
  ["source", "source", 44, 1, false, 3],
].map(([id, title, width, share, number, rank]) => ({ id, title, width, share, number, rank }));

const NARROW = [
  { id: "name", title: "name", width: 120, share: 1, number: false },
  { id: "trend", title: "trend", width: 60, share: 0, number: false },
  { id: "value", title: "value, rate", width: 92, share: 0, number: true },
];

/** The usual width of a character, in px. */
const LETTER = 7;

/**
 * Choose the columns for a width.
 * @param {number} width in px
 * @param {{histograms: boolean, source: number, name: number, labels: number}} has what there is to
 *   show, and the largest numbers of characters of names and labels, and of sources if there are several
 */
export function layOut(width, { histograms, source, name, labels }) {
  const compact = width < COMPACT;
  let columns = compact ? NARROW : COLUMNS.filter(({ id }) =>
    (histograms || !/^p\d|max/.test(id)) && (source || id !== "source") && (labels || id !== "labels"));
  if (!compact) {
    const least = { name: Math.min(name, 30) * LETTER + 28, labels: Math.min(labels, 36) * LETTER };
    columns = columns.map((column) => {
      const { id } = column;
      if (id === "source") return { ...column, width: Math.max(column.width, Math.min(source, 16) * (LETTER + 1)) };
      return id in least ? { ...column, width: Math.max(90, least[id]), share: 1 + { name, labels }[id] } : column;
    });
  }
  const leaveOut = (least) => {
    const needed = () => columns.reduce((sum, column) => sum + column.width + 12, 16);
    while (!compact && needed() > width) {
      const last = columns.reduce((a, b) => (b.rank > a.rank ? b : a));
      if (last.rank < least) break;
      columns = columns.filter((column) => column !== last);
    }
    return needed() <= width;
  };
  // Names and labels are cut before sources and rates are left out.
  if (!leaveOut(4)) {
    columns = columns.map((column) => (column.share ? { ...column, width: Math.min(column.width, 110) } : column));
    leaveOut(1);
  }
  const template = columns
    .map(({ width, share }) => (share ? `minmax(${width}px, ${share}fr)` : `${width}px`))
    .join(" ");
  return { columns, compact, template, rowHeight: compact ? 46 : 26, trend: compact ? [60, 28] : [124, 20] };
}
