/**
 * The filter language of all commands; `txmetrics_tcp/_view/filter_syntax.py` describes it.
 *
 * A regular expression is the subset of Python's syntax that both languages read alike; anything
 * else is an error here. Patterns never leave the page.
 */

import { fold } from "./text.js";

const SPACE = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const WORD = "\\p{L}\\p{N}_";
const TEXT = `(?:[^${SPACE}"]|"[^"]*")+`;
const END = `(?=[${SPACE}]|$)`;
const TERM = new RegExp(
  `[${SPACE}]*(?<negated>[-!])?(?:` +
    `/(?<regex>(?:\\\\[^\\n]|[^\\\\])+?)/${END}` +
    `|"(?<quoted>[^"]*)"${END}` +
    `|(?<kinds>kind:)(?<kind>${TEXT})?${END}` +
    `|(?<names>name:)(?<name>${TEXT})?${END}` +
    `|(?<label>(?:[^${SPACE}"=]|"[^"]*")*)=(?<value>${TEXT})?${END}` +
    `|(?<has>${TEXT}):${END}` +
    `|(?<word>(?![-!](?:[${SPACE}]|$))${TEXT})${END})`,
  "uy",
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
  let at = 0;
  for (;;) {
    TERM.lastIndex = at;
    const match = TERM.exec(text);
    if (!match) break;
    at = TERM.lastIndex;
    const found = term(match.groups);
    terms.push(match.groups.negated ? (series) => !found(series) : found);
  }
  const rest = text.slice(at).trim();
  if (rest === "-" || rest === "!") throw new FilterError(`a term must follow '${rest}'`);
  if (rest) throw new FilterError(`unclosed quote: ${rest}`);
  return (series) => terms.every((matches) => matches(series));
}

const plain = (text) => (text ?? "").replaceAll('"', "");

function term(groups) {
  if (groups.regex !== undefined) return regex(groups.regex);
  if (groups.quoted !== undefined) return word(groups.quoted);
  if (groups.kinds) return kind(plain(groups.kind));
  if (groups.names) return name(plain(groups.name));
  if (groups.label !== undefined) return label(plain(groups.label), groups.value ?? "");
  if (groups.has !== undefined) return hasLabel(plain(groups.has));
  if (OPEN_REGEX.test(groups.word)) {
    throw new FilterError(`${groups.word} has no closing slash; use quotes for a plain word`);
  }
  return word(plain(groups.word));
}

/** Return a series' texts, folded once. */
function folded(series) {
  return (series.folded ??= {
    name: fold(series.name),
    labels: series.labels.map(([label, value]) => [fold(label), fold(value)]),
  });
}

function word(text) {
  const wanted = fold(text);
  return (series) => {
    const { name, labels } = folded(series);
    return name.includes(wanted) || labels.some((pair) => pair.some((one) => one.includes(wanted)));
  };
}

function name(text) {
  const wanted = fold(text);
  return (series) => folded(series).name.includes(wanted);
}

function kind(text) {
  const kinds = KINDS.filter((one) => one.startsWith(fold(text)));
  if (!kinds.length) {
    throw new FilterError(`unknown kind '${text}'; the kinds are ${KINDS.join(", ")}`);
  }
  return (series) => kinds.includes(series.kind);
}

function hasLabel(text) {
  const wanted = fold(text);
  return (series) => folded(series).labels.some(([label]) => label === wanted);
}

function label(text, value) {
  if (!text) throw new FilterError(`missing label name before '=${value}'`);
  const wanted = fold(text);
  const parts = value.split("*").map((part) => fold(plain(part)));
  return (series) =>
    folded(series).labels.some(([label, value]) => label === wanted && matches(parts, value));
}

/** Whether a value consists of these parts, with any text between them. */
function matches(parts, value) {
  if (parts.length === 1) return value === parts[0];
  const [first, ...middle] = parts;
  const last = middle.pop();
  const end = value.length - last.length;
  let at = first.length;
  if (at > end || !value.startsWith(first) || !value.endsWith(last)) return false;
  for (const part of middle) {
    const found = value.indexOf(part, at);
    if (found < 0 || found + part.length > end) return false;
    at = found + part.length;
  }
  return true;
}

function regex(text) {
  let pattern;
  try {
    pattern = new RegExp(translated(text), "u");
  } catch (error) {
    throw new FilterError(`invalid regular expression /${text}/: ${reason(error)}`);
  }
  return (series) => pattern.test(keyText(series));
}

const reason = (error) => error.message.replace(/^Invalid regular expression: .*: /s, "");

/** Return `name [label = value, ...]`. */
export function keyText({ name, labels }) {
  if (!labels.length) return name;
  return `${name} [${labels.map(([label, value]) => `${label} = ${value}`).join(", ")}]`;
}

const CLASSES = {
  d: "\\p{Nd}", w: WORD, s: SPACE, // inside brackets
};
const BOUNDARY = `(?:(?<=[${WORD}])(?![${WORD}])|(?<![${WORD}])(?=[${WORD}]))`;
const NO_BOUNDARY = `(?:(?<=[${WORD}])(?=[${WORD}])|(?<![${WORD}])(?![${WORD}]))`;
const literal = (letter) => letter.replace(/[\\^$.*+?()[\]{}|/\-]/, "\\$&");
const CONTROL = { n: "\\n", t: "\\t", r: "\\r", f: "\\f", v: "\\v" };

/**
 * Translate the subset of Python's regular expressions: literals, `.`, `^`, `$`, `|`, groups with
 * `()` and `(?:)`, classes, `\d \w \s \b` and their negations, and repetitions, also lazy ones. A
 * repeated group must not contain a repetition, which could take a time without bounds.
 */
function translated(text) {
  const letters = [...text];
  const groups = [];
  let result = "";
  let at = 0;
  // What a repetition would apply to: nothing, an atom, or a group that has a repetition inside.
  let before = "";
  let repeats = false;
  const unsupported = (what) => {
    throw new FilterError(`${what} is not supported in this page`);
  };
  const escape = (inside) => {
    const letter = letters[at++];
    if (letter === undefined) throw new FilterError("it ends with a backslash");
    if (CLASSES[letter]) return inside ? CLASSES[letter] : `[${CLASSES[letter]}]`;
    if (CLASSES[letter.toLowerCase()] && !inside) return `[^${CLASSES[letter.toLowerCase()]}]`;
    if (CONTROL[letter]) return CONTROL[letter];
    if (/[A-Za-z0-9]/.test(letter)) unsupported(`\\${letter}`);
    return literal(letter);
  };
  const set = () => {
    let body = "";
    if (letters[at] === "^") body = letters[at++];
    let first = true;
    for (;;) {
      const letter = letters[at++];
      if (letter === undefined) throw new FilterError("a [ has no ]");
      if (letter === "]" && !first) break;
      first = false;
      if (letter === "[") unsupported("[ inside of [ ]");
      if (/[-&~|]/.test(letter) && letters[at] === letter) unsupported(letter + letter);
      const range = letter === "-" && body && body !== "^" && letters[at] !== "]";
      body += letter === "\\" ? escape(true) : range ? "-" : literal(letter);
    }
    return `[${body}]`;
  };
  while (at < letters.length) {
    const letter = letters[at++];
    if (letter === "\\") {
      if (letters[at] === "b" || letters[at] === "B") {
        result += letters[at++] === "b" ? BOUNDARY : NO_BOUNDARY;
        before = "";
        continue;
      }
      result += escape(false);
    } else if (letter === "[") result += set();
    else if (letter === ".") result += "[^\\n]";
    else if (letter === "^") {
      result += "^";
      before = "";
      continue;
    } else if (letter === "$") {
      result += "(?=\\n?$)";
      before = "";
      continue;
    } else if (letter === "|") {
      result += "|";
      before = "";
      continue;
    } else if (letter === "(") {
      if (letters[at] === "?" && letters[at + 1] !== ":") unsupported(`(?${letters[at + 1] ?? ""}`);
      if (letters[at] === "?") at += 2;
      groups.push(repeats);
      repeats = false;
      result += "(?:";
      before = "";
      continue;
    } else if (letter === ")") {
      if (!groups.length) throw new FilterError("a ) has no (");
      result += ")";
      before = repeats ? "repeated" : "atom";
      repeats ||= groups.pop();
      continue;
    } else if ("*+?{".includes(letter)) {
      let count = letter;
      if (letter === "{") {
        const [found] = /^\d+(?:,\d*)?\}/.exec(letters.slice(at).join("")) ?? [];
        if (!found) unsupported("{ without a number");
        count += found;
        at += found.length;
      }
      if (!before) throw new FilterError(`nothing to repeat before ${count}`);
      if (before === "repeated" && count !== "?") {
        unsupported("a repetition in a repeated group");
      }
      if (letters[at] === "?") count += letters[at++];
      if ("*+{".includes(letters[at] ?? " ")) unsupported("a second repetition");
      result += count;
      repeats ||= count !== "?";
      before = "";
      continue;
    } else result += literal(letter);
    before = "atom";
  }
  if (groups.length) throw new FilterError("a ( has no )");
  return result;
}
