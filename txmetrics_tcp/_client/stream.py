"""
The consuming side, for coroutines: ``async for event in EventStream(reactor, endpoint)``.
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

from txmetrics_tcp._client.protocol import MetricsClientFactory, MetricsClientProtocol
from txmetrics_tcp._client.service import as_endpoint
from txmetrics_tcp._codec.framing import MAX_FRAME
from txmetrics_tcp._model import Event, Status
from txmetrics_tcp._net.checks import at_least
from txmetrics_tcp._net.endpoint_syntax import DEFAULT_ENDPOINT
from txmetrics_tcp._net.endpoints import show_address
from txmetrics_tcp._net.log_throttle import LossReport

BUFFER_SIZE = 10_000
"""How many events wait for a consumer, unless told otherwise."""


class EventStream:
    """
    The events of one connection, for one consumer::

        async with EventStream(reactor, "localhost:5000") as stream:
            async for event in stream:
                ...

    It may be used in coroutines of Twisted, on any reactor, and in tasks of asyncio, on the reactor
    for asyncio; always on the reactor's thread.

    The loop ends when the server closes the connection, when the reactor stops, and after
    `close`.  It raises what went wrong otherwise, behind the events that came before that: what
    the endpoint says where there is no connection, `StreamError` where the server is of
    another kind, `twisted.internet.error.ConnectionLost` and the like where the connection broke.

    Without ``async with``, it connects when the first event is asked for, and closes when nobody
    refers to it any more: after a ``break``, for example.

    Events wait for a slow consumer in a buffer.  When that is full, the connection is not read
    until half of it is free again.  So it is the server that loses events then, counts them, sends
    the true totals anew, and says so with a `Status`, which is an event like any other.
    Servers of the Rust family say nothing, and may send a broken stream to a client that was slow
    for long: for those there is C{when_full="drop"}, with which the connection is always read and
    the oldest events in the buffer are dropped, so that totals are wrong thereafter.  Either way,
    losses are counted in `dropped`, and logged once when they begin and once when they end.
    """

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamClientEndpoint | str | int = DEFAULT_ENDPOINT,
        *,
        buffer_size: int = BUFFER_SIZE,
        when_full: Literal["pause", "drop"] = "pause",
        max_frame: int = MAX_FRAME,
    ) -> None:
        """
        @param endpoint: where the server is: a port on the loopback interface, C{"HOST:PORT"},
            C{"[IPV6]:PORT"}, a string of Twisted's, or an endpoint.
        @param buffer_size: how many events may wait for the consumer.  With C{"pause"}, those of
            one read (64 KiB) may come on top.
        @param when_full: whether the server (C{"pause"}) or this end (C{"drop"}) loses events
            for which there is no room.
        @param max_frame: the size of a frame, in bytes, past which the stream is refused.
        @raise EndpointError: the endpoint cannot be understood.
        @raise TypeError: the buffer size is no whole number.
        @raise ValueError: the buffer size is less than 1, or C{when_full} is none of the two.
        """
        buffer_size = at_least(1, "buffer_size", buffer_size)
        if when_full not in ("pause", "drop"):
            raise ValueError(f"when_full must be 'pause' or 'drop', not {when_full!r}")
        intake = _Intake(
            reactor, as_endpoint(reactor, endpoint), buffer_size, when_full == "drop", max_frame
        )
        self._intake = intake
        self._asked = False
        # In whatever thread the last reference goes.
        weakref.finalize(self, intake.close_from_thread).atexit = False

    @property
    def dropped(self) -> int:
        """
        How many events are missing from those that the consumer has had: those that the server
        said that it dropped, and, with C{when_full="drop"}, those dropped here.
        """
        return self._intake.dropped

    def close(self) -> None:
        """
        Close the connection.  No more events come, not even those that wait: the loop ends.

        It may be called at any time and again.
        """
        self._intake.close()

    async def aclose(self) -> None:
        """Close the connection, and wait until it is closed."""
        self._intake.close()
        await self._intake.until_over()

    async def __aenter__(self) -> EventStream:
        """Connect, and wait for that."""
        intake = self._intake
        intake.start()
        try:
            await intake.until(lambda: intake.connected or intake.over)
        except BaseException:
            # Cancelled, and so __aexit__ will not be called.
            intake.close()
            raise
        if not intake.waiting:
            intake.raise_error()
        return self

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        self._intake.close()
        if kind is not GeneratorExit:
            # A coroutine that is thrown away must not wait any more.
            await self._intake.until_over()

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event:
        intake = self._intake
        if not intake.waiting:
            if self._asked:
                raise RuntimeError(
                    "another coroutine waits for the next event of this stream: an EventStream is"
                    " for one consumer"
                )
            self._asked = True
            try:
                intake.start()
                await intake.until(lambda: bool(intake.waiting) or intake.over)
            finally:
                self._asked = False
            if not intake.waiting:
                intake.raise_error()
                raise StopAsyncIteration
        return intake.take()


class _Intake:
    """
    What a connection feeds and a stream takes from: the buffer, and how the connection is.

    It does not refer to the stream, so that one which nobody has any more can be noticed.

    @ivar waiting: the events that have come.
    @ivar connected: whether there is, or was, a connection.
    @ivar over: whether there is none any more, and no attempt to connect either.
    @ivar dropped: how many events were lost, as far as the consumer can know.
    """

    def __init__(
        self,
        reactor: Any,
        endpoint: IStreamClientEndpoint,
        size: int,
        drop: bool,
        max_frame: int,
    ) -> None:
        self._reactor = reactor
        self._endpoint = endpoint
        self._size = size
        self._drop = drop
        self._factory: IProtocolFactory = MetricsClientFactory(
            received_many=self._received,
            connected=self._made,
            lost=self._lost,
            max_frame=max_frame,
        )
        self.waiting: deque[Event] = deque()
        self.connected = False
        self.over = False
        self.dropped = 0
        # What the server has said of its losses.
        self._missed = 0
        self._losses: LossReport | None = None
        self._attempt: Deferred[Any] | None = None
        self._protocol: MetricsClientProtocol | None = None
        self._paused = False
        self._closed = False
        self._error: Failure | None = None
        self._trigger: object = None
        self._waits: list[_Wait] = []

    def start(self) -> None:
        """Connect, unless that was begun before."""
        if self._attempt is not None or self._closed:
            return
        if IReactorCore.providedBy(self._reactor):
            self._trigger = self._reactor.addSystemEventTrigger("before", "shutdown", self._stop)
        self._attempt = maybeDeferred(self._endpoint.connect, self._factory)
        self._attempt.addErrback(self._failed)

    def close(self) -> None:
        """Hand out nothing more, and close the connection."""
        self._closed = True
        self.waiting.clear()
        self._error = None
        if self._protocol is not None:
            self._protocol.close()
        elif self._attempt is not None:
            self._attempt.cancel()
        else:
            self.over = True
        self._wake()

    def close_from_thread(self) -> None:
        """`close`, if there is, or may be, a connection; in any thread."""
        if self._attempt is not None and not self.over:
            # The loop of the reactor for asyncio may be closed already.
            with suppress(RuntimeError):
                self._reactor.callFromThread(self.close)

    def take(self) -> Event:
        """The next of the events that wait, of which there has to be one."""
        event = self.waiting.popleft()
        if type(event) is Status:
            self._note(event)
        if self._paused and len(self.waiting) <= self._size // 2:
            self._paused = False
            if self._protocol is not None:
                self._protocol.transport.resumeProducing()  # type: ignore[attr-defined]
        return event

    def raise_error(self) -> None:
        """Raise what went wrong, if it was not raised before."""
        error, self._error = self._error, None
        if error is not None:
            error.raiseException()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds that depends on what has come, or how the connection is."""
        while not condition():
            wait = _Wait()
            self._waits.append(wait)
            try:
                await wait
            finally:
                # It is still there if it was cancelled.
                with suppress(ValueError):
                    self._waits.remove(wait)

    async def until_over(self) -> None:
        await self.until(lambda: self.over)

    def _received(self, events: list[Event]) -> None:
        waiting = self.waiting
        waiting.extend(events)
        excess = len(waiting) - self._size
        if self._drop:
            if excess > 0:
                self._drop_oldest(excess)
        elif excess >= 0 and not self._paused and self._protocol is not None:
            self._paused = True
            self._protocol.transport.pauseProducing()  # type: ignore[attr-defined]
        self._wake()

    def _drop_oldest(self, number: int) -> None:
        lost = 0
        for _ in range(number):
            event = self.waiting.popleft()
            if type(event) is Status:
                self._note(event)
            else:
                lost += 1
        self._count(lost)

    def _note(self, status: Status) -> None:
        missed = status.dropped_incoming + status.dropped_client
        # A server may say anything.
        self._count(max(missed - self._missed, 0))
        self._missed = missed

    def _count(self, lost: int) -> None:
        if lost and self._losses is not None:
            self.dropped += lost
            self._losses.lost(lost)
            if self.over:
                self._losses.close()

    def _made(self, protocol: MetricsClientProtocol) -> None:
        if self._closed:
            protocol.close()
            return
        self._protocol = protocol
        self.connected = True
        address = show_address(protocol.transport.getPeer())
        self._losses = LossReport(self._reactor, f"on their way from {address}")
        self._wake()

    def _lost(self, protocol: MetricsClientProtocol, reason: Failure) -> None:
        self._protocol = None
        self._end(None if reason.check(ConnectionDone) else reason)

    def _failed(self, reason: Failure) -> None:
        # A connection that there was has said for itself why it ended.
        if not self.connected:
            self._end(reason)

    def _end(self, error: Failure | None) -> None:
        if not self._closed:
            self._error = error
        self.over = True
        if self._trigger is not None:
            self._reactor.removeSystemEventTrigger(self._trigger)
            self._trigger = None
        if self._losses is not None:
            self._losses.close()
        self._wake()

    def _stop(self) -> Deferred[None]:
        # The trigger that has fired is not there any more.
        self._trigger = None
        self.close()
        return Deferred.fromCoroutine(self.until_over())

    def _wake(self) -> None:
        waits, self._waits = self._waits, []
        for wait in waits:
            wait.wake()


class _Wait:
    """
    Can be awaited once, in a coroutine of Twisted as well as in a task of asyncio.

    What runs a coroutine cannot be asked who it is: a coroutine of Twisted may be running within a
    task, whenever a task made it go on.  But it can be seen from how it answers.  A task waits
    for a future that is handed to it, and goes on with None; Twisted waits for a Deferred, and
    hands back at once whatever else it is handed.
    """

    def __init__(self) -> None:
        self._deferred: Deferred[None] = Deferred()
        self._future: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """To be called once."""
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
    """Hand a future to whatever runs this coroutine, as awaiting it does; return the answer."""
    return (yield next(future.__await__()))
