"""
The benchmarks in benchmarks/: what a table says, that no figure comes from wrong accounts, and that
one of them runs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests import ROOT

BENCHMARKS = ROOT / "benchmarks"
if str(BENCHMARKS) not in sys.path:
    sys.path.append(str(BENCHMARKS))

import run  # noqa: E402
from suite import reader  # noqa: E402
from suite.commands import output_file  # noqa: E402
from suite.figures import OURS, REFERENCE, Goal, Row, Section, number, to_table  # noqa: E402
from suite.peers import PeerError, Session, until  # noqa: E402
from suite.streams import plain  # noqa: E402

CELLS = {OURS: [1.0e6, 1.2e6], REFERENCE: [5e5, 8e5]}


class TableTests(SynchronousTestCase):
    """What a table says."""

    def test_ratio(self) -> None:
        """It is the median of the pairs' ratios: of 2 and 1.5, where the medians' is 1.69."""
        table = to_table([Row.of("what", "unit", CELLS, REFERENCE)])
        self.assertIn("1,100,000 [1,000,000 to 1,200,000], **1.75 x**", table)

    def test_verdicts(self) -> None:
        for goal, verdict in (
            (Goal(1.75), "≥ 1.75 x | yes"),
            (Goal(1.76), "≥ 1.76 x | no"),
            (Goal(1.75, at_least=False), "≤ 1.75 x | yes"),
            (Goal(1.74, at_least=False), "≤ 1.74 x | no"),
        ):
            table = to_table([Row.of("what", "unit", CELLS, REFERENCE, goal)])
            self.assertTrue(table.endswith(f"| {verdict} |\n"), table)

    def test_no_ratio(self) -> None:
        """Without the reference, or where it is not above 0, there is no ratio and no verdict."""
        for cells in ({OURS: [1.0]}, {OURS: [1.0], REFERENCE: [0.0]}):
            table = to_table([Row.of("what", "unit", cells, REFERENCE, Goal(1))])
            self.assertNotIn(" x**", table)
            self.assertTrue(table.endswith("|  |\n"), table)

    def test_limited_by_the_reader(self) -> None:
        """A figure within 1.5 times of what the reader alone takes has a mark."""
        for alone, mark in ((1.6e6, True), (1.7e6, False)):
            table = to_table([Row.of("what", "unit", CELLS, reader=alone)])
            self.assertEqual("1,200,000] †" in table, mark, table)
            self.assertNotIn("800,000] †", table)
            self.assertTrue(table.endswith(f"| {number(alone)} |\n"), table)

    def test_calls(self) -> None:
        """Costs are in empty method calls as well."""
        self.assertIn(
            "| 100 = 4 calls |", to_table([Row.of("what", "ns", {OURS: [100.0]}, call=25)])
        )

    def test_number(self) -> None:
        for value, text in (
            (0.01234, "0.0123"),
            (99.94, "99.9"),
            (1234, "1,230"),
            (999.6, "1,000"),
        ):
            self.assertEqual(number(value), text)

    def test_page(self) -> None:
        """It names the host and the reader before any figure."""
        page = run.to_page(
            {"host": "2 x CPU", "reader": "Rust"},
            [Section("Title", "How.", [Row.of("what", "unit", CELLS, REFERENCE)])],
        )
        self.assertIn("- host: 2 x CPU\n- reader: Rust\n\n## Title\n\nHow.\n\n|  | ours |", page)


class FakeServer:
    """Answers what a test says."""

    name = "fake"

    def __init__(self, ours: bool, dropped: list[int]) -> None:
        self.ours = ours
        self._dropped = dropped

    def ask(self, word: str) -> dict[str, Any]:
        none = {"dropped_incoming": 0, "waiting": 0, "discarded": 0}
        return {"clients": [{"dropped": dropped, **none} for dropped in self._dropped]}

    def record(self, count: int, **how: float) -> dict[str, Any]:
        return {"recorded": count}


class FakeReader:
    """Has read what a test says, however long one waits."""

    mode = "count"

    def __init__(self, events: list[int], wrong: list[str]) -> None:
        self.clients = len(events)
        self._report = {"events": events, "wrong": wrong}

    def wait(self, total: int, quiet: float) -> dict[str, Any]:
        return self._report

    def ask(self, word: str) -> None:
        """C{reset}, which changes nothing here."""


class SessionTests(SynchronousTestCase):
    """What was recorded, read and counted as dropped must agree."""

    def session(
        self, events: list[int], dropped: list[int], ours: bool = True, wrong: str = ""
    ) -> Session:
        """Of ten events that were recorded."""
        server: Any = FakeServer(ours, dropped)
        reader: Any = FakeReader(events, [wrong] if wrong else [])
        session = Session(server, reader)
        session.record(count=10)
        return session

    def test_all_was_read(self) -> None:
        session = self.session([10, 10], [0, 0])
        self.assertEqual(session.read_all()["events"], [10, 10])
        self.assertEqual(session.close(), 0)

    def test_losses_agree(self) -> None:
        self.assertEqual(self.session([10, 7], [0, 3]).close(), 3)

    def test_losses_of_the_reference(self) -> None:
        """It does not count them."""
        self.assertEqual(self.session([9, 7], [], ours=False).close(), 4)

    def test_nothing_was_read(self) -> None:
        """That is an error that says so, and no division by zero."""
        for ours in (True, False):
            session = self.session([0], [0], ours) if ours else self.session([1], [], ours)
            error = self.assertRaises(PeerError, session.read_all)
            self.assertIn(f"{0 if ours else 1} of 10 events were read", str(error))

    def test_losses_differ(self) -> None:
        for events, dropped in (([10, 7], [0, 4]), ([10, 10], [0, 1])):
            error = self.assertRaises(PeerError, self.session(events, dropped).close)
            self.assertIn("the server's accounts are", str(error))

    def test_corrupt_stream(self) -> None:
        """That is an error of this library, and is known of the reference."""
        self.assertRaises(PeerError, self.session([10], [0], wrong="what is no event").close)
        session = self.session([9], [], ours=False, wrong="what is no event")
        session.close()
        self.assertEqual(session.corrupt, ["what is no event"])

    def test_until(self) -> None:
        """What does not come is an error after a while."""
        self.assertIn("no clients", str(self.assertRaises(PeerError, until, bool, 0, "no clients")))


class ReaderTests(SynchronousTestCase):
    def test_counts_events_across_pieces(self) -> None:
        """The reader in Python counts each event once, wherever the stream is cut."""
        data = b"".join(plain(3))
        for cut in range(1, len(data)):
            client = reader.Client(FakeSocket([data[:cut], data[cut:]]))
            received = client.receive() + client.receive()
            self.assertEqual((client.events, received), (3, len(data)))


class FakeSocket:
    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def recv(self, size: int) -> bytes:
        return self._pieces.pop(0)


class RunTests(SynchronousTestCase):
    def test_output_file(self) -> None:
        """That it cannot be written is reported before anything is measured."""
        path = Path(self.mktemp())
        path.parent.mkdir(parents=True, exist_ok=True)
        self.assertEqual(output_file(str(path)), path)
        self.assertFalse(path.exists())
        path.write_text("of an earlier run")
        output_file(str(path))
        self.assertEqual(path.read_text(), "of an earlier run")
        self.assertRaises(argparse.ArgumentTypeError, output_file, str(path / "figures"))

    def test_quick(self) -> None:
        """One of the benchmarks, where there is no cargo."""
        page = Path(self.mktemp()).resolve()
        page.parent.mkdir(parents=True, exist_ok=True)
        ended = subprocess.run(
            [
                *(sys.executable, str(BENCHMARKS / "run.py"), "--quick"),
                *("--only", "snapshot", "latency", "--page", str(page)),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, "PATH": str(page.parent / "nothing")},
        )
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertIn("latency: not measured", ended.stderr)
        text = page.read_text()
        for part in ("- reader: Python; ", "- a system call", "| snapshot() (ms) | "):
            self.assertIn(part, text)
