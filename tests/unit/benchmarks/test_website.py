"""
The website of the benchmarks: its accounts, and the process that sends requests to it.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from suite import http_load, website
from suite.peers import PeerError
from twisted.trial.unittest import SynchronousTestCase


class WebsiteTests(SynchronousTestCase):
    def test_share(self) -> None:
        """At 1,000 requests a second, 10 microseconds a request are 1 % of a core."""
        self.assertEqual(website.shares_beyond([210, 230], [200, 200]), [1, 3])

    def test_account(self) -> None:
        """The viewer must have been sent all events of all requests, and none was dropped."""
        account = {"written": 38, "waiting": 2, "dropped_client": 0, "dropped_incoming": 0}
        website.check(account, 10)
        self.assertRaises(PeerError, website.check, account, 11)
        for dropped in ("dropped_client", "dropped_incoming"):
            self.assertRaises(PeerError, website.check, {**account, dropped: 1}, 10)


HEAD = http_load.OK + b"Content-Length: 4\r\n\r\n"


class FakeConnection:
    """A connection to a server that answers in the given pieces."""

    def __init__(self, pieces: tuple[bytes, ...] = (HEAD + b"page",)) -> None:
        self._pieces = pieces
        self._pending: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        self._pending += self._pieces

    def recv(self, size: int) -> bytes:
        return self._pending.pop(0)


class HttpLoadTests(SynchronousTestCase):
    def load(self, connections: int, rate: float, takes: float, *pieces: bytes) -> dict[str, float]:
        """
        Request the page for a second.

        @param takes: the seconds that the server takes for a response.
        """
        now = [0.0]

        def wait(pending: dict[Any, float], writing: Any, failing: Any, timeout: Any) -> Any:
            if timeout is not None and (timeout < takes or not pending):
                now[0] += timeout
                return [], [], []
            now[0] += takes
            return list(pending), [], []

        self.patch(http_load, "time", SimpleNamespace(perf_counter=lambda: now[0]))
        self.patch(http_load, "select", wait)
        clients: Any = [FakeConnection(pieces or (HEAD + b"page",)) for _ in range(connections)]
        return http_load.load(clients, len(HEAD) + 4, rate, 1.0)

    def test_response_size(self) -> None:
        for pieces in ((HEAD + b"page",), (HEAD[:9], HEAD[9:] + b"p", b"age")):
            connection: Any = FakeConnection(pieces)
            self.assertEqual(http_load.response_size(connection), len(HEAD) + 4)

    def test_rate(self) -> None:
        """Requests are due at equal intervals, although the server could answer more."""
        found = self.load(4, 8, 0.0625)
        self.assertEqual(found["requests"], 8)
        self.assertEqual((found["p50"], found["p99"]), (0.0625, 0.0625))
        self.assertEqual((found["seconds"], found["waited"]), (1, 1))

    def test_slow_server(self) -> None:
        """The latency of a request includes the time in which no connection was free."""
        found = self.load(1, 8, 0.25)
        # Due every eighth of a second, and answered every quarter.
        self.assertEqual(found["requests"], 4)
        self.assertEqual((found["p50"], found["p99"]), (0.5, 0.625))

    def test_full_speed(self) -> None:
        """Each connection has a request pending all the time."""
        found = self.load(4, 0, 0.25)
        self.assertEqual((found["requests"], found["seconds"]), (16, 1))
        self.assertEqual(found["p99"], 0.25)

    def test_pieces(self) -> None:
        """A response that arrives in pieces is one response."""
        self.assertEqual(self.load(1, 0, 0.125, HEAD, b"pa", b"ge")["requests"], 3)

    def test_error(self) -> None:
        """A response that is not the page is an error."""
        self.assertRaises(ValueError, self.load, 1, 0, 0.25, b"HTTP/1.1 500 Internal")
