"""
Replays: all clients receive the whole recording, paced by its times and by the slowest client.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.reader import FakeClient, Reader, bits, exact_totals, view_bits
from tests.recordings import NOON, REQUESTS, increment
from tests.unit.codec.test_wire import encode
from tests.unit.net.test_writers import SocketTestCase
from txmetrics_tcp import (
    Decoder,
    Distribution,
    Event,
    ExporterSettings,
    Gone,
    HistogramTotal,
    Key,
    Metadata,
    Metric,
    MetricKind,
    MetricsFactory,
    Operation,
    Snapshot,
    SourceView,
    Status,
    decode,
    encode_metric,
)
from txmetrics_tcp._codec.wire import encode_snapshot, encode_status
from txmetrics_tcp._model import METRIC_EVENTS, PROTOCOL_VERSION, SET_OPERATION
from txmetrics_tcp._net.log_throttle import MAX_MESSAGES
from txmetrics_tcp._recording import stream_state
from txmetrics_tcp._recording.events import TIME_SLICE, Piece
from txmetrics_tcp._recording.replay import CATCH_UP, ReplayFactory, ReplayProtocol
from txmetrics_tcp._recording.stream_state import StreamState
from txmetrics_tcp._view.memory import name_size
from txmetrics_tcp.testing import FakeReactor, PausingTransport


def set_counter(name: str, value: int) -> Metric:
    return Metric(Key(MetricKind.COUNTER, name), Operation.SET_COUNTER, value, NOON)


def record(value: float, name: str = "h", when: int = NOON) -> Metric:
    return Metric(Key(MetricKind.HISTOGRAM, name), Operation.RECORD_HISTOGRAM, value, when)


def total(*samples: float, name: str = "h", when: int = NOON) -> HistogramTotal:
    return HistogramTotal(Key(MetricKind.HISTOGRAM, name), Distribution.of(samples), when)


class Client:
    """
    A client of a replay, which reads when `read` is called.

    @ivar received: the bytes that have been read.
    """

    def __init__(self, factory: ReplayFactory, limit: int = 64 * 1024) -> None:
        self.transport = PausingTransport(limit)
        protocol = factory.buildProtocol(self.transport.getPeer())
        assert isinstance(protocol, ReplayProtocol)
        self.protocol = protocol
        self.transport.connect(protocol)
        self.received = b""

    def read(self, size: int | None = None) -> bytes:
        """Read available bytes.  Return all bytes that have been read so far."""
        self.received += self.transport.drain(size)
        return self.received


class ReplayTests(SynchronousTestCase):
    """`ReplayFactory` with a fake clock and fake transports."""

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.finished = 0
        self.messages: list[str] = []
        self.opened = 0

    def replay(
        self,
        chunks: Iterable[tuple[float, bytes]],
        *,
        speed: float = 1.0,
        loop: bool = False,
    ) -> ReplayFactory:
        kept = list(chunks)

        def read() -> Iterator[Piece]:
            self.opened += 1
            return iter([Piece(seconds, frames, decode(frames)) for seconds, frames in kept])

        return ReplayFactory(
            self.reactor, read, self.finish, speed=speed, loop=loop, say=self.messages.append
        )

    def finish(self) -> None:
        self.finished += 1

    def test_firstClient(self) -> None:
        """The replay begins with the first client."""
        factory = self.replay([(0, increment(1))])
        self.reactor.advance(100)
        self.assertEqual(self.opened, 0)
        client = Client(factory)
        self.reactor.settle()
        self.assertEqual(client.read(), increment(1))

    def test_time(self) -> None:
        """Frames are sent with their timing, relative to the first one and scaled by the speed."""
        chunks = [(10, increment(1)), (12, increment(2)), (12, increment(3)), (20, increment(4))]
        for speed in [1, 2, 0.25]:
            self.finished = 0
            client = Client(self.replay(chunks, speed=speed))
            self.reactor.settle()
            self.assertEqual(client.read(), increment(1))
            self.reactor.advance(1.9 / speed)
            self.reactor.settle()
            self.assertEqual(client.read(), increment(1))
            self.reactor.advance(0.2 / speed)
            self.reactor.settle()
            self.assertEqual(client.read(), increment(1) + increment(2) + increment(3))
            self.assertEqual(self.finished, 0)
            self.reactor.pump([1 / speed] * 8)
            self.reactor.settle()
            self.assertEqual(client.read(), b"".join(map(increment, [1, 2, 3, 4])))
            client.read()
            self.assertEqual(self.finished, 1)

    def test_elapsedTime(self) -> None:
        """The reactor iterates after C{TIME_SLICE}, however few bytes were read meanwhile."""

        def read() -> Iterator[Piece]:
            for number in range(4):
                log.append("piece")
                self.reactor.rightNow += TIME_SLICE / 2
                yield Piece(0, increment(number), [])

        log: list[str] = []
        client = Client(ReplayFactory(self.reactor, read, self.finish))
        self.reactor.callLater(0, log.append, "iteration")
        self.reactor.settle()
        # The next piece is read in advance.
        self.assertEqual(log, ["piece"] * 3 + ["iteration", "piece"])
        self.assertEqual(client.read(), b"".join(map(increment, range(4))))

    def test_maxSpeed(self) -> None:
        """With infinite speed, times are ignored."""
        client = Client(self.replay([(10**9 * n, increment(n)) for n in range(50)], speed=math.inf))
        self.reactor.settle()
        self.assertEqual(client.read(), b"".join(map(increment, range(50))))

    def test_longWait(self) -> None:
        """No delayed call is scheduled more than an hour ahead."""
        client = Client(self.replay([(0, increment(1)), (10**8, increment(2))]))
        self.reactor.settle()
        self.assertLessEqual(max(c.getTime() for c in self.reactor.getDelayedCalls()), 3600)
        client.transport.lose()

    def test_slowClient(self) -> None:
        """A slow client delays the others, and no client loses data."""
        frames = [increment(n) for n in range(2000)]
        factory = self.replay([(0, frame) for frame in frames], speed=math.inf)
        fast, slow = Client(factory, limit=1000), Client(factory, limit=1000)
        self.reactor.settle()
        while len(slow.received) < len(b"".join(frames)):
            before = len(fast.read())
            self.reactor.settle()
            # The fast client receives nothing while the slow one still has pending data.
            self.assertEqual(len(fast.read()), before)
            self.assertEqual(factory.slow_clients, [slow.protocol])
            self.assertLess(len(slow.transport.written), 200_000)
            while slow.transport.producer_paused:
                slow.read(10_000)
            self.reactor.settle()
            if factory.stream_state.metrics == len(frames):
                break
        for client in (fast, slow):
            while client.transport.connected:
                client.read()
            self.assertEqual(client.received, b"".join(frames))
        self.assertEqual(self.finished, 1)

    def test_longDelay(self) -> None:
        """After a long wait for a client, the rest of the replay is shifted."""
        factory = self.replay([(n, increment(n)) for n in range(10)])
        client = Client(factory, limit=0)
        self.reactor.settle()
        self.assertTrue(client.transport.producer_paused)
        self.reactor.advance(100)
        client.read()
        self.reactor.settle()
        self.assertEqual(client.read(), increment(0) + increment(1))
        self.reactor.advance(0.9)
        self.reactor.settle()
        self.assertEqual(client.read(), increment(0) + increment(1))
        self.reactor.advance(0.1)
        self.reactor.settle()
        self.assertEqual(client.read(), b"".join(map(increment, range(3))))

    def test_shortDelay(self) -> None:
        """A delay of less than `CATCH_UP` is caught up."""
        factory = self.replay([(n, increment(n)) for n in range(10)])
        client = Client(factory, limit=0)
        self.reactor.settle()
        self.reactor.advance(1 + CATCH_UP / 2)
        client.read()
        self.reactor.settle()
        self.assertEqual(client.read(), increment(0) + increment(1))
        self.reactor.advance(0.5)
        self.reactor.settle()
        self.assertEqual(client.read(), b"".join(map(increment, range(3))))

    def test_lateClient(self) -> None:
        """A late client receives the current state, then the same data as the others."""
        stream: list[Event] = [
            Status("shop", NOON, 3, 4),
            Metadata(MetricKind.COUNTER, "requests_total", "count", "first"),
            Metadata(MetricKind.COUNTER, "requests_total", "count", "second"),
            Snapshot.BEGIN,
            Metric(REQUESTS, Operation.SET_COUNTER, 2**64 - 1, NOON),
            Snapshot.END,
            Metric(REQUESTS, Operation.INCREMENT_COUNTER, 3, NOON + 1),
            Metric(Key(MetricKind.GAUGE, "g"), Operation.DECREMENT_GAUGE, 1.5, NOON + 2),
            Metric(Key(MetricKind.HISTOGRAM, "h"), Operation.RECORD_HISTOGRAM, 1.5, NOON + 3),
        ]
        factory = self.replay([(0, encoded(stream)), (5, increment(1))])
        early = Client(factory)
        self.reactor.settle()
        late = Client(factory)
        self.reactor.advance(5)
        self.reactor.settle()
        self.assertEqual(early.read(), encoded(stream) + increment(1))
        first: list[Event] = [
            stream[0],
            stream[2],
            Snapshot.BEGIN_COMPLETE,
            Metric(REQUESTS, Operation.SET_COUNTER, 2, NOON + 1),
            Metric(Key(MetricKind.GAUGE, "g"), Operation.SET_GAUGE, -1.5, NOON + 2),
            HistogramTotal(Key(MetricKind.HISTOGRAM, "h"), Distribution.of([1.5]), NOON + 3),
            Snapshot.END,
        ]
        self.assertEqual(list(Decoder().feed(late.read())), [*first, *Decoder().feed(increment(1))])

    def test_lateSlowClient(self) -> None:
        """The replay waits until a late client has taken the current state."""
        stream = [
            encode_metric(Metric(Key(MetricKind.GAUGE, f"g{n}"), Operation.SET_GAUGE, n, NOON))
            for n in range(10_000)
        ]
        factory = self.replay([(0, b"".join(stream)), (1, increment(1))])
        early = Client(factory)
        self.reactor.settle()
        early.read()
        late = Client(factory, limit=1000)
        self.reactor.advance(5)
        self.reactor.settle()
        self.assertEqual(early.read(), b"".join(stream))
        self.assertLess(len(late.transport.written), 100_000)
        while late.transport.connected:
            late.read()
            self.reactor.settle()
            early.read()
        self.assertEqual(late.received, early.received)
        self.assertEqual(early.received, b"".join(stream) + increment(1))

    def test_lateClientWithinSnapshot(self) -> None:
        """
        A client that connects within a recorded snapshot receives its end only once.  The totals of
        the replay are complete, even if the recorded snapshot is not.
        """
        begin, complete, end = map(encode_snapshot, Snapshot)
        total = encode_metric(Metric(REQUESTS, Operation.SET_COUNTER, 2, NOON))
        other = encode_metric(Metric(Key(MetricKind.GAUGE, "g"), Operation.SET_GAUGE, 1.5, NOON))
        factory = self.replay([(0, begin + total), (1, other + end), (2, increment(1))])
        first = Client(factory)
        self.reactor.settle()
        within = Client(factory)
        self.reactor.advance(1)
        self.reactor.settle()
        after = Client(factory)
        self.reactor.settle()
        self.assertEqual(within.read(), complete + total + other + end)
        self.assertEqual(after.read(), complete + total + other + end)
        self.assertEqual(first.read(), begin + total + other + end)

    def test_nextConnection(self) -> None:
        """
        A snapshot that a recorded connection left without an end does not affect clients of the
        next one; a restart of the recorded server removes its totals.
        """
        begin = encode_snapshot(Snapshot.BEGIN)
        old = encode_metric(Metric(REQUESTS, Operation.SET_COUNTER, 2, NOON))
        new = encode_metric(Metric(Key(MetricKind.GAUGE, "g"), Operation.SET_GAUGE, 1.5, NOON))
        first = encode_status(Status("shop", NOON)) + begin + old
        second = encode_status(Status("shop", NOON + 1)) + new
        pieces = [
            Piece(0, first, decode(first), begins=True),
            Piece(0, second, decode(second), begins=True),
            Piece(1, increment(1), decode(increment(1))),
        ]
        factory = ReplayFactory(self.reactor, lambda: pieces, lambda: None)
        early = Client(factory)
        self.reactor.settle()
        late = Client(factory)
        self.reactor.settle()
        self.assertEqual(early.read(), first + second)
        status = encode_status(Status("shop", NOON + 1))
        self.assertEqual(late.read(), status + new)

    def test_lateClientBeforeVersion1(self) -> None:
        """
        From a recording of before version 1 of the protocol, a late client receives a snapshot,
        because the recorded totals were exact.
        """
        _, complete, end = map(encode_snapshot, Snapshot)
        total = encode_metric(Metric(REQUESTS, Operation.SET_COUNTER, 2, NOON))
        old = encode_status(Status("shop", NOON, 3, 4, protocol_version=0))
        factory = self.replay([(0, old + total), (1, increment(1))])
        Client(factory)
        self.reactor.settle()
        late = Client(factory)
        self.reactor.settle()
        self.assertEqual(
            late.read(), encode_status(Status("shop", NOON, 3, 4)) + complete + total + end
        )

    def test_lateClientOfRustServer(self) -> None:
        """The totals of a Rust server's recording are not exact, and so no snapshot."""
        factory = self.replay([(0, increment(1)), (1, increment(1))])
        Client(factory)
        self.reactor.settle()
        late = Client(factory)
        self.reactor.settle()
        self.assertEqual(
            late.read(), encode_metric(Metric(REQUESTS, Operation.SET_COUNTER, 1, NOON + 1))
        )

    def test_noStateBeforeSnapshot(self) -> None:
        """A client that connects before a recorded snapshot receives only that one."""
        begin, complete, end = map(encode_snapshot, Snapshot)
        status = encode_status(Status("shop", NOON))
        factory = self.replay([(0, status), (1, begin + end), (2, increment(1))])
        Client(factory)
        self.reactor.settle()
        before = Client(factory)
        self.reactor.advance(1)
        self.reactor.settle()
        after = Client(factory)
        self.reactor.settle()
        self.assertEqual(before.read(), status + begin + end)
        self.assertEqual(after.read(), status + complete + end)

    def test_pause(self) -> None:
        """The replay pauses while no clients are connected."""
        factory = self.replay([(n, increment(1)) for n in range(5)])
        first = Client(factory)
        self.reactor.settle()
        self.reactor.advance(1)
        self.reactor.settle()
        first.transport.lose()
        self.reactor.advance(1000)
        self.reactor.settle()
        self.assertEqual((self.finished, factory.stream_state.metrics), (0, 2))
        self.assertIn("the replay is paused", self.messages[-1])
        second = Client(factory)
        self.reactor.settle()
        total = encode_metric(Metric(REQUESTS, Operation.SET_COUNTER, 2, NOON + 1))
        self.assertEqual(second.read(), total + increment(1))
        self.reactor.pump([1.0] * 3)
        self.reactor.settle()
        self.assertEqual(second.read(), total + increment(1) * 3)
        second.read()
        self.assertEqual(self.finished, 1)

    def test_slowClientDisconnects(self) -> None:
        """The replay does not wait for a disconnected client."""
        factory = self.replay([(0, increment(1)), (1, increment(2))])
        here, gone = Client(factory), Client(factory, limit=0)
        self.reactor.settle()
        self.reactor.advance(2)
        self.reactor.settle()
        self.assertEqual(here.read(), increment(1))
        gone.transport.lose()
        self.reactor.settle()
        self.assertEqual(here.read(), increment(1) + increment(2))

    def test_end(self) -> None:
        """The replay ends when the slowest client has taken all data.  New clients are rejected."""
        factory = self.replay([(0, increment(1))], speed=math.inf)
        fast, slow = Client(factory), Client(factory, limit=0)
        self.reactor.settle()
        fast.read()
        fast.read()
        self.assertFalse(fast.transport.connected)
        self.assertIsNone(factory.buildProtocol(None))
        self.reactor.advance(1000)
        self.assertEqual(self.finished, 0)
        slow.read()
        slow.read()
        self.assertEqual((slow.received, self.finished), (increment(1), 1))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_disconnectedAtEnd(self) -> None:
        """A client that disconnects with pending data at the end does not delay the end."""
        factory = self.replay([(0, increment(1))])
        client = Client(factory, limit=0)
        self.reactor.settle()
        client.transport.lose()
        self.assertEqual(self.finished, 1)

    def test_empty(self) -> None:
        """A recording without events ends with the first client, even with C{loop}."""
        for loop in (False, True):
            self.finished = 0
            client = Client(self.replay([], loop=loop))
            self.reactor.settle()
            client.read()
            self.assertEqual(self.finished, 1)

    def test_anyTime(self) -> None:
        """The replay ends at any times, also if the time until a piece would round to 0."""
        for first in range(1, 40):
            for second in range(1, 40):
                self.reactor = FakeReactor()
                self.reactor.advance(first * 1000 / 7)
                times = (0, second / 11, second / 11 + first / 13)
                Client(self.replay([(time, increment(1)) for time in times], speed=3.0))
                while calls := self.reactor.getDelayedCalls():
                    self.reactor.advance(calls[0].getTime() - self.reactor.seconds())

    def test_manyClients(self) -> None:
        """Messages about clients are limited."""
        factory = self.replay([(0, increment(1)), (100, increment(2))])
        for _ in range(1000):
            Client(factory).transport.lose()
        self.assertEqual(len(self.messages), MAX_MESSAGES)
        factory.stop()
        self.assertRegex(self.messages[-1], r"^\d+ more messages about clients$")
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_loop(self) -> None:
        """With C{loop}, the recording is read again after each end, with its timing."""
        factory = self.replay([(7, increment(1)), (8, increment(2))], loop=True)
        client = Client(factory)
        self.reactor.settle()
        for times in range(1, 5):
            self.reactor.advance(1)
            self.reactor.settle()
            once = increment(1) + increment(2)
            self.assertEqual(client.read(), once * times + increment(1))
            self.assertEqual(self.opened, times + 1)
        self.assertEqual(self.finished, 0)
        factory.stop()
        client.read()
        self.assertEqual((client.transport.connected, self.finished), (False, 0))

    def test_oneFails(self) -> None:
        """A client whose transport raises is disconnected; the others receive everything."""
        chunks = [(float(second), increment(second)) for second in range(4)]
        factory = self.replay(chunks)
        first, failing, last = (Client(factory) for _ in range(3))
        self.reactor.pump([0, 0, 1, 0])

        def write(data: bytes) -> None:
            raise RuntimeError("write fails")

        self.patch(failing.transport, "write", write)
        for _ in range(10):
            self.reactor.pump([1, 0])
        for client in (first, last):
            self.assertEqual(client.read(), b"".join(frames for _, frames in chunks))
            client.read()
            self.assertFalse(client.transport.connected)
        self.assertEqual(self.finished, 1)
        [line] = [line for line in self.messages if "RuntimeError" in line]
        self.assertIn("rejected client 127.0.0.1:54321: unexpected RuntimeError: write fails", line)


class SocketTests(SocketTestCase):
    def test_yields(self) -> None:
        """
        The current state is sent to a late client in pieces, and the reactor iterates between them
        even if the socket accepts more.
        """
        clock = FakeReactor()
        pieces = [
            Piece(seconds, frames, decode(frames))
            for seconds, frames in ((0, increment(1)), (10, increment(2)))
        ]
        factory = ReplayFactory(clock, lambda: pieces, lambda: None)
        early = Client(factory)
        clock.settle()
        names = [Key(MetricKind.GAUGE, f"g{n}") for n in range(10_000)]
        factory.stream_state.follow([Metric(key, Operation.SET_GAUGE, 1, NOON) for key in names])
        protocol = factory.buildProtocol(None)
        assert protocol is not None
        transport = self.server(protocol)
        protocol.makeConnection(transport)
        self.assertEqual(self.ours.sent, 1)
        self.assertEqual(factory.slow_clients, [protocol])
        received = self.read_all(transport)
        self.assertEqual(received, b"".join(factory.stream_state.frames()))
        self.assertEqual(factory.slow_clients, [])
        clock.advance(10)
        clock.settle()
        self.assertEqual(self.read_all(transport), increment(2))
        self.assertEqual(early.read(), increment(1) + increment(2))
        transport.connectionLost(Failure(ConnectionDone()))


def encoded(events: Iterable[Event]) -> bytes:
    return b"".join(map(encode, events))


SERIES = [
    Metric(
        Key(operation.kind, name), operation, 1 if operation.kind is MetricKind.COUNTER else 1.5, 1
    )
    for operation in Operation
    for name in "ab"
]

TOTALS = [
    *(one for one in SERIES if one.operation in SET_OPERATION.values()),
    *(total(0.5, -2.0, name=name) for name in "ab"),
]

STEPS = st.lists(
    st.sampled_from(SERIES).map(lambda event: [event])
    | st.sampled_from(SERIES).map(lambda event: [Gone(event.key)])
    | st.builds(
        lambda begin, totals: [begin, *totals, Snapshot.END],
        st.sampled_from([Snapshot.BEGIN, Snapshot.BEGIN_COMPLETE]),
        st.lists(st.sampled_from(TOTALS), max_size=4),
    ),
    max_size=20,
)
"""Parts of a stream, with whole snapshots."""


class StreamStateTests(SynchronousTestCase):
    """What a late client receives first."""

    def late_clients(self, parts: list[list[Event]]) -> list[list[Event]]:
        """
        Return what a client receives first that connects after each of these parts of a stream.
        """
        state = StreamState()
        received = []
        for part in parts:
            state.follow(part)
            received.append(decode(b"".join(state.frames())))
        return received

    def test_gone(self) -> None:
        """The total of a gone series is not sent; a series that begins again has a new total."""
        stream: list[Event] = [
            *(Snapshot.BEGIN_COMPLETE, set_counter("a", 1), set_counter("b", 2), Snapshot.END),
            *(
                Gone(set_counter("a", 1).key),
                Gone(set_counter("b", 2).key),
                Gone(set_counter("c", 3).key),
            ),
            Metric(set_counter("b", 2).key, Operation.INCREMENT_COUNTER, 5, NOON),
        ]
        self.assertEqual(
            self.late_clients([stream])[0],
            [Snapshot.BEGIN_COMPLETE, set_counter("b", 5), Snapshot.END],
        )

    def test_completeSnapshot(self) -> None:
        """At the end of a complete snapshot, the series that it has not set are gone."""
        first = [Snapshot.BEGIN_COMPLETE, set_counter("a", 1), set_counter("b", 2), Snapshot.END]
        second = [Snapshot.BEGIN_COMPLETE, set_counter("b", 3)]
        third = [set_counter("c", 4), Snapshot.END]
        _, within, after = self.late_clients([first, second, third])
        # The stream itself has the rest.
        self.assertEqual(within, [Snapshot.BEGIN_COMPLETE, set_counter("b", 3)])
        self.assertEqual(
            after, [Snapshot.BEGIN_COMPLETE, set_counter("b", 3), set_counter("c", 4), Snapshot.END]
        )

    def test_withoutTotals(self) -> None:
        """The totals of a server that sends no snapshots are not exact, and so no snapshot."""
        for version in (1, PROTOCOL_VERSION):
            status = Status("shop", NOON, protocol_version=version)
            [received] = self.late_clients([[status, set_counter("a", 1)]])
            self.assertEqual(received, [Status("shop", NOON), set_counter("a", 1)])

    def test_tooManySeries(self) -> None:
        """A state that has reached its limit of bytes is not sent as complete."""
        self.patch(stream_state, "MAX_BYTES", 2 * name_size("a"))
        stream = [
            Snapshot.BEGIN_COMPLETE,
            set_counter("a", 1),
            set_counter("b", 2),
            set_counter("c", 3),
        ]
        self.assertEqual(
            self.late_clients([[*stream, Snapshot.END]])[0],
            [Snapshot.BEGIN, set_counter("a", 1), set_counter("b", 2), Snapshot.END],
        )
        # Each complete snapshot, and each series that has gone, makes room.
        gone = Gone(set_counter("a", 1).key, 1)
        self.assertEqual(
            self.late_clients([[*stream, *stream[:2], gone, *stream[2:], Snapshot.END]])[0],
            [Snapshot.BEGIN_COMPLETE, set_counter("b", 2), set_counter("c", 3), Snapshot.END],
        )

    def test_invalidTime(self) -> None:
        """A recorded time beyond that of any valid timestamp becomes the nearest one."""
        seconds = 1_000_000_000
        stream = [
            Metric(Key(MetricKind.COUNTER, name), Operation.SET_COUNTER, 1, when)
            for name, when in [("a", -(2**63) * seconds - 1), ("b", 2**63 * seconds + 1)]
        ]
        [received] = self.late_clients([list(stream)])
        self.assertEqual(
            [event.timestamp_ns for event in received],  # type: ignore[union-attr]
            [-(2**63) * seconds + seconds - 1, (2**63 - 1) * seconds + 1],
        )

    def test_histograms(self) -> None:
        """
        The total of a histogram has the samples that the server has sent as a total, and those
        after it.
        """
        parts: list[list[Event]] = [
            [Status("shop", NOON), Snapshot.BEGIN_COMPLETE],
            [total(1.0, 2.0), Snapshot.END],
            [record(-3.0, when=NOON + 1), record(math.nan), record(2.0, when=NOON + 2)],
            # After drops: the total has samples that the client missed.
            [Snapshot.BEGIN, total(1.0, 2.0, -3.0, 5.0, 6.0), Snapshot.END, record(7.0)],
            [record(8.0, "other")],
        ]
        received = [
            [event for event in first if isinstance(event, HistogramTotal)]
            for first in self.late_clients(parts)
        ]
        self.assertEqual(
            received,
            [
                [],
                [total(1.0, 2.0)],
                [total(1.0, 2.0, -3.0, math.nan, 2.0, when=NOON + 2)],
                [total(1.0, 2.0, -3.0, 5.0, 6.0, 7.0)],
                [total(1.0, 2.0, -3.0, 5.0, 6.0, 7.0), total(8.0, name="other")],
            ],
        )

    def test_histogramsGone(self) -> None:
        """
        `Gone`, a restart of the server and, from version 3 on, a complete snapshot remove totals of
        histograms.
        """
        samples: list[Event] = [record(1.0), record(2.0, "other")]
        end: list[Event] = [Snapshot.BEGIN_COMPLETE, total(3.0, name="other"), Snapshot.END]
        for version, events, expected in [
            (3, [Gone(total().key)], [total(2.0, name="other")]),
            (3, [Gone(total().key), record(4.0)], [total(2.0, name="other"), total(4.0)]),
            (3, end, [total(3.0, name="other")]),
            (2, end, [total(1.0), total(3.0, name="other")]),
            (2, [Snapshot.BEGIN_COMPLETE, Snapshot.END], [total(1.0), total(2.0, name="other")]),
            (3, [Status("shop", NOON + 1), record(5.0)], [total(5.0)]),
            (3, [Status("shop", NOON, 5, 5)], [total(1.0), total(2.0, name="other")]),
        ]:
            status = Status("shop", NOON, protocol_version=version)
            [received] = self.late_clients([[status, *samples, *events]])
            totals = [event for event in received if isinstance(event, HistogramTotal)]
            self.assertEqual(totals, expected, (version, events))

    def test_histogramsOfOldRecording(self) -> None:
        """
        Before version 3, a total has the samples of the recording, as those of a client that has
        received it from its beginning.  A server without snapshots has sent no exact totals.
        """
        old = Status("shop", NOON, protocol_version=2)
        begin, end = Snapshot.BEGIN_COMPLETE, Snapshot.END
        received = self.late_clients([[old, begin, end, record(1.0), record(2.0)]])
        self.assertEqual(received, [[Status("shop", NOON), begin, total(1.0, 2.0), end]])
        self.assertEqual(self.late_clients([[record(1.0)]]), [[total(1.0)]])

    def test_program(self) -> None:
        """
        A late client of a replay has the distributions of the recorded program, bucket by bucket,
        whether samples were recorded before the recording began, during it, or dropped.
        """
        reactor = FakeReactor()
        factory = MetricsFactory(
            reactor,
            ExporterSettings(own_metrics=False, buffer_size=50),
            in_reactor_thread=lambda: False,
        )
        values = [0.0, -2.5, math.inf, *(1.1**power for power in range(-200, 200))]
        record = [factory.recorder.histogram("h", number=n).record for n in "12"]
        for value in values:
            record[0](value)
        client = FakeClient(factory)
        for number, value in enumerate(values * 3):
            record[number % 2](value)
            if number % 40 == 0 and number < 600:
                client.read_all(reactor)
        client.read_all(reactor)
        reactor.advance(10)
        [received] = self.late_clients([client.read_all(reactor).all])
        self.assertGreater(client.reader.statuses[-1].dropped_incoming, 0)
        totals = {
            event.key: bits(event.distribution)
            for event in received
            if isinstance(event, HistogramTotal)
        }
        self.assertEqual(totals, exact_totals(factory))
        self.assertEqual(len(totals), 2)
        factory.stop()

    def test_tooManyHistograms(self) -> None:
        """
        A histogram for which the memory does not suffice is left out, and the snapshot is not
        complete.  Its later samples do not begin a new total.
        """
        begin: list[Event] = [Status("shop", NOON), Snapshot.BEGIN_COMPLETE]
        begin += [total(1.0), total(1.0, name="b"), Snapshot.END]
        wide = [record(2.0**power) for power in range(40)]
        left: list[Event] = [Status("shop", NOON), Snapshot.BEGIN]
        left += [total(1.0, name="b"), Snapshot.END]
        self.patch(stream_state, "SAMPLE_BYTES", 1500)
        received = self.late_clients([begin, [*wide, Gone(total(name="c").key)], [record(2.0)]])
        self.assertEqual(received, [begin, left, left])
        # With a later total of the server, the histogram is complete again.
        [*_, received_again] = self.late_clients(
            [[*begin, *wide], [Snapshot.BEGIN_COMPLETE, total(4.0), Snapshot.END]]
        )
        self.assertEqual(
            received_again, [begin[0], Snapshot.BEGIN_COMPLETE, total(4.0), Snapshot.END]
        )
        self.patch(stream_state, "SAMPLE_BYTES", 10**6)
        self.patch(stream_state, "MAX_BYTES", 2 * name_size("h"))
        [first] = self.late_clients([[*begin, record(1.0, "c")]])
        self.assertEqual(first, [begin[0], Snapshot.BEGIN, *begin[2:]])

    @given(
        st.lists(st.tuples(st.sampled_from("ab"), st.floats(width=16)), max_size=40),
        st.integers(1, 10),
    )
    def test_batches(self, samples: list[tuple[str, float]], size: int) -> None:
        """The buckets do not depend on the number of samples that are applied together."""
        with mock.patch.object(stream_state, "MAX_SAMPLES", size):
            [received] = self.late_clients([[record(value, name) for name, value in samples]])
        for event in received:
            assert isinstance(event, HistogramTotal)
            expected = [value for name, value in samples if name == event.key.name]
            self.assertEqual(bits(event.distribution), bits(Distribution.of(expected)))
        self.assertEqual(len(received), len({name for name, _ in samples}))

    def test_tooManyDescriptions(self) -> None:
        """The size of descriptions is limited, also if a server describes a metric again."""
        self.patch(stream_state, "MAX_BYTES", 10_000)
        state = StreamState()
        for name in ("a", "b"):
            for size in (1_000, 8_000, 900_000):
                state.follow([Metadata(MetricKind.COUNTER, name, description="x" * size)])
        descriptions = [event.description for event in decode(b"".join(state.frames()))]  # type: ignore[union-attr]
        self.assertEqual([len(text) for text in descriptions], [8_000, 1_000])

    @given(STEPS)
    def test_totals(self, steps: list[list[Event]]) -> None:
        """The frames of the state give the same totals as the whole stream."""
        events: list[Event] = [Status("shop", NOON)]
        events += [event for step in steps for event in step]
        state = StreamState()
        state.follow(events)
        early, late = Reader(), Reader()
        early.feed(encoded(events))
        late.feed(b"".join(state.frames()))
        self.assertEqual(late.bits(), early.bits())
        counted = sum(isinstance(event, METRIC_EVENTS) for event in events)
        self.assertEqual(state.metrics, counted)

    @given(STEPS)
    def test_view(self, steps: list[list[Event]]) -> None:
        """A view has the same totals; with a replay, also in place of those it had before."""
        events: list[Event] = [Status("shop", NOON), Snapshot.BEGIN_COMPLETE, Snapshot.END]
        events += [event for step in steps for event in step]
        reader, view, late, state = Reader(), SourceView(), SourceView(), StreamState()
        reader.feed(encoded(events))
        view.ingest(events)
        state.follow(events)
        late.ingest([set_counter("of an earlier connection", 1)])
        late.ingest(decode(b"".join(state.frames())))
        for one in (view, late):
            self.assertEqual(view_bits(one), reader.bits())
