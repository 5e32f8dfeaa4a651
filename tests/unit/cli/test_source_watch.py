"""
Following the sources of a command while they come and go.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests import needs
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

    def interrupted(self, reason: str) -> None:
        self.calls.append(f"interrupted: {reason}")


class FakeFeed:
    """The sources of a stream of a broker."""

    def __init__(self, changed: Callable[[], object]) -> None:
        self.changed = changed
        self.available = False
        self.interruption = ""
        self.behind = 0
        self.connections: dict[str, int] = {}
        self.calls: list[str] = []

    @property
    def sources(self) -> list[Any]:
        return [
            SimpleNamespace(name=name, connections=number)
            for name, number in self.connections.items()
        ]

    def set(self, **connections: int) -> None:
        self.connections = connections
        self.changed()

    def start(self) -> None:
        self.calls.append("start")

    def stop(self) -> None:
        self.calls.append("stop")


class WatchCase(SocketCase):
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


class WatchTests(WatchCase):
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


class StreamTests(WatchCase):
    """Sources of brokers."""

    skip = needs("nats") or needs("zstandard")

    def streams(self, *arguments: str) -> tuple[SourceWatch[FakeClient], list[FakeFeed]]:
        watch = self.watch(*arguments)
        feeds: list[FakeFeed] = []

        def make(stream: object) -> Any:
            feeds.append(FakeFeed(watch._stream_changed))
            return feeds[-1]

        watch._feed = make  # type: ignore[method-assign]
        watch.start()
        return watch, feeds

    def test_sources(self) -> None:
        """Sources come, begin again, and go."""
        watch, (feed,) = self.streams("nats://h/M")
        feed.set(a=1, b=1)
        self.clock.advance(0)
        self.assertEqual(list(watch.clients), ["a", "b"])
        a, b = self.made
        self.assertEqual(a.calls, ["start"])
        feed.set(a=2, b=1)
        self.clock.advance(0)
        self.assertEqual((a.calls, b.calls), (["start", "retry"], ["start"]))
        feed.set(b=1)
        self.clock.advance(0)
        self.assertEqual((a.calls[2:], list(watch.clients)), (["stop"], ["b"]))
        stopped = watch.stop()
        b.stopped.callback(None)
        self.successResultOf(stopped)
        self.assertEqual((feed.calls, self.clock.getDelayedCalls()), (["start", "stop"], []))

    def test_names(self) -> None:
        """A source with the name of another one has a longer name, which it keeps."""
        watch, (one, other) = self.streams("web:5000", "nats://h/M", "nats://h/N")
        one.set(a=1)
        other.set(a=1)
        one.connections["web:5000"] = 1
        self.clock.advance(0)
        names = ["web:5000", "a", "h:4222/M/web:5000", "h:4222/N/a"]
        self.assertEqual(list(watch.clients), names)
        one.set()
        self.clock.advance(0)
        self.assertEqual(list(watch.clients), ["web:5000", "h:4222/N/a"])

    def test_none(self) -> None:
        """A stream without sources is reported once, when they would have arrived."""
        _, (one, other, third, _) = self.streams(
            "nats://h/M?source=web*", "nats://h/N", "nats://h/O", "nats://h/P"
        )
        self.clock.advance(1)
        one.available = other.available = third.available = True
        self.clock.advance(1)
        self.assertEqual(self.said, [])
        third.set(a=1)
        for _ in range(3):
            self.clock.advance(1)
            third.set()
        self.assertEqual(
            self.said,
            [
                "no source that matches 'web*' in nats://h:4222/M yet; waiting for one",
                "no source in nats://h:4222/N yet; waiting for one",
            ],
        )

    def test_interrupted(self) -> None:
        _, (feed,) = self.streams("nats://h/M")
        feed.set(a=1)
        self.clock.advance(0)
        for reason in "no broker", "no broker", "":
            feed.interruption = reason
            feed.changed()
            self.clock.advance(0)
        (a,) = self.made
        self.assertEqual(a.calls, ["start", "interrupted: no broker", "interrupted: "])

    def test_files(self) -> None:
        """A file can name streams, which come and go with their lines."""
        path = Path(self.mktemp())
        path.write_text("nats://h/M?source=a*")
        _, feeds = self.streams(f"@{path}")
        path.write_text("nats://h/OTHER")
        self.clock.advance(1)
        self.assertEqual([feed.calls for feed in feeds], [["start", "stop"], ["start"]])
        path.write_text("nats://u:s3cret@h/OTHER")
        self.clock.advance(1)
        self.assertIn(f"{path}, line 1: a nats:// URL must not contain credentials", self.said[-1])
        self.assertNotIn("s3cret", "".join(self.said))

    def test_twice(self) -> None:
        error = self.assertRaises(EndpointError, self.watch, "nats://h/M", "nats://h/M")
        self.assertEqual(str(error), "nats://h/M is given twice")
