"""
A Django application for gunicorn, whose workers stream their metrics.

    TXMETRICS_TCP_LISTEN=/tmp/shop/ gunicorn --workers 2 --chdir examples django_app:app

Each worker has its own socket, C{/tmp/shop/gunicorn-PID.sock}.  The application only records
metrics; the variable makes an exporter start in each worker.
"""

from collections.abc import Callable

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

from txmetrics_tcp import counter, describe_histogram, histogram

describe_histogram("http_request_seconds", "seconds", "How long answers take.")

requests = counter("http_requests_total")
latency = histogram("http_request_seconds")


class Measured:
    """Counts and times requests.  Middleware, to be the first of the setting MIDDLEWARE."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        with latency.time():
            response = self._get_response(request)
        match = request.resolver_match
        # The name of the view, not the path: labels are for small sets of values.
        view = match.view_name if match else "none"
        requests.labels(view=view, status=response.status_code).increment()
        return response


def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse("hello\n")


urlpatterns = [path("", hello, name="hello")]

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, MIDDLEWARE=[f"{__name__}.Measured"])

app = get_wsgi_application()
