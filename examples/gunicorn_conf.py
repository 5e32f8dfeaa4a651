"""
The gunicorn configuration for gunicorn_app.py.  Each worker streams on its own UNIX socket.

The sockets are /tmp/metrics-0.sock, /tmp/metrics-1.sock and so on.  The environment variable
METRICS_DIRECTORY sets another directory.
"""

import os
from typing import Any

from txmetrics_tcp import TcpBuilder

bind = os.environ.get("BIND", "127.0.0.1:8000")
workers = 2

DIRECTORY = os.environ.get("METRICS_DIRECTORY", "/tmp")


def pre_fork(server: Any, worker: Any) -> None:
    """Runs in the master.  Assign the lowest free number, so that a new worker reuses it."""
    taken = {other.metrics_number for other in server.WORKERS.values()}
    worker.metrics_number = min(set(range(len(taken) + 1)) - taken)


def post_fork(server: Any, worker: Any) -> None:
    """Runs in the worker.  Start its reactor here, after the fork."""
    endpoint = f"unix:{DIRECTORY}/metrics-{worker.metrics_number}.sock:mode=600"
    # No explicit stop is needed: pending events are sent when the worker exits.
    TcpBuilder().listen_address(endpoint).install_in_thread()
    server.log.info("Worker %s streams metrics on %s", worker.pid, endpoint)
