"""
`EventStream`, in Twisted coroutines and in asyncio tasks.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import IReactorCore
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import directlyProvides

from tests.connecting import FakeEndpoint
from tests.fuzz import ingest, pieces
from tests.unit.client.test_client import GARBAGE, frame
from tests.unit.codec.test_hostile_streams import CUTS, mutated
from tests.wire_cases import increment
from txmetrics_tcp import (
    EndpointError,
    Event,
    EventStream,
    ExporterSettings,
    Metric,
    MetricsFactory,
    Status,
    StreamError,
)
from txmetrics_tcp._codec.wire import encode_status
from txmetrics_tcp._net.log_throttle import INTERVAL
from txmetrics_tcp.testing import FakeReactor, PausingTransport

reactor: Any = _reactor


def status(incoming: int, client: int) -> bytes:
    return encode_status(Status("demo", 1, incoming, client))


class StreamTestCase(SynchronousTestCase):
    """
    A test case for a stream, with a fake reactor and a fake endpoint.

    @ivar seen: the events that `consume` has received.
    """

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.endpoint = FakeEndpoint()
        self.seen: list[Event] = []

    def stream(self, **options: Any) -> EventStream:
        return EventStream(self.reactor, self.endpoint, **options)

    async def consume(self, stream: EventStream) -> str:
        async for event in stream:
            self.seen.append(event)
        return "ended"

    def start(self, stream: EventStream) -> Deferred[str]:
        return Deferred.fromCoroutine(self.consume(stream))

    def delayed_calls(self) -> list[object]:
        return list(self.reactor.getDelayedCalls())


class TwistedTests(StreamTestCase):
    """An `EventStream` in a Twisted coroutine."""

    def test_events(self) -> None:
        """Events are yielded immediately, and the loop ends with the connection."""
        done = self.start(self.stream())
        transport = self.endpoint.succeed()
        self.assertEqual(self.seen, [])
        transport.receive(frame(1) + frame(2)[:4])
        self.assertEqual(self.seen, [increment(1)])
        transport.receive(frame(2)[4:] + frame(3))
        self.assertEqual(self.seen, [increment(1), increment(2), increment(3)])
        self.assertNoResult(done)
        transport.lose(ConnectionDone())
        self.assertEqual(self.successResultOf(done), "ended")

    def test_connectsOnDemand(self) -> None:
        """The stream connects once, when the first event is requested."""
        stream = self.stream()
        self.assertEqual(self.endpoint.attempts, [])
        self.start(stream)
        self.assertEqual(len(self.endpoint.attempts), 1)
        transport = self.endpoint.succeed()
        transport.receive(frame(1))
        self.assertEqual(len(self.endpoint.attempts), 1)

    def test_noConnection(self) -> None:
        """The error of a failed attempt is raised once."""
        stream = self.stream()
        done = self.start(stream)
        self.endpoint.fail(ConnectionRefusedError())
        self.failureResultOf(done, ConnectionRefusedError)
        self.assertEqual(self.successResultOf(self.start(stream)), "ended")

    def test_endpointRaises(self) -> None:
        self.endpoint.connect = lambda factory: 1 // 0  # type: ignore[method-assign]
        self.failureResultOf(self.start(self.stream()), ZeroDivisionError)

    def test_failsAfterwards(self) -> None:
        """An endpoint that fails after the connection was established does not end the loop."""
        done = self.start(self.stream())
        factory, attempt = self.endpoint.attempts[0]
        transport = PausingTransport()
        transport.connect(factory.buildProtocol(transport.getPeer()))
        attempt.errback(KeyError())
        self.assertNoResult(done)
        transport.receive(frame(1))
        transport.lose(ConnectionDone())
        self.assertEqual(self.successResultOf(done), "ended")

    def test_notAStream(self) -> None:
        """`StreamError` is raised after the events before the invalid data."""
        done = self.start(self.stream())
        transport = self.endpoint.succeed()
        transport.receive(frame(1) + GARBAGE)
        transport.drain()
        self.assertIn("a frame of 5 bytes", str(self.failureResultOf(done, StreamError).value))
        self.assertEqual(self.seen, [increment(1)])

    def test_brokenConnection(self) -> None:
        done = self.start(self.stream())
        transport = self.endpoint.succeed()
        transport.receive(frame(1)[:5])
        transport.lose(ConnectionDone())
        failure = self.failureResultOf(done, ConnectionLost)
        self.assertIn("ends within a frame, after 5 bytes", str(failure.value))

    def test_context(self) -> None:
        """``async with`` connects at the start, and closes the connection at the end."""
        steps = []

        async def main() -> None:
            async with self.stream() as stream:
                steps.append("connected")
                async for event in stream:
                    steps.append(repr(event))
                    break
            steps.append("closed")

        done = Deferred.fromCoroutine(main())
        self.assertEqual(steps, [])
        transport = self.endpoint.succeed()
        self.assertEqual(steps, ["connected"])
        transport.receive(frame(1) + frame(2))
        self.assertEqual(steps, ["connected", repr(increment(1))])
        self.assertTrue(transport.aborted)
        self.assertNoResult(done)
        transport.drain()
        self.successResultOf(done)
        self.assertEqual(steps[2:], ["closed"])

    def test_contextNotConnected(self) -> None:
        async def main() -> None:
            async with self.stream():
                raise AssertionError("not connected")

        done = Deferred.fromCoroutine(main())
        self.endpoint.fail(ConnectionRefusedError())
        self.failureResultOf(done, ConnectionRefusedError)

    def test_contextRaises(self) -> None:
        """An exception from the block propagates after the connection is closed."""

        async def main() -> None:
            async with self.stream():
                raise KeyError

        done = Deferred.fromCoroutine(main())
        transport = self.endpoint.succeed()
        transport.drain()
        self.failureResultOf(done, KeyError)

    def test_coroutineClosed(self) -> None:
        """Closing a suspended coroutine closes the connection without waiting."""

        async def main() -> None:
            async with self.stream() as stream:
                async for _ in stream:
                    pass

        coroutine = main()
        coroutine.send(None)
        transport = self.endpoint.succeed()
        # The coroutine resumes, and then waits for an event.
        coroutine.send(None)
        coroutine.close()
        self.assertTrue(transport.aborted)

    def test_closedInTheLoop(self) -> None:
        """`close` in the loop ends the loop, and discards buffered events."""
        stream = self.stream()

        async def main() -> None:
            async for event in stream:
                self.seen.append(event)
                stream.close()
                stream.close()

        done = Deferred.fromCoroutine(main())
        transport = self.endpoint.succeed()
        transport.receive(frame(1) + frame(2) + frame(3))
        self.assertTrue(transport.aborted)
        transport.drain()
        self.successResultOf(done)
        self.assertEqual(self.seen, [increment(1)])

    def test_closedElsewhere(self) -> None:
        """`aclose` ends a loop that is waiting for an event."""
        stream = self.stream()
        done = self.start(stream)
        transport = self.endpoint.succeed()
        closed = Deferred.fromCoroutine(stream.aclose())
        self.assertNoResult(closed)
        transport.drain()
        self.successResultOf(closed)
        self.assertEqual(self.successResultOf(done), "ended")

    def test_closedWhileConnecting(self) -> None:
        stream = self.stream()
        done = self.start(stream)
        stream.close()
        self.assertEqual(self.endpoint.cancelled, 1)
        self.assertEqual(self.successResultOf(done), "ended")

    def test_closedBefore(self) -> None:
        """A stream closed before its first use never connects."""
        stream = self.stream()
        stream.close()
        self.assertEqual(self.successResultOf(self.start(stream)), "ended")
        self.successResultOf(Deferred.fromCoroutine(stream.aclose()))
        self.assertEqual(self.endpoint.attempts, [])

    def test_closedAfterAnError(self) -> None:
        """`close` discards an error that was not raised yet."""
        stream = self.stream()

        async def main() -> None:
            async for event in stream:
                self.seen.append(event)
                await later
                stream.close()

        later: Deferred[None] = Deferred()
        done = Deferred.fromCoroutine(main())
        transport = self.endpoint.succeed()
        transport.receive(frame(1) + GARBAGE)
        transport.drain()
        later.callback(None)
        self.successResultOf(done)

    def test_connectedAfterClose(self) -> None:
        """A connection that is established after `close` is closed."""
        stream = self.stream()
        self.start(stream)
        factory = self.endpoint.attempts[0][0]
        stream.close()
        transport = PausingTransport()
        transport.connect(factory.buildProtocol(transport.getPeer()))
        self.assertTrue(transport.aborted)
        transport.drain()

    def test_cancelled(self) -> None:
        """Cancelling a wait loses no event, and the next call works."""
        stream = self.stream()
        first = Deferred.fromCoroutine(stream.__anext__())
        transport = self.endpoint.succeed()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertEqual(stream._intake._waits, [])
        transport.receive(frame(1) + frame(2))
        for number in 1, 2:
            event = self.successResultOf(Deferred.fromCoroutine(stream.__anext__()))
            self.assertEqual(event, increment(number))
        self.assertFalse(transport.aborted)

    def test_cancelledWhileConnecting(self) -> None:
        async def main() -> None:
            async with self.stream():
                raise AssertionError("not connected")

        done = Deferred.fromCoroutine(main())
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.assertEqual(self.endpoint.cancelled, 1)

    def test_cancelledInTheLoop(self) -> None:
        async def main() -> None:
            async with self.stream() as stream:
                await self.consume(stream)

        done = Deferred.fromCoroutine(main())
        transport = self.endpoint.succeed()
        done.cancel()
        transport.drain()
        self.failureResultOf(done, CancelledError)
        self.assertTrue(transport.aborted)

    def test_oneConsumer(self) -> None:
        """A second consumer gets an error, and the first continues."""
        stream = self.stream()
        self.start(stream)
        transport = self.endpoint.succeed()
        failure = self.failureResultOf(self.start(stream), RuntimeError)
        self.assertIn("supports only one consumer", str(failure.value))
        transport.receive(frame(1))
        self.assertEqual(self.seen, [increment(1)])

    def test_abandoned(self) -> None:
        """A stream without references, after a ``break`` for example, closes its connection."""

        async def main() -> None:
            async for _ in self.stream():
                break

        done = Deferred.fromCoroutine(main())
        transport = self.endpoint.succeed()
        transport.receive(frame(1) + frame(2))
        self.successResultOf(done)
        gc.collect()
        self.assertFalse(transport.aborted)
        self.reactor.drain()
        self.assertTrue(transport.aborted)

    def test_abandonedWithoutConnection(self) -> None:
        """A stream without references that never connected, or has ended, needs no close."""
        self.stream()
        done = self.start(self.stream())
        self.endpoint.succeed().lose(ConnectionDone())
        self.successResultOf(done)
        gc.collect()
        self.assertEqual(self.reactor.waiting, 0)

    def test_keptWhileWaiting(self) -> None:
        """A stream is not garbage-collected while a loop waits for an event."""
        done = self.start(self.stream())
        transport = self.endpoint.succeed()
        gc.collect()
        self.assertEqual(self.reactor.waiting, 0)
        transport.receive(frame(1))
        self.assertEqual(self.seen, [increment(1)])
        self.assertNoResult(done)

    def test_invalidArguments(self) -> None:
        self.assertRaises(EndpointError, EventStream, self.reactor, "nowhere")
        self.assertRaisesRegex(ValueError, "at least 1, not 0", self.stream, buffer_size=0)
        self.assertRaisesRegex(ValueError, "at least 1, not 0", self.stream, buffer_bytes=0)
        self.assertRaisesRegex(ValueError, "not 'block'", self.stream, when_full="block")

    def test_maxFrame(self) -> None:
        done = self.start(self.stream(max_frame=12))
        transport = self.endpoint.succeed()
        transport.receive(frame(1))
        transport.drain()
        self.assertIn("the limit of 12 bytes", str(self.failureResultOf(done, StreamError).value))


class SlowConsumerTests(StreamTestCase):
    """A buffer of four events, and a consumer that the test controls."""

    def connect(self, **options: Any) -> PausingTransport:
        self.slow = self.stream(**{"buffer_size": 4, **options})
        self.entered = Deferred.fromCoroutine(self.slow.__aenter__())
        return self.endpoint.succeed()

    def take(self, number: int) -> list[Event]:
        return [
            self.successResultOf(Deferred.fromCoroutine(self.slow.__anext__()))
            for _ in range(number)
        ]

    def test_paused(self) -> None:
        """A full buffer stops reading from the connection until half of it is free."""
        transport = self.connect()
        for number in range(4):
            self.assertTrue(transport.reading)
            transport.receive(frame(number))
        self.assertFalse(transport.reading)
        self.assertEqual(self.take(1), [increment(0)])
        self.assertFalse(transport.reading)
        self.assertEqual(self.take(1), [increment(1)])
        self.assertTrue(transport.reading)
        transport.receive(frame(4) + frame(5))
        self.assertFalse(transport.reading)
        self.assertEqual(self.take(4), [increment(number) for number in range(2, 6)])
        self.assertTrue(transport.reading)

    def test_oneRead(self) -> None:
        """All events of one read are buffered, even above the limit."""
        transport = self.connect()
        transport.receive(b"".join(map(frame, range(100))))
        self.assertFalse(transport.reading)
        self.assertEqual(self.take(97), [increment(number) for number in range(97)])
        self.assertFalse(transport.reading)
        self.take(1)
        self.assertTrue(transport.reading)
        self.assertEqual(self.slow.dropped, 0)

    def test_endsWhilePaused(self) -> None:
        """All buffered events are yielded before the loop ends."""
        transport = self.connect()
        transport.receive(b"".join(map(frame, range(5))))
        transport.lose(ConnectionDone())
        self.assertEqual(self.take(5), [increment(number) for number in range(5)])
        self.failureResultOf(Deferred.fromCoroutine(self.slow.__anext__()), StopAsyncIteration)

    def test_closedWhilePaused(self) -> None:
        transport = self.connect()
        transport.receive(b"".join(map(frame, range(5))))
        self.slow.close()
        transport.drain()
        self.failureResultOf(Deferred.fromCoroutine(self.slow.__anext__()), StopAsyncIteration)

    def test_serverDrops(self) -> None:
        """Drops reported by the server are counted when the consumer receives the status."""
        transport = self.connect()
        with capturedLogs() as logs:
            transport.receive(status(0, 0) + frame(1) + status(3, 4) + frame(2))
            self.take(2)
            self.assertEqual(self.slow.dropped, 0)
            self.take(1)
            self.assertEqual(self.slow.dropped, 7)
            transport.receive(status(3, 5) + status(1, 1))
            self.take(3)
            self.assertEqual(self.slow.dropped, 8)
            self.reactor.pump([INTERVAL] * 2)
        self.assertEqual(
            [event["log_format"].format(**event) for event in logs],
            [
                "Events are being dropped on their way from 127.0.0.1:54321",
                "Events were dropped on their way from 127.0.0.1:54321:"
                " 8 events within 0.0 seconds",
            ],
        )
        self.assertEqual(self.delayed_calls(), [])

    def test_dropsReportedAfterTheEnd(self) -> None:
        """
        Drops reported after the connection ended are logged together once everything is taken.  No
        delayed call is left.
        """
        transport = self.connect()
        transport.receive(b"".join(status(0, dropped) for dropped in range(5)))
        transport.lose(ConnectionDone())
        with capturedLogs() as logs:
            self.take(5)
        self.assertEqual(len(logs), 2)
        self.assertEqual(self.slow.dropped, 4)
        self.assertEqual(self.delayed_calls(), [])

    def test_clientDrops(self) -> None:
        """With `when_full="drop"`, the oldest events are dropped and counted."""
        transport = self.connect(when_full="drop")
        with capturedLogs() as logs:
            transport.receive(b"".join(map(frame, range(6))))
            transport.receive(frame(6))
            self.assertTrue(transport.reading)
            self.assertEqual(self.slow.dropped, 3)
            self.assertEqual(self.take(4), [increment(number) for number in range(3, 7)])
            self.slow.close()
            transport.drain()
        self.assertEqual(len(logs), 2)
        self.assertIn(": 3 events within", logs[1]["log_format"].format(**logs[1]))
        self.assertEqual(self.delayed_calls(), [])

    def test_bytes(self) -> None:
        """The buffer is full also when its frames reach the limit of bytes."""
        transport = self.connect(buffer_size=100, buffer_bytes=10 * len(frame(1)))
        for number in range(9):
            transport.receive(frame(number))
            self.assertTrue(transport.reading)
        transport.receive(frame(9)[:5])
        self.assertTrue(transport.reading)
        transport.receive(frame(9)[5:] + frame(10)[:5])
        self.assertFalse(transport.reading)
        self.take(4)
        self.assertFalse(transport.reading)
        self.take(1)
        self.assertTrue(transport.reading)
        self.assertEqual(self.take(5), [increment(number) for number in range(5, 10)])

    def test_dropsBytes(self) -> None:
        """With C{when_full="drop"}, the oldest reads are dropped, and the latest is kept."""
        limit = 3 * len(frame(1))
        transport = self.connect(when_full="drop", buffer_size=100, buffer_bytes=limit)
        transport.receive(b"".join(map(frame, range(100))))
        self.assertEqual(self.slow.dropped, 0)
        self.take(10)
        for number in range(100, 105):
            transport.receive(frame(number))
        self.assertEqual(self.slow.dropped, 90 + 2)
        self.assertEqual(self.take(3), [increment(number) for number in range(102, 105)])
        self.slow.close()
        transport.drain()

    def test_dropsStatus(self) -> None:
        """Drops reported by a status are counted even if the status itself is dropped."""
        transport = self.connect(when_full="drop")
        transport.receive(status(10, 0) + b"".join(map(frame, range(5))))
        self.assertEqual(self.slow.dropped, 11)
        self.slow.close()
        transport.drain()


class AsyncioTests(StreamTestCase):
    """An `EventStream` in an asyncio task, with an event loop and fakes instead of a reactor."""

    def setUp(self) -> None:
        super().setUp()
        self.loop = asyncio.new_event_loop()
        self.addCleanup(self.loop.close)

    def run_task(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(coroutine, 60))

    async def iterate(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    def test_events(self) -> None:
        async def main() -> str:
            task = asyncio.create_task(self.consume(self.stream()))
            await self.iterate()
            transport = self.endpoint.succeed()
            transport.receive(frame(1))
            await self.iterate()
            self.assertEqual(self.seen, [increment(1)])
            transport.receive(frame(2) + frame(3))
            transport.lose(ConnectionDone())
            return await task

        self.assertEqual(self.run_task(main()), "ended")
        self.assertEqual(self.seen, [increment(1), increment(2), increment(3)])

    def test_fails(self) -> None:
        async def main() -> None:
            task = asyncio.create_task(self.consume(self.stream()))
            await self.iterate()
            transport = self.endpoint.succeed()
            transport.receive(frame(1) + GARBAGE)
            transport.drain()
            await task

        self.assertRaises(StreamError, self.run_task, main())

    def test_context(self) -> None:
        async def consumer() -> None:
            async with self.stream() as stream:
                async for event in stream:
                    self.seen.append(event)
                    break

        async def main() -> None:
            task = asyncio.create_task(consumer())
            await self.iterate()
            transport = self.endpoint.succeed()
            transport.receive(frame(1) + frame(2))
            await self.iterate()
            self.assertTrue(transport.aborted)
            self.assertFalse(task.done())
            transport.drain()
            await task

        self.run_task(main())
        self.assertEqual(self.seen, [increment(1)])

    def test_cancelled(self) -> None:
        """Cancelling a wait loses no event, at any time."""

        async def main() -> None:
            stream = self.stream()
            transports = []
            for when in ("alone", "after an event", "before an event"):
                task = asyncio.create_task(stream.__anext__())
                await self.iterate()
                if not transports:
                    transports.append(self.endpoint.succeed())
                if when == "after an event":
                    transports[0].receive(frame(1))
                task.cancel()
                if when == "before an event":
                    transports[0].receive(frame(2))
                with self.assertRaises(asyncio.CancelledError):
                    await task
                if when == "after an event":
                    self.assertEqual(await stream.__anext__(), increment(1))
            self.assertEqual(await stream.__anext__(), increment(2))
            stream.close()
            transports[0].drain()

        self.run_task(main())

    def test_cancelledInTheLoop(self) -> None:
        async def consumer() -> None:
            async with self.stream() as stream:
                await self.consume(stream)

        async def main() -> None:
            task = asyncio.create_task(consumer())
            await self.iterate()
            transport = self.endpoint.succeed()
            await self.iterate()
            task.cancel()
            await self.iterate()
            self.assertTrue(transport.aborted)
            transport.drain()
            with self.assertRaises(asyncio.CancelledError):
                await task

        self.run_task(main())

    def test_oneConsumer(self) -> None:
        async def main() -> None:
            stream = self.stream()
            first = asyncio.create_task(self.consume(stream))
            await self.iterate()
            with self.assertRaisesRegex(RuntimeError, "supports only one consumer"):
                await self.consume(stream)
            stream.close()
            await first

        self.run_task(main())

    def test_twistedWithinATask(self) -> None:
        """A Twisted coroutine is recognized while an asyncio task runs it."""

        async def main() -> str:
            done = self.start(self.stream())
            transport = self.endpoint.succeed()
            transport.receive(frame(1))
            self.assertEqual(self.seen, [increment(1)])
            transport.receive(frame(2))
            transport.lose(ConnectionDone())
            return await done.asFuture(asyncio.get_running_loop())

        self.assertEqual(self.run_task(main()), "ended")
        self.assertEqual(self.seen, [increment(1), increment(2)])

    def test_abandoned(self) -> None:
        async def consumer() -> None:
            async for _ in self.stream():
                break

        async def main() -> None:
            task = asyncio.create_task(consumer())
            await self.iterate()
            transport = self.endpoint.succeed()
            transport.receive(frame(1))
            await task
            gc.collect()
            self.reactor.drain()
            self.assertTrue(transport.aborted)

        self.run_task(main())

    def test_abandonedAfterLoopClosed(self) -> None:
        """Garbage collection of a stream after its event loop was closed raises no error."""

        async def main() -> EventStream:
            stream = self.stream()
            task = asyncio.create_task(stream.__anext__())
            await self.iterate()
            task.cancel()
            return stream

        stream = self.run_task(main())
        self.reactor.callFromThread = lambda *args: self.loop.call_soon(*args)  # type: ignore[method-assign, assignment]
        self.loop.close()
        raised: list[object] = []
        self.patch(sys, "unraisablehook", raised.append)
        self.patch(sys, "excepthook", lambda *error: raised.append(error))
        del stream
        gc.collect()
        self.assertEqual(raised, [])


class StoppingReactor(FakeReactor):
    """
    @ivar triggers: the functions to call before the reactor stops.
    """

    def __init__(self) -> None:
        super().__init__()
        self.triggers: list[Callable[[], object]] = []
        directlyProvides(self, IReactorCore)

    def addSystemEventTrigger(
        self, phase: str, event: str, function: Callable[[], object]
    ) -> Callable[[], object]:
        assert (phase, event) == ("before", "shutdown")
        self.triggers.append(function)
        return function

    def removeSystemEventTrigger(self, trigger: Callable[[], object]) -> None:
        self.triggers.remove(trigger)


class StopTests(StreamTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.reactor: StoppingReactor = StoppingReactor()

    def test_stops(self) -> None:
        """When the reactor stops, the loop ends, and the reactor waits for the connection."""
        done = self.start(self.stream())
        transport = self.endpoint.succeed()
        transport.receive(frame(1))
        (stop,) = self.reactor.triggers
        self.reactor.triggers.clear()
        stopped = stop()
        assert isinstance(stopped, Deferred)
        self.assertNoResult(stopped)
        transport.drain()
        self.successResultOf(stopped)
        self.assertEqual(self.successResultOf(done), "ended")

    def test_endedBefore(self) -> None:
        """A stream that has ended removes its shutdown trigger."""
        for lose in (True, False):
            done = self.start(self.stream())
            if lose:
                self.endpoint.succeed().lose(ConnectionDone())
                self.successResultOf(done)
            else:
                self.endpoint.fail(ConnectionRefusedError())
                self.failureResultOf(done, ConnectionRefusedError)
            self.assertEqual(self.reactor.triggers, [])


class LoopbackTests(TestCase):
    """An `EventStream` with an exporter, over a real connection."""

    timeout = 60

    async def test_slowConsumer(self) -> None:
        """
        If a consumer is too slow, the server drops and counts events, and resends the exact total,
        so that the consumer computes the exact total.
        """
        factory = MetricsFactory(reactor, ExporterSettings(own_metrics=False, buffer_size=100))
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        counter = factory.recorder.counter("c", label="x" * 10_000)
        total = 0
        async with EventStream(reactor, port.getHost().port, buffer_size=10) as stream:
            assert isinstance(await stream.__anext__(), Status)
            recorded = 0
            while not sum(client.dropped_client for client in factory.stats().clients):
                counter.increment()
                recorded += 1
                iteration: Deferred[None] = Deferred()
                reactor.callLater(0, iteration.callback, None)
                await iteration
            async for event in stream:
                if isinstance(event, Metric):
                    increments = event.operation.name == "INCREMENT_COUNTER"
                    total = int(event.value) + (total if increments else 0)
                if total == recorded and stream.dropped:
                    break
            else:
                self.fail("the stream has ended")
        factory.stop()
        await port.stopListening()


class HostileStreamTests(SynchronousTestCase):
    @given(st.integers(), CUTS)
    def test_mutated(self, seed: int, cuts: list[int]) -> None:
        """A loop over an invalid stream ends or raises `StreamError`."""
        endpoint = FakeEndpoint()
        stream = EventStream(FakeReactor(), endpoint, buffer_size=2)
        received = []

        async def read() -> None:
            async for event in stream:
                received.append(event)

        done = Deferred.fromCoroutine(read())
        transport = endpoint.succeed()
        for piece in pieces(mutated(seed), cuts):
            transport.receive(piece)
        if transport.aborted:
            transport.drain()
            self.failureResultOf(done, StreamError)
        else:
            stream.close()
            transport.drain()
            self.successResultOf(done)
        ingest(received)
