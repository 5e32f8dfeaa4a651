"""
``metrics-tcp observe``, watched while it works: ``python -m suite.observing_peer PORT SECONDS FD``.

Standard input, output and error are a terminal.  What was seen, and at what cost, is written to a
file descriptor as JSON, of C{SECONDS} that begin a little after the first event.
"""

from __future__ import annotations

import json
import os
import sys
import time

from suite.commands import cpu_seconds
from txmetrics_tcp._net.endpoints import client_endpoint
from txmetrics_tcp.cli.observe import install_reactor, run_app
from txmetrics_tcp.observe.app import ObserveApp
from txmetrics_tcp.observe.sources import LiveSource

WARM = 1.0
"""How many seconds the viewer has to get to know the series."""


def main(port: str, seconds: float, descriptor: int) -> int:
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

    def begin() -> None:
        begun = time.perf_counter(), source.view.events, app.frames, cpu_seconds()
        reactor.callLater(seconds, end, *begun)

    def end(began: float, events: int, frames: int, cpu: float) -> None:
        report = {
            "seconds": time.perf_counter() - began,
            "events": source.view.events - events,
            "frames": app.frames - frames,
            "cpu": cpu_seconds() - cpu,
            "series": len(app.rows.all),
        }
        os.write(descriptor, json.dumps(report).encode() + b"\n")
        app.exit(0)

    reactor.callLater(0, wait)
    return run_app(reactor, app)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))
