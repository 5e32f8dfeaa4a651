"""
Reads the messages of the sources of a stream.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final, Generic, Protocol, TypeVar
from urllib.parse import unquote

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmetrics_tcp._net.deadline import Deadline
from txmetrics_tcp._net.endpoints import check_reactor
from txmetrics_tcp._net.failures import without_frames
from txmetrics_tcp.relay._access import Access
from txmetrics_tcp.relay._address import NatsAddress, source_token
from txmetrics_tcp.relay._broker import (
    AccessError,
    Broker,
    BrokerError,
    ForeignStreamError,
    Reader,
    Received,
    SettingsError,
)
from txmetrics_tcp.relay._messages import Message, MessageError

MIN_DELAY: Final = 0.2
MAX_DELAY: Final = 5.0
"""The limits of the delay, in seconds, after a failed request to the broker."""

CHECK_INTERVAL: Final = 1.0
"""The time, in seconds, between checks for sources that are silent."""

MAX_SOURCES: Final = 100_000
"""The maximum number of sources that a service follows.  Messages of further ones are ignored."""

_log = Logger(namespace="txmetrics_tcp")


@dataclass(frozen=True, slots=True)
class BrokerUnavailable:
    """
    A request to the broker has failed, and will be repeated.

    @ivar reason: human-readable.
    @ivar permanent: whether someone has to change something before it can succeed: the broker does
        not permit it or accept the credentials, the stream is not one of metrics, or cannot be
        created with these settings.
    """

    reason: str
    permanent: bool = False


@dataclass(frozen=True, slots=True)
class BrokerAvailable:
    """The broker answers, for the first time or after `BrokerUnavailable`."""


class Availability:
    """Reports changes of the state of a broker to an observer."""

    def __init__(
        self, observer: Callable[[BrokerUnavailable | BrokerAvailable], object] | None
    ) -> None:
        self._observer = observer
        self._state: BrokerUnavailable | BrokerAvailable | None = None

    @property
    def refused(self) -> bool:
        """Whether the last request failed, and will fail until someone changes something."""
        return isinstance(self._state, BrokerUnavailable) and self._state.permanent

    def succeeded(self) -> None:
        self._set(BrokerAvailable())

    def failed(self, failure: Failure) -> None:
        if not failure.check(BrokerError):
            _log.failure("A request to the broker failed", without_frames(failure))
        permanent = bool(failure.check(AccessError, ForeignStreamError, SettingsError))
        self._set(BrokerUnavailable(failure.getErrorMessage(), permanent))

    def _set(self, state: BrokerUnavailable | BrokerAvailable) -> None:
        if state == self._state:
            return
        self._state = state
        if self._observer is None:
            return
        try:
            self._observer(state)
        except Exception:
            _log.failure("An observer of a broker failed", without_frames(Failure()))


class Retries:
    """Repeats an action after delays that grow."""

    def __init__(self, reactor: IReactorTime, act: Callable[[], object]) -> None:
        self._reactor = reactor
        self._act = act
        self._deadline: Deadline | None = None
        self._delay = MIN_DELAY

    def again(self) -> None:
        self._deadline = Deadline(self._reactor, self._delay, self._act)
        self._delay = min(2 * self._delay, MAX_DELAY)

    def reset(self) -> None:
        self._delay = MIN_DELAY

    def cancel(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class ReadSource(Protocol):
    """A source whose messages are read."""

    def receive(self, message: Message, time_ns: int) -> None:
        """
        Handle the next message.

        @param time_ns: when the broker received it, in nanoseconds since the Unix epoch.
        @raise MessageError: the message has invalid content.
        """

    def check(self, now_ns: int, since_ns: int) -> None:
        """
        Find out whether the source is silent.

        @param now_ns: the time of the broker, in nanoseconds since the Unix epoch.
        @param since_ns: the time since which the messages of all publishers would have arrived.
        """


S = TypeVar("S", bound=ReadSource)


class SourceReader(Service, Generic[S]):
    """
    Reads the messages of the sources of a stream while it runs, and passes them to the sources.

    @ivar behind: the number of messages that the broker had after the last delivered one.
    @ivar invalid: the number of messages that are not valid.
    @ivar sources: the sources by their tokens in subjects.
    """

    def __init__(
        self,
        reactor: Any,
        address: NatsAddress,
        make: Callable[[str], S],
        broker_observer: Callable[[BrokerUnavailable | BrokerAvailable], object] | None,
        since: datetime.datetime | None,
        access: Access | None,
    ) -> None:
        """
        @param make: makes the source with a name.
        """
        check_reactor(reactor)
        self._address = address
        self._make = make
        self._since = since
        self.behind: int = 0
        self.invalid: int = 0
        self.sources: dict[str, S] = {}
        self._reported: set[str] = set()
        self._availability = Availability(broker_observer)
        self._broker = Broker(reactor, address.broker, access)
        self._retries = Retries(reactor, self._read)
        pattern = address.sources
        self._literal = not any(character in pattern for character in "*?[")
        self._reader: Reader | None = None
        self._clock: IReactorTime = reactor
        # The time of the broker, and that of the reactor then.
        self._newest_ns = 0
        self._newest_at = 0.0
        # Since when the messages of all publishers would have arrived; the broker's time.
        self._receiving_ns = 0
        self._checked_at = 0.0
        self._failing = False
        self._checks = LoopingCall(self._check)
        self._checks.clock = reactor
        # What has asked to read nothing for now.
        self._pauses: set[object] = set()
        self._paused = False

    def startService(self) -> None:
        super().startService()
        token = source_token(self._address.sources) if self._literal else "*"
        self._reader = self._broker.reader(self._address.stream, token, self._since)
        self._paused = False
        self._checked_at = self._clock.seconds()
        self._checks.start(CHECK_INTERVAL, now=False)
        self._read()

    def stopService(self) -> Deferred[None]:
        """
        Disconnect from the broker.

        @return: a Deferred that fires when this has been done.
        """
        super().stopService()
        self._reader = None
        self._retries.cancel()
        if self._checks.running:
            self._checks.stop()
        return self._broker.close()

    def pause(self, who: object) -> None:
        """Read no further messages than those that have been requested."""
        self._pauses.add(who)

    def resume(self, who: object) -> None:
        """End C{pause}."""
        self._pauses.discard(who)
        if self._paused and not self._pauses:
            self._paused = False
            self._receiving_ns = self._now_ns()
            self._read()

    def _read(self) -> None:
        if self._pauses:
            self._paused = True
        elif self._reader is not None:
            self._reader.read().addCallback(self._deliver).addErrback(self._failed)

    def _deliver(self, messages: list[Received]) -> None:
        self._retries.reset()
        self._availability.succeeded()
        if self._failing:
            self._failing = False
            self._receiving_ns = self._now_ns()
        if not messages:
            self.behind = 0
        for message in messages:
            if self._reader is None:
                return
            self.behind = message.behind
            if message.time_ns > self._now_ns():
                self._newest_ns, self._newest_at = message.time_ns, self._clock.seconds()
            self._receive(message)
        # Not at once: the reactor iterates between batches.
        self._read()

    def _failed(self, failure: Failure) -> None:
        if self._reader is None:
            return
        self._failing = True
        self._availability.failed(failure)
        self._retries.again()

    def _now_ns(self) -> int:
        """Return an estimate of the broker's time, which does not depend on this host's."""
        if not self._newest_ns:
            return 0
        return self._newest_ns + int((self._clock.seconds() - self._newest_at) * 1e9)

    def _check(self) -> None:
        now, before = self._clock.seconds(), self._checked_at
        self._checked_at = now
        if now - before > 2 * CHECK_INTERVAL:
            # This process was suspended or busy.
            self._receiving_ns = self._now_ns()
        if self._failing or self._paused or self.behind:
            return
        now_ns = self._now_ns()
        for source in list(self.sources.values()):
            try:
                source.check(now_ns, self._receiving_ns)
            except Exception:
                _log.failure("A consumer failed", without_frames(Failure()))

    def _receive(self, received: Received) -> None:
        token = received.subject.split(".")[-2]
        source = self.sources.get(token)
        name = unquote(token)
        if source is None and not (self._literal or fnmatchcase(name, self._address.sources)):
            return
        try:
            message = Message.parse(received.headers, received.payload)
            if source is None:
                if source_token(name) != token:
                    raise MessageError("not a subject of a publisher")
                if len(self.sources) >= MAX_SOURCES:
                    raise MessageError(f"there are more than {MAX_SOURCES:,} sources")
                source = self.sources[token] = self._make(name)
            source.receive(message, received.time_ns)
        except MessageError as error:
            self._ignore(token, error)
        except Exception:
            _log.failure("A consumer of {source} failed", without_frames(Failure()), source=name)

    def _ignore(self, token: str, error: MessageError) -> None:
        self.invalid += 1
        if token not in self._reported and len(self._reported) < MAX_SOURCES:
            self._reported.add(token)
            _log.warn(
                "Ignored a message of {source}: {reason}; further ones are not reported",
                source=unquote(token),
                reason=error,
            )
