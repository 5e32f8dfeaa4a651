"""
A WSGI application for gunicorn, whose workers stream their metrics.

    gunicorn -c examples/gunicorn_conf.py --chdir examples gunicorn_app:app

Send requests to http://127.0.0.1:8000/, and watch the first worker with C{metrics-tcp tail
unix:/tmp/metrics-0.sock}.  Each worker has its own stream.  The application only records metrics;
gunicorn_conf.py exports them.
"""

from collections.abc import Callable, Iterable
from typing import Any

from txmetrics_tcp import counter, describe_histogram, gauge, histogram

describe_histogram("http_request_seconds", "seconds", "How long answers take.")

requests = counter("http_requests_total")
running = gauge("http_requests_running")
latency = histogram("http_request_seconds")


@latency.time()
@running.track_inprogress()
def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    found = environ["PATH_INFO"] == "/"
    status = "200 OK" if found else "404 Not Found"
    # The path is not a label: labels are for small sets of values.
    requests.labels(method=environ["REQUEST_METHOD"], status=status[:3]).increment()
    start_response(status, [("Content-Type", "text/plain")])
    return [b"hello\n" if found else b"nothing here\n"]
