"""
The page over fake connections.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IAddress
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.web.pages import Page, frames
from txmetrics_tcp import Event, SourceView
from txmetrics_tcp.observe.sources import Source, State
from txmetrics_tcp.testing import FakeReactor, PausingTransport
from txmetrics_tcp.web._access import Access
from txmetrics_tcp.web._feed import Feed
from txmetrics_tcp.web._resource import PageResource
from txmetrics_tcp.web._site import PageSite

EPOCH = 1_700_000_000
"""The time at which the reactor's clock is zero."""

HOST = IPv4Address("TCP", "127.0.0.1", 5080)


class FakeSource(Source):
    """A source that a test controls."""

    def __init__(self, reactor: FakeReactor, label: str) -> None:
        super().__init__(label, SourceView(reactor.seconds), reactor.seconds)
        self.change(State.CONNECTED)

    def change(self, state: State, note: str = "") -> None:
        self._set_state(state, note)

    def ingest(self, *events: Event) -> None:
        self.view.ingest(events)


class Answer:
    """
    A response.

    @ivar headers: the last value of each header, by its name in lower case.
    """

    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        _, code, self.reason = status.split(" ", 2)
        self.code = int(code)
        self.headers = {
            name.lower(): value for name, value in (line.split(": ", 1) for line in lines)
        }

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Tab:
    """
    A page that reads the stream.

    @ivar page: what it shows.
    """

    def __init__(self, transport: PausingTransport) -> None:
        self.transport = transport
        self.page = Page()
        self.heads: list[dict[str, Any]] = []
        self._chunks = b""
        self._data = b""
        self._in_body = False

    def read(self) -> list[dict[str, Any]]:
        """Apply the frames that have arrived; return their heads."""
        self._chunks += self.transport.drain()
        if not self._in_body:
            _, self._in_body, self._chunks = (
                (b"", False, self._chunks)
                if b"\r\n\r\n" not in self._chunks
                else (b"", True, self._chunks.partition(b"\r\n\r\n")[2])
            )
        while b"\r\n" in self._chunks:
            size, _, rest = self._chunks.partition(b"\r\n")
            length = int(size, 16)
            if len(rest) < length + 2:
                break
            self._data += rest[:length]
            self._chunks = rest[length + 2 :]
        found, self._data = frames(self._data)
        heads = [self.page.apply(frame) for frame in found]
        self.heads += heads
        return heads


class PageTestCase(SynchronousTestCase):
    """
    @ivar followed: how often the feed has begun and ended.
    """

    always = True
    token: str | None = None
    hosts: tuple[str, ...] = ()
    max_viewers = 3
    local: IAddress = HOST

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.sources: list[FakeSource] = []
        self.followed: list[str] = []
        self.feed = Feed(
            self.reactor,
            600,
            self.always,
            self.begin,
            lambda: self.followed.append("end"),
            lambda: EPOCH + self.reactor.seconds(),
        )
        self.resource = PageResource(self.feed, Access(self.hosts, self.token), self.max_viewers)
        self.site = PageSite(self.reactor, self.resource)
        self.feed.start()

    def begin(self) -> None:
        self.followed.append("begin")
        self.sources = [FakeSource(self.reactor, "one")]
        self.feed.show(self.sources)

    @property
    def source(self) -> FakeSource:
        return self.sources[0]

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        for _ in range(round(seconds * 20)):
            self.reactor.advance(0.05)

    def connect(self, limit: int = 1 << 20) -> PausingTransport:
        transport = PausingTransport(limit, host=self.local)
        transport.connect(self.site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1)))
        return transport

    def send(
        self,
        path: str,
        transport: PausingTransport | None = None,
        method: str = "GET",
        **headers: str | None,
    ) -> PausingTransport:
        """
        Send a request.

        @param headers: further headers, with underscores for dashes; None leaves one out.
        """
        transport = transport or self.connect()
        given: dict[str, str | None] = {"Host": "127.0.0.1:5080", **headers}
        if self.token is not None:
            given.setdefault("Authorization", f"Bearer {self.token}")
        lines = [
            f"{name.replace('_', '-')}: {value}"
            for name, value in given.items()
            if value is not None
        ]
        transport.receive("\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode())
        return transport

    def get(self, path: str, **options: Any) -> Answer:
        """Return the answer to a request."""
        transport = self.send(path, **options)
        self.reactor.settle()
        answer = transport.drain()
        head, _, body = answer.partition(b"\r\n\r\n")
        if b"Transfer-Encoding: chunked" in head:
            parts = []
            while body and not body.startswith(b"0\r\n"):
                size, _, rest = body.partition(b"\r\n")
                parts.append(rest[: int(size, 16)])
                body = rest[int(size, 16) + 2 :]
            answer = head + b"\r\n\r\n" + b"".join(parts)
        return Answer(answer)

    def open(self, limit: int = 1 << 20) -> Tab:
        """Open the stream."""
        tab = Tab(self.send("/stream", self.connect(limit)))
        self.reactor.settle()
        return tab
