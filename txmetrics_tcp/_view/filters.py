"""
The filter language that selects series, shared by all commands and the viewer.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from txmetrics_tcp._checks import short_repr
from txmetrics_tcp._model import Key, MetricKind


class FilterError(ValueError):
    """The filter is invalid.  The message is the reason, for the user."""


@dataclass(frozen=True)
class Filter:
    """
    Selects series.  Created by `parse_filter`.

    @ivar text: the filter as the user wrote it.
    """

    text: str
    _terms: tuple[Callable[[Key], bool], ...] = ()

    def matches(self, key: Key) -> bool:
        """Whether the filter selects a series."""
        return all(term(key) for term in self._terms)


def parse_filter(text: str) -> Filter:
    """
    Parse a filter; ``metrics-tcp tail --help`` describes the syntax.  A filter without terms
    matches every series.

        >>> wanted = parse_filter("kind:counter route=/api/* -status=5*")
        >>> wanted.matches(Key.of(MetricKind.COUNTER, "requests", {"route": "/api/users"}))
        True

    @raise FilterError: the filter is invalid.
    @raise TypeError: the filter is not a `str`.
    """
    if not isinstance(text, str):
        raise TypeError(f"a filter must be a str, not {short_repr(text)}")
    terms = []
    at = 0
    while match := _TERM.match(text, at):
        at = match.end()
        term = _term(match)
        terms.append(_not(term) if match["negated"] else term)
    rest = text[at:].strip()
    if rest:
        if rest in ("-", "!"):
            raise FilterError(f"a term must follow {rest!r}")
        raise FilterError(f"unclosed quote: {rest}")
    return Filter(text, tuple(terms))


# Text without spaces, except inside quotes.
_TEXT = r"""(?:[^\s"]|"[^"]*")+"""

_TERM = re.compile(
    rf"""\s*(?P<negated>[-!])?(?:
        /(?P<regex>(?:\\.|[^\\])+?)/(?=\s|$)
      | "(?P<quoted>[^"]*)"(?=\s|$)
      | (?P<kinds>kind:)(?P<kind>{_TEXT})?(?=\s|$)
      | name:(?P<name>{_TEXT})?(?=\s|$)
      | (?P<label>(?:[^\s"=]|"[^"]*")*)=(?P<value>{_TEXT})?(?=\s|$)
      | (?P<has>{_TEXT}):(?=\s|$)
      | (?P<word>(?![-!](?:\s|$)){_TEXT})(?=\s|$)
    )""",
    re.VERBOSE,
)

# A word with a leading slash is a path, unless it contains regular expression syntax.
_OPEN_REGEX = re.compile(r"/[^\"]*([()|^$\[\]\\]|\.[*+])")


def _term(match: re.Match[str]) -> Callable[[Key], bool]:
    if match["regex"] is not None:
        return _regex(match["regex"])
    if match["quoted"] is not None:
        return _word(match["quoted"])
    if match["label"] is not None:
        return _label(_plain(match["label"]), match["value"] or "")
    if match["has"] is not None:
        return _has_label(_plain(match["has"]))
    if match["word"] is not None:
        if _OPEN_REGEX.match(match["word"]):
            raise FilterError(f"{match['word']} has no closing slash; use quotes for a plain word")
        return _word(_plain(match["word"]))
    if match["kinds"]:
        return _kind(_plain(match["kind"] or ""))
    return _name(_plain(match["name"] or ""))


def _plain(text: str) -> str:
    return text.replace('"', "")


def _not(term: Callable[[Key], bool]) -> Callable[[Key], bool]:
    return lambda key: not term(key)


def _word(text: str) -> Callable[[Key], bool]:
    wanted = text.casefold()
    return lambda key: (
        wanted in key.name.casefold()
        or any(
            wanted in label.casefold() or wanted in value.casefold() for label, value in key.labels
        )
    )


def _name(text: str) -> Callable[[Key], bool]:
    wanted = text.casefold()
    return lambda key: wanted in key.name.casefold()


def _kind(text: str) -> Callable[[Key], bool]:
    beginning = text.casefold()
    kinds = {kind for kind in MetricKind if kind.value.startswith(beginning)}
    if not kinds:
        known = ", ".join(kind.value for kind in MetricKind)
        raise FilterError(f"unknown kind {text!r}; the kinds are {known}")
    return lambda key: key.kind in kinds


def _has_label(text: str) -> Callable[[Key], bool]:
    wanted = text.casefold()
    return lambda key: any(label.casefold() == wanted for label, _value in key.labels)


def _label(label: str, value: str) -> Callable[[Key], bool]:
    if not label:
        raise FilterError(f"missing label name before {'=' + value!r}")
    wanted = label.casefold()
    parts = [_plain(part).casefold() for part in value.split("*")]
    return lambda key: any(
        name.casefold() == wanted and _matches(parts, value.casefold())
        for name, value in key.labels
    )


def _matches(parts: list[str], value: str) -> bool:
    """
    Whether a value consists of these parts, with any text between them.

    A regular expression would take a time that grows with a power of the value's length.
    """
    first, *others = parts
    if not others:
        return value == first
    *middle, last = others
    at, end = len(first), len(value) - len(last)
    if at > end or not (value.startswith(first) and value.endswith(last)):
        return False
    for part in middle:
        found = value.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def _regex(text: str) -> Callable[[Key], bool]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise FilterError(f"invalid regular expression /{text}/: {error}") from None
    return lambda key: pattern.search(str(key)) is not None
