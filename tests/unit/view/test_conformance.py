"""
The cases in C{tests/conformance.json}, which the web page passes too: see
L{tests.system.test_web_page}.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests import ROOT
from txmetrics_tcp import Key, MetricKind
from txmetrics_tcp._view.filters import FilterError, parse_filter
from txmetrics_tcp._view.numbers import show_rate, show_value
from txmetrics_tcp.observe.row import by_text

CASES: dict[str, Any] = json.loads((ROOT / "tests/conformance.json").read_text("utf-8"))


class ConformanceTests(SynchronousTestCase):
    def test_filters(self) -> None:
        keys = [
            Key(MetricKind(one["kind"]), one["name"], tuple(map(tuple, one["labels"])))
            for one in CASES["series"]
        ]
        for case in CASES["filters"]:
            text = case["filter"]
            if case.get("error"):
                self.assertRaises(FilterError, parse_filter, text)
                continue
            found = parse_filter(text)
            if "matches" in case:
                matches = [at for at, key in enumerate(keys) if found.matches(key)]
                self.assertEqual(matches, case["matches"], text)

    def test_numbers(self) -> None:
        for case in CASES["numbers"]:
            value = int(case["value"]) if case["whole"] else float(case["value"])
            show = show_rate if case.get("rate") else show_value
            text = show(value, case["unit"], case.get("width"))
            self.assertEqual(text, case["text"], case)

    def test_order(self) -> None:
        """Texts are sorted in the natural order."""
        for texts in CASES["order"]:
            self.assertEqual(sorted(reversed(texts), key=by_text), texts)
