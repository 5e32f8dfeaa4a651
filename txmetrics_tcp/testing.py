"""
Fakes for testing code that records metrics or consumes them: no sockets, no threads, no waiting.

`capture` shows what instrumented code records.  `FakeReactor` stands in for the reactor,
`PausingTransport` for a connection.  With the two, what a client of an exporter receives is a
value that a test can look at::

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
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

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
)

__all__ = ["Captured", "FakeReactor", "PausingTransport", "capture"]


@implementer(IReactorFromThreads)
class FakeReactor(Clock):
    """
    A reactor in which time stands still, and threads wait, until the test says otherwise.

    It provides `IReactorTime`, as `twisted.internet.task.Clock` does, and
    `IReactorFromThreads`.  Only `callFromThread` may be called from other threads.

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
        """Keep a call until the test lets it happen.  May be called from any thread."""
        self._from_threads.append((callable, args, kwargs))

    @property
    def waiting(self) -> int:
        """How many calls from threads wait to happen."""
        return len(self._from_threads)

    def drain(self) -> int:
        """
        Let the calls from threads happen that wait now; what they call from threads waits for
        the next time, as in a real reactor.

        What one of them raises comes out here.  It is no longer among those that wait.

        @return: how many calls that were.
        """
        calls = len(self._from_threads)
        for _ in range(calls):
            function, args, kwargs = self._from_threads.popleft()
            function(*args, **kwargs)
        return calls

    def settle(self) -> None:
        """
        Take turns until nothing is left to do at this moment: calls from threads, then those
        delayed ones that are due.  Time does not pass.
        """
        while self.drain() or self._is_due():
            self.advance(0)

    def _is_due(self) -> bool:
        return any(call.getTime() <= self.seconds() for call in self.getDelayedCalls())


@implementer(ITransport, IConsumer, IPushProducer)
class PausingTransport:
    """
    A connection whose other end reads only when the test drains it.

    Unlike `twisted.internet.testing.StringTransport` it behaves under load as Twisted's own
    transports do: it pauses its producer from within `write`, as soon as more than C{limit}
    bytes wait, and resumes it when all have been sent.  All else that a transport calls, it
    calls from `drain` and the other methods meant for tests, and never from within a method
    that a protocol uses:

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

    @ivar connected: whether there is a connection.
    @ivar disconnecting: whether `loseConnection` was called.
    @ivar aborted: whether `abortConnection` was called.
    @ivar producer: the registered producer, or None.
    @ivar producer_paused: whether the producer was told to pause.
    @ivar reading: whether what comes from the other end is read, see `receive`.
    """

    def __init__(
        self,
        limit: int = 64 * 1024,
        *,
        host: IAddress | None = None,
        peer: IAddress | None = None,
    ) -> None:
        """
        @param limit: how many bytes may wait before the producer is paused.
        @param host: the address of this end.
        @param peer: the address of the other end.
        """
        self.limit = limit
        self._host = host or IPv4Address("TCP", "127.0.0.1", 5000)
        self._peer = peer or IPv4Address("TCP", "127.0.0.1", 54321)
        self._protocol: IProtocol | None = None
        self._waiting = bytearray()
        self.connected = True
        self.disconnecting = False
        self.aborted = False
        self.producer: IProducer | None = None
        self.producer_paused = False
        self._streaming = False
        self.reading = True

    # For tests.

    def connect(self, protocol: IProtocol | None) -> None:
        """
        Connect a protocol with this transport.

        @param protocol: what `buildProtocol` returned.
        @raise AssertionError: that is None, which means that the factory refused.
        """
        assert protocol is not None, "the factory built no protocol"
        self._protocol = protocol
        protocol.makeConnection(self)

    @property
    def written(self) -> bytes:
        """What was written and not drained yet."""
        return bytes(self._waiting)

    def drain(self, size: int | None = None) -> bytes:
        """
        Let the other end read; once nothing waits, resume the producer, or close the connection
        if it is to be closed and no producer is registered.

        What a resumed producer writes waits for the next time.

        @param size: at most how many bytes; None for all that wait now.
        @return: what was read.
        """
        if self.aborted:
            self.lose(ConnectionAborted())
            return b""
        sent = bytes(self._waiting[:size])
        del self._waiting[: len(sent)]
        if self.connected and not self._waiting:
            if self.producer is not None:
                # One that does not stream is asked for each piece.
                if self.producer_paused or not self._streaming:
                    self.producer_paused = False
                    cast(IPullProducer, self.producer).resumeProducing()
            elif self.disconnecting:
                self.lose(ConnectionDone())
        return sent

    def receive(self, data: bytes) -> None:
        """
        Something comes from the other end.  The protocol sees it if this end reads; if it does
        not, it is gone.
        """
        if self.connected and self.reading and self._protocol is not None:
            self._protocol.dataReceived(data)

    def end_of_file(self) -> None:
        """The other end has closed its sending side."""
        if not (self.connected and self.reading):
            return
        if IHalfCloseableProtocol.providedBy(self._protocol):
            self.reading = False
            self._protocol.readConnectionLost()
        else:
            self.lose(ConnectionDone())

    def lose(self, reason: BaseException | None = None) -> None:
        """
        The connection is gone.  What waits is never sent.

        @param reason: why, for the protocol; `ConnectionLost` unless given.
        """
        if not self.connected:
            return
        self.connected = self.reading = False
        self._waiting.clear()
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()
        if self._protocol is not None:
            self._protocol.connectionLost(Failure(reason or ConnectionLost()))

    # ITransport

    def write(self, data: bytes) -> None:
        """Keep bytes until they are drained, and pause the producer if too many wait."""
        if not isinstance(data, bytes):
            raise TypeError(f"data must be bytes, not {type(data).__name__}")
        if not self.connected or self.aborted:
            return
        self._waiting += data
        if data and self._streaming and len(self._waiting) > self.limit:
            self.producer_paused = True
            cast(IPushProducer, self.producer).pauseProducing()

    def writeSequence(self, data: Any) -> None:
        """Write several pieces as one."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """
        Close the connection once a test has drained all that waits, and, as `ITransport` has
        it, not before the producer is unregistered.
        """
        if self.connected:
            self.disconnecting = True
            self.reading = False

    def abortConnection(self) -> None:
        """Forget what waits, and close the connection when a test next drains it."""
        if self.connected:
            self.aborted = True
            self.reading = False
            self._waiting.clear()

    def getPeer(self) -> IAddress:
        """The address of the other end."""
        return self._peer

    def getHost(self) -> IAddress:
        """The address of this end."""
        return self._host

    # IConsumer

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """
        Register who writes.

        @raise RuntimeError: somebody is registered already.
        """
        if self.producer is not None:
            raise RuntimeError(f"{self.producer!r} is registered already")
        if not self.connected:
            producer.stopProducing()
            return
        self.producer = producer
        self._streaming = streaming
        if not streaming:
            cast(IPullProducer, producer).resumeProducing()

    def unregisterProducer(self) -> None:
        """Nobody is registered any more.  A connection that is to be closed may close now."""
        self.producer = None
        self.producer_paused = self._streaming = False

    # IPushProducer

    def pauseProducing(self) -> None:
        """Do not read what comes from the other end."""
        self.reading = False

    def resumeProducing(self) -> None:
        """Read on, unless the connection is being closed."""
        self.reading = self.connected and not self.disconnecting and not self.aborted

    def stopProducing(self) -> None:
        """Close the connection."""
        self.loseConnection()


class Captured:
    """
    What was recorded within `capture`; also after it.  May be read from any thread.
    """

    def __init__(self, recorder: _ListRecorder) -> None:
        self._recorder = recorder

    @property
    def events(self) -> list[Event]:
        """
        What was recorded and described, in that order; a sample that was recorded many times is
        so many events.
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
        """What was recorded."""
        return [event for event in self.events if isinstance(event, Metric)]

    @property
    def metadata(self) -> list[Metadata]:
        """What was described."""
        return [event for event in self.events if isinstance(event, Metadata)]

    def total(
        self, name: str, labels: Mapping[str, object] | None = None, /, **more: object
    ) -> int | float | None:
        """
        The value of a counter or a gauge, if it was 0 at the beginning; None if nothing was
        recorded with it.

        @param labels: all of its labels, in the same ways as for `txmetrics_tcp.counter`.
        @raise ValueError: there are a counter and a gauge of that name and these labels.
        """
        totals: dict[MetricKind, Number] = {}
        for metric in self._of(name, labels, more):
            kind = metric.key.kind
            if kind is not MetricKind.HISTOGRAM:
                total = totals.get(kind, INITIAL_TOTAL[kind])
                totals[kind] = APPLY[metric.operation](total, metric.value)
        if len(totals) > 1:
            raise ValueError(f"there are a counter and a gauge {name!r}: look at the metrics")
        return next(iter(totals.values()), None)

    def samples(
        self, name: str, labels: Mapping[str, object] | None = None, /, **more: object
    ) -> list[float]:
        """
        The samples of a histogram.

        @param labels: all of its labels, in the same ways as for `txmetrics_tcp.histogram`.
        """
        return [
            metric.value
            for metric in self._of(name, labels, more)
            if metric.key.kind is MetricKind.HISTOGRAM
        ]

    def clear(self) -> None:
        """Forget what was recorded so far."""
        self._recorder.log.clear()

    def _of(
        self, name: str, labels: Mapping[str, object] | None, more: dict[str, object]
    ) -> list[Metric]:
        # The kind does not matter.
        wanted = Key.of(MetricKind.COUNTER, name, {**(labels or {}), **more})
        return [
            metric
            for metric in self.metrics
            if metric.key.name == wanted.name and metric.key.labels == wanted.labels
        ]


@contextmanager
def capture(clock: Callable[[], int] = time.time_ns) -> Iterator[Captured]:
    """
    Within this, what the program records is captured, and goes nowhere else::

        >>> from txmetrics_tcp import counter
        >>> requests = counter("requests_total", route="/")
        >>> with capture() as captured:
        ...     requests.increment(3)
        >>> captured.total("requests_total", route="/")
        3

    That is everything that is recorded with the functions of `txmetrics_tcp` itself, with handles
    that exist already, too, and on every thread.  It does not matter whether there is a
    global recorder.  What is recorded with a recorder that somebody was given is not captured, nor
    with those of a `txmetrics_tcp.local_recorder` scope: give a test's own to such code.

    Captures may be nested; the innermost gets it.  At the end, handles are again what they were.

    @param clock: the time of an event, in nanoseconds since the epoch.  With a fixed one, events
        can be compared as a whole.
    """
    recorder = _ListRecorder(clock)
    with capturing(recorder):
        try:
            yield Captured(recorder)
        finally:
            recorder.sink.open = False


class _ListRecorder(Recorder):
    """Keeps everything, in the order of recording."""

    def __init__(self, clock: Callable[[], int]) -> None:
        super().__init__()
        self.log: list[Entry | Metadata] = []
        self.sink = Sink(self.log, wake_threshold=sys.maxsize, clock=clock)

    def attach(self, key: Key) -> Series:
        return Series(key, self.sink)

    def describe(self, metadata: Metadata) -> None:
        self.log.append(metadata)
