/**
 * Human-readable numbers. `txmetrics_tcp/_view/numbers.py` describes the rules, and
 * `tests/conformance.json` has cases that both pass.
 */

const powers = (base, ...labels) => labels.map((label, power) => [base ** power, label]);

const LETTERS = powers(1000, "", "k", "M", "G", "T", "P", "E");
const BYTES = powers(1024, "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB");
const BITS = powers(1000, "bps", "kbps", "Mbps", "Gbps", "Tbps", "Pbps", "Ebps");
const TIMES = [
  [1e-9, "ns"],
  [1e-6, "μs"],
  [1e-3, "ms"],
  [1, "s"],
  [60, "min"],
  [3600, "h"],
  [86400, "d"],
  [365.25 * 86400, "y"],
];

/** For each unit its label, and its scale with the factor that converts a value to it. */
const UNITS = {
  count: [""],
  percent: ["%"],
  count_per_second: ["/s"],
  bytes: ["B", BYTES, 1],
  kibibytes: ["KiB", BYTES, 1024],
  mebibytes: ["MiB", BYTES, 1024 ** 2],
  gibibytes: ["GiB", BYTES, 1024 ** 3],
  tebibytes: ["TiB", BYTES, 1024 ** 4],
  bits_per_second: ["bps", BITS, 1],
  kilobits_per_second: ["kbps", BITS, 1000],
  megabits_per_second: ["Mbps", BITS, 1000 ** 2],
  gigabits_per_second: ["Gbps", BITS, 1000 ** 3],
  terabits_per_second: ["Tbps", BITS, 1000 ** 4],
  seconds: ["s", TIMES, 1],
  milliseconds: ["ms", TIMES, 1e-3],
  microseconds: ["μs", TIMES, 1e-6],
  nanoseconds: ["ns", TIMES, 1e-9],
};

/** Values from here on are beyond every scale. */
const FAR = 1e290;
/** The least room for a unit that is cut: a space, a letter and an ellipsis. */
const ROOM_FOR_UNIT = 3;

const format = (unit) =>
  !unit ? UNITS.count : Object.hasOwn(UNITS, unit) ? UNITS[unit] : [unit];

/** The factor that converts a value of this unit to bytes, bits per second or seconds. */
export const baseScale = (unit) => format(unit)[2] ?? 1;

/**
 * Format a value with its unit.
 * @param {number|bigint} value
 * @param {?string} unit a unit of the library, or any text
 * @param {{whole?: boolean, width?: number}} [options] `whole`: the value is an integer, whose
 *   digits are all shown; `width`: the largest number of characters
 */
export function showValue(value, unit, options = {}) {
  return show(value, unit, "", options);
}

/** Format a change per second; `unit` is that of the changing value. */
export function showRate(value, unit, options = {}) {
  return show(value, unit === "count_per_second" ? null : unit, "/s", { ...options, whole: false });
}

export const showSeconds = (seconds) => showValue(seconds, "seconds");

/** Format a time that is still running, rounded down to a second. */
export const showDuration = (seconds) => showSeconds(Math.trunc(seconds));

function show(value, unit, per, { whole = false, width = Infinity }) {
  if (typeof value === "bigint") whole = true;
  const number = Number(value);
  if (Number.isNaN(number)) return "nan";
  if (!Number.isFinite(number)) return number < 0 ? "-inf" : "inf";
  const form = format(unit);
  const texts = form[1] ? scaledTexts(number, form, per) : plainTexts(value, form, per, whole);
  for (const text of texts) if ([...text].length <= width) return text;
  const fits = [...numbers(value, whole)].filter((text) => text.length <= width);
  if (!fits.length) return "…".slice(0, width);
  const text = fits.find((one) => one.length <= width - ROOM_FOR_UNIT) ?? fits[0];
  const room = width - text.length;
  if (room < ROOM_FOR_UNIT) return text;
  const rest = ` ${form[0]}${per}`;
  return text + (rest.length <= room ? rest : `${rest.slice(0, room - 1)}…`);
}

function* scaledTexts(value, [label, scale, factor], per) {
  const size = Math.abs(value) < FAR ? Math.abs(value) * factor : Infinity;
  const sign = value < 0 ? "-" : "";
  if (scale === TIMES && !per) {
    const text = twoUnits(size);
    if (text) yield sign + text;
  }
  for (const gap of [" ", ""]) {
    for (const count of [3, 2, 1]) {
      const found = size || !value ? scaled(size, scale, count) : null;
      if (found) yield `${sign}${found[0]}${gap}${found[1]}${per}`;
      else yield `${exponent(value, count)}${gap}${label}${per}`;
    }
  }
}

function* plainTexts(value, [label], per, whole) {
  const gap = ["", "%", "/s"].includes(label) ? "" : " ";
  for (const number of numbers(value, whole)) yield `${number}${gap}${label}${per}`;
}

function* numbers(exact, whole) {
  const value = Number(exact);
  const size = Math.abs(value);
  if (size >= 1000 * LETTERS.at(-1)[0]) {
    for (const count of [3, 2, 1]) yield exponent(value, count);
    return;
  }
  yield whole ? grouped(String(whole && typeof exact === "number" ? BigInt(exact) : exact))
    : digits(value, 3);
  if (size >= 1000) {
    const found = scaled(size, LETTERS, 3);
    if (found) yield (value < 0 ? "-" : "") + found.join("");
  }
  for (const count of [2, 1]) yield digits(value, count);
}

/** Return a number from zero up and its label; null if it is below or beyond the scale. */
function scaled(size, scale, count) {
  if (!size) return ["0", scale.find(([factor]) => factor === 1)[1]];
  let at = 0;
  while (at + 1 < scale.length && scale[at + 1][0] <= size) at++;
  let number = digits(size / scale[at][0], count);
  if (at + 1 < scale.length) {
    // 1023.99 KiB are 1 MiB.
    if (Number(number.replaceAll(",", "")) * scale[at][0] > scale[at + 1][0] * 0.9999999) {
      at++;
      number = digits(size / scale[at][0], count);
    }
  } else if (!(size < 1000 * scale[at][0])) return null;
  return number.includes("e") ? null : [number.replaceAll(",", ""), scale[at][1]];
}

/** Format a time from a minute to 100 days; return an empty text for any other. */
function twoUnits(seconds) {
  if (!(seconds >= 59.95 && seconds < 100 * 86400)) return "";
  const two = (number) => String(number).padStart(2, "0");
  const whole = rounded(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)}m ${two(whole % 60)}s`;
  const minutes = rounded(seconds / 60);
  if (minutes < 24 * 60) return `${Math.floor(minutes / 60)}h ${two(minutes % 60)}m`;
  const hours = rounded(seconds / 3600);
  return hours < 100 * 24 ? `${Math.floor(hours / 24)}d ${two(hours % 24)}h` : "";
}

/** Format with this many significant digits, without rounding the integer part below 1e15. */
function digits(value, count) {
  const [sign, letters, power] = significant(value, count);
  if (power >= count && Math.abs(value) < 1e15) return sign + grouped(String(rounded(Math.abs(value))));
  if (power < -4 || power >= count) return exponent(value, count);
  const text = power < 0
    ? `0.${"0".repeat(-power - 1)}${letters}`
    : `${letters.slice(0, power + 1)}.${letters.slice(power + 1)}`;
  return sign + text.replace(/\.?0*$/, "");
}

function exponent(value, count) {
  const [sign, letters, power] = significant(value, count);
  const mantissa = `${letters[0]}.${letters.slice(1)}`.replace(/\.?0*$/, "");
  return `${sign}${mantissa}e${power < 0 ? "-" : "+"}${String(Math.abs(power)).padStart(2, "0")}`;
}

/** Return sign, significant digits and power of ten; a tie goes to the even digit. */
function significant(value, count) {
  const size = Math.abs(value);
  let text = size.toExponential(count - 1);
  if (/5e/.test(size.toExponential(count))) {
    const long = size.toExponential(60).replace(".", "");
    // toExponential rounds a tie up.
    if (/^50*e/.test(long.slice(count)) && "02468".includes(long[count - 1])) {
      text = `${long.slice(0, count)}e${long.split("e")[1]}`;
    }
  }
  const [mantissa, power] = text.split("e");
  return [value < 0 ? "-" : "", mantissa.replace(".", ""), Number(power)];
}

/** Round to an integer; a tie goes to the even one. */
function rounded(value) {
  const low = Math.floor(value);
  return value - low === 0.5 ? low + (low % 2) : Math.round(value);
}

const grouped = (text) => text.replace(/\B(?=(?:\d{3})+$)/g, ",");
