"""
The exit codes of all commands: 2 for a wrong command line, 1 for what it names.
"""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock, skipIf

from twisted.trial.unittest import SynchronousTestCase

from tests.authority import no_tls
from tests.commands import run
from tests.recordings import FOREIGN, THREE, record

READERS = {"tail": "tail", "stats": "stats", "observe": "observe", "replay": "replay", "web": "web"}
"""The commands that read a recording."""

CLIENTS = {
    "tail": "tail",
    "stats": "stats",
    "observe": "observe",
    "record": "record new.rec --duration 1",
    "prometheus": "prometheus",
    "web": "web",
}
"""The commands that connect to a server."""

ALL = {**READERS, **CLIENTS}


class ExitCodeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = f"./{self.mktemp()}"

    def assert_exits(self, code: int, commands: dict[str, str], *arguments: str) -> None:
        for name, command in commands.items():
            ended = run(*command.split(), *arguments)
            self.assertEqual((ended.code, ended.out), (code, ""), f"{name} {ended.err}")
            self.assertIn("metrics-tcp", ended.err)
            usage = ended.err.startswith(f"usage: metrics-tcp {name} ")
            self.assertEqual(usage, " error: " in ended.err)

    def test_missing(self) -> None:
        """A missing file."""
        self.assert_exits(1, READERS | {"raw": "tail --raw"}, self.path)

    def test_directory(self) -> None:
        os.mkdir(self.path)
        self.assert_exits(1, READERS | {"raw": "tail --raw"}, self.path)
        # Recordings are created in it; a file without an event is removed.
        self.assertEqual(run("record", self.path, "5000", "--duration", "1").code, 1)
        self.assertEqual(os.listdir(self.path), [])

    def test_fifo(self) -> None:
        """A FIFO without a writer; C{replay} and C{tail --raw} wait for one."""
        os.mkfifo(self.path)
        self.assert_exits(1, {name: name for name in READERS if name != "replay"}, self.path)

    def test_notARecording(self) -> None:
        for data in b"", b"something else", THREE:
            Path(self.path).write_bytes(data)
            self.assert_exits(1, READERS, self.path)

    def test_damaged(self) -> None:
        """A damaged recording, and a damaged raw capture."""
        Path(self.path).write_bytes(record(THREE, FOREIGN))
        for command in "tail", "stats --sort name", "replay --speed max":
            self.assertEqual(run(*command.split(), self.path).code, 1)
        Path(self.path).write_bytes(THREE + FOREIGN)
        self.assertEqual(run("tail", "--raw", self.path).code, 1)

    def test_existing(self) -> None:
        """C{record} does not replace a file."""
        Path(self.path).write_bytes(b"x")
        self.assertEqual(run("record", self.path, "5000").code, 1)

    def test_endpoint(self) -> None:
        """A wrong endpoint."""
        listening = {
            "replay": "replay x --listen",
            "prometheus": "prometheus --listen",
            "web": "web --listen",
        }
        for endpoint in "nowhere:x", "localhost:70000", "tcp:x", "":
            self.assert_exits(2, CLIENTS, endpoint)
            self.assert_exits(2, listening, endpoint)
        # Of record, only FILE can be a file; of prometheus, nothing can.
        only = {name: CLIENTS[name] for name in ("record", "prometheus")}
        self.assert_exits(2, only, self.path)

    def test_noServer(self) -> None:
        """A server that cannot be reached."""
        for command in "tail", "stats", "record new.rec":
            self.assertEqual(run(*command.split(), "1", "--duration", "1").code, 1, command)

    @skipIf(no_tls, no_tls)
    def test_tls(self) -> None:
        """A missing TLS file is an error of the environment; a bad name or combination is not."""
        self.assert_exits(1, CLIENTS, "5000", "--tls-ca", self.path)
        for options in (["--tls-name", "a..b"], ["--tls-key", self.path]):
            self.assert_exits(2, CLIENTS, "5000", *options)

    def test_unknownOption(self) -> None:
        self.assert_exits(2, ALL, "x", "--no-such-option")

    def test_badValue(self) -> None:
        self.assert_exits(2, CLIENTS, "5000", "--max-frame", "0")
        self.assert_exits(2, {"replay": "replay"}, "x", "--speed", "0")
        self.assert_exits(2, {"prometheus": "prometheus"}, "5000", "--stale-after", "0")
        for option in "--history", "--max-viewers":
            self.assert_exits(2, {"web": "web"}, "5000", option, "0")

    def test_twice(self) -> None:
        """No command takes a server twice."""
        several = CLIENTS | {"record": f"record {self.mktemp()}/"}
        with mock.patch.object(os, "isatty", lambda number: True):
            self.assert_exits(2, several, "5000", "127.0.0.1:5000")

    def test_endpointFile(self) -> None:
        """A missing file of endpoints is a wrong command line; so is a wrong line in it."""
        several = CLIENTS | {"record": f"record {self.mktemp()}/"}
        self.assert_exits(2, several, f"@{self.path}")
        Path(self.path).write_text("5000\nnowhere:x\n")
        self.assert_exits(2, several, f"@{self.path}")
        self.assertIn(
            f"{self.path}, line 2: 'nowhere:x' is not an endpoint", run("tail", f"@{self.path}").err
        )

    def test_severalInOneFile(self) -> None:
        """C{record} needs a directory for several sources."""
        self.assert_exits(2, {"record": "record ./new.rec"}, "5000", "5001")
        self.assert_exits(2, {"record": "record -"}, "/run/no-such-dir/*.sock")
        self.assertIn("; write recordings/\n", run("record", "-", "5000", "5001").err)

    def test_unexpectedArgument(self) -> None:
        self.assert_exits(2, {"replay": "replay"}, *"123")
