/** Heatmaps of histograms: samples by time and size. */

/**
 * Draw the cells below the grid of a chart. The vertical scale counts buckets.
 * @param {object} plot uPlot
 * @param {number[]} times the end of each step
 * @param {number} step in seconds
 * @param {?{bounds: number[], counts: (?number[])[]}} heat
 * @param {string} color of the form `#rrggbb`
 */
export function drawHeat(plot, times, step, heat, color) {
  if (!heat) return;
  const { ctx, bbox } = plot;
  let most = 0;
  for (const counts of heat.counts) for (const count of counts ?? []) if (count > most) most = count;
  if (!most) return;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.fillStyle = color;
  const edges = heat.bounds.map((_, at) => Math.round(plot.valToPos(at, "y", true)));
  times.forEach((time, at) => {
    const counts = heat.counts[at];
    if (!counts) return;
    const left = Math.round(plot.valToPos(time - step, "x", true));
    const right = Math.max(left + 1, Math.round(plot.valToPos(time, "x", true)));
    counts.forEach((count, bucket) => {
      if (!count) return;
      // Few samples in a bucket stay visible beside many.
      ctx.globalAlpha = 0.12 + 0.88 * Math.sqrt(count / most);
      const top = edges[bucket + 1];
      ctx.fillRect(left, top, right - left, Math.max(1, edges[bucket] - top));
    });
  });
  ctx.restore();
}
