"""
The language of filters.
"""

from __future__ import annotations

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
        """In the name, a label's name or a label's value; upper and lower case are the same."""
        self.check("TOTAL", REQUESTS)
        self.check("route", REQUESTS, LATENCY)
        self.check("mail", QUEUE)
        self.check("/api/v1", REQUESTS)
        self.check("/v1", REQUESTS)
        self.check('"/v1|"')
        self.check("absent")

    def test_all(self) -> None:
        self.check("route /api", REQUESTS)
        self.check("route  mail")

    def test_quotes(self) -> None:
        self.check('"mail out"', QUEUE)
        self.check('mail" "out', QUEUE)
        self.check('queue="mail out"', QUEUE)
        self.check('name:"queue_depth"', QUEUE)

    def test_plain(self) -> None:
        """What is in quotes is a word, whatever it looks like."""
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
        """Not in labels."""
        self.check("name:queue", QUEUE)
        self.check("name:mail")
        self.check("name:", *ALL)

    def test_label(self) -> None:
        """All of the value, as a pattern."""
        self.check("route=/", LATENCY)
        self.check("route=/*", REQUESTS, LATENCY)
        self.check("route=*v1", REQUESTS)
        self.check("ROUTE=/a*/v*", REQUESTS)
        self.check("method=ge")
        self.check("shard=", QUEUE)
        self.check("route=.*")
        self.check("route=[/]")

    def test_hasLabel(self) -> None:
        self.check("route:", REQUESTS, LATENCY)
        self.check("rout:")

    def test_regex(self) -> None:
        """Searched in what is shown, with upper and lower case as written."""
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

    def test_wrong(self) -> None:
        """One line says what is wrong, with what was written."""
        for text, says in (
            ("kind:x", "no kind 'x'; the kinds are counter, gauge, histogram"),
            ("/(/", "the regular expression /(/ is wrong: missing )"),
            ("/(", "a regular expression ends with a slash, unlike /(; in quotes, that is a word"),
            ("!/get|post x", "unlike /get|post;"),
            ('a "b', 'a quote is not closed: "b'),
            ("=b", "the name of a label is missing before '=b'"),
            ("-", "nothing follows the '-'"),
            ("a !", "nothing follows the '!'"),
        ):
            error = self.assertRaises(FilterError, parse_filter, text)
            self.assertIn(says, str(error))
            self.assertNotIn("\n", str(error))

    @given(st.text(alphabet='ab=:/*-!"kind name\\(', max_size=12) | st.text(max_size=12))
    def test_anyText(self, text: str) -> None:
        """Whatever somebody types is understood, or refused with a reason."""
        try:
            found = parse_filter(text)
        except FilterError as error:
            self.assertTrue(str(error))
        else:
            for key in ALL:
                self.assertIsInstance(found.matches(key), bool)
