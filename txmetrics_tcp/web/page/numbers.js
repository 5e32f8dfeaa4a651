/**
 * Human-readable numbers. `txmetrics_tcp/_view/numbers.py` describes the rules, and
 * `tests/conformance.json` has cases that both pass.
 */

const powers = (base, labels) => labels.split(" ").map((label, power) => [base ** power, label]);

/** Scales: factors in ascending order, and the label of each. */
const LETTERS = powers(1000, " k M G T P E");
const BYTES = powers(1024, "B KiB MiB GiB TiB PiB EiB");
const BITS = powers(1000, "bps kbps Mbps Gbps Tbps Pbps Ebps");
const TIMES = [
  [1e-9, "ns"], [1e-6, "μs"], [1e-3, "ms"], [1, "s"], [60, "min"], [3600, "h"], [86400, "d"], [365.25 * 86400, "y"],
];

/** For each unit its label, and the factor that converts a value to the scale. */
const UNITS = new Map([["count", { label: "" }], ["percent", { label: "%" }], ["count_per_second", { label: "/s" }]]);
for (const [scale, ...units] of [
  [BYTES, "bytes", "kibibytes", "mebibytes", "gibibytes", "tebibytes"],
  [BITS, ...["", "kilo", "mega", "giga", "tera"].map((power) => `${power}bits_per_second`)],
  [TIMES, "nanoseconds", "microseconds", "milliseconds", "seconds"],
]) units.forEach((unit, at) => UNITS.set(unit, { label: scale[at][1], factor: scale[at][0], scale }));

/** Durations in two units: the seconds of the smaller unit, how many the larger one has, and how many of that. */
const DURATIONS = [[1, 60, 60, "m", "s"], [60, 60, 24, "h", "m"], [3600, 24, 100, "d", "h"]];

/** The least room for a unit that is cut: a space, a letter and an ellipsis. */
const ROOM_FOR_UNIT = 3;
/** The texts of numbers that are not finite. */
export const SPECIAL = { NaN: "nan", Infinity: "inf", "-Infinity": "-inf" };

/** The factor that converts a value of this unit to bytes, bits per second or seconds. */
export const baseScale = (unit) => UNITS.get(unit)?.factor ?? 1;

/**
 * Format a value with its unit.
 * @param {number|bigint} value
 * @param {?string} unit a unit of the library, or any text
 * @param {{whole?: boolean, width?: number}} [options] `whole`: the value is an integer, whose
 *   digits are all shown; `width`: the largest number of characters, at least 7
 */
export function showValue(value, unit, options) {
  return show(value, unit, "", options);
}

/** Format a change per second; `unit` is that of the changing value. */
export function showRate(value, unit, options) {
  return show(value, unit === "count_per_second" ? null : unit, "/s", options);
}

/** Format a time that is still running, rounded down to a second. */
export const showDuration = (seconds) => showValue(Math.trunc(seconds), "seconds");

function show(value, unit, per, { whole = typeof value === "bigint", width = Infinity } = {}) {
  if (SPECIAL[value]) return SPECIAL[value];
  const form = UNITS.get(unit || "count") ?? { label: unit };
  const texts = form.scale ? scaledTexts(Number(value), form, per) : plainTexts(value, form, per, whole);
  for (const text of texts) if ([...text].length <= width) return text;
  const fits = [...numbers(value, whole)].filter((text) => text.length <= width);
  const text = fits.find((one) => one.length <= width - ROOM_FOR_UNIT) ?? fits[0];
  const room = width - text.length;
  if (room < ROOM_FOR_UNIT) return text;
  const rest = ` ${form.label}${per}`;
  return text + (rest.length <= room ? rest : `${rest.slice(0, room - 1)}…`);
}

/** Generate the texts of a value with its whole unit, the preferred one first. */
function* scaledTexts(value, { label, scale, factor }, per) {
  const size = Math.abs(value) * factor;
  const sign = value < 0 ? "-" : "";
  if (scale === TIMES && !per && size >= 59.95) {
    for (const [seconds, parts, most, large, small] of DURATIONS) {
      const count = rounded(size / seconds);
      if (count >= parts * most) continue;
      yield `${sign}${Math.floor(count / parts)}${large} ${String(count % parts).padStart(2, "0")}${small}`;
      break;
    }
  }
  for (const gap of [" ", ""]) {
    for (const count of [3, 2, 1]) {
      const found = size || !value ? scaled(size, scale, count) : null;
      yield found ? `${sign}${found.join(gap)}${per}` : `${exponent(value, count)}${gap}${label}${per}`;
    }
  }
}

/** Generate the texts of a value in a unit without a scale. */
function* plainTexts(value, { label }, per, whole) {
  const gap = /^(|%|\/s)$/.test(label) ? "" : " ";
  for (const number of numbers(value, whole)) yield `${number}${gap}${label}${per}`;
}

/** Generate the texts of a number without a unit. */
function* numbers(exact, whole) {
  const value = Number(exact);
  const size = Math.abs(value);
  if (size >= 1e21) {
    for (const count of [3, 2, 1]) yield exponent(value, count);
    return;
  }
  yield whole ? grouped(BigInt(exact)) : digits(value, 3);
  if (size >= 1000) yield (value < 0 ? "-" : "") + scaled(size, LETTERS, 3).join("");
  for (const count of [2, 1]) yield digits(value, count);
}

/** Return a number from zero up and its label; null if it is below or beyond the scale. */
function scaled(size, scale, count) {
  const number = (at) => digits(size / scale[at][0], count).replaceAll(",", "");
  let at = Math.max(0, scale.findLastIndex(([factor]) => factor <= (size || 1)));
  let text = number(at);
  // 1023.99 KiB are 1 MiB.
  if (Number(text) * scale[at][0] > scale[at + 1]?.[0] * 0.9999999) text = number(++at);
  return text.includes("e") || size >= 1000 * scale.at(-1)[0] ? null : [text, scale[at][1]];
}

/** Format with this many significant digits, without rounding the integer part below 1e15. */
function digits(value, count) {
  const text = significant(value, count);
  const power = Number(text.split("e")[1]);
  if (power >= count && Math.abs(value) < 1e15) return grouped(rounded(value));
  return power < -4 || power >= count ? exponent(value, count) : String(Number(text));
}

function exponent(value, count) {
  return significant(value, count).replace(/\.?0*e/, "e").replace(/(?<=[-+])\d$/, "0$&");
}

/** Round to this many significant digits, as `1.23e+4`; a tie goes to the even digit. */
function significant(value, count) {
  // toExponential rounds a tie up.
  const tie = /[02468]\.?5e/.test(value.toExponential(count)) &&
    value.toExponential(60).includes(`5${"0".repeat(60 - count)}e`);
  return (tie ? value * (1 - Number.EPSILON) : value).toExponential(count - 1);
}

/** Round to an integer; a tie goes to the even one. */
function rounded(value) {
  const nearest = Math.round(value);
  return Math.abs(value % 1) === 0.5 && nearest % 2 ? nearest - 1 : nearest;
}

const grouped = (integer) => String(integer).replace(/\B(?=(?:\d{3})+$)/g, ",");
