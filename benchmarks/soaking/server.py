"""
The exporter that a soak is about, as a process of its own: ``python -m soaking.server SEED``.

It understands, one word a line: C{record} (begin), C{look} (how things are at this moment),
C{quiet} (record no more) and C{stop}.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from suite.commands import allow_many_files, commands, say
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.threads import blockingCallFromThread
from twisted.python.threadable import isInIOThread

from soaking import plan
from soaking.recording import Recording
from soaking.tally import show, stamp
from tests.reader import truth
from txmetrics_tcp import MetricsFactory, MetricsProtocol, MetricsService

reactor: Any = global_reactor

BUFFER_SIZE = 512
IDLE_AFTER = 30.0
FLUSH_TIMEOUT = 60.0


def now_ns() -> int:
    return stamp(time.time_ns(), reactor=isInIOThread())


class Watched(MetricsFactory):
    """
    @ivar gone: the accounts of clients that have left since somebody looked.
    """

    def __init__(self, reactor: Any, seed: int) -> None:
        # Its own metrics are off, because nobody numbers them.
        super().__init__(
            reactor,
            BUFFER_SIZE,
            idle_after=IDLE_AFTER,
            repair_interval=2.0,
            own_metrics=False,
            source="soak",
            clock=now_ns,
        )
        self.gone: list[dict[str, Any]] = []
        self._send_buffers = plan.send_buffers(seed)

    @property
    def connections(self) -> int:
        """Also those that the stream has not begun for, which C{stats()} does not count yet."""
        return len(self._present)

    def client_connected(self, client: MetricsProtocol) -> None:
        size = next(self._send_buffers)
        if size is not None:
            handle: socket.socket = client.transport.getHandle()  # type: ignore[attr-defined]
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
        super().client_connected(client)

    def client_disconnected(self, client: MetricsProtocol) -> None:
        super().client_disconnected(client)
        self.gone.append(asdict(client.stats()))


class Server:
    """Answers commands, on a thread that is not the reactor's."""

    def __init__(self, factory: Watched, service: MetricsService, seed: int) -> None:
        self._factory = factory
        self._service = service
        self._recordings = [Recording(factory.recorder, seed, by) for by in plan.RECORDERS]
        self._over = threading.Event()
        self._in_reactor: Deferred[None] = Deferred()
        self._threads: list[threading.Thread] = []

    def run(self) -> None:
        for word, _options in commands():
            say(getattr(self, word)())
        reactor.callFromThread(reactor.stop)

    def record(self) -> dict[str, Any]:
        *others, in_reactor = self._recordings
        reactor.callFromThread(self._step, in_reactor.steps())
        for recording in others:
            thread = threading.Thread(target=self._record, args=[recording.steps()], daemon=True)
            thread.start()
            self._threads.append(thread)
        return {}

    def look(self) -> dict[str, Any]:
        found: dict[str, Any] = blockingCallFromThread(reactor, self.look_here)
        return found

    def quiet(self) -> dict[str, Any]:
        self._over.set()
        for thread in self._threads:
            thread.join()
        blockingCallFromThread(reactor, lambda: self._in_reactor)
        return {
            "recorded": {recording.by: recording.number for recording in self._recordings},
            "truth": {str(key): show(value) for key, value in truth(self._factory).items()},
            "descriptions": {
                name: text
                for recording in self._recordings
                for name, text in recording.described.items()
            },
        }

    def stop(self) -> dict[str, Any]:
        blockingCallFromThread(reactor, self._service.stop)
        return self.look()

    def look_here(self) -> dict[str, Any]:
        """What `look` answers; on the reactor's thread."""
        gone, self._factory.gone = self._factory.gone, []
        return {
            "resident": _resident_bytes(),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "connections": self._factory.connections,
            "gone": gone,
            **asdict(self._factory.stats()),
        }

    def _record(self, steps: Iterator[float]) -> None:
        for delay in steps:
            if self._over.wait(delay):
                return

    def _step(self, steps: Iterator[float]) -> None:
        delay = next(steps)
        if self._over.is_set():
            self._in_reactor.callback(None)
        else:
            reactor.callLater(delay, self._step, steps)


def _resident_bytes() -> int:
    with open("/proc/self/statm") as numbers:
        return int(numbers.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    seed = int(sys.argv[1])
    # The interrupt key is for whoever leads.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    allow_many_files()
    factory = Watched(reactor, seed)
    endpoint = TCP4ServerEndpoint(reactor, 0, backlog=1024, interface="127.0.0.1")
    service = MetricsService(factory, [endpoint], FLUSH_TIMEOUT)
    server = Server(factory, service, seed)

    def listening(_: object) -> None:
        say({"port": service.addresses[0].port})  # type: ignore[attr-defined]
        threading.Thread(target=server.run, daemon=True).start()

    reactor.callWhenRunning(lambda: service.listen().addCallback(listening))
    reactor.run()


if __name__ == "__main__":
    main()
