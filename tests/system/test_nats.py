"""
Faults of brokers, publishers and consumers, and their recovery.

The truth is the number of events that the test has recorded.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from subprocess import Popen
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.protocols.portforward import ProxyFactory

from tests import environment
from tests.daemon import LIMIT
from tests.nats import NatsServer, change_streams, missing
from tests.system.quick.test_nats import Follower, NatsTestCase

if not missing:
    from txmetrics_tcp.relay import _messages, nats
    from txmetrics_tcp.relay._broker import Broker
    from txmetrics_tcp.relay.nats import (
        Access,
        BrokerUnavailable,
        NatsPublisherService,
        SourceExact,
        StreamSettings,
    )

PUBLISHER = """
import sys
from twisted.internet import reactor
from txmetrics_tcp.relay.nats import NatsPublisherService
service = NatsPublisherService(reactor, sys.argv[1], "web", sys.argv[2], snapshot_interval=0.2)
reactor.callWhenRunning(service.startService)
reactor.run()
"""


class FaultTests(NatsTestCase):
    async def test_followerBeforeStream(self) -> None:
        """A consumer waits for a broker, and for a stream."""
        broker = NatsServer(self)
        broker.kill()
        follower = Follower(self, broker.url())
        await follower.until(lambda: follower.broker_states)
        self.assertIsInstance(follower.broker_states[0], BrokerUnavailable)
        broker.start()
        recorder, port = await self.exporter()
        recorder.counter("jobs").increment(2)
        self.publish(broker, port)
        await follower.has(2)

    async def test_brokerKilledTwice(self) -> None:
        broker = NatsServer(self)
        recorder, port = await self.exporter()
        jobs = recorder.counter("jobs")
        publisher = self.publish(broker, port)
        follower = Follower(self, broker.url())
        await follower.until(follower.exact)
        recorded = 0
        for _ in range(2):
            for _ in range(5000):
                jobs.increment()
            recorded += 5000
            await follower.has(recorded)
            for _ in range(5000):
                jobs.increment()
            broker.kill()
            for _ in range(5000):
                jobs.increment()
            recorded += 10000
            broker.start()
            await follower.has(recorded)
        self.assertEqual(follower.counted, {"web": recorded})
        self.assertEqual(follower.service._reader.sources["web"].following.missed, 0)
        self.assertEqual(publisher.given_up, 0)
        late = Follower(self, broker.url())
        await late.has(recorded)

    async def test_fullBuffer(self) -> None:
        broker = NatsServer(self)
        recorder, port = await self.exporter()
        jobs = recorder.counter("jobs")
        publisher = self.publish(broker, port, linger=0.0, buffer_bytes=5000)
        follower = Follower(self, broker.url())
        await follower.until(follower.exact)
        await follower.until(follower.exact)
        jobs.increment()
        # This is not in the first snapshot: the consumer has finished joining.
        await follower.has(1)
        broker.kill()
        recorded = 1
        while not publisher.given_up:
            for _ in range(100):
                jobs.increment()
            recorded += 100
            await self.iterate()
        broker.start()
        await follower.has(recorded)
        missed = follower.service._reader.sources["web"].following.missed
        self.assertGreater(missed, 0)
        self.assertEqual(missed, publisher.given_up)
        self.assertEqual(follower.views["web"].missed_client, missed)
        self.assertEqual(follower.counted.get("web", 0) + missed, recorded)

    async def test_publisherKilled(self) -> None:
        """After a publisher is killed and started again, totals become exact."""
        broker = NatsServer(self)
        recorder, port = await self.exporter()
        jobs = recorder.counter("jobs")
        follower = Follower(self, broker.url())
        recorded = 0
        for _ in range(3):
            process = self.publisher_process(broker, port)
            for _ in range(100):
                jobs.increment()
            recorded += 100
            await follower.has(recorded)
            jobs.increment()
            process.kill()
            process.wait()
            jobs.increment()
            recorded += 2

    async def test_silentPublisher(self) -> None:
        """A publisher that has been killed is seen after a while, also by those that join later."""
        broker = NatsServer(self)
        self.patch(_messages, "MIN_SILENCE_NS", 10**9)
        recorder, port = await self.exporter()
        recorder.counter("jobs").increment(2)
        process = self.publisher_process(broker, port)
        follower = Follower(self, broker.url())
        await follower.has(2)
        self.assertTrue(follower.connected())
        process.kill()
        process.wait()
        await follower.until(lambda: not follower.connected())
        late = Follower(self, broker.url())
        await late.until(lambda: late.connected() is False)
        self.assertEqual(late.total(), 2)
        self.publisher_process(broker, port)
        await follower.until(follower.connected)
        await late.until(late.connected)

    async def test_lostServer(self) -> None:
        """A publisher that has lost its server is seen, also by those that join later."""
        broker = NatsServer(self)
        recorder, port, service = await self.service()
        recorder.counter("jobs").increment(2)
        self.publish(broker, port)
        follower = Follower(self, broker.url())
        await follower.has(2)
        self.assertTrue(follower.connected())
        await service.stopService()
        await follower.until(lambda: not follower.connected())
        late = Follower(self, broker.url())
        await late.until(lambda: late.connected() is False)
        self.assertEqual(late.total(), 2)

    async def test_twoPublishers(self) -> None:
        """Two publishers of one source, one of which is killed, count nothing twice."""
        broker = NatsServer(self)
        recorder, port = await self.exporter()
        jobs = recorder.counter("jobs")
        killed = self.publisher_process(broker, port)
        follower = Follower(self, broker.url())
        jobs.increment(3)
        await follower.has(3)
        other = self.publish(broker, port)
        for _ in range(100):
            jobs.increment()
        await follower.has(103)
        killed.kill()
        killed.wait()
        for _ in range(100):
            jobs.increment()
        await follower.has(203)
        self.assertEqual(
            follower.service._reader.sources["web"].following._epoch, other._publishing._epoch
        )

    async def test_streamDeleted(self) -> None:
        broker = NatsServer(self)
        recorder, port = await self.exporter()
        jobs = recorder.counter("jobs")
        self.publish(broker, port)
        follower = Follower(self, broker.url())
        jobs.increment(3)
        await follower.has(3)
        await change_streams(broker, lambda context: context.delete_stream("METRICS"))
        jobs.increment(4)
        await follower.has(7)
        late = Follower(self, broker.url())
        await late.has(7)

    async def test_consumerRestarted(self) -> None:
        """A consumer that joins between snapshots has exact totals."""
        broker = NatsServer(self)
        recorder, port = await self.exporter()
        jobs = recorder.counter("jobs")
        self.publish(broker, port, snapshot_interval=10 * LIMIT)
        recorded = 0
        for _ in range(3):
            follower = Follower(self, broker.url())
            for _ in range(100):
                jobs.increment()
            recorded += 100
            await follower.has(recorded)
            await follower.stop()

    async def test_restarted(self) -> None:
        """Services can be started again."""
        broker = NatsServer(self)
        recorder, port = await self.exporter()
        jobs = recorder.counter("jobs")
        publisher = self.publish(broker, port)
        follower = Follower(self, broker.url())
        for total in 1, 2, 3:
            jobs.increment()
            await follower.has(total)
            await publisher.stopService()
            await follower.stop()
            publisher.startService()
            follower.service.startService()
        jobs.increment()
        await follower.has(4)

    async def test_consumerForgotten(self) -> None:
        """A consumer that has not read for a while continues where it was, without a report."""
        broker = NatsServer(self)
        recorder, port = await self.exporter()
        jobs = recorder.counter("jobs")
        self.publish(broker, port)
        follower = Follower(self, broker.url())
        jobs.increment()
        await follower.has(1)

        async def forget(context: Any) -> None:
            for consumer in await context.consumers_info("METRICS"):
                await context.delete_consumer("METRICS", consumer.name)

        reported = len(follower.broker_states)
        await change_streams(broker, forget)
        jobs.increment()
        await follower.has(2)
        self.assertEqual(len(follower.broker_states), reported)
        state = follower.states["web"]
        self.assertEqual(isinstance(state, SourceExact) and state.missed, 0)

    async def test_stalledConnection(self) -> None:
        """If the broker does not answer through a connection, another one is made."""
        self.patch(sys.modules["txmetrics_tcp.relay._broker"], "TIMEOUT", 1.0)
        self.patch(sys.modules["txmetrics_tcp.relay._broker"], "WAIT", 0.5)
        broker = NatsServer(self)
        recorder, port = await self.exporter()
        jobs = recorder.counter("jobs")
        proxy = ProxyFactory("127.0.0.1", broker.port)
        proxy.noisy = False
        transports: list[Any] = []
        build = proxy.buildProtocol

        def connected(addr: Any) -> Any:
            protocol = build(addr)
            reactor.callLater(0, lambda: transports.append(protocol.transport))  # type: ignore[attr-defined]
            return protocol

        proxy.buildProtocol = connected  # type: ignore[method-assign]
        listening = reactor.listenTCP(0, proxy, interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(listening.stopListening)
        url = f"nats://127.0.0.1:{listening.getHost().port}/METRICS"
        publisher = NatsPublisherService(reactor, url, "web", port, snapshot_interval=0.2)
        publisher.startService()
        self.addCleanup(publisher.stopService)
        follower = Follower(self, url)
        jobs.increment()
        await follower.has(1)
        stalled = list(transports)
        self.assertEqual(len(stalled), 2)
        for transport in stalled:
            transport.pauseProducing()
            self.addCleanup(transport.abortConnection)
        jobs.increment()
        await follower.has(2)
        self.assertGreater(len(transports), 3)

    async def test_foreignMessages(self) -> None:
        """Messages of others are ignored, also those that look like the end of a request."""
        broker = NatsServer(self)
        self.patch(sys.modules["txmetrics_tcp.relay._broker"], "WAIT", 10 * LIMIT)
        recorder, port = await self.exporter()
        jobs = recorder.counter("jobs")
        self.publish(broker, port)
        follower = Follower(self, broker.url())
        jobs.increment()
        await follower.has(1)
        client = Broker(reactor, f"127.0.0.1:{broker.port}")
        self.addCleanup(client.close)
        for headers in {"Status": "408"}, {"Txmetrics": "1 a snap"}, {"Txmetrics": "2"}, {}:
            await client.publish("METRICS", "METRICS.web.data", b"x", headers)
            jobs.increment()
        await follower.has(5)
        self.assertEqual(follower.service.invalid, 4)

    async def test_stoppedWithoutBroker(self) -> None:
        """What the broker has not taken when a publisher stops has been given up."""
        self.patch(nats, "STOP_TIMEOUT", 0.1)
        broker = NatsServer(self)
        broker.kill()
        recorder, port = await self.exporter()
        jobs = recorder.counter("jobs")
        unavailable: Deferred[None] = Deferred()
        publisher = self.publish(
            broker, port, broker_observer=lambda state: unavailable.callback(None)
        )
        await unavailable
        jobs.increment()
        while not publisher.events:
            await self.iterate()
        await publisher.stopService()
        self.assertEqual((publisher.events, publisher.given_up), (1, 1))

    async def test_permanent(self) -> None:
        """What the broker will never accept is reported as such."""
        broker = NatsServer(self)
        _, port = await self.exporter()
        await change_streams(
            broker, lambda context: context.add_stream(name="OTHER", subjects=["METRICS.>"])
        )
        seed = self.mktemp()
        Path(seed).write_text("SECRETSEED")
        for url, options, reason in [
            (broker.url(), {}, "subjects overlap with an existing stream"),
            (broker.url("M"), {"settings": StreamSettings(replicas=3)}, "has no cluster for 3"),
            (broker.url("M"), {"settings": StreamSettings(max_age=0.001)}, "max age needs"),
            (broker.url("M"), {"access": Access(nkey_file=seed)}, "contains no valid seed"),
        ]:
            failed: Deferred[BrokerUnavailable] = Deferred()
            publisher = NatsPublisherService(
                *(reactor, url, "web", port), broker_observer=failed.callback, **options
            )
            publisher.startService()
            state = await failed
            self.assertTrue(state.permanent)
            self.assertIn(reason, state.reason)
            self.assertNotIn("SECRET", state.reason)
            await publisher.stopService()

    async def test_maxMessageSize(self) -> None:
        """Messages that the stream does not accept are given up; others follow."""
        broker = NatsServer(self)
        recorder, port = await self.exporter()
        settings = {"subjects": ["METRICS.>"], "max_msg_size": 4000}
        await change_streams(broker, lambda context: context.add_stream(name="METRICS", **settings))
        self.publish(broker, port)
        follower = Follower(self, broker.url())
        jobs = recorder.counter("jobs")
        jobs.increment()
        await follower.has(1)
        noise = random.Random(1)
        for _ in range(2000):
            jobs.increment(noise.getrandbits(48))
        await follower.until(
            lambda: follower.exact() and follower.states["web"].missed  # type: ignore[union-attr]
        )

    async def test_publisherKilledLongAgo(self) -> None:
        """What was published after an old snapshot shows that it is not exact."""
        broker = NatsServer(self)
        self.patch(sys.modules["txmetrics_tcp.relay._broker"], "CATCH_UP", -1.0)
        recorder, port = await self.exporter()
        jobs = recorder.counter("jobs")
        self.publish(broker, port, snapshot_interval=10 * LIMIT)
        follower = Follower(self, broker.url())
        await follower.until(follower.exact)
        for total in 1, 2:
            jobs.increment()
            await follower.has(total)
        late = Follower(self, broker.url())
        await late.until(lambda: "web" in late.states and late.exact() is False)
        self.assertEqual(late.total(), 0)

    def publisher_process(self, broker: NatsServer, port: int) -> Popen[bytes]:
        process = Popen(
            [sys.executable, "-c", PUBLISHER, broker.url(), str(port)],
            env=environment(),
        )

        def kill() -> None:
            process.kill()
            process.wait()

        self.addCleanup(kill)
        return process

    def iterate(self) -> Deferred[None]:
        """Let the reactor iterate."""
        iterated: Deferred[None] = Deferred()
        reactor.callLater(0, iterated.callback, None)  # type: ignore[attr-defined]
        return iterated
