"""
Damaged and truncated recordings: all commands report them with the same message and exit code.
"""

from __future__ import annotations

import errno
import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from tests.commands import CommandReactor, run
from tests.recordings import (
    FOREIGN,
    MANY,
    NO_RECORDINGS,
    RECORDINGS,
    STREAM,
    THREE,
    BadDisk,
    metrics,
    record,
)
from txmetrics_tcp import HistogramTotal, decode
from txmetrics_tcp._codec.encoder import encode_histogram_total
from txmetrics_tcp._recording import events


class InterruptedReactor(CommandReactor):
    """A reactor whose process receives SIGINT in its third iteration."""

    def run(self, installSignalHandlers: bool) -> None:
        interrupt = os.kill, os.getpid(), signal.SIGINT
        self.callLater(0, self.callLater, 0, self.callLater, 0, *interrupt)
        super().run(installSignalHandlers)

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        self.callLater(0, callable, *args, **kwargs)


class RecordingsTests(SynchronousTestCase):
    """`tests.unit.observe.test_sources` tests the same for the viewer."""

    def setUp(self) -> None:
        self.path = self.mktemp()

    def tail(self, on: CommandReactor | None = None) -> tuple[object, str, int]:
        """
        @return: the exit code, the messages except the one about unknown events, and the
            number of printed metric events.
        """
        code, out, said = run("tail", self.path, "--json", on=on)
        said = re.sub(r"metrics-tcp: cannot interpret .*\n", "", said)
        lines = map(json.loads, out.splitlines())
        return code, said, sum(line["event"] in ("metric", "histogram_total") for line in lines)

    def stats(self, on: CommandReactor | None = None) -> tuple[object, str, int]:
        code, out, said = run("stats", self.path, "--json", on=on)
        return code, said, json.loads(out)["events"]

    def replay(self) -> tuple[object, str, bytes]:
        """
        @return: the exit code, the messages that begin with the path, and the bytes that a client
            received.
        """
        reactor = CommandReactor()
        code, _, said = run("replay", self.path, "--speed", "max", on=reactor)
        about = f"metrics-tcp: {self.path}: "
        lines = [line for line in said.splitlines(True) if line.startswith(about)]
        return code, "".join(lines), reactor.received

    def test_allCommands(self) -> None:
        """All commands print the same message, exit code and events."""
        for name, case in RECORDINGS.items():
            Path(self.path).write_bytes(case.data)
            code, said, received = self.replay()
            self.assertEqual((code, received), (case.code, case.stream), name)
            if case.says:
                self.assertTrue(said.startswith(f"metrics-tcp: {self.path}: {case.says}"), said)
                self.assertEqual(said.count("\n"), 1)
            else:
                self.assertEqual(said, "", name)
            for command in self.tail, self.stats:
                self.assertEqual(command(), (code, said, metrics(case.stream)), name)

    def test_notARecording(self) -> None:
        """The message is one line with the reason, and the exit code is 1."""
        for case in NO_RECORDINGS.values():
            Path(self.path).write_bytes(case.data)
            for command in "tail", "stats", "replay", "observe":
                said = f"metrics-tcp: {self.path}: {case.says}\n"
                self.assertEqual(run(command, self.path), (1, "", said), command)

    def test_unreadable(self) -> None:
        """A file without read permission is reported with the reason."""
        Path(self.path).write_bytes(record(MANY))
        error = PermissionError(errno.EACCES, "Permission denied")
        with mock.patch.object(events, "open", side_effect=error, create=True):
            for command in "tail", "stats", "replay", "observe":
                said = f"metrics-tcp: {self.path}: cannot read the file: Permission denied\n"
                self.assertEqual(run(command, self.path), (1, "", said), command)

    def test_badDisk(self) -> None:
        """A read error ends the reading like damage at that place."""
        Path(self.path).write_bytes(record(*[THREE] * 10))
        with mock.patch.object(events, "open", BadDisk, create=True):
            code, said, received = self.replay()
            message = f"metrics-tcp: {self.path}: cannot read the file: Input/output error\n"
            self.assertEqual((code, said, received), (1, message, THREE * 3))
            for command in self.tail, self.stats:
                self.assertEqual(command(), (1, message, 9))

    def test_directory(self) -> None:
        """A directory is reported as such, rather than as an invalid endpoint."""
        for command in "tail", "stats", "observe":
            code, _, said = run(command, "/")
            message = "metrics-tcp: /: a directory; for the sockets in it, write '/*.sock'\n"
            self.assertEqual((code, said), (1, message))

    def test_maxFrame(self) -> None:
        """C{--max-frame} limits the frames of connections, not of recordings."""
        Path(self.path).write_bytes(record(MANY))
        for command in "tail", "stats":
            code, _, said = run(command, self.path, "--max-frame", "5")
            self.assertEqual((code, said), (0, ""))

    def test_interrupted(self) -> None:
        """Ctrl-C stops the command before the recording is read completely."""
        Path(self.path).write_bytes(RECORDINGS["a foreign frame in a large chunk"].data)
        with mock.patch.object(events, "TIME_SLICE", 0):
            for command in self.tail, self.stats:
                code, said, shown = command(InterruptedReactor())
                self.assertEqual((code, said), (130, ""))
                self.assertTrue(0 < shown < metrics(MANY), shown)

    def test_count(self) -> None:
        """With C{--count}, damage after the last printed event is not reported."""
        Path(self.path).write_bytes(record(MANY, FOREIGN))
        code, out, said = run("tail", self.path, "--count", "2")
        self.assertEqual((code, out.count("\n"), said), (0, 2, ""))

    def test_totalsOfHistograms(self) -> None:
        """The numbers of events include totals of histograms."""
        total = next(event for event in decode(STREAM) if isinstance(event, HistogramTotal))
        stream = b"".join([encode_histogram_total(total)] * 3)
        Path(self.path).write_bytes(record(stream))
        code, out, _ = run("tail", self.path, "--json", "--count", "2")
        self.assertEqual((code, out.count("\n")), (0, 2))
        self.assertEqual(self.stats(), (0, "", 3))
        self.assertIn("replayed 3 events", run("replay", self.path, on=CommandReactor()).err)
