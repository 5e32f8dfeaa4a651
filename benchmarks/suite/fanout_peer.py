"""
Sends the same bytes to many sockets, in two ways, as a process of its own: ``python -m
suite.fanout_peer PORT CLIENTS``.

One half of the clients are those of a `MetricsFactory`; a bare loop serves the other half, who come
second.  C{round} gives the processor time, in seconds, that one batch took in each of the two ways.
"""

from __future__ import annotations

import socket
import sys
import time
from threading import Thread
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.threads import blockingCallFromThread

from suite.commands import NAME, allow_many_files, commands, say
from txmetrics_tcp import Key, Metric, MetricKind, MetricsFactory, Operation, encode_metric

reactor: Any = global_reactor

EVENTS = 60
LABEL = {"padding": "x" * 1000}
"""
A batch: events that are so long, by a label, that encoding them is next to nothing beside sending
them.  All together have a little less than 64 KiB.
"""

PAUSE = 0.03
"""How long readers have to take a batch, in seconds."""


class Fanout:
    """Answers commands, on a thread that is not the reactor's."""

    def __init__(self, port: int, clients: int) -> None:
        self._factory = MetricsFactory(reactor, own_metrics=False)
        self._samples = self._factory.recorder.histogram(NAME, LABEL)
        reactor.listenTCP(port, self._factory, backlog=clients, interface="127.0.0.1")
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=clients)
        self._clients = clients
        self._bare: list[socket.socket] = []

    def run(self) -> None:
        say({"bare_port": self._listening.getsockname()[1]})
        for word, options in commands():
            if word == "accept":
                for _ in range(self._clients):
                    self._bare.append(self._listening.accept()[0])
                while len(self._factory.stats().clients) < self._clients:
                    time.sleep(PAUSE)
                say({"accepted": self._clients})
            else:
                say(self.rounds(int(options["rounds"])))
        reactor.callFromThread(reactor.stop)

    def rounds(self, count: int) -> dict[str, object]:
        key = Key.of(MetricKind.HISTOGRAM, NAME, LABEL)
        batch = b""
        ours: list[float] = []
        bare: list[float] = []
        for _ in range(count):
            start = time.process_time()
            blockingCallFromThread(reactor, self._samples.record_many, 1.5, EVENTS)
            time.sleep(PAUSE)
            ours.append(time.process_time() - start)
            # The same, as someone who has nothing else to do.
            start = time.process_time()
            metric = Metric(key, Operation.RECORD_HISTOGRAM, 1.5, time.time_ns())
            batch = encode_metric(metric) * EVENTS
            for client in self._bare:
                client.sendall(batch)
            time.sleep(PAUSE)
            bare.append(time.process_time() - start)
        return {"ours": ours, "bare": bare, "bytes": len(batch), "events": EVENTS}


def main() -> None:
    allow_many_files()
    fanout = Fanout(int(sys.argv[1]), int(sys.argv[2]))
    reactor.callWhenRunning(Thread(target=fanout.run, daemon=True).start)
    reactor.run()


if __name__ == "__main__":
    main()
