"""
A WSGI application, to run under gunicorn, whose workers stream their metrics.

    gunicorn -c examples/gunicorn_conf.py --chdir examples gunicorn_app:app

Each worker has a stream of its own: watch the first with C{metrics-tcp tail
unix:/tmp/metrics-0.sock}, and make requests to http://127.0.0.1:8000/.  The application knows
nothing of that: it records, and gunicorn_conf.py does the rest.
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
    # Not the path as it comes, of which there may be any number: labels are for few values.
    requests.labels(method=environ["REQUEST_METHOD"], status=status[:3]).increment()
    start_response(status, [("Content-Type", "text/plain")])
    return [b"hello\n" if found else b"nothing here\n"]
