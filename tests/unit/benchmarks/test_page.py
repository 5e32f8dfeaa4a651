"""
The benchmarks in benchmarks/: tables, and the comparison of accounts before a figure is used.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from contextlib import redirect_stderr
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import run
from suite import reader
from suite.bench import left_out
from suite.commands import output_file
from suite.figures import (
    AT_ONCE,
    OURS,
    REACTOR,
    REFERENCE,
    Goal,
    ReaderSpeed,
    Row,
    Section,
    number,
    to_table,
)
from suite.peers import NoFigure, PeerError, Session, seconds_from, until
from suite.streams import plain
from twisted.trial.unittest import SynchronousTestCase

CELLS = {OURS: [1.0e6, 1.2e6], REFERENCE: [5e5, 8e5]}


class TableTests(SynchronousTestCase):
    def test_ratio(self) -> None:
        """The ratio is the median of the ratios of pairs (2 and 1.5), not the ratio of medians."""
        table = to_table([Row.of("what", "unit", CELLS, REFERENCE)])
        self.assertIn("1,100,000 [1,000,000 to 1,200,000], **1.75 x**", table)

    def test_verdicts(self) -> None:
        for goal, outcome in (
            (Goal(1.75), "≥ 1.75 x | yes"),
            (Goal(1.76), "≥ 1.76 x | no"),
            (Goal(1.75, at_least=False), "≤ 1.75 x | yes"),
            (Goal(1.74, at_least=False), "≤ 1.74 x | no"),
        ):
            table = to_table([Row.of("what", "unit", CELLS, REFERENCE, goal)])
            self.assertTrue(table.endswith(f"| {outcome} |\n"), table)

    def test_no_ratio(self) -> None:
        """A row has no ratio and no outcome if the reference is missing or 0."""
        for cells in ({OURS: [1.0]}, {OURS: [1.0], REFERENCE: [0.0]}):
            table = to_table([Row.of("what", "unit", cells, REFERENCE, Goal(1))])
            self.assertNotIn(" x**", table)
            self.assertNotIn("yes", table)

    def test_goals_with_units(self) -> None:
        """
        A goal with another unit applies to the figure, also if there is no ratio. Each goal has an
        outcome for each column of this library.
        """
        cells = {OURS: [20.0], REACTOR: [21.0], AT_ONCE: [10.0]}
        goals = (Goal(20, False, "µs"), Goal(0.5, False))
        table = to_table([Row.of("what", "µs an event", cells, REFERENCE, *goals)])
        self.assertTrue(table.endswith("| 10 | ≤ 20 µs | yes, no |\n"), table)
        cells[REFERENCE] = [41.0]
        table = to_table([Row.of("what", "µs an event", cells, REFERENCE, *goals)])
        self.assertTrue(table.endswith("| 41 | ≤ 20 µs; ≤ 0.5 x | yes, no; yes, no |\n"), table)

    def test_limited_by_the_reader(self) -> None:
        """A figure is marked if the reader's speed is less than 1.5 times as high."""
        for alone, mark in ((1.6e6, True), (1.7e6, False)):
            table = to_table([Row.of("what", "unit", CELLS, reader=ReaderSpeed(alone))])
            self.assertEqual("1,200,000] †" in table, mark, table)
            self.assertNotIn("800,000] †", table)
            self.assertTrue(table.endswith(f"| {number(alone)} |\n"), table)

    def test_limited_by_the_writer(self) -> None:
        """If the writer is the limit, the reader's speed is a lower bound."""
        table = to_table([Row.of("what", "unit", CELLS, reader=ReaderSpeed(2e6, least=True))])
        self.assertTrue(table.endswith("| at least 2,000,000 |\n"), table)

    def test_calls(self) -> None:
        """A cost is also shown as a number of empty method calls."""
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
        """The page names the host and the reader before any figure."""
        page = run.to_page(
            {"host": "2 x CPU", "reader": "Rust"},
            [Section("Title", "How.", [Row.of("what", "unit", CELLS, REFERENCE)])],
        )
        self.assertIn("- host: 2 x CPU\n- reader: Rust\n\n## Title\n\nHow.\n\n|  | ours |", page)


class FakeServer:
    """A server that reports the given statistics of its clients."""

    name = "fake"

    def __init__(self, ours: bool, dropped: list[int]) -> None:
        self.ours = ours
        self._dropped = dropped

    def ask(self, word: str) -> dict[str, Any]:
        none = {"dropped_incoming": 0, "waiting": 0, "discarded": 0}
        return {"clients": [{"dropped_client": dropped, **none} for dropped in self._dropped]}

    def record(self, count: int, **how: float) -> dict[str, Any]:
        return {"recorded": count}


class FakeReader:
    """A reader that reports one event for each client, and then the given events."""

    mode = "count"

    def __init__(self, events: list[int], wrong: list[str]) -> None:
        self.clients = len(events)
        self._report = {"events": events, "wrong": wrong}

    def wait(self, total: int, quiet: float) -> dict[str, Any]:
        return {"events": [1] * self.clients} if total == self.clients else self._report

    def ask(self, word: str) -> None:
        """Ignore C{reset}."""


class SessionTests(SynchronousTestCase):
    """The numbers of recorded, read and dropped events must agree."""

    def session(
        self, events: list[int], dropped: list[int], ours: bool = True, wrong: str = ""
    ) -> Session:
        """Return a session in which ten events were recorded."""
        server: Any = FakeServer(ours, dropped)
        reader: Any = FakeReader(events, [wrong] if wrong else [])
        session = Session(server, reader)
        session.record(count=10)
        return session

    def test_all_was_read(self) -> None:
        session = self.session([10, 10], [0, 0])
        self.assertEqual(session.wait_for_all()["events"], [10, 10])
        self.assertEqual(session.losses(), 0)

    def test_losses_agree(self) -> None:
        self.assertEqual(self.session([10, 7], [0, 3]).losses(), 3)

    def test_losses_of_the_reference(self) -> None:
        """The reference does not count losses, so the reader's numbers are used."""
        self.assertEqual(self.session([9, 7], [], ours=False).losses(), 4)

    def test_no_event_read(self) -> None:
        """The error names the numbers; with the reference, the figure is left out."""
        for ours, kind in ((True, PeerError), (False, NoFigure)):
            error = self.assertRaises(kind, self.session([0], [0], ours).wait_for_all)
            self.assertIs(type(error), kind)
            self.assertIn("0 of 10 events were read", str(error))

    def test_zero_duration(self) -> None:
        """A duration of 0 is an error, not a division by zero."""
        self.assertEqual(seconds_from(10**9, {"last_ns": 3 * 10**9}), 2.0)
        self.assertRaises(PeerError, seconds_from, 1, {"last_ns": 1})

    def test_left_out(self) -> None:
        """`NoFigure` leaves out the row; other errors are raised."""
        with left_out("what"):
            raise NoFigure("why")
        with self.assertRaises(PeerError), left_out("what"):
            raise PeerError("why")

    def test_losses_differ(self) -> None:
        for events, dropped in (([10, 7], [0, 4]), ([10, 10], [0, 1])):
            error = self.assertRaises(PeerError, self.session(events, dropped).losses)
            self.assertIn("the server's accounts are", str(error))

    def test_corrupt_stream(self) -> None:
        """A corrupt stream is an error with this library, and expected of the reference."""
        self.assertRaises(PeerError, self.session([10], [0], wrong="not an event").losses)
        session = self.session([9], [], ours=False, wrong="not an event")
        session.losses()
        self.assertEqual(session.corrupt, ["not an event"])

    def test_until(self) -> None:
        """A condition that stays false is an error after the timeout."""
        self.assertIn("no clients", str(self.assertRaises(PeerError, until, bool, 0, "no clients")))


class ReaderTests(SynchronousTestCase):
    def test_counts_events_across_pieces(self) -> None:
        """The Python reader counts each event once, wherever the stream is split."""
        data = b"".join(plain(3))
        for cut in range(1, len(data)):
            client = reader.Client(FakeSocket([data[:cut], data[cut:]]))
            received = client.receive() + client.receive()
            self.assertEqual((client.events, received), (3, len(data)))

    def test_pause(self) -> None:
        """After a pause of the process, the reader reads pending data before it reports silence."""
        polls = iter([[(0, 1)], [(5, 1)], [], [(0, 1)]])
        poller = SimpleNamespace(poll=lambda timeout: next(polls), register=lambda *which: None)
        lines = iter([b"wait total=3 quiet=0.4\n", b""])
        answers: list[dict[str, Any]] = []
        # The clock advances a second at each reading.
        clock = SimpleNamespace(monotonic=count().__next__, monotonic_ns=lambda: 7)
        self.patch(reader, "time", clock)
        self.patch(reader, "select", SimpleNamespace(poll=lambda: poller, POLLIN=1))
        self.patch(reader, "os", SimpleNamespace(read=lambda *which: next(lines)))
        self.patch(reader, "say", answers.append)
        reader.run({5: reader.Client(FakeSocket([b"".join(plain(2))]))})
        self.assertEqual(answers, [{"events": [2], "wrong": [], "last_ns": 7}])


class FakeSocket:
    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def recv(self, size: int) -> bytes:
        return self._pieces.pop(0)


class RunTests(SynchronousTestCase):
    def test_output_file(self) -> None:
        """A file that cannot be written is reported before any measurement."""
        path = Path(self.mktemp())
        path.parent.mkdir(parents=True, exist_ok=True)
        self.assertEqual(output_file(str(path)), path)
        self.assertFalse(path.exists())
        path.write_text("of an earlier run")
        output_file(str(path))
        self.assertEqual(path.read_text(), "of an earlier run")
        self.assertRaises(argparse.ArgumentTypeError, output_file, str(path / "figures"))

    def test_page_of_partial_run(self) -> None:
        """A partial run cannot replace the page of a whole run, for any form of its path."""
        for option in (["--quick"], ["--only", "paced"]):
            for page in ([], [os.path.relpath(run.PAGE)]):
                self.patch(sys, "argv", ["run.py", *option, "--page", *page])
                with redirect_stderr(io.StringIO()) as printed:
                    self.assertRaises(SystemExit, run.main)
                self.assertIn("--page needs another FILE", printed.getvalue())
