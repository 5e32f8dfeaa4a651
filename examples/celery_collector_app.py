"""
The application of celery_app.py, whose processes report to a collector.

    mkdir -p /tmp/shop
    twistd -n metrics-tcp --collect unix:/tmp/shop/metrics.sock
    celery --workdir examples --app celery_collector_app worker --concurrency 2

The environment variable COLLECTOR sets another endpoint.
"""

import os
from typing import Any

from celery import signals
from celery_app import app  # noqa: F401 - Celery looks for it

from txmetrics_tcp import TcpBuilder

COLLECTOR = os.environ.get("COLLECTOR", "unix:/tmp/shop/metrics.sock")


@signals.worker_process_init.connect
def report(**more: Any) -> None:
    exporter = TcpBuilder().report_to(COLLECTOR).install_in_thread()
    # Celery's processes end without calling what is registered with atexit.
    signals.worker_process_shutdown.connect(lambda **more: exporter.stop(), weak=False)
