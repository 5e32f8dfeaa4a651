/** Heatmaps of histograms: samples by time and size. */

/**
 * Draw the cells below the grid of a chart. The vertical scale counts buckets.
 * @param {object} plot uPlot
 * @param {number[]} times the end of each step
 * @param {number} step in seconds
 * @param {{bounds: number[], counts: number[][]}} heat
 * @param {string} color
 */
export function drawHeat({ ctx, bbox, valToPos }, times, step, { bounds, counts }, color) {
  const most = Math.max(...counts.flat());
  const edges = bounds.map((_, at) => Math.round(valToPos(at, "y", true)));
  ctx.save();
  ctx.fillStyle = color;
  times.forEach((time, at) => {
    const left = Math.max(bbox.left, Math.round(valToPos(time - step, "x", true)));
    const width = Math.max(1, Math.round(valToPos(time, "x", true)) - left);
    counts[at]?.forEach((count, bucket) => {
      if (!count) return;
      // Few samples in a bucket stay visible beside many.
      ctx.globalAlpha = 0.12 + 0.88 * Math.sqrt(count / most);
      const top = edges[bucket + 1];
      ctx.fillRect(left, top, width, edges[bucket] - top);
    });
  });
  ctx.restore();
}
