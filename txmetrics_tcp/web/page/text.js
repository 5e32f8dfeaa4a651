/**
 * Text from servers: escaped for the screen, folded for comparison, and keys for natural sorting.
 * `txmetrics_tcp/_view/text.py` has the same rules.
 */

/** Characters that are not shown, or change the text's direction. */
const HIDDEN = /^(?! )[\p{C}\p{Z}\p{Default_Ignorable_Code_Point}\u2800\u{16fe4}\u{1d159}]/u;
const MARK = /^[\p{Mn}\p{Me}]/u;
const MAX_MARKS = 4;
const PLAIN = /^[\x20-\x7e]*$/;
const SHORT = { "\t": "\\t", "\n": "\\n", "\r": "\\r" };

function escaped(letter) {
  const code = letter.codePointAt(0);
  const hex = (length) => code.toString(16).padStart(length, "0");
  return SHORT[letter] ?? (code < 0x100 ? `\\x${hex(2)}` : code < 0x10000 ? `\\u${hex(4)}` : `\\U${hex(8)}`);
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
export const fold = (text) => text.toLowerCase().toUpperCase().toLowerCase().replaceAll("ς", "σ");

/**
 * Return a key whose order is the natural one: the case is ignored, and `shard 2` comes before
 * `shard 10`. A digit that counts them precedes the digits of a number.
 */
export function naturalKey(text) {
  return fold(text).replace(/0*(\d+)/g, (_, digits) => String.fromCharCode(Math.min(48 + digits.length, 0xd7ff)) + digits);
}
