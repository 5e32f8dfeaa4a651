"""
Commands with several sources as processes, with real servers that come and go.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from unittest import skipIf

from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import serverFromString

from tests.authority import Authority, no_tls
from tests.commands import CommandTestCase, reactor
from tests.recordings import read
from tests.scraping import get
from txmetrics_tcp import ExporterSettings, MetricsFactory


class SourcesTests(CommandTestCase):
    def setUp(self) -> None:
        # The path of a socket must be short.
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)
        self.pattern = f"{self.directory}/*.sock"

    def worker(self, name: str) -> Worker:
        return Worker(self, f"{self.directory}/{name}.sock")

    async def test_tail(self) -> None:
        """Lines name their sources, which come and go; the socket of a dead server is no error."""
        child = self.child("tail", self.pattern, "--filter", "requests_total")
        await child.says("no socket matches")
        a = self.worker("a")
        a.counter.increment()
        await child.prints(r"sock  status ")
        b = self.worker("b")
        await child.prints(r"(?m)^b  status ")
        a.counter.increment(3)
        b.counter.increment(4)
        await child.prints(r"(?m)^a  .*counter/increment requests_total 3$")
        await child.prints(r"(?m)^b  .*counter/increment requests_total 4$")
        await a.stop()
        await child.says(f"disconnected from unix:{self.directory}/a.sock")
        a = self.worker("a")
        await child.says(r"(?s)disconnected from .*\n.*connected to .*a\.sock")
        a.counter.increment(5)
        await child.prints(r"(?m)^a  .*counter/increment requests_total 5$|snapshot .*1 total")
        child.signal("INT")
        self.assertEqual(await child.ended, 130)

    async def test_json(self) -> None:
        """With C{--json}, each line has the endpoint.  The count is over all sources."""
        for name in "ab":
            self.worker(name).counter.increment()
        child = self.child("tail", self.pattern, "--json", "--count", "2")
        self.assertEqual(await child.ended, 0)
        lines = [json.loads(line) for line in child.out.splitlines()]
        self.assertEqual(
            {line["endpoint"] for line in lines},
            {f"unix:{self.directory}/{name}.sock" for name in "ab"},
        )
        self.assertEqual(sum(line["event"] == "metric" for line in lines), 2)

    @skipIf(no_tls, no_tls)
    async def test_tls(self) -> None:
        """The TLS options apply to all sources: one has a certificate of another authority."""
        names = []
        trusted = Authority(self)
        for authority in trusted, trusted, Authority(self):
            files = authority.issue()
            server = MetricsFactory(reactor, ExporterSettings(own_metrics=False))
            server.recorder.counter("requests_total").increment(7)
            keys = f"certKey={files.cert}:privateKey={files.key}:extraCertChain={files.cert}"
            endpoint = serverFromString(reactor, f"ssl:0:interface=127.0.0.1:{keys}")
            port = await endpoint.listen(server)
            self.addCleanup(server.stop, 0)
            self.addCleanup(port.stopListening)
            names.append(f"127.0.0.1:{port.getHost().port}")
        child = self.child("stats", *names, "--json", "--duration", "2", "--tls-ca", trusted.file)
        self.assertEqual(await child.ended, 0)
        reports = [json.loads(line) for line in child.out.splitlines()]
        self.assertEqual([report["endpoint"] for report in reports], names[:2])
        self.assertIn(f"received nothing from 1 of 3 sources: {names[2]}", child.err)
        self.assertRegex(child.err, f"cannot connect to {names[2]}: .*certificate")

    async def test_stats(self) -> None:
        """There is a table for each source; a silent one is named."""
        a = self.worker("a")
        a.counter.increment(7)
        await self.worker("dead").stop(unlink=False)
        child = self.child("stats", self.pattern, "--duration", "1")
        self.assertEqual(await child.ended, 0)
        self.assertIn(f"\nunix:{self.directory}/a.sock (", child.out)
        self.assertNotIn("dead", child.out)
        self.assertIn(
            f"received nothing from 1 of 2 sources: unix:{self.directory}/dead", child.err
        )
        # Reported once, however often it is retried.
        self.assertEqual(len(re.findall("cannot connect", child.err)), 1)

    async def test_record(self) -> None:
        """Each source has its own file, also those that come later or again."""
        a = self.worker("a")
        into = Path(self.directory, "recordings")
        child = self.child("record", f"{into}/", self.pattern)
        await child.says("connected to")
        await a.stop()
        await child.says("disconnected")
        b = self.worker("b")
        await child.says("connected to .*b.sock")
        a = self.worker("a")
        await child.says("(?s)connected to .*a.sock.*connected to .*a.sock")
        child.signal("INT")
        self.assertEqual(await child.ended, 0)
        prefix = self.directory.strip("/").replace("/", "-")
        files = sorted(path.name for path in into.iterdir())
        self.assertEqual(files, [f"{prefix}-{name}.sock.rec" for name in "ab"])
        for number, file in zip([2, 1], files, strict=True):
            _, chunks = read((into / file).read_bytes())
            self.assertEqual(sum(chunk.begins for chunk in chunks), number)
        await b.stop()

    async def test_prometheus(self) -> None:
        """The environment variable names a file of endpoints, which changes."""
        a = self.worker("a")
        a.counter.increment(7)
        path = Path(self.directory, "endpoints")
        path.write_text(f"unix:{self.directory}/a.sock\n")
        child = self.shell(
            f'METRICS_TCP_ENDPOINTS=@{path} exec "$@"', "prometheus", "--listen", "0"
        )
        address = (await child.says(r"metrics are served on (127\.0\.0\.1:\d+)"))[1]
        await child.says("receiving metrics from .*a.sock")
        b = self.worker("b")
        b.counter.increment(8)
        path.write_text(f"# all\n{self.pattern}\n")
        await child.says("receiving metrics from .*b.sock")
        _, body = await get(address)
        for name, total in ("a", 7), ("b", 8):
            source = f'source="unix:{self.directory}/{name}.sock"'
            self.assertIn(f"\nrequests_total{{{source}}} {total}\n", body)
        await a.stop()
        while "a.sock" in body:
            _, body = await get(address)
        self.assertIn("b.sock", body)
        self.assertEqual((await get(address, f"/metrics/unix:{self.directory}/a.sock"))[0], 404)
        child.signal("TERM")
        self.assertEqual(await child.ended, 0)


class Worker:
    """A server on a UNIX socket."""

    def __init__(self, case: CommandTestCase, path: str) -> None:
        self._path = path
        self._server = MetricsFactory(reactor, ExporterSettings(own_metrics=False))
        self.counter = self._server.recorder.counter("requests_total")
        self._port = reactor.listenUNIX(path, self._server)
        case.addCleanup(self._server.stop, 0)
        case.addCleanup(self._port.stopListening)

    async def stop(self, unlink: bool = True) -> None:
        """Stop, and remove the socket or leave a stale one."""
        path = self._path
        if not unlink:
            os.link(path, f"{path}.kept")
        await maybeDeferred(self._port.stopListening)
        await self._server.stop(0)
        if not unlink:
            os.rename(f"{path}.kept", path)
