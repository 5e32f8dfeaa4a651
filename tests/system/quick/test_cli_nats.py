"""
Commands with a real broker.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from tests.commands import Child, CommandTestCase, reactor, run
from tests.nats import NatsServer, missing
from txmetrics_tcp import Event, SourceView

if not missing:
    from txmetrics_tcp.relay.nats import NatsSourceService

SECRET = "s3cret-of-the-test"


class NatsCommandTestCase(CommandTestCase):
    skip = missing

    def publish(self, broker: NatsServer, *arguments: str, **options: Any) -> Child:
        return self.child(
            "publish", *arguments, "--to", broker.url(), "--snapshot", "200ms", **options
        )

    async def stats(self, start: Callable[..., Child], url: str) -> dict[str, Any]:
        """Return what C{stats} reports, in as much time as this machine takes to connect."""
        for seconds in 1, 10, 100:
            child = start("stats", url, "--duration", str(seconds), "--json")
            if await child.ended == 0:
                break
        report: dict[str, Any] = json.loads(child.out)
        return report

    def follow(self, broker: NatsServer, **options: Any) -> Follower:
        return Follower(self, broker.url(), **options)


class Follower:
    """Follows all sources in the test process."""

    def __init__(self, case: NatsCommandTestCase, url: str, **options: Any) -> None:
        self.views: dict[str, SourceView] = {}
        self._waiting: list[tuple[str, int, Deferred[None]]] = []
        service = NatsSourceService(
            reactor, url, self._received, observer=lambda name, state: self._check(), **options
        )
        self._service = service
        service.startService()
        case.addCleanup(service.stopService)

    def has(self, source: str, total: int) -> Deferred[None]:
        """Wait until a source has a total, which is exact."""
        waiting: Deferred[None] = Deferred()
        self._waiting.append((source, total, waiting))
        self._check()
        return waiting

    def _received(self, source: str, events: list[Event]) -> None:
        self.views.setdefault(source, SourceView()).ingest(events)
        self._check()

    def _check(self) -> None:
        for waiting in list(self._waiting):
            source, total, deferred = waiting
            view = self.views.get(source)
            if not (view and self._service.exact[source]):
                continue
            if sum(series.value for series in view.series.values()) == total:
                self._waiting.remove(waiting)
                reactor.callLater(0, deferred.callback, None)


class PublishTests(NatsCommandTestCase):
    async def test_invalidSource(self) -> None:
        """A name is too long only with the port of a server."""
        child = self.shell(
            'exec "$@"', "publish", "1", "2", "--to", "nats://h/M", "--source", "é" * 85
        )
        self.assertEqual(await child.ended, 2)
        self.assertRegex(
            child.err,
            r"^metrics-tcp publish: 127\.0\.0\.1:1 cannot be published: the name of a source .*\n$",
        )

    async def test_publish(self) -> None:
        """The name of the source is given; totals are exact after the command has stopped."""
        broker = NatsServer(self)
        port = self.serve()
        self.counter.increment(5)
        child = self.publish(broker, port, "--source", "shop")
        follower = self.follow(broker)
        await follower.has("shop", 5)
        self.counter.increment(2)
        await follower.has("shop", 7)
        child.signal("INT")
        self.assertEqual(await child.ended, 0)
        self.assertIn(f"connected to 127.0.0.1:{port}\n", child.err)
        self.assertIn(f"publishing to nats://127.0.0.1:{broker.port}/METRICS\n", child.err)
        self.assertRegex(child.err, r"published 1 event of 1 source\n$")
        self.assertNotIn("no data received", child.err)

    async def test_several(self) -> None:
        """Of several servers, the port follows the name."""
        broker = NatsServer(self)
        ports = [self.serve(), self.serve()]
        self.counter.increment(3)
        child = self.publish(broker, *ports, "--source", "web1")
        follower = self.follow(broker)
        await follower.has(f"web1:{ports[0]}", 0)
        await follower.has(f"web1:{ports[1]}", 3)
        child.signal("TERM")
        self.assertEqual(await child.ended, 0)


class BrokerTests(NatsCommandTestCase):
    async def test_notRunning(self) -> None:
        """Why there is no source is reported at once."""
        broker = NatsServer(self)
        broker.kill()
        child = self.child("tail", broker.url())
        address = f"127.0.0.1:{broker.port}"
        await child.says(
            f"cannot follow nats://{address}/METRICS: cannot connect to {address}:"
            " Connection refused; retrying\n"
        )
        child.signal("TERM")
        await child.ended

    async def test_replicas(self) -> None:
        """A broker without a cluster is no reason to try again."""
        broker = NatsServer(self)
        child = self.publish(broker, self.serve(), "--replicas", "3")
        self.assertEqual(await child.ended, 2)
        self.assertIn("the broker has no cluster for 3 replicas\n", child.err)


class SecretsTests(NatsCommandTestCase):
    """Credentials come from files and the environment, and appear nowhere else."""

    async def test_urls(self) -> None:
        """A URL with a password is refused, without its text, wherever it is given."""
        url = f"nats://u:{SECRET}@h/S"
        for command in (
            *(["tail", url], ["stats", url], ["prometheus", url], ["observe", url]),
            *(["record", "x/", url], ["publish", url, "--to", "nats://h/S"]),
            *(["publish", "5000", "--to", url], ["tail", "5000", url]),
            *(["record", url], ["replay", url], ["tail", "--raw", url], ["run", "--listen", url]),
            *([url], ["replay", "a.rec", url], ["tail", "--count", url]),
        ):
            ended = run(*command)
            self.assertIn(ended.code, (1, 2), command)
            self.assertNotIn(SECRET, ended.out + ended.err)
