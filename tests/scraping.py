"""
An HTTP client of pages for Prometheus.
"""

from __future__ import annotations

import warnings
from typing import Any

from twisted.internet import reactor
from twisted.web.client import Agent, readBody
from twisted.web.http_headers import Headers

# Twisted warns about its own transports.
warnings.filterwarnings("ignore", "Using readBody with a transport", DeprecationWarning)


async def get(address: str, path: str = "/metrics", **headers: str) -> tuple[int, str]:
    """
    Return the status and the body of a response.

    @param address: the host and the port of the server.
    """
    sent = Headers({name: [value] for name, value in headers.items()})
    url = f"http://{address}{path}".encode()
    response: Any = await Agent(reactor).request(b"GET", url, sent)
    return response.code, (await readBody(response)).decode()


def samples(body: str) -> dict[str, float]:
    """Return the values in the text format by name and labels."""
    lines = [line for line in body.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}
