/** Sparklines: a minute in a small canvas. */

/**
 * Draw a trend.
 * @param {HTMLCanvasElement} canvas
 * @param {Float64Array} values NaN where nothing is known
 * @param {boolean} fromZero whether the scale starts at zero, as for rates
 * @param {string} color
 * @param {number[]} size in px; to measure it here would lay out the page for each row
 */
export function drawTrend(canvas, values, fromZero, color, [width, height]) {
  canvas.width = width * devicePixelRatio;
  canvas.height = height * devicePixelRatio;
  const context = canvas.getContext("2d");
  context.scale(devicePixelRatio, devicePixelRatio);
  const numbers = values.filter((value) => Number.isFinite(value));
  const low = Math.min(...numbers, fromZero ? 0 : Infinity);
  const high = Math.max(...numbers, fromZero ? 0 : -Infinity);
  const foot = height - 1.5;
  const y = (value) => (high > low ? foot - ((value - low) / (high - low)) * (height - 4) : fromZero ? foot : height / 2);
  const line = new Path2D();
  const area = new Path2D();
  values.forEach((value, at) => {
    if (!Number.isFinite(value)) return;
    const x = (at * width) / (values.length - 1);
    if (Number.isFinite(values[at - 1])) line.lineTo(x, y(value));
    else {
      line.moveTo(x, y(value));
      area.moveTo(x, foot);
    }
    area.lineTo(x, y(value));
    if (!Number.isFinite(values[at + 1])) area.lineTo(x, foot);
  });
  context.lineWidth = 1.25;
  context.lineJoin = "round";
  context.strokeStyle = context.fillStyle = color;
  context.globalAlpha = high > low ? 1 : 0.45;
  context.stroke(line);
  if (!fromZero) return;
  context.globalAlpha = 0.14;
  context.fill(area);
}
