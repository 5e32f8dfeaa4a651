"""
The configuration of gunicorn for gunicorn_app.py: each worker streams on a Unix socket of its own.

The sockets are /tmp/metrics-0.sock, /tmp/metrics-1.sock and so on; METRICS_DIRECTORY in the
environment puts them elsewhere.
"""

import os
from typing import Any

from txmetrics_tcp import TcpBuilder

bind = os.environ.get("BIND", "127.0.0.1:8000")
workers = 2

DIRECTORY = os.environ.get("METRICS_DIRECTORY", "/tmp")


def pre_fork(server: Any, worker: Any) -> None:
    """In the master: give the worker the lowest number that is free, so that a successor has it."""
    taken = {other.metrics_number for other in server.WORKERS.values()}
    worker.metrics_number = min(set(range(len(taken) + 1)) - taken)


def post_fork(server: Any, worker: Any) -> None:
    """In the worker: a process of its own from here on, and this is where its reactor starts."""
    endpoint = f"unix:{DIRECTORY}/metrics-{worker.metrics_number}.sock"
    # Nothing has to stop it: a worker ends as any program does, and sends what was recorded last.
    TcpBuilder().listen_address(endpoint).install_in_thread()
    server.log.info("Worker %s streams metrics on %s", worker.pid, endpoint)
