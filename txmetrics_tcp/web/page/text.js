/**
 * Text from servers: escaped for the screen, folded for comparison, and keys for natural sorting.
 * `txmetrics_tcp/_view/text.py` has the same rules.
 */

const IGNORABLE =
  "\\xad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b-\\u200f\\u202a-\\u202e" +
  "\\u2060-\\u206f\\u3164\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufff8" +
  "\\u{1bca0}-\\u{1bca3}\\u{1d173}-\\u{1d17a}\\u{e0000}-\\u{e0fff}";
const BLANK = "\\u2800\\u{16fe4}\\u{1d159}";
const HIDDEN = new RegExp(`^(?! )[\\p{C}\\p{Z}${IGNORABLE}${BLANK}]`, "u");
const MARK = /^[\p{Mn}\p{Me}]/u;
const MAX_MARKS = 4;
const PLAIN = /^[\x20-\x7e]*$/;
const SHORT = { "\t": "\\t", "\n": "\\n", "\r": "\\r" };

function escaped(letter) {
  if (SHORT[letter]) return SHORT[letter];
  const code = letter.codePointAt(0);
  const hex = code.toString(16);
  if (code < 0x100) return `\\x${hex.padStart(2, "0")}`;
  return code < 0x10000 ? `\\u${hex.padStart(4, "0")}` : `\\U${hex.padStart(8, "0")}`;
}

/**
 * Escape every character that changes the text's direction or is not shown.
 * @param {string} text
 * @returns {string}
 */
export function visible(text) {
  if (PLAIN.test(text)) return text;
  let result = "";
  // A mark at the start has no character before it.
  let marks = MAX_MARKS;
  for (const letter of text) {
    marks = MARK.test(letter) ? marks + 1 : 0;
    result += marks > MAX_MARKS || HIDDEN.test(letter) ? escaped(letter) : letter;
  }
  return result;
}

/** Fold the case of a text, so that texts that differ only in case are equal. */
export function fold(text) {
  if (PLAIN.test(text)) return text.toLowerCase();
  return text.toLowerCase().toUpperCase().toLowerCase().replaceAll("ς", "σ");
}

/**
 * Return a key whose order is the natural one: the case is ignored, and `shard 2` comes before
 * `shard 10`. A digit that counts them precedes the digits of a number.
 */
export function naturalKey(text) {
  return fold(text).replace(/[0-9]+/g, (run) => {
    const digits = run.replace(/^0+(?=.)/, "");
    return String.fromCharCode(Math.min(48 + digits.length, 0xd7ff)) + digits;
  });
}

/** Format a number with its noun: `1 series`, `2 events`. */
export function counted(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}
