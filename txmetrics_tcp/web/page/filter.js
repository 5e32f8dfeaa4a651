/**
 * The filter language of all commands; `txmetrics_tcp/_view/filter_syntax.py` describes it.
 *
 * A regular expression is the subset of Python's syntax that both languages read alike; anything
 * else is an error here. Patterns never leave the page.
 */

import { fold } from "./text.js";

/** What escapes mean inside of `[]`. Classes end in a property, which cannot begin a range. */
const IN_CLASS = {
  d: "\\p{Nd}", s: "\\t-\\r\\x1c-\\x1f\\x85\\p{Z}", w: "\\p{L}_\\p{N}",
  f: "\\f", n: "\\n", r: "\\r", t: "\\t", v: "\\v",
};
const { d: DIGIT, s: SPACE, w: WORD } = IN_CLASS;

const TEXT = `(?:[^${SPACE}"]|"[^"]*")+`;
const END = `(?=[${SPACE}]|$)`;
const TERM = new RegExp(
  `^[${SPACE}]*(?<negated>[-!])?(?:` +
    `/(?<regex>(?:\\\\[^\\n]|[^\\\\])+?)/${END}` +
    `|"(?<quoted>[^"]*)"${END}` +
    `|(?<field>kind|name):(?<text>${TEXT})?${END}` +
    `|(?<label>(?:[^${SPACE}"=]|"[^"]*")*)=(?<value>${TEXT})?${END}` +
    `|(?<has>${TEXT}):${END}` +
    `|(?<word>(?![-!](?:[${SPACE}]|$))${TEXT})${END})`,
  "u",
);
/** A word with a leading slash is a path, unless it contains the syntax of a regular expression. */
const OPEN_REGEX = /^\/[^"]*([()|^$[\]\\]|\.[*+])/;
const KINDS = ["counter", "gauge", "histogram"];

/** The filter is invalid. The message is the reason, for the user. */
export class FilterError extends Error {}

/**
 * Parse a filter.
 * @param {string} text
 * @returns {(series: {kind: string, name: string, labels: string[][]}) => boolean}
 * @throws {FilterError}
 */
export function parseFilter(text) {
  const terms = [];
  let rest = text;
  for (;;) {
    const match = TERM.exec(rest);
    if (!match) break;
    const found = term(match.groups);
    terms.push(match.groups.negated ? (series) => !found(series) : found);
    rest = rest.slice(match[0].length);
  }
  rest = rest.trim();
  if (rest) throw new FilterError(/^[-!]$/.test(rest) ? `a term must follow '${rest}'` : `unclosed quote: ${rest}`);
  return (series) => terms.every((matches) => matches(series));
}

const plain = (text = "") => text.replaceAll('"', "");

/** Return a series' texts, folded once. */
const folded = (series) =>
  (series.folded ??= { name: fold(series.name), labels: series.labels.map((pair) => pair.map(fold)) });

function term({ regex, quoted, field, text, label, value, has, word }) {
  if (regex !== undefined) return expression(regex);
  if (field === "kind") return kind(plain(text));
  if (label !== undefined) return labelled(plain(label), value ?? "");
  if (OPEN_REGEX.test(word)) throw new FilterError(`${word} has no closing slash; use quotes for a plain word`);
  const wanted = fold(quoted ?? plain(text ?? has ?? word));
  if (field) return (series) => folded(series).name.includes(wanted);
  if (has !== undefined) return (series) => folded(series).labels.some(([one]) => one === wanted);
  return (series) => [folded(series).name, ...folded(series).labels.flat()].some((one) => one.includes(wanted));
}

function kind(text) {
  const kinds = KINDS.filter((one) => one.startsWith(fold(text)));
  if (!kinds.length) throw new FilterError(`unknown kind '${text}'; the kinds are ${KINDS.join(", ")}`);
  return (series) => kinds.includes(series.kind);
}

function labelled(label, value) {
  if (!label) throw new FilterError(`missing label name before '=${value}'`);
  const wanted = fold(label);
  const parts = value.split("*").map((part) => fold(plain(part)));
  return (series) => folded(series).labels.some(([one, text]) => one === wanted && consists(text, parts));
}

/** Whether a text consists of these parts, with any text between them. */
function consists(text, [first, ...others]) {
  if (!others.length) return text === first;
  if (!text.startsWith(first)) return false;
  const last = others.pop();
  let at = first.length;
  for (const part of others) {
    const found = text.indexOf(part, at);
    if (found < 0) return false;
    at = found + part.length;
  }
  return text.slice(at).endsWith(last);
}

/** Return `name [label = value, ...]`. */
export function keyText({ name, labels }) {
  return labels.length ? `${name} [${labels.map((pair) => pair.join(" = ")).join(", ")}]` : name;
}

function expression(text) {
  try {
    const pattern = new RegExp(translated(text), "u");
    return (series) => pattern.test(keyText(series));
  } catch (error) {
    const reason = error.message.replace(/^Invalid regular expression: .*: /s, "");
    throw new FilterError(`invalid regular expression /${text}/: ${reason}`);
  }
}

const BOUNDARY = `(?=(?<=[${WORD}])(?![${WORD}])|(?<![${WORD}])(?=[${WORD}]))`;
const ESCAPES = {
  ...IN_CLASS, d: `[${DIGIT}]`, D: `[^${DIGIT}]`, s: `[${SPACE}]`, S: `[^${SPACE}]`, w: `[${WORD}]`, W: `[^${WORD}]`,
  b: BOUNDARY, B: `(?!${BOUNDARY})`,
};
/** The tokens of a regular expression, and what has another meaning inside of `[]`. */
const TOKEN = /\\[^]|\[\^?\]?(?:\\[^]|[^\\\]])*\]?|\((?:\?[^]?)?|(?:[*+]|\{\d+(?:,\d*)?\})\??|[^]/gu;
const CLASS_TOKEN = /\\[^]|(?<=^\[\^?)\]|(?!^)\[|([-&~|])\1/gu;

/**
 * Translate the subset of Python's regular expressions: literals, `.`, `^`, `$`, `|`, groups with
 * `()` and `(?:)`, classes, `\d \w \s \b` and their negations, and repetitions, also lazy ones. A
 * repeated group must not contain a repetition, which could take a time without bounds. The browser
 * finds all other errors.
 */
function translated(text) {
  // Whether the open groups have a repetition: the outer ones, the innermost, and the one that ended just now.
  const outer = [];
  let repeats = false;
  let ended = false;
  return text.replace(TOKEN, (token) => {
    const repeated = ended;
    ended = false;
    switch (token[0]) {
      case "\\": return escape(token, ESCAPES);
      case "[": return token.replace(CLASS_TOKEN, (part) => (part === "]" ? "\\]" : escape(part, IN_CLASS)));
      case "]":
      case "}": return `\\${token}`;
      case ".": return "[^\\n]";
      case "$": return "(?=\\n?$)";
      case "(":
        if (token !== "(" && token !== "(?:") unsupported(token);
        outer.push(repeats);
        repeats = false;
        return "(?:";
      case ")":
        ended = repeats;
        repeats ||= outer.pop();
        return token;
      case "*":
      case "+":
      case "{":
        if (repeated) unsupported("a repetition in a repeated group");
        repeats = true;
    }
    return token;
  });
}

function escape(token, known) {
  const [start, letter] = token;
  if (start !== "\\" || (/[a-z\d]/i.test(letter) && !known[letter])) unsupported(token);
  return known[letter] ?? `\\u{${token.codePointAt(1).toString(16)}}`;
}

function unsupported(what) {
  throw new FilterError(`${what} is not supported in this page`);
}
