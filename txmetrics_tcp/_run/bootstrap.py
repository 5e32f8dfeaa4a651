"""
What ``metrics-tcp run`` runs inside a program, when its Python starts.
"""

from __future__ import annotations

import logging
import os
import time
from _thread import start_new_thread
from collections.abc import Callable
from functools import wraps
from typing import Any

from twisted.application.service import MultiService

from txmetrics_tcp._collectors.event_loops import EventLoopService, watch_event_loops
from txmetrics_tcp._collectors.process import ProcessCollector
from txmetrics_tcp._collectors.runtime import RuntimeCollector
from txmetrics_tcp._collectors.service import PollingService
from txmetrics_tcp._exporter import environment
from txmetrics_tcp._exporter.recorder import TcpRecorder
from txmetrics_tcp._run.variables import PROCESS, SITE, Options

FORK_DELAY = 1.0
"""
Seconds after which the exporter of a forked process starts at the latest.  A process that executes
another program or ends before that needs none.
"""

_log = logging.getLogger("txmetrics_tcp")


def start() -> None:
    """
    Start the exporter, the collectors and the bridges.

    Called on the main thread before the program.  Problems are logged as warnings.
    """
    options = Options.from_environment()
    watch_event_loops()
    _stay_first()
    environment.on_start(lambda recorder, reactor: _collect(options.interval, recorder, reactor))
    environment.start()
    if PROCESS not in os.environ:
        # Each process has its own socket.
        os.register_at_fork(after_in_child=lambda: start_new_thread(_start_later, ()))
    if options.prometheus:
        _try("--prometheus", _stream_prometheus)
    if options.opentelemetry:
        _try("--opentelemetry", _stream_opentelemetry)


def _try(option: str, function: Callable[[], object]) -> None:
    try:
        function()
    except Exception as error:
        _log.warning("%s has no effect: %s", option, error)


def _stream_prometheus() -> None:
    from txmetrics_tcp.bridges.prometheus import DEFAULT_COLLECTORS, stream

    # `_collect` records the same metrics.
    stream(exclude=DEFAULT_COLLECTORS)


def _stream_opentelemetry() -> None:
    name = os.environ.get("OTEL_PYTHON_METER_PROVIDER", "txmetrics")
    if name != "txmetrics":
        raise ValueError(f"OTEL_PYTHON_METER_PROVIDER={name} chooses another provider")
    from txmetrics_tcp.bridges._later_provider import stream_later_provider

    stream_later_provider()


def _stay_first() -> None:
    """
    Keep the directory of our module sitecustomize first in the path of a program that this one
    executes in its place.

    C{opentelemetry-instrument} puts its own directory before it, and Python imports only the first
    module of this name.  Ours then imports the other one.
    """
    execv = os.execv

    @wraps(execv)
    def execv_with_path(path: Any, arguments: Any) -> None:
        others = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        if SITE in others:
            others.remove(SITE)
            os.environ["PYTHONPATH"] = os.pathsep.join([SITE, *others])
        execv(path, arguments)

    os.execv = execv_with_path  # type: ignore[assignment]


def _collect(interval: float, recorder: TcpRecorder, reactor: Any) -> None:
    collectors = MultiService()
    runtime = RuntimeCollector(recorder)
    for service in (
        PollingService(
            {"process": ProcessCollector(recorder), "Python runtime": runtime}, interval, reactor
        ),
        runtime,
        EventLoopService(recorder, interval, reactor),
    ):
        service.setServiceParent(collectors)
    collectors.startService()
    reactor.addSystemEventTrigger("before", "shutdown", collectors.stopService)


def _start_later() -> None:
    time.sleep(FORK_DELAY)
    environment.start()
