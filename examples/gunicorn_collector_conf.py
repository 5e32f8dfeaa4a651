"""
A gunicorn configuration whose workers report to a collector.

    mkdir -p /tmp/shop
    twistd -n metrics-tcp --collect unix:/tmp/shop/metrics.sock
    gunicorn -c examples/gunicorn_collector_conf.py --workers 2 --chdir examples gunicorn_app:app

The environment variable COLLECTOR sets another endpoint.
"""

import os
from typing import Any

from txmetrics_tcp import TcpBuilder

COLLECTOR = os.environ.get("COLLECTOR", "unix:/tmp/shop/metrics.sock")


def post_fork(server: Any, worker: Any) -> None:
    TcpBuilder().report_to(COLLECTOR).install_in_thread()
