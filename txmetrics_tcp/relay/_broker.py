"""
The connection to a NATS server with JetStream.

nats-py needs an asyncio event loop.  It runs in a thread of its own, so that any reactor can be
used.  Results are passed to the reactor thread.

The connection is not restored by nats-py: what needs a connection makes one, and fails if that is
not possible.  The caller decides when to try again.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import re
import ssl
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

import nats.errors
import nats.js.errors
import nkeys
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    ConsumerInfo,
    DeliverPolicy,
    DiscardPolicy,
    StorageType,
    StreamConfig,
    StreamInfo,
)
from twisted.internet.defer import Deferred

from txmetrics_tcp.relay._access import Access

_T = TypeVar("_T")

TIMEOUT: Final = 5.0
"""The time limit of a request to the broker, in seconds."""

WAIT: Final = 5.0
"""The maximum time in which a reader waits for messages before it checks itself, in seconds."""

BATCH: Final = 256
"""The maximum number of messages that a reader requests at once."""

CATCH_UP: Final = 60.0
"""
The maximum age, in seconds, of a snapshot from which a reader that joins reads all messages.  The
publisher of an older one has been killed or lost its connection.
"""

_NO_CLUSTER: Final = 10074
"""The code of the broker's error that replicas need a cluster."""

_MAX_BYTES: Final = 1024**3

_CONSUMER_NOT_FOUND: Final = 10014
_MESSAGE_TOO_LARGE: Final = 10054
_IMPOSSIBLE: Final = (10052, 10065, _NO_CLUSTER)
"""Errors: invalid settings, subjects of another stream, replicas without a cluster."""


class BrokerError(Exception):
    """A request to the broker has failed.  It may be repeated.  The text has the reason."""


class AccessError(BrokerError):
    """The broker does not permit the request, or does not accept the credentials."""


class RejectedError(BrokerError):
    """The broker does not accept a message: it is too large."""


class StreamMissingError(BrokerError):
    """The stream does not exist."""


class ForeignStreamError(BrokerError):
    """A stream of this name exists, but not for the subjects of metrics."""


class SettingsError(BrokerError):
    """The broker cannot create a stream with these subjects and settings."""


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """
    How a stream is created.  An existing stream remains as it is.

    @ivar max_age: how long the broker keeps messages, in seconds.
    @ivar max_bytes: the maximum size of the stream, in bytes.
    @ivar replicas: the number of servers that keep each message.
    """

    max_age: float = 3600.0
    max_bytes: int = _MAX_BYTES
    replicas: int = 1


class Received(NamedTuple):
    """
    A message of a stream.

    @ivar seq: the number in the stream.
    @ivar time_ns: when the broker received it, in nanoseconds since the Unix epoch.
    @ivar behind: the number of messages that the broker has for the reader after this one.
    """

    subject: str
    seq: int
    time_ns: int
    behind: int
    headers: dict[str, str]
    payload: bytes


class Broker:
    """
    A client of a broker.  Its methods must be called on the reactor thread, on which the Deferreds
    fire.  They fail with a `BrokerError`.
    """

    def __init__(self, reactor: Any, address: str, access: Access | None = None) -> None:
        """
        @param address: C{HOST:PORT}.
        """
        self._reactor = reactor
        self._address = address
        self._access = Access() if access is None else access
        self._loop: asyncio.AbstractEventLoop | None = None
        # The event loop's thread owns the following.
        self._client: Client | None = None
        self._lock: asyncio.Lock | None = None
        self._requests: set[asyncio.Task[Any]] = set()
        self._closed_event = asyncio.Event()
        # The broker answers a request that it does not permit with an error to the connection.
        self._denied = asyncio.Event()
        self._last_error = ""

    def ensure_stream(self, stream: str, settings: StreamSettings) -> Deferred[None]:
        """Create a stream for the subjects that begin with its name, unless it exists."""
        return self._call(lambda: self._ensure_stream(stream, settings))

    def publish(
        self, stream: str, subject: str, payload: bytes, headers: dict[str, str]
    ) -> Deferred[int]:
        """
        Publish a message, and wait until the broker has it.

        @return: a Deferred that fires with the number of the message in the stream.
        """
        return self._call(lambda: self._publish(stream, subject, payload, headers))

    def reader(
        self, stream: str, source: str = "*", since: datetime.datetime | None = None
    ) -> Reader:
        """
        Return a reader of a stream.

        @param source: the second token of the subjects to read; C{"*"} for all.
        @param since: read from this time on.  By default, from the last snapshots on.
        """
        return Reader(self, stream, f"{stream}.{source}", since)

    def close(self) -> Deferred[None]:
        """Close the connection, and end the thread.  Requests that have not ended fail."""
        if self._loop is None:
            done: Deferred[None] = Deferred()
            done.callback(None)
            return done
        loop, self._loop = self._loop, None
        closed: Deferred[None] = self._call_in(loop, self._close)

        def stop(result: Any) -> None:
            loop.call_soon_threadsafe(loop.stop)

        return closed.addBoth(stop)

    def _call(self, request: Callable[[], Coroutine[Any, Any, _T]]) -> Deferred[_T]:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            # They belong to the event loop in which they were awaited.
            self._lock = None
            self._denied = asyncio.Event()
            threading.Thread(
                target=_run, args=(self._loop,), name="metrics-nats", daemon=True
            ).start()
        return self._call_in(self._loop, lambda: self._guarded(request))

    def _call_in(
        self, loop: asyncio.AbstractEventLoop, request: Callable[[], Coroutine[Any, Any, _T]]
    ) -> Deferred[_T]:
        def cancel(deferred: Deferred[Any]) -> None:
            future.cancel()

        result: Deferred[_T] = Deferred(cancel)

        def done(future: Future[_T]) -> None:
            # The event loop of the asyncio reactor may already be closed.
            with suppress(RuntimeError):
                self._reactor.callFromThread(finish, future)

        def finish(future: Future[_T]) -> None:
            if result.called:
                return
            if future.cancelled():
                result.errback(BrokerError("the connection to the broker was closed"))
                return
            error = future.exception()
            if error is None:
                result.callback(future.result())
            else:
                result.errback(error)

        future = asyncio.run_coroutine_threadsafe(request(), loop)
        future.add_done_callback(done)
        return result

    # What follows runs in the event loop's thread.

    async def _guarded(self, request: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Make a request; convert its exceptions."""
        task = asyncio.current_task()
        assert task is not None
        self._requests.add(task)
        try:
            return await request()
        except BrokerError:
            raise
        except nats.errors.MaxPayloadError:
            raise RejectedError("the message exceeds the broker's max_payload") from None
        except (nats.js.errors.NoStreamResponseError, nats.js.errors.NotFoundError):
            raise StreamMissingError("the stream does not exist") from None
        except nats.js.errors.APIError as error:
            reason = error.description or str(error)
            if error.err_code == _MESSAGE_TOO_LARGE:
                raise RejectedError("the message exceeds max_msg_size of the stream") from None
            if error.err_code in _IMPOSSIBLE:
                raise SettingsError(reason) from None
            raise BrokerError(reason) from None
        except (nats.errors.TimeoutError, asyncio.TimeoutError):
            await self._disconnect()
            raise BrokerError("the broker does not answer") from None
        except (nats.errors.Error, OSError, ssl.SSLError, ValueError) as error:
            raise BrokerError(str(error) or type(error).__name__) from None
        finally:
            self._requests.discard(task)

    async def jetstream(self) -> JetStreamContext:
        """Return the connection, which is made if there is none."""
        if self._lock is None:
            self._lock = asyncio.Lock()
        async with self._lock:
            if self._client is None or not self._client.is_connected:
                await self._connect()
            assert self._client is not None
            return self._client.jetstream(timeout=TIMEOUT)

    @property
    def client(self) -> Client:
        """The connection that `jetstream` has returned."""
        assert self._client is not None
        return self._client

    async def _connect(self) -> None:
        self._last_error = ""
        closed = asyncio.Event()

        async def failed(error: Exception) -> None:
            self._last_error = reason_of(error)
            if _is_violation(self._last_error):
                # The request would wait for the end of its time limit.
                self._denied.set()

        async def disconnected() -> None:
            closed.set()

        client = _Client()
        options = _options(self._access)
        try:
            await asyncio.wait_for(
                client.connect(
                    f"nats://{self._address}",
                    name="metrics-tcp",
                    allow_reconnect=False,
                    # Otherwise a refused connection is tried again until the end of its time limit.
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=int(TIMEOUT),
                    # Without it, nats-py prints tracebacks.
                    error_cb=failed,
                    disconnected_cb=disconnected,
                    closed_cb=disconnected,
                    **options,
                ),
                TIMEOUT,
            )
        except (nats.errors.Error, OSError, asyncio.TimeoutError) as error:
            text = self._last_error or reason_of(error)
            if "authorization" in text.lower():
                raise AccessError("the broker does not accept the credentials") from None
            reason = text or "no answer"
            raise BrokerError(f"cannot connect to {self._address}: {reason}") from None
        except (nkeys.NkeysError, ValueError):
            raise AccessError("NATS_NKEY or NATS_CREDS contains no valid seed of an nkey") from None
        finally:
            if not client.is_connected:
                await _end(client)
        self._client = client
        self._closed_event = closed

    async def unless_closed(self, request: Awaitable[_T]) -> _T:
        """
        Await a request, which could wait for the end of its time limit if the connection is lost.
        """
        self._denied.clear()
        pending = asyncio.ensure_future(request)
        closed = asyncio.ensure_future(self._closed_event.wait())
        denied = asyncio.ensure_future(self._denied.wait())
        try:
            await asyncio.wait({pending, closed, denied}, return_when=asyncio.FIRST_COMPLETED)
            if pending.done():
                return pending.result()
            if denied.done():
                raise AccessError(f"the broker does not permit it: {self._last_error}")
            raise BrokerError("the connection to the broker was lost")
        finally:
            # A request that ends with an error when it is cancelled would be reported.
            pending.add_done_callback(lambda task: task.cancelled() or task.exception())
            for one in pending, closed, denied:
                one.cancel()

    async def _ensure_stream(self, stream: str, settings: StreamSettings) -> None:
        context = await self.jetstream()
        try:
            check_stream(await self.unless_closed(context.stream_info(stream)))
        except nats.js.errors.NotFoundError:
            config = StreamConfig(
                name=stream,
                subjects=[f"{stream}.>"],
                storage=StorageType.FILE,
                discard=DiscardPolicy.OLD,
                max_age=settings.max_age,
                max_bytes=settings.max_bytes,
                num_replicas=settings.replicas,
                duplicate_window=min(120.0, settings.max_age),
            )
            try:
                await self.unless_closed(context.add_stream(config))
            except nats.js.errors.APIError as error:
                if error.err_code != _NO_CLUSTER:
                    raise
                raise SettingsError(
                    f"the broker has no cluster for {settings.replicas} replicas"
                ) from None

    async def _publish(
        self, stream: str, subject: str, payload: bytes, headers: dict[str, str]
    ) -> int:
        context = await self.jetstream()
        answer = await self.unless_closed(
            context.publish(subject, payload, timeout=TIMEOUT, stream=stream, headers=headers)
        )
        return answer.seq

    async def _close(self) -> None:
        requests = list(self._requests)
        for request in requests:
            request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)
        await self._disconnect()

    async def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await _end(client)


class _Client(Client):
    """A client that gives credentials to no broker without TLS if it has been told to use TLS."""

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if "tls" in self.options and not info.get("tls_required"):
            raise nats.errors.Error("the broker does not require TLS, unlike NATS_CA or NATS_CERT")
        await super()._process_info(info, initial_connection)


def _options(access: Access) -> dict[str, Any]:
    """Return the arguments of nats-py."""
    options = {
        "user": access.user,
        "password": access.password,
        "token": access.token,
        "nkeys_seed": access.nkey_file,
        "user_credentials": access.credentials_file,
        "tls": access.tls,
    }
    return {name: value for name, value in options.items() if value is not None}


def reason_of(error: Exception) -> str:
    """
    Return the reason of a failed connection, without the text that asyncio adds to it.

        >>> reason_of(ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 4222)"))
        'Connection refused'
        >>> reason_of(OSError("Multiple exceptions: [Errno 111] Connect call failed, [Errno 113]"))
        'Connection refused'
    """
    text = str(error).removeprefix("nats: ")
    if isinstance(error, OSError) and (match := re.search(r"\[Errno (\d+)\]", text)):
        return os.strerror(int(match[1]))
    return re.sub(r"^\[Errno -?\d+\] ", "", text)


def _is_violation(error: str) -> bool:
    return "permissions violation" in error.lower()


def check_stream(info: StreamInfo) -> None:
    """
    @raise ForeignStreamError: the stream does not have the subjects of metrics.
    """
    name, subjects = info.config.name, info.config.subjects or []
    if f"{name}.>" not in subjects:
        shown = ", ".join(subjects[:3]) or "no subjects"
        raise ForeignStreamError(
            f"the stream {name} is not one of metrics: it has {shown} instead of {name}.>"
        )


async def _end(client: Client) -> None:
    """Close a connection, whatever state it is in."""
    with suppress(Exception):
        await asyncio.wait_for(client.close(), TIMEOUT)
    # The transport reports its end in the next iteration.
    await asyncio.sleep(0)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        # Those that nats-py has left.
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=TIMEOUT))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


class _Pull:
    """
    A consumer at the broker, which sends messages as far as they have been requested.

    The method C{fetch} of nats-py does the same with two tasks and five iterations for each
    message.

    @ivar behind: the number of messages that the broker had for the consumer at its creation.
    """

    def __init__(self, context: JetStreamContext, client: Client, info: ConsumerInfo) -> None:
        self._context = context
        self._client = client
        self._stream = info.stream_name
        self._consumer = info.name
        self.behind = info.num_pending or 0
        self._inbox = client.new_inbox()
        self._subscription: Subscription | None = None
        self._received: list[Received] = []
        self._changed = asyncio.Event()
        # The number of messages that are requested and have not arrived.
        self._requested = 0

    async def fetch(self, wait: float) -> list[Received]:
        """Return the next messages, or none after a time, in seconds."""
        if self._subscription is None:
            self._subscription = await self._client.subscribe(self._inbox, cb=self._message)
        if self._requested <= 0 and not self._received:
            self._requested = BATCH
            self._changed.clear()
            request = {"batch": BATCH, "expires": int(wait * 1e9)}
            await self._client.publish(
                f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}",
                json.dumps(request).encode(),
                self._inbox,
            )
        try:
            await asyncio.wait_for(self._changed.wait(), wait + 1.0)
        except asyncio.TimeoutError:
            # The broker has not even ended the request.
            self._requested = 0
        self._changed.clear()
        messages, self._received = self._received, []
        return messages

    async def check(self) -> None:
        """Raise an error if the broker has forgotten the consumer."""
        await self._context.consumer_info(self._stream, self._consumer)

    async def close(self) -> None:
        """Stop receiving.  The broker removes the consumer after a while."""
        if self._subscription is not None:
            with suppress(nats.errors.Error):
                await self._subscription.unsubscribe()

    async def _message(self, message: Msg) -> None:
        if message.subject == self._inbox:
            # The end of the request.
            self._requested = 0
        else:
            self._received.append(_received(message))
            self._requested -= 1
        self._changed.set()


class _Joining:
    """
    The last snapshots, from which a reader joins.

    @ivar pull: delivers the last snapshot of each source, and then, if there are old ones, the last
        other message of each source.
    @ivar created: when the stream was created.
    @ivar start: the number of the first message to read then.
    @ivar old: the numbers of old snapshots by source, after the snapshots were read.  Their
        publishers have been killed, or have lost the broker.
    """

    def __init__(self, pull: _Pull, info: StreamInfo) -> None:
        self.pull = pull
        self.created = info.created
        self.start: int = info.state.last_seq + 1
        self.old: dict[str, int] | None = None
        # The numbers and times of snapshots by source.
        self._snapshots: dict[str, tuple[int, int]] = {}

    def add(self, messages: list[Received]) -> list[Received]:
        """
        Add messages; return those that consumers need: snapshots, and messages that show that old
        snapshots are not the end.
        """
        if self.old is not None:
            old = self.old
            return [one for one in messages if old.get(_source(one), one.seq) < one.seq]
        for one in messages:
            self._snapshots[_source(one)] = one.seq, one.time_ns
        return messages

    def end_snapshots(self) -> None:
        """Set C{old} and C{start}, after all snapshots have been read."""
        begin_ns = max((time_ns for _, time_ns in self._snapshots.values()), default=0)
        begin_ns -= int(CATCH_UP * 1e9)
        self.old = {}
        for source, (seq, time_ns) in self._snapshots.items():
            if time_ns < begin_ns:
                self.old[source] = seq
            else:
                self.start = min(self.start, seq + 1)


def _source(message: Received) -> str:
    return message.subject.rpartition(".")[0]


class Reader:
    """
    Reads the messages of a stream in order, from any number of sources.

    After a failure, it continues where it was.  If the stream has been created again meanwhile, it
    begins with the new one.
    """

    def __init__(
        self, broker: Broker, stream: str, prefix: str, since: datetime.datetime | None
    ) -> None:
        """
        @param prefix: of the subjects, without C{.data} and C{.snap}.
        """
        self._broker = broker
        self._stream = stream
        self._prefix = prefix
        self._since = since
        self._created: datetime.datetime | None = None
        self._next = 0
        self._subscription: _Pull | None = None
        self._joining: _Joining | None = None

    def read(self) -> Deferred[list[Received]]:
        """
        Read the next messages.  The Deferred fires after a few seconds if there are none.

        Must not be called again before the Deferred has fired.
        """
        return self._broker._call(self._read)

    async def _read(self) -> list[Received]:
        context = await self._broker.jetstream()
        try:
            if self._subscription is None and self._joining is None:
                await self._join(context)
            if self._joining is not None:
                return await self._read_snapshots(context, self._joining)
            assert self._subscription is not None
            messages = await self._broker.unless_closed(self._subscription.fetch(WAIT))
            if not messages:
                # A consumer that the broker has forgotten gets no messages, and no error.
                await self._check(context, self._subscription)
        except BaseException:
            self._subscription = self._joining = None
            raise
        if messages:
            self._next = messages[-1].seq + 1
        return messages

    async def _check(self, context: JetStreamContext, subscription: _Pull) -> None:
        try:
            await self._broker.unless_closed(subscription.check())
        except nats.js.errors.NotFoundError as error:
            if error.err_code != _CONSUMER_NOT_FOUND:
                raise
            # This process was suspended, or has not read for a while.
            await subscription.close()
            self._subscription = None
            await self._join(context)

    async def _join(self, context: JetStreamContext) -> None:
        info = await self._broker.unless_closed(context.stream_info(self._stream))
        check_stream(info)
        again = info.created == self._created and info.state.last_seq + 1 >= self._next
        if not again:
            self._created = None
            if self._since is not None:
                await self._begin_at_time(context, self._since)
                self._created = info.created
            else:
                self._joining = _Joining(await self._subscribe_last(context, "snap"), info)
            return
        await self._begin_at(context, self._next)

    async def _begin_at(self, context: JetStreamContext, seq: int) -> None:
        self._next = seq
        self._subscription = await self._subscribe(
            context,
            ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=seq),
        )

    async def _begin_at_time(self, context: JetStreamContext, since: datetime.datetime) -> None:
        self._next = 1
        self._subscription = await self._subscribe(
            context,
            ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_TIME, opt_start_time=since),
        )

    async def _read_snapshots(self, context: JetStreamContext, joining: _Joining) -> list[Received]:
        """Read some of the last messages of the sources, or end that."""
        pull = joining.pull
        if pull.behind:
            messages = await self._broker.unless_closed(pull.fetch(TIMEOUT))
            if not messages:
                raise BrokerError("the broker does not deliver messages")
            pull.behind = messages[-1].behind
            return joining.add(messages)
        await pull.close()
        if joining.old is None:
            joining.end_snapshots()
            if joining.old:
                joining.pull = await self._subscribe_last(context, "data")
                return []
        await self._begin_at(context, joining.start)
        self._joining = None
        self._created = joining.created
        return []

    async def _subscribe_last(self, context: JetStreamContext, kind: str) -> _Pull:
        config = ConsumerConfig(deliver_policy=DeliverPolicy.LAST_PER_SUBJECT)
        return await self._subscribe(context, config, kind)

    async def _subscribe(
        self, context: JetStreamContext, config: ConsumerConfig, kind: str = "*"
    ) -> _Pull:
        config.ack_policy = AckPolicy.NONE
        config.inactive_threshold = 60.0
        config.mem_storage = True
        config.num_replicas = 1
        config.filter_subject = f"{self._prefix}.{kind}"
        client = self._broker.client
        config.name = client.new_inbox().rpartition(".")[2]
        info = await self._broker.unless_closed(context.add_consumer(self._stream, config))
        return _Pull(context, client, info)


def _received(message: Msg) -> Received:
    # $JS.ACK.[DOMAIN.ACCOUNT.]STREAM.CONSUMER.DELIVERED.SEQ.CONSUMER_SEQ.TIME.PENDING[.RANDOM]
    tokens = message.reply.split(".")
    seq, _, time_ns, behind = tokens[5:9] if len(tokens) == 9 else tokens[7:11]
    return Received(
        message.subject,
        int(seq),
        int(time_ns),
        int(behind),
        message.headers or {},
        message.data,
    )
