"""
Helpers for testing code that records or consumes metrics, without sockets, threads or delays.

`capture` collects the events that instrumented code records.  `FakeReactor` replaces the reactor,
and `PausingTransport` replaces a connection.  With both, a test can examine the data that a client
of an exporter receives::

    >>> from txmetrics_tcp import Metric, MetricsFactory, decode
    >>> reactor = FakeReactor()
    >>> factory = MetricsFactory(reactor)
    >>> client = PausingTransport()
    >>> client.connect(factory.buildProtocol(client.getPeer()))

    >>> factory.recorder.counter("requests_total", route="/").increment(3)
    >>> reactor.settle()
    >>> for event in decode(client.drain()):
    ...     if isinstance(event, Metric):
    ...         print(event.key, event.value)
    requests_total [route = /] 3
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IConsumer,
    IHalfCloseableProtocol,
    IProducer,
    IProtocol,
    IPullProducer,
    IPushProducer,
    IReactorFromThreads,
    ITransport,
)
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from txmetrics_tcp._checks import at_least, short_repr
from txmetrics_tcp._instruments.facade import capturing
from txmetrics_tcp._instruments.recorder import Recorder
from txmetrics_tcp._instruments.sink import RECORD_MANY, Entry, Series, Sink
from txmetrics_tcp._model import (
    APPLY,
    INITIAL_TOTAL,
    Event,
    Key,
    Metadata,
    Metric,
    MetricKind,
    Number,
    Operation,
    merge_labels,
)

__all__ = ["Captured", "FakeReactor", "PausingTransport", "capture"]


@implementer(IReactorFromThreads)
class FakeReactor(Clock):
    """
    A reactor whose time and calls from threads are controlled by the test.

    It provides `IReactorTime`, like `twisted.internet.task.Clock`, and `IReactorFromThreads`.  Only
    `callFromThread` may be called from other threads.

        >>> reactor = FakeReactor()
        >>> reactor.callFromThread(print, "from a thread")
        >>> reactor.callLater(0, print, "later")  # doctest: +ELLIPSIS
        <DelayedCall ...>
        >>> reactor.waiting
        1
        >>> reactor.drain()
        from a thread
        1
        >>> reactor.settle()
        later
    """

    def __init__(self) -> None:
        super().__init__()
        self._from_threads: deque[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]]
        self._from_threads = deque()

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        """Queue a call until `drain` or `settle`.  May be called from any thread."""
        self._from_threads.append((callable, args, kwargs))

    @property
    def waiting(self) -> int:
        """The number of queued calls from threads."""
        return len(self._from_threads)

    def drain(self) -> int:
        """
        Run the queued calls from threads.

        As in a real reactor, calls that they queue run in the next iteration.  An exception raised
        by a call propagates; that call is removed from the queue, and later calls stay in it.

        @return: the number of calls that ran.
        """
        calls = len(self._from_threads)
        for _ in range(calls):
            function, args, kwargs = self._from_threads.popleft()
            function(*args, **kwargs)
        return calls

    def settle(self) -> None:
        """
        Run calls from threads, and delayed calls that are due, until none are left.  Time does not
        advance.
        """
        while self.drain() or self._is_due():
            self.advance(0)

    def _is_due(self) -> bool:
        return any(call.getTime() <= self.seconds() for call in self.getDelayedCalls())


@implementer(ITransport, IConsumer, IPushProducer)
class PausingTransport:
    """
    A fake connection whose peer reads only when the test calls `drain`.

    Unlike `twisted.internet.testing.StringTransport`, it applies back-pressure as Twisted's real
    transports do: `write` pauses the producer when more than C{limit} bytes are pending, and
    `drain` resumes it when none are.  Apart from that, only the methods for tests (`connect`,
    `drain`, `receive`, `end_of_file` and `lose`) call the protocol and the producer, and
    `registerProducer`, which resumes a pull producer.  For example:

        >>> class Counting:
        ...     def pauseProducing(self):
        ...         print("paused")
        ...     def resumeProducing(self):
        ...         print("resumed")
        >>> transport = PausingTransport(limit=5)
        >>> transport.registerProducer(Counting(), True)
        >>> transport.write(b"12345")
        >>> transport.write(b"6")
        paused
        >>> transport.drain(4), transport.written
        (b'1234', b'56')
        >>> transport.drain()
        resumed
        b'56'

    @ivar connected: whether the connection is established.
    @ivar disconnecting: whether `loseConnection` was called.
    @ivar aborted: whether `abortConnection` was called.
    @ivar producer: the registered producer, or None.
    @ivar producer_paused: whether the producer is paused.
    @ivar reading: whether the transport reads data from the peer; see `receive`.
    """

    def __init__(
        self,
        limit: int = 64 * 1024,
        *,
        host: IAddress | None = None,
        peer: IAddress | None = None,
    ) -> None:
        """
        @param limit: the number of pending bytes above which the producer is paused.
        @param host: the local address.
        @param peer: the address of the peer.
        """
        self.limit: int = at_least(0, "limit", limit)
        self._host = host or IPv4Address("TCP", "127.0.0.1", 5000)
        self._peer = peer or IPv4Address("TCP", "127.0.0.1", 54321)
        self._protocol: IProtocol | Protocol | None = None
        self._pending = bytearray()
        self.connected: bool = True
        self.disconnecting: bool = False
        self.aborted: bool = False
        self.producer: IProducer | None = None
        self.producer_paused: bool = False
        self._streaming = False
        self.reading: bool = True

    # Methods for tests

    def connect(self, protocol: IProtocol | Protocol | None) -> None:
        """
        Connect a protocol to this transport.

        @param protocol: the result of `buildProtocol`.
        @raise AssertionError: the protocol is None: the factory rejected the connection.
        """
        assert protocol is not None, "buildProtocol returned None: the connection was rejected"
        self._protocol = protocol
        protocol.makeConnection(self)

    @property
    def written(self) -> bytes:
        """The pending bytes: written, but not drained."""
        return bytes(self._pending)

    def drain(self, size: int | None = None) -> bytes:
        """
        Read pending bytes as the peer.

        If none remain, this resumes a paused producer.  If no producer is registered and
        `loseConnection` was called, the connection then closes.  Bytes that a resumed producer
        writes stay pending.

        @param size: the number of bytes to read at most; None for all that are pending.
        @return: the bytes read.
        """
        if self.aborted:
            self.lose(ConnectionAborted())
            return b""
        sent = bytes(self._pending[:size])
        del self._pending[: len(sent)]
        if self.connected and not self._pending:
            if self.producer is not None:
                # A pull producer is resumed for each piece.
                if self.producer_paused or not self._streaming:
                    self.producer_paused = False
                    cast(IPullProducer, self.producer).resumeProducing()
            elif self.disconnecting:
                self.lose(ConnectionDone())
        return sent

    def receive(self, data: bytes) -> None:
        """
        Deliver data from the peer to the protocol.  While the transport is not reading, the data is
        discarded.
        """
        if self.connected and self.reading and self._protocol is not None:
            self._protocol.dataReceived(data)

    def end_of_file(self) -> None:
        """Close the peer's sending side.  Has no effect while the transport is not reading."""
        if not (self.connected and self.reading):
            return
        if IHalfCloseableProtocol.providedBy(self._protocol):
            self.reading = False
            self._protocol.readConnectionLost()
        else:
            self.lose(ConnectionDone())

    def lose(self, reason: BaseException | None = None) -> None:
        """
        Lose the connection, and discard pending bytes.

        @param reason: the reason for the protocol; by default, `ConnectionLost`.
        """
        if not self.connected:
            return
        self.connected = self.reading = False
        self._pending.clear()
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()
        if self._protocol is not None:
            self._protocol.connectionLost(Failure(reason or ConnectionLost()))

    # ITransport

    def write(self, data: bytes) -> None:
        """
        Append bytes to the pending bytes.  Pauses a streaming producer if they exceed the limit.

        @raise TypeError: the data is not C{bytes}.
        """
        if not isinstance(data, bytes):
            raise TypeError(f"data must be bytes, not {type(data).__name__}")
        if not self.connected or self.aborted:
            return
        self._pending += data
        if data and self._streaming and len(self._pending) > self.limit:
            self.producer_paused = True
            cast(IPushProducer, self.producer).pauseProducing()

    def writeSequence(self, data: Any) -> None:
        """Write several pieces of data."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """
        Close the connection when all pending bytes have been drained and no producer is registered.
        """
        if self.connected:
            self.disconnecting = True
            self.reading = False

    def abortConnection(self) -> None:
        """Discard pending bytes, and close the connection in the next `drain`."""
        if self.connected:
            self.aborted = True
            self.reading = False
            self._pending.clear()

    def getPeer(self) -> IAddress:
        """The address of the peer."""
        return self._peer

    def getHost(self) -> IAddress:
        """The local address."""
        return self._host

    # IConsumer

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """
        Register a producer.  Without a connection, stop it instead.

        @raise RuntimeError: a producer is already registered.
        """
        if self.producer is not None:
            raise RuntimeError(f"a producer is already registered: {self.producer!r}")
        if not self.connected:
            producer.stopProducing()
            return
        self.producer = producer
        self._streaming = streaming
        if not streaming:
            cast(IPullProducer, producer).resumeProducing()

    def unregisterProducer(self) -> None:
        """Unregister the producer.  A pending `loseConnection` can then complete."""
        self.producer = None
        self.producer_paused = self._streaming = False

    # IPushProducer

    def pauseProducing(self) -> None:
        """Stop reading from the peer."""
        self.reading = False

    def resumeProducing(self) -> None:
        """Continue reading, unless the connection is being closed."""
        self.reading = self.connected and not self.disconnecting and not self.aborted

    def stopProducing(self) -> None:
        """Close the connection."""
        self.loseConnection()


class Captured:
    """
    The events recorded in a `capture` block.  It can be read during and after the block, from any
    thread.
    """

    def __init__(self, recorder: _ListRecorder) -> None:
        self._recorder = recorder

    @property
    def events(self) -> list[Event]:
        """
        All events and descriptions, in the order in which they were recorded.  A sample recorded
        with `Histogram.record_many` appears as that many events.
        """
        events: list[Event] = []
        for entry in list(self._recorder.log):
            if isinstance(entry, Metadata):
                events.append(entry)
                continue
            series, operation, value, timestamp_ns = entry
            count = 1
            if operation is RECORD_MANY:
                operation, (value, count) = Operation.RECORD_HISTOGRAM, value
            events += [Metric(series.key, operation, value, timestamp_ns)] * count
        return events

    @property
    def metrics(self) -> list[Metric]:
        """The events, without descriptions."""
        return [event for event in self.events if isinstance(event, Metric)]

    @property
    def metadata(self) -> list[Metadata]:
        """The descriptions."""
        return [event for event in self.events if isinstance(event, Metadata)]

    def total(
        self, name: str, labels: Mapping[str, object] | None = None, /, **more: object
    ) -> int | float | None:
        """
        Return the total of a counter or gauge, starting from 0, or None if it recorded no events.

        @param labels: all labels of the series, given as for `txmetrics_tcp.counter`.
        @raise ValueError: both a counter and a gauge have this name and these labels.
        """
        totals: dict[MetricKind, Number] = {}
        for metric in self._metrics_of(MetricKind.COUNTER, name, labels, more):
            kind = metric.key.kind
            if kind is not MetricKind.HISTOGRAM:
                total = totals.get(kind, INITIAL_TOTAL[kind])
                totals[kind] = APPLY[metric.operation](total, metric.value)
        if len(totals) > 1:
            raise ValueError(
                f"both a counter and a gauge are named {short_repr(name)}: use `metrics`"
            )
        return next(iter(totals.values()), None)

    def samples(
        self, name: str, labels: Mapping[str, object] | None = None, /, **more: object
    ) -> list[float]:
        """
        Return the samples of a histogram, in the order in which they were recorded.

        @param labels: all labels of the series, given as for `txmetrics_tcp.histogram`.
        """
        return [
            metric.value
            for metric in self._metrics_of(MetricKind.HISTOGRAM, name, labels, more)
            if metric.key.kind is MetricKind.HISTOGRAM
        ]

    def clear(self) -> None:
        """Discard the events and descriptions captured so far."""
        self._recorder.log.clear()

    def _metrics_of(
        self,
        kind: MetricKind,
        name: str,
        labels: Mapping[str, object] | None,
        more: dict[str, object],
    ) -> list[Metric]:
        # The kind is for error messages: only name and labels are compared.
        wanted = Key.of(kind, name, merge_labels(labels, more, (kind, name)))
        return [
            metric
            for metric in self.metrics
            if metric.key.name == wanted.name and metric.key.labels == wanted.labels
        ]


@contextmanager
def capture(clock: Callable[[], int] = time.time_ns) -> Iterator[Captured]:
    """
    Return a context manager that captures the metrics recorded in its block::

        >>> from txmetrics_tcp import counter
        >>> requests = counter("requests_total", route="/")
        >>> with capture() as captured:
        ...     requests.increment(3)
        >>> captured.total("requests_total", route="/")
        3

    The capture includes everything recorded with handles from `txmetrics_tcp.counter`,
    `txmetrics_tcp.gauge` and `txmetrics_tcp.histogram`, in all threads, whether the handles were
    created before or in the block.  The events do not reach the global recorder, which need not
    exist.  Events recorded with another recorder, such as C{service.recorder}, are not captured.
    Give code that takes a recorder `txmetrics_tcp.current_recorder`, called in the block.

    Captures can be nested: the innermost one receives the events.  After the block, handles record
    to their previous recorder.

    @param clock: returns the timestamp of an event, in nanoseconds since the epoch.  With a
        constant clock, tests can compare whole events.
    @return: a context manager whose target is a `Captured`.
    """
    recorder = _ListRecorder(clock)
    with capturing(recorder):
        try:
            yield Captured(recorder)
        finally:
            recorder.sink.open = False


class _ListRecorder(Recorder):
    """Appends all events and descriptions to a list."""

    def __init__(self, clock: Callable[[], int]) -> None:
        super().__init__()
        self.log: list[Entry | Metadata] = []
        self.sink: Sink = Sink(self.log, wake_threshold=sys.maxsize, clock=clock)

    def attach(self, key: Key) -> Series:
        return Series(key, self.sink)

    def describe(self, metadata: Metadata) -> None:
        self.log.append(metadata)
