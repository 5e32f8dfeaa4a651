"""
Following the sources of a command while they come and go.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.unit.cli.test_sources import SocketCase
from txmetrics_tcp import EndpointError
from txmetrics_tcp.cli.source_watch import SourceWatch
from txmetrics_tcp.cli.sources import Source, Sources


class FakeClient:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.connected = False
        self.calls: list[str] = []
        self.stopped: Deferred[None] = Deferred()

    def start(self) -> None:
        self.calls.append("start")

    def stop(self) -> Deferred[None]:
        self.calls.append("stop")
        return self.stopped

    def retry(self) -> None:
        self.calls.append("retry")


class WatchTests(SocketCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.said: list[str] = []
        self.changes: list[list[str]] = []
        self.made: list[FakeClient] = []
        self.pattern = f"{self.directory}/*.sock"

    def watch(self, *arguments: str, keep: bool = False) -> SourceWatch[FakeClient]:
        def make(source: Source) -> FakeClient:
            if "bad" in source.name:
                raise EndpointError(f"{source.name} is bad")
            self.made.append(FakeClient(source))
            return self.made[-1]

        def changed() -> None:
            self.changes.append([os.path.basename(name) for name in watch.clients])

        watch: SourceWatch[FakeClient] = SourceWatch(
            self.clock, Sources(arguments), make, self.said.append, changed, keep=keep
        )
        return watch

    def test_comeAndGo(self) -> None:
        """New sockets are added; one that has disappeared is removed after its connection."""
        watch = self.watch(self.pattern)
        watch.start()
        self.assertEqual(self.said, [f"no socket matches {self.pattern} yet; waiting for one"])
        self.clock.advance(1)
        path = self.bind("a.sock")
        self.assertEqual(self.made, [])
        self.clock.advance(1)
        (a,) = self.made
        self.assertEqual(a.calls, ["start"])
        a.connected = True
        os.unlink(path)
        self.bind("b.sock")
        self.clock.advance(1)
        self.assertEqual(a.calls, ["start"])
        a.connected = False
        self.clock.advance(1)
        self.assertEqual(a.calls, ["start", "stop"])
        self.bind("a.sock")
        self.clock.advance(1)
        self.assertEqual(
            self.changes, [["a.sock"], ["a.sock", "b.sock"], ["b.sock"], ["b.sock", "a.sock"]]
        )
        self.assertEqual(len(self.said), 1)
        stopped = watch.stop()
        self.assertNoResult(stopped)
        for client in self.made[1:]:
            client.stopped.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_emptyFile(self) -> None:
        """A file without a source is reported once."""
        path = Path(self.mktemp())
        path.write_text("# none yet")
        watch = self.watch(f"@{path}")
        watch.start()
        self.clock.pump([1, 1])
        path.write_text("5000")
        self.clock.pump([1, 1])
        self.assertEqual(self.said, [f"{path} names no source yet; waiting for one"])
        self.assertEqual(list(watch.clients), ["127.0.0.1:5000"])

    def test_replaced(self) -> None:
        """If a socket is replaced, its client tries again at once."""
        path = self.bind("a.sock")
        self.watch(self.pattern).start()
        self.clock.advance(1)
        os.rename(self.bind("new"), path)
        self.clock.pump([1, 1])
        self.assertEqual(self.made[0].calls, ["start", "retry"])

    def test_stale(self) -> None:
        """A socket without a server stays while its file exists."""
        self.bind("a.sock")
        self.watch(self.pattern).start()
        self.clock.pump([1] * 5)
        self.assertEqual(self.made[0].calls, ["start"])

    def test_keep(self) -> None:
        path = self.bind("a.sock")
        self.watch(self.pattern, keep=True).start()
        os.unlink(path)
        self.clock.advance(1)
        self.assertEqual(self.made[0].calls, ["start"])

    def test_fixed(self) -> None:
        """Endpoints do not change, so nothing is looked at."""
        self.watch("5000", "5001").start()
        self.assertEqual([one.source.name[-4:] for one in self.made], ["5000", "5001"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_unusable(self) -> None:
        """An unusable source is an error at the beginning, and reported once later."""
        path = Path(self.mktemp())
        path.write_text("bad:1")
        self.assertRaises(EndpointError, self.watch, f"@{path}")
        path.write_text("5000")
        self.watch(f"@{path}").start()
        path.write_text("5000\n5001\nbad:1")
        self.clock.pump([1, 1, 1])
        self.assertEqual(self.said, ["bad:1 is bad"])
        self.assertEqual(len(self.made), 2)
        path.unlink()
        self.clock.pump([1, 1, 1])
        self.assertEqual(
            self.said[1:],
            [f"cannot read {path}: No such file or directory; its last content applies"],
        )
        self.assertEqual([one.calls for one in self.made], [["start"], ["start"]])
