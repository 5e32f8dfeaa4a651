"""
The client as an asynchronous iterator: ``async for event in EventStream(reactor, endpoint)``.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any, Literal

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocolFactory, IReactorCore, IStreamClientEndpoint
from twisted.python.failure import Failure

from txmetrics_tcp._checks import at_least, short_repr
from txmetrics_tcp._client.protocol import MetricsClientFactory, MetricsClientProtocol
from txmetrics_tcp._codec.framing import MAX_FRAME
from txmetrics_tcp._model import Event, Status
from txmetrics_tcp._net.addresses import show_address
from txmetrics_tcp._net.endpoint_syntax import DEFAULT_ENDPOINT, AnyEndpoint
from txmetrics_tcp._net.endpoints import as_endpoint, check_reactor
from txmetrics_tcp._net.log_throttle import LossReport

BUFFER_SIZE = 10_000
"""The default number of events that an `EventStream` buffers."""

BUFFER_BYTES = 8 * 1024 * 1024
"""The default size of the events that an `EventStream` buffers, as received, in bytes."""


class EventStream:
    """
    An asynchronous iterator over the events of one connection::

        async with EventStream(reactor, "localhost:5000") as stream:
            async for event in stream:
                ...

    It works in Twisted coroutines, on any reactor, and in asyncio tasks, on the asyncio reactor.  A
    stream must be used on the reactor thread, by one consumer at a time.

    The loop ends when the server closes the connection, when the reactor stops, and after `close`.
    On an error, the loop yields all events received before the error, and then raises it: the error
    of the endpoint if the connection attempt failed, `StreamError` if the peer is not a metrics
    server, or `twisted.internet.error.ConnectionLost` or a similar error if the connection broke.

    Without ``async with``, the stream connects when the first event is requested, and closes when
    it is garbage-collected, for example after a ``break``.

    The stream buffers events for a slow consumer.  When the buffer is full, the stream stops
    reading from the connection until half of the buffer is free.  The server then drops and counts
    events, resends the exact totals, and reports the number of dropped events in a `Status`.

    Rust servers report no drops, and may send an invalid stream after a client was slow for a long
    time.  For these servers, use C{when_full="drop"}: the stream then always reads, and drops the
    oldest events in its buffer.  The totals that the consumer computes are wrong after that.

    In both modes, `dropped` counts the drops, and the log has one line when they start and one when
    they end.
    """

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamClientEndpoint | AnyEndpoint = DEFAULT_ENDPOINT,
        *,
        buffer_size: int = BUFFER_SIZE,
        buffer_bytes: int = BUFFER_BYTES,
        when_full: Literal["pause", "drop"] = "pause",
        max_frame: int = MAX_FRAME,
    ) -> None:
        """
        @param reactor: the reactor to connect with.
        @param endpoint: the server: a port on the loopback interface, C{"HOST:PORT"},
            C{"[IPV6]:PORT"}, a tuple of host and port, a path object for a UNIX socket, a Twisted
            client endpoint string, or an endpoint.  By default, C{"127.0.0.1:5000"}.
        @param buffer_size: the number of events to buffer; 1 or more, by default 10,000.
        @param buffer_bytes: the size of the frames of the events to buffer, in bytes; 1 or more, by
            default 8 MiB.  The buffer is full when it reaches one of these limits.  The events of
            the last read (64 KiB, or a larger frame) may exceed them, with C{"drop"} only
            C{buffer_bytes}.
        @param when_full: the action when the buffer is full: C{"pause"} stops reading, so that the
            server drops events; C{"drop"} drops the oldest events in the buffer.
        @param max_frame: the largest accepted frame, in bytes; 1 or more.
        @raise EndpointError: the endpoint is not valid.
        @raise TypeError: an argument is of the wrong type.
        @raise ValueError: C{buffer_size}, C{buffer_bytes} or C{max_frame} is less than 1, or
            C{when_full} is another value.
        """
        check_reactor(reactor)
        buffer_size = at_least(1, "buffer_size", buffer_size)
        if when_full not in ("pause", "drop"):
            raise ValueError(f"when_full must be 'pause' or 'drop', not {short_repr(when_full)}")
        intake = _Intake(
            reactor,
            as_endpoint(reactor, endpoint),
            buffer_size,
            at_least(1, "buffer_bytes", buffer_bytes),
            when_full == "drop",
            max_frame,
        )
        self._intake = intake
        self._next_pending = False
        # May run in any thread.
        weakref.finalize(self, intake.close_from_thread).atexit = False

    @property
    def dropped(self) -> int:
        """
        The number of events that the consumer did not receive: events that the server reported as
        dropped and, with C{when_full="drop"}, events that this stream dropped.
        """
        return self._intake.dropped

    def close(self) -> None:
        """
        Close the connection, and discard buffered events: the loop ends.

        Must be called on the reactor thread.  Further calls have no effect.
        """
        self._intake.close()

    async def aclose(self) -> None:
        """Close the stream as `close` does, and wait until the connection is closed."""
        self._intake.close()
        await self._intake.wait_ended()

    async def __aenter__(self) -> EventStream:
        """
        Connect, and wait until the connection is established.

        @raise Exception: the error of the endpoint, if the connection attempt failed.
        """
        intake = self._intake
        intake.start()
        try:
            await intake.wait_until(lambda: intake.connected or intake.ended)
        except BaseException:
            # Cancelled: __aexit__ will not be called.
            intake.close()
            raise
        if not intake.waiting:
            intake.raise_error()
        return self

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        self._intake.close()
        # A coroutine that is being closed cannot await.
        if kind is not GeneratorExit:
            await self._intake.wait_ended()

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event:
        intake = self._intake
        if not intake.waiting:
            if self._next_pending:
                raise RuntimeError(
                    "another coroutine is already waiting for the next event: an EventStream"
                    " supports only one consumer"
                )
            self._next_pending = True
            try:
                intake.start()
                await intake.wait_until(lambda: bool(intake.waiting) or intake.ended)
            finally:
                self._next_pending = False
            if not intake.waiting:
                intake.raise_error()
                raise StopAsyncIteration
        return intake.take()


class _Intake:
    """
    The connection of a stream, and the buffer between connection and consumer.

    It has no reference to the stream, so that an abandoned stream is garbage-collected.

    @ivar waiting: the buffered events.
    @ivar connected: whether the connection was ever established.
    @ivar ended: whether the connection has ended, or the attempt to connect has failed.
    @ivar dropped: see `EventStream.dropped`.
    """

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamClientEndpoint,
        size: int,
        max_bytes: int,
        drop: bool,
        max_frame: int,
    ) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._size = size
        self._max_bytes = max_bytes
        self._drop = drop
        self._factory: IProtocolFactory = MetricsClientFactory(
            received_many=self._received,
            connected=self._connection_made,
            lost=self._connection_lost,
            max_frame=max_frame,
        )
        self.waiting: deque[Event] = deque()
        # The reads whose events are buffered: the number of events received up to the end of a
        # read, and the size of its frames.
        self._reads: deque[tuple[int, int]] = deque()
        self._bytes = 0
        # The number of received events that are no longer buffered.
        self._removed = 0
        self.connected = False
        self.ended = False
        self.dropped = 0
        # The number of dropped events that the server reported last.
        self._reported = 0
        self._losses: LossReport | None = None
        self._attempt: Deferred[Any] | None = None
        self._protocol: MetricsClientProtocol | None = None
        self._paused = False
        self._closed = False
        self._error: Failure | None = None
        self._trigger: object = None
        self._waits: list[_Wait] = []

    def start(self) -> None:
        """Connect, unless `start` or `close` was called before."""
        if self._attempt is not None or self._closed:
            return
        if IReactorCore.providedBy(self._reactor):
            self._trigger = self._reactor.addSystemEventTrigger("before", "shutdown", self._stop)
        self._attempt = maybeDeferred(self._endpoint.connect, self._factory)
        self._attempt.addErrback(self._failed)

    def close(self) -> None:
        """Discard buffered events, and close the connection."""
        self._closed = True
        self.waiting.clear()
        self._reads.clear()
        self._error = None
        if self._losses is not None:
            self._losses.close()
        if self._protocol is not None:
            self._protocol.close()
        elif self._attempt is not None:
            self._attempt.cancel()
        else:
            self.ended = True
        self._wake()

    def close_from_thread(self) -> None:
        """Call `close` on the reactor thread, if started.  May be called in any thread."""
        if self._attempt is not None and not self.ended:
            # The event loop of the asyncio reactor may already be closed.
            with suppress(RuntimeError):
                self._reactor.callFromThread(self.close)

    def take(self) -> Event:
        """Remove and return the oldest event.  The buffer must not be empty."""
        event = self.waiting.popleft()
        self._removed += 1
        if self._removed == self._reads[0][0]:
            self._end_read()
        if type(event) is Status:
            self._count_reported(event)
        if (
            self._paused
            and len(self.waiting) <= self._size // 2
            and self._bytes <= self._max_bytes // 2
        ):
            self._paused = False
            if self._protocol is not None:
                self._protocol.transport.resumeProducing()  # type: ignore[attr-defined]
        return event

    def raise_error(self) -> None:
        """Raise the error that ended the connection, the first time that this is called."""
        error, self._error = self._error, None
        if error is not None:
            error.raiseException()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on the buffer or the connection is true."""
        while not condition():
            wait = _Wait()
            self._waits.append(wait)
            try:
                await wait
            finally:
                # A cancelled wait is still in the list.
                with suppress(ValueError):
                    self._waits.remove(wait)

    async def wait_ended(self) -> None:
        await self.wait_until(lambda: self.ended)

    def _received(self, events: list[Event]) -> None:
        assert self._protocol is not None
        size = self._protocol.batch_bytes
        self.waiting.extend(events)
        self._bytes += size
        self._reads.append((self._removed + len(self.waiting), size))
        if self._drop:
            self._drop_oldest(max(0, len(self.waiting) - self._size))
            while self._bytes > self._max_bytes and len(self._reads) > 1:
                self._drop_oldest(self._reads[0][0] - self._removed)
        elif not self._paused and (
            len(self.waiting) >= self._size or self._bytes >= self._max_bytes
        ):
            self._paused = True
            self._protocol.transport.pauseProducing()  # type: ignore[attr-defined]
        self._wake()

    def _end_read(self) -> None:
        """Handle the removal of the last event of a read."""
        self._bytes -= self._reads.popleft()[1]

    def _drop_oldest(self, number: int) -> None:
        dropped = 0
        for _ in range(number):
            event = self.waiting.popleft()
            if type(event) is Status:
                self._count_reported(event)
            else:
                dropped += 1
        self._removed += number
        while self._reads and self._reads[0][0] <= self._removed:
            self._end_read()
        self._count(dropped)

    def _count_reported(self, status: Status) -> None:
        reported = status.dropped_incoming + status.dropped_client
        # A faulty server may report fewer than before.
        self._count(max(reported - self._reported, 0))
        self._reported = reported

    def _count(self, dropped: int) -> None:
        if dropped and self._losses is not None:
            self.dropped += dropped
            self._losses.lost(dropped)
            if self.ended and not self.waiting:
                self._losses.close()

    def _connection_made(self, protocol: MetricsClientProtocol) -> None:
        if self._closed:
            protocol.close()
            return
        self._protocol = protocol
        self.connected = True
        address = show_address(protocol.transport.getPeer())
        self._losses = LossReport(self._reactor, f"on their way from {address}")
        self._wake()

    def _connection_lost(self, protocol: MetricsClientProtocol, reason: Failure) -> None:
        self._protocol = None
        self._end(None if reason.check(ConnectionDone) else reason)

    def _failed(self, reason: Failure) -> None:
        # If the connection was established, `_connection_lost` handles its end.
        if not self.connected:
            self._end(reason)

    def _end(self, error: Failure | None) -> None:
        if not self._closed:
            self._error = error
        self.ended = True
        if self._trigger is not None:
            self._reactor.removeSystemEventTrigger(self._trigger)
            self._trigger = None
        if self._losses is not None:
            self._losses.close()
        self._wake()

    def _stop(self) -> Deferred[None]:
        # A trigger that has fired cannot be removed.
        self._trigger = None
        self.close()
        return Deferred.fromCoroutine(self.wait_ended())

    def _wake(self) -> None:
        waits, self._waits = self._waits, []
        for wait in waits:
            wait.wake()


class _Wait:
    """
    An object that can be awaited once, in a Twisted coroutine or in an asyncio task.

    A running event loop does not prove that a task runs the coroutine, because a task may also
    resume a Twisted coroutine.  This object therefore yields an asyncio future, and examines the
    response.  A task waits for the future, and then sends None.  Twisted waits only for Deferreds,
    and immediately sends back any other object.
    """

    def __init__(self) -> None:
        self._deferred: Deferred[None] = Deferred()
        self._future: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Resume the coroutine.  Must be called at most once."""
        if self._future is None:
            self._deferred.callback(None)
        elif not self._future.done():
            self._future.set_result(None)

    def __await__(self) -> Generator[Any, Any, None]:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            self._future = future = loop.create_future()
            if (yield from _once(future)) is not future:
                return
            self._future = None
        yield from self._deferred.__await__()


def _once(future: asyncio.Future[None]) -> Generator[Any, Any, object]:
    """Yield a future to the runner of the coroutine, as awaiting it does; return the response."""
    return (yield next(future.__await__()))
