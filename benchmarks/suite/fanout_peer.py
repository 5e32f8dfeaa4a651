"""
Sends the same bytes to many sockets, in three ways, as a process of its own: ``python -m
suite.fanout_peer PORT CLIENTS``.

A third of the clients each are those of a `MetricsFactory`, of a factory that does nothing but
write, and of a bare loop of ``send``.  C{rounds} gives the processor time, in seconds, that each
round took in each of the three ways.
"""

from __future__ import annotations

import socket
import sys
import time
from threading import Thread
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.threads import blockingCallFromThread

from suite.bare_server import BareFactory
from suite.commands import NAME, allow_many_files, commands, say
from txmetrics_tcp import Key, Metric, MetricKind, MetricsFactory, Operation, encode_metric

reactor: Any = global_reactor

EVENTS = 60
LABEL = {"padding": "x" * 1000}
"""
A batch: events that are so long, by a label, that encoding them is next to nothing beside sending
them.  All together have a little less than 64 KiB.
"""

BATCHES = 4
"""How many batches go out in one round, so that waking the reactor is next to nothing as well."""

PAUSE = 0.1
"""How long readers have for a round, in seconds."""


class Fanout:
    """Answers commands, on a thread that is not the reactor's."""

    def __init__(self, port: int, clients: int) -> None:
        self._factory = MetricsFactory(reactor, own_metrics=False)
        self._samples = self._factory.recorder.histogram(NAME, LABEL)
        reactor.listenTCP(port, self._factory, backlog=clients, interface="127.0.0.1")
        self._writes = BareFactory()
        writing = reactor.listenTCP(0, self._writes, backlog=clients, interface="127.0.0.1")
        self._writes_port = writing.getHost().port
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=clients)
        self._clients = clients
        self._sockets: list[socket.socket] = []

    def run(self) -> None:
        say({"writes": self._writes_port, "sends": self._listening.getsockname()[1]})
        for word, options in commands():
            if word == "accept":
                for _ in range(self._clients):
                    accepted = self._listening.accept()[0]
                    # As those of the others have it.
                    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._sockets.append(accepted)
                while (
                    len(self._factory.stats().clients) < self._clients
                    or len(self._writes.clients) < self._clients
                ):
                    time.sleep(PAUSE)
                say({"accepted": self._clients})
            else:
                say(self.rounds(int(options["rounds"])))
        reactor.callFromThread(reactor.stop)

    def rounds(self, count: int) -> dict[str, object]:
        key = Key.of(MetricKind.HISTOGRAM, NAME, LABEL)
        batch = b""
        spent: dict[str, list[float]] = {"ours": [], "writes": [], "sends": []}
        for _ in range(count):
            metric = Metric(key, Operation.RECORD_HISTOGRAM, 1.5, time.time_ns())
            batch = encode_metric(metric) * EVENTS
            for name, send in (
                ("ours", self._record),
                ("writes", self._write),
                ("sends", self._send),
            ):
                start = time.process_time()
                send(batch)
                time.sleep(PAUSE)
                spent[name].append(time.process_time() - start)
        return {**spent, "bytes": BATCHES * len(batch), "events": BATCHES * EVENTS}

    def _record(self, batch: bytes) -> None:
        blockingCallFromThread(reactor, self._samples.record_many, 1.5, BATCHES * EVENTS)

    def _write(self, batch: bytes) -> None:
        blockingCallFromThread(reactor, self._write_all, batch)

    def _write_all(self, batch: bytes) -> None:
        for _ in range(BATCHES):
            self._writes.send(batch)

    def _send(self, batch: bytes) -> None:
        for _ in range(BATCHES):
            for client in self._sockets:
                client.sendall(batch)


def main() -> None:
    allow_many_files()
    fanout = Fanout(int(sys.argv[1]), int(sys.argv[2]))
    reactor.callWhenRunning(Thread(target=fanout.run, daemon=True).start)
    reactor.run()


if __name__ == "__main__":
    main()
