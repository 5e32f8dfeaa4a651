"""
``metrics-tcp observe``, watched while it works: ``python -m suite.viewer PORT SECONDS FILE``.

Standard input, output and error are a terminal.  What it did, and at what cost, is written to a
file as JSON, for C{SECONDS} that begin a second after the first event.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from txmetrics_tcp._net.endpoints import client_endpoint
from txmetrics_tcp.cli.observe import install_reactor, run_app
from txmetrics_tcp.observe.app import ObserveApp
from txmetrics_tcp.observe.sources import LiveSource

WARM = 1.0
"""How many seconds the viewer has to learn the series."""


def main(port: str, seconds: float, file: str) -> int:
    install_reactor()
    from twisted.internet import reactor

    source = LiveSource(reactor, port, client_endpoint(reactor, port))
    app = ObserveApp([source])
    app.rows.sort_by("rate")

    def wait() -> None:
        if source.view.events:
            reactor.callLater(WARM, begin)
        else:
            reactor.callLater(0.01, wait)

    def state() -> tuple[float, ...]:
        return time.perf_counter(), source.view.events, app.frames, time.process_time()

    def begin() -> None:
        reactor.callLater(seconds, end, state())

    def end(begun: tuple[float, ...]) -> None:
        differences = [now - then for now, then in zip(state(), begun, strict=True)]
        report = dict(zip(("seconds", "events", "frames", "cpu"), differences, strict=True))
        Path(file).write_text(json.dumps(report))
        app.exit(0)

    reactor.callLater(0, wait)
    return run_app(reactor, app)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2]), sys.argv[3]))
