"""
A WSGI application for uWSGI, whose workers report to a collector.

    mkdir -p /tmp/shop
    twistd -n metrics-tcp --collect unix:/tmp/shop/metrics.sock
    uwsgi --master --enable-threads --processes 2 --http 127.0.0.1:8000 --chdir examples \
        --module uwsgi_collector_app

The environment variable COLLECTOR sets another endpoint.
"""

import os

from gunicorn_app import app as application  # noqa: F401 - uWSGI looks for it
from uwsgidecorators import postfork

from txmetrics_tcp import TcpBuilder

COLLECTOR = os.environ.get("COLLECTOR", "unix:/tmp/shop/metrics.sock")


@postfork
def report() -> None:
    TcpBuilder().report_to(COLLECTOR).install_in_thread()
