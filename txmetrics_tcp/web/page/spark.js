/** Sparklines: a minute in a small canvas. */

/**
 * Draw a trend.
 * @param {HTMLCanvasElement} canvas
 * @param {Float64Array} values NaN where nothing is known
 * @param {boolean} fromZero whether the scale starts at zero, as for rates
 * @param {string} color
 * @param {number[]} size in px; to measure it here would lay out the page for each row
 */
export function drawTrend(canvas, values, fromZero, color, size) {
  const ratio = globalThis.devicePixelRatio || 1;
  const width = Math.round(size[0] * ratio);
  const height = Math.round(size[1] * ratio);
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  let low = fromZero ? 0 : Infinity;
  let high = fromZero ? 0 : -Infinity;
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (high < low) return;
  const flat = high === low;
  const foot = height - 1.5 * ratio;
  const y = (value) => (flat ? (fromZero ? foot : height / 2)
    : foot - ((value - low) / (high - low)) * (height - 4 * ratio));
  const step = width / (values.length - 1);
  context.lineWidth = 1.25 * ratio;
  context.lineJoin = "round";
  context.strokeStyle = color;
  context.fillStyle = color;
  let start = -1;
  for (let at = 0; at <= values.length; at++) {
    const known = at < values.length && Number.isFinite(values[at]);
    if (known && start < 0) start = at;
    if (known || start < 0) continue;
    context.globalAlpha = flat ? 0.45 : 1;
    context.beginPath();
    for (let x = start; x < at; x++) context.lineTo(x * step, y(values[x]));
    context.stroke();
    if (fromZero && !flat) {
      context.lineTo((at - 1) * step, foot);
      context.lineTo(start * step, foot);
      context.globalAlpha = 0.14;
      context.fill();
    }
    start = -1;
  }
  context.globalAlpha = 1;
}
