"""
Publishers and consumers of streams with a real broker.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.daemon import LIMIT
from tests.nats import NatsServer, missing
from txmetrics_tcp import (
    Event,
    ExporterSettings,
    Metric,
    MetricsFactory,
    MetricsService,
    Snapshot,
    SourceView,
    TcpRecorder,
)
from txmetrics_tcp._net.endpoints import server_endpoint

if not missing:
    from txmetrics_tcp.relay import nats
    from txmetrics_tcp.relay.nats import (
        Access,
        BrokerUnavailable,
        NatsPublisherService,
        NatsSourceService,
        SourceBegins,
        SourceExact,
        SourceState,
    )


class Follower:
    """
    A service that follows sources, and the views of what it receives.

    @ivar counted: for each source, the number of metrics received outside of snapshots.
    """

    def __init__(self, case: TestCase, url: str, **options: Any) -> None:
        self.views: dict[str, SourceView] = {}
        self.counted: dict[str, int] = {}
        self.states: dict[str, SourceState] = {}
        self.broker_states: list[object] = []
        self._in_snapshot: dict[str, bool] = {}
        self._waits: list[tuple[Callable[[], object], Deferred[None]]] = []
        self.service = NatsSourceService(
            reactor,
            url,
            self._received,
            observer=self._changed,
            broker_observer=self._broker_changed,
            **options,
        )
        self.service.startService()
        case.addCleanup(self.stop)

    def stop(self) -> Any:
        if self.service.running:
            return self.service.stopService()

    def total(self, source: str = "web") -> Any:
        """Return the total of the only counter."""
        view = self.views.get(source)
        return view and sum(series.value for series in view.series.values())

    def exact(self, source: str = "web") -> bool | None:
        return self.service.exact.get(source)

    def connected(self, source: str = "web") -> bool | None:
        state = self.states.get(source)
        return state.connected if isinstance(state, SourceExact) else None

    def until(self, condition: Callable[[], object]) -> Deferred[None]:
        """Return a Deferred that fires when something has made a condition true."""
        waiting: Deferred[None] = Deferred()
        self._waits.append((condition, waiting))
        self._check()
        return waiting

    def has(self, total: int, source: str = "web") -> Deferred[None]:
        """Wait until the source has a total, and reports that it is exact."""
        return self.until(lambda: self.total(source) == total and self.exact(source))

    def _received(self, source: str, events: list[Event]) -> None:
        self.views.setdefault(source, SourceView()).ingest(events)
        for event in events:
            if isinstance(event, Snapshot):
                self._in_snapshot[source] = event is not Snapshot.END
            elif isinstance(event, Metric) and not self._in_snapshot[source]:
                self.counted[source] = self.counted.get(source, 0) + 1
        self._check()

    def _changed(self, source: str, state: SourceState) -> None:
        if isinstance(state, SourceBegins):
            self.views.setdefault(source, SourceView()).connected()
        else:
            self.states[source] = state
        self._check()

    def _broker_changed(self, state: object) -> None:
        self.broker_states.append(state)
        self._check()

    def _check(self) -> None:
        waits, self._waits = self._waits, []
        for condition, waiting in waits:
            if condition():
                # Not within the service.
                reactor.callLater(0, waiting.callback, None)  # type: ignore[attr-defined]
            else:
                self._waits.append((condition, waiting))


class NatsTestCase(TestCase):
    skip = missing
    timeout = 120

    async def exporter(self) -> tuple[TcpRecorder, int]:
        """Start an exporter with a large buffer; return its recorder and its port."""
        recorder, port, _ = await self.service()
        return recorder, port

    async def service(self) -> tuple[TcpRecorder, int, MetricsService]:
        """Start an exporter; return its service as well."""
        settings = ExporterSettings(buffer_size=1_000_000, own_metrics=False)
        factory = MetricsFactory(reactor, settings)
        service = MetricsService(factory, [server_endpoint(reactor, 0)], None)
        self.addCleanup(service.stopService)
        await service.listen()
        port = service.addresses[0].port  # type: ignore[attr-defined]
        return factory.recorder, port, service

    def publish(
        self, broker: NatsServer, port: int, source: str = "web", **options: Any
    ) -> NatsPublisherService:
        service = NatsPublisherService(
            reactor, broker.url(), source, port, **{"snapshot_interval": 0.2, **options}
        )
        service.startService()
        self.addCleanup(lambda: service.stopService() if service.running else None)
        return service


class FlowTests(NatsTestCase):
    async def test_follows(self) -> None:
        broker = NatsServer(self)
        recorder, port = await self.exporter()
        jobs = recorder.counter("jobs")
        jobs.increment(5)
        self.publish(broker, port)
        follower = Follower(self, broker.url())
        await follower.has(5)
        for _ in range(1000):
            jobs.increment()
        await follower.has(1005)
        self.assertEqual(follower.counted, {"web": 1000})
        late = Follower(self, broker.url())
        await late.has(1005)

    async def test_stop(self) -> None:
        """A publisher that stops publishes what is pending, and a last snapshot."""
        broker = NatsServer(self)
        recorder, port = await self.exporter()
        publisher = self.publish(broker, port, linger=10 * LIMIT)
        follower = Follower(self, broker.url())
        await follower.until(follower.exact)
        recorder.counter("jobs").increment(3)
        await follower.until(lambda: publisher.events or publisher._publishing.pending)
        await publisher.stopService()
        await follower.until(lambda: follower.states["web"].ended)  # type: ignore[union-attr]
        self.assertEqual(follower.total(), 3)

    async def test_sources(self) -> None:
        """A pattern selects sources; their names may have any characters."""
        broker = NatsServer(self)
        names = ["web.1", "web 2 > *", "böse/3", "db"]
        for number, name in enumerate(names):
            recorder, port = await self.exporter()
            recorder.counter("jobs").increment(number + 1)
            self.publish(broker, port, name)
        everything = Follower(self, broker.url())
        for number, name in enumerate(names):
            await everything.has(number + 1, name)
        web = Follower(self, broker.url() + "?source=web*")
        await web.has(1, "web.1")
        await web.has(2, "web 2 > *")
        one = Follower(self, broker.url() + "?source=db")
        await one.has(4, "db")
        self.assertEqual(set(web.views), {"web.1", "web 2 > *"})
        self.assertEqual(set(one.views), {"db"})

    async def test_credentials(self) -> None:
        """Wrong credentials are reported, and no text has the right ones."""
        broker = NatsServer(self, "--auth", "s3cret")
        follower = Follower(self, broker.url(), access=Access(token="wr0ng"))
        await follower.until(lambda: follower.broker_states)
        self.assertEqual(
            follower.broker_states,
            [BrokerUnavailable("the broker does not accept the credentials", True)],
        )
        path = Path(self.mktemp())
        # A file that has changed since it was checked.
        path.write_text("s3cret")
        follower = Follower(self, broker.url(), access=Access(nkey_file=str(path)))
        await follower.until(lambda: follower.broker_states)
        reason = "NATS_NKEY or NATS_CREDS contains no valid seed of an nkey"
        self.assertEqual(follower.broker_states, [BrokerUnavailable(reason, True)])
        self.patch(nats, "STOP_TIMEOUT", 10 * LIMIT)
        refused: Deferred[object] = Deferred()
        recorder, port = await self.exporter()
        publisher = self.publish(
            broker, port, access=Access(token="wr0ng"), broker_observer=refused.callback
        )
        await refused
        # Does not wait for a broker that accepts the messages.
        await publisher.stopService()
        access = Access(token="s3cret", password="s3cret", user="s3cret")
        self.assertNotIn("s3cret", repr(access))
        recorder.counter("jobs").increment(2)
        self.publish(broker, port, access=access and Access(token="s3cret"))
        admitted = Follower(self, broker.url(), access=Access(token="s3cret"))
        await admitted.has(2)
