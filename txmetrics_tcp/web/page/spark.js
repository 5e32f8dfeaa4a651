/** Sparklines: a minute in a small picture, 59 seconds wide and 20 units high. */

const HEIGHT = 16;
const FOOT = 18.5;

/**
 * Return the paths of a line and of the area below it.
 * @param {Float64Array} values one for each second; NaN where nothing is known
 * @param {boolean} fromZero whether the scale starts at zero, as for rates; only then there is an area
 */
export function trendPaths(values, fromZero) {
  const isKnown = (at) => Number.isFinite(values[at]);
  const numbers = [...values.filter(Number.isFinite), ...fromZero ? [0] : []];
  const low = Math.min(...numbers);
  const range = Math.max(...numbers) - low;
  let line = "";
  let area = "";
  values.forEach((value, at) => {
    if (!isKnown(at)) return;
    const share = range ? (value - low) / range : fromZero ? 0 : 0.5;
    const point = `${at} ${(FOOT - share * HEIGHT).toFixed(1)}`;
    line += (isKnown(at - 1) ? "L" : "M") + point;
    area += (isKnown(at - 1) ? "L" : `M${at} ${FOOT}L`) + point;
    if (!isKnown(at + 1)) area += `L${at} ${FOOT}Z`;
  });
  return [line, fromZero ? area : ""];
}
