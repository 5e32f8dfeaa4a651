"""
The filter language.
"""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmetrics_tcp import Key, MetricKind
from txmetrics_tcp._view.filters import FilterError, parse_filter

REQUESTS = Key.of(MetricKind.COUNTER, "http_requests_total", {"method": "GET", "route": "/api/v1"})
QUEUE = Key.of(MetricKind.GAUGE, "queue_depth", {"queue": "Mail out", "shard": ""})
LATENCY = Key.of(MetricKind.HISTOGRAM, "latency_seconds", {"route": "/"})
ODD = Key.of(MetricKind.COUNTER, "a=b", {"kind": "-x"})
ALL = REQUESTS, QUEUE, LATENCY, ODD


class FilterTests(SynchronousTestCase):
    def check(self, text: str, *wanted: Key) -> None:
        found = parse_filter(text)
        self.assertEqual(found.text, text)
        self.assertEqual([key for key in ALL if found.matches(key)], list(wanted), text)

    def test_nothing(self) -> None:
        self.check("", *ALL)
        self.check("  ", *ALL)

    def test_words(self) -> None:
        """A word matches the name, a label's name or a label's value; case is ignored."""
        self.check("TOTAL", REQUESTS)
        self.check("route", REQUESTS, LATENCY)
        self.check("mail", QUEUE)
        self.check("/api/v1", REQUESTS)
        self.check("/v1", REQUESTS)
        self.check('"/v1|"')
        self.check("absent")

    def test_allTermsMatch(self) -> None:
        self.check("route /api", REQUESTS)
        self.check("route  mail")

    def test_quotes(self) -> None:
        self.check('"mail out"', QUEUE)
        self.check('mail" "out', QUEUE)
        self.check('queue="mail out"', QUEUE)
        self.check('name:"queue_depth"', QUEUE)

    def test_quotedIsWord(self) -> None:
        """A fully quoted term is a plain word."""
        self.check('"a=b"', ODD)
        self.check('"-x"', ODD)
        self.check('"kind:c"')
        self.check('-"a=b"', REQUESTS, QUEUE, LATENCY)

    def test_kind(self) -> None:
        self.check("kind:counter", REQUESTS, ODD)
        self.check("kind:g", QUEUE)
        self.check("kind:HIST", LATENCY)
        self.check("kind:", *ALL)

    def test_name(self) -> None:
        """A name term does not match labels."""
        self.check("name:queue", QUEUE)
        self.check("name:mail")
        self.check("name:", *ALL)

    def test_label(self) -> None:
        """A label term matches the whole value, as a pattern."""
        self.check("route=/", LATENCY)
        self.check("route=/*", REQUESTS, LATENCY)
        self.check("route=*v1", REQUESTS)
        self.check("ROUTE=/a*/v*", REQUESTS)
        self.check("method=ge")
        self.check("shard=", QUEUE)
        self.check("route=.*")
        self.check("route=[/]")

    @given(st.text("ab*", min_size=1, max_size=8), st.text("ab", max_size=8))
    def test_stars(self, pattern: str, value: str) -> None:
        """A star stands for any text."""
        key = Key(MetricKind.COUNTER, "m", (("l", value),))
        expected = re.fullmatch(pattern.replace("*", ".*"), value) is not None
        self.assertEqual(parse_filter(f"l={pattern}").matches(key), expected)

    def test_longValue(self) -> None:
        """The time to match a long value, which a server may send, does not explode."""
        key = Key(MetricKind.COUNTER, "m", (("l", "a" * 1_000_000 + "b"),))
        self.assertFalse(parse_filter("l=*a*a*a*a*c*b").matches(key))

    def test_hasLabel(self) -> None:
        self.check("route:", REQUESTS, LATENCY)
        self.check("rout:")

    def test_regex(self) -> None:
        """A regex searches the text form of the key; case matters."""
        self.check("/^http_/", REQUESTS)
        self.check("/route = \\/(?!a)/", LATENCY)
        self.check("/GET|Mail/", REQUESTS, QUEUE)
        self.check("/get/")
        self.check("/Mail out/ shard:", QUEUE)
        self.check("-/./")

    def test_not(self) -> None:
        self.check("-route", QUEUE, ODD)
        self.check("!kind:c", QUEUE, LATENCY)
        self.check("-route=/ route:", REQUESTS)
        self.check("-/Mail/ -a=b", REQUESTS, LATENCY, ODD)
        self.check("-route:", QUEUE, ODD)

    def test_invalid(self) -> None:
        """The error message is one line that quotes the invalid term."""
        for text, message in (
            ("kind:x", "unknown kind 'x'; the kinds are counter, gauge, histogram"),
            ("/(/", "invalid regular expression /(/: missing )"),
            ("/(", "/( has no closing slash; use quotes for a plain word"),
            ("!/get|post x", "/get|post has no closing slash"),
            ('a "b', 'unclosed quote: "b'),
            ("=b", "missing label name before '=b'"),
            ("-", "a term must follow '-'"),
            ("a !", "a term must follow '!'"),
        ):
            error = self.assertRaises(FilterError, parse_filter, text)
            self.assertIn(message, str(error))
            self.assertNotIn("\n", str(error))

    @given(st.text(alphabet='ab=:/*-!"kind name\\(', max_size=12) | st.text(max_size=12))
    def test_anyText(self, text: str) -> None:
        """Any text is either parsed or rejected with a message."""
        try:
            found = parse_filter(text)
        except FilterError as error:
            self.assertTrue(str(error))
        else:
            for key in ALL:
                self.assertIsInstance(found.matches(key), bool)
