"""
``metrics-tcp web`` as a process: the page and its data over real connections.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import skipIf

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from tests.authority import Authority, no_tls
from tests.commands import Child, CommandTestCase, reactor
from tests.daemon import occupied_port
from tests.recordings import STATUS, increment, record
from tests.scraping import get
from tests.unit.web.pages import Page, frames

LINK = r"the page is at http://(\S+:\d+)/\n"


class Reader(Protocol):
    """
    Reads the stream of the page.

    @ivar page: what the page shows.
    """

    def __init__(self, address: str, token: str = "") -> None:
        self.page = Page()
        self.ended: Deferred[None] = Deferred()
        self._request = f"GET /stream HTTP/1.1\r\nHost: {address}\r\n"
        if token:
            self._request += f"Authorization: Bearer {token}\r\n"
        self._head = b""
        self._chunks = b""
        self._data = b""
        self._in_body = False

    def connectionMade(self) -> None:
        self.transport.write(f"{self._request}\r\n".encode())

    def dataReceived(self, data: bytes) -> None:
        if not self._in_body:
            self._head, found, self._chunks = (self._head + data).partition(b"\r\n\r\n")
            self._in_body = bool(found)
        else:
            self._chunks += data
        while b"\r\n" in self._chunks:
            size, _, rest = self._chunks.partition(b"\r\n")
            length = int(size, 16)
            if len(rest) < length + 2:
                break
            self._data += rest[:length]
            self._chunks = rest[length + 2 :]
        found, self._data = frames(self._data)
        for frame in found:
            self.page.apply(frame)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended.callback(None)


async def read(address: str, token: str = "") -> Reader:
    host, _, port = address.rpartition(":")
    endpoint = TCP4ClientEndpoint(reactor, host, int(port))
    reader: Reader = await connectProtocol(endpoint, Reader(address, token))
    return reader


async def until(condition: Any) -> None:
    while not condition():
        await deferLater(reactor, 0.01)


class WebTests(CommandTestCase):
    def start(self, *arguments: str) -> Child:
        return self.child("web", "--listen", "127.0.0.1:0", *arguments)

    async def address_of(self, child: Child) -> str:
        return (await child.says(LINK))[1]

    async def end(self, child: Child) -> None:
        child.signal("TERM")
        self.assertEqual(await child.ended, 0)
        self.assertNotIn("Traceback", child.err)

    def totals(self, reader: Reader) -> dict[str, float]:
        return {name: value for (_, _, name, _), value in reader.page.values.items()}

    async def test_totalsEqualTheSnapshot(self) -> None:
        """Also after the server was lost and has returned."""
        port = self.serve()
        self.counter.increment(3)
        self.recorder.histogram("latency_seconds").record(0.5)
        child = self.start(port)
        address = await self.address_of(child)
        reader = await read(address)
        await until(lambda: self.totals(reader) == {"requests_total": 3, "latency_seconds": 1})
        self.counter.increment(2)
        await until(lambda: self.totals(reader)["requests_total"] == 5)
        self.port.stopListening()
        await self.server.stop(0)
        await until(lambda: any(note["kind"] == "disconnect" for note in reader.page.notes))
        self.port = reactor.listenTCP(int(port), self.server, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        self.counter.increment(4)
        totals = {key.name: total for key, total in self.recorder.snapshot().items()}
        self.assertEqual(totals["requests_total"], 9)
        await until(lambda: self.totals(reader)["requests_total"] == 9)
        await self.end(child)
        await reader.ended

    async def test_percentilesAndHistory(self) -> None:
        port = self.serve()
        for value in range(101):
            self.recorder.histogram("latency_seconds").record(value)
        child = self.start(port)
        address = await self.address_of(child)
        reader = await read(address)
        await until(lambda: self.totals(reader).get("latency_seconds") == 101)
        id = reader.page.id("latency_seconds")
        code, text = await get(address, f"/look?ids={id}&window=0")
        self.assertEqual((code, json.loads(text)["series"][str(id)]["max"]), (200, 100))
        code, text = await get(address, f"/history?ids={id}&heat=1")
        self.assertEqual(code, 200)
        await self.end(child)
        await reader.ended

    async def test_severalSources(self) -> None:
        port, foreign = self.serve(), str(occupied_port(self))
        self.counter.increment()
        child = self.start(port, foreign)
        reader = await read(await self.address_of(child))
        await until(lambda: self.totals(reader) == {"requests_total": 1})
        names = {source["name"] for source in reader.page.sources.values()}
        self.assertEqual(names, {f"127.0.0.1:{port}", f"127.0.0.1:{foreign}"})
        await self.end(child)
        await reader.ended

    async def test_recording(self) -> None:
        path = Path(self.mktemp())
        path.write_bytes(record(STATUS + increment(30), increment(12)))
        child = self.start(str(path))
        reader = await read(await self.address_of(child))
        await until(lambda: list(reader.page.values.values()) == [42])
        await until(lambda: reader.page.sources[0]["state"] == "recording")
        self.assertIsNotNone(reader.page.sources[0]["to"])
        await self.end(child)
        await reader.ended

    async def test_stalledViewer(self) -> None:
        """It does not keep the command from ending."""
        port = self.serve()
        for number in range(20_000):
            self.recorder.counter("many", n="x" * 100 + str(number)).increment()
        child = self.start(port)
        address = await self.address_of(child)
        reader = await read(address)
        reader.transport.pauseProducing()  # type: ignore[union-attr]
        other = await read(address)
        await until(lambda: other.page.values)
        await self.end(child)
        reader.transport.resumeProducing()  # type: ignore[union-attr]
        await reader.ended
        await other.ended

    async def test_othersNeedTheToken(self) -> None:
        """Where other machines can connect, the printed link has a token."""
        child = self.child("web", self.serve(), "--listen", "0.0.0.0:0")
        link = await child.says(r"the page is at http://localhost:(\d+)/#token=(\S{43})\n")
        self.assertIn("can read the metrics with the token on 0.0.0.0:", child.err)
        address = f"127.0.0.1:{link[1]}"
        self.assertEqual((await get(address, "/"))[0], 200)
        self.assertEqual((await get(address, "/stream"))[0], 401)
        self.counter.increment()
        reader = await read(address, link[2])
        await until(lambda: self.totals(reader) == {"requests_total": 1})
        await self.end(child)
        await reader.ended

    async def test_tokenFile(self) -> None:
        path = Path(self.mktemp())
        path.write_text("0123456789abcdef\n")
        child = self.start(self.serve(), "--token-file", str(path))
        address = (await child.says(r"http://(\S+)/#token=0123456789abcdef\n"))[1]
        self.assertEqual((await get(address, "/look?ids=1"))[0], 401)
        headers = {"Authorization": "Bearer 0123456789abcdef"}
        self.assertEqual((await get(address, "/look?ids=1", **headers))[0], 200)
        await self.end(child)

    async def test_otherNames(self) -> None:
        child = self.start(self.serve(), "--allow-host", "metrics.example")
        address = await self.address_of(child)
        self.assertEqual((await get(address, "/", Host="metrics.example"))[0], 200)
        self.assertEqual((await get(address, "/", Host="evil.example"))[0], 421)
        await self.end(child)

    async def test_open(self) -> None:
        """A browser in the terminal runs until it is closed.  The page is served meanwhile."""
        browser = Path(self.mktemp()).absolute()
        browser.write_text('#!/bin/sh\necho "opens $1" >&2\nread line\n')
        browser.chmod(0o755)
        script = f'BROWSER="{browser} %s" exec "$@"'
        child = self.shell(script, "web", self.serve(), "--listen=127.0.0.1:0", "--open")
        address = (await child.says(r"opens http://(\S+)/\n"))[1]
        self.assertEqual((await get(address, "/"))[0], 200)
        child.transport.closeStdin()  # type: ignore[union-attr]
        await self.end(child)

    @skipIf(no_tls, no_tls)
    async def test_tls(self) -> None:
        issued = Authority(self).issue("localhost")
        files = ["--web-tls-key", issued.key, "--web-tls-cert", issued.cert]
        child = self.start(self.serve(), *files)
        await child.says(r"the page is at https://127\.0\.0\.1:\d+/\n")
        await self.end(child)
