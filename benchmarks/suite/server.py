"""
Our server, as a process of its own: ``python -m suite.server PORT BUFFER
OWN``, the last whether it publishes its own metrics.

It understands what ``serve.rs`` does: C{record} (on a thread of its own, or, with ``reactor=1``,
on the reactor thread) and C{stats}.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from threading import Thread
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread

from suite.commands import (
    LABELS,
    NAME,
    allow_many_files,
    commands,
    cpu_seconds,
    say,
)
from suite.recording import Source, run_threads
from txmetrics_tcp import MetricsFactory

reactor: Any = global_reactor


class Server:
    """Answers commands, on a thread that is not the reactor's."""

    def __init__(self, factory: MetricsFactory) -> None:
        self._factory = factory
        self._handle = factory.recorder.counter(NAME, LABELS)
        self._source = Source(self._handle)

    def run(self) -> None:
        for word, options in commands():
            if word == "record":
                say(self.record(options))
            else:
                say(blockingCallFromThread(reactor, self.stats))
        reactor.callFromThread(reactor.stop)

    def record(self, options: dict[str, float]) -> dict[str, object]:
        start_ns, start = time.time_ns(), time.perf_counter()
        recorded: int
        if options.get("reactor"):
            recorded = blockingCallFromThread(reactor, self._record_in_reactor, options)  # type: ignore[arg-type]
        elif options["threads"] > 1:
            recorded = run_threads(self._handle, options)
        else:
            recorded = self._source.run(options)
        seconds = time.perf_counter() - start
        return {"recorded": recorded, "seconds": seconds, "start_ns": start_ns}

    def stats(self) -> dict[str, object]:
        return {
            "cpu_seconds": cpu_seconds(),
            **asdict(self._factory.stats()),
        }

    def _record_in_reactor(self, options: dict[str, float]) -> Deferred[int]:
        done: Deferred[int] = Deferred()
        steps = self._source.steps(options)

        def step() -> None:
            try:
                reactor.callLater(next(steps), step)
            except StopIteration as stop:
                done.callback(stop.value)

        step()
        return done


def main() -> None:
    port, buffer_size, own_metrics = map(int, sys.argv[1:])
    allow_many_files()
    factory = MetricsFactory(reactor, buffer_size, own_metrics=bool(own_metrics))
    listening = reactor.listenTCP(port, factory, backlog=1024, interface="127.0.0.1")
    server = Server(factory)
    say({"port": listening.getHost().port})
    reactor.callWhenRunning(Thread(target=server.run, daemon=True).start)
    reactor.run()


if __name__ == "__main__":
    main()
