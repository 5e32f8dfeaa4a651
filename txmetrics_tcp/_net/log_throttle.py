"""
Rate-limited logging of rejected clients and lost events.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmetrics_tcp._net.deadline import cancel, is_pending
from txmetrics_tcp._net.failures import without_frames

_log = Logger(namespace="txmetrics_tcp")

INTERVAL = 10.0
"""Seconds between two log lines about clients rejected for the same reason, or about losses."""

MAX_MESSAGES = 20
"""See `MessageLimit`."""


@dataclass(slots=True)
class _Repeats:
    """
    Rejections that have not been logged yet, for one reason.

    @ivar clients: their number.
    @ivar last: the address of the last rejected client.
    """

    clients: int = 0
    last: str = ""


class RejectionLog:
    """
    Logs rejected clients.

    The first rejection for a reason is logged immediately.  Further rejections for the same reason
    are counted, and logged as one line every `INTERVAL` seconds.
    """

    def __init__(self, clock: IReactorTime, noun: str = "client") -> None:
        """
        @param noun: what is rejected, singular.
        """
        self._clock = clock
        self._noun = noun
        self._repeats: dict[str, _Repeats] = {}
        self._check: IDelayedCall | None = None

    def report(
        self, address: str, reason: str, detail: str = "", failure: Failure | None = None
    ) -> None:
        """
        Log or count a rejected client.

        @param reason: completes "Rejected client X: …" and "Rejected 5 more clients: …".  Reasons
            are kept in memory, so they must form a small set.
        @param detail: appended to the reason if the client is logged in a separate line.
        @param failure: its traceback is logged if the client is logged in a separate line.
        """
        if not is_pending(self._check):
            self._check = self._clock.callLater(INTERVAL, self._interval_passed)
        repeats = self._repeats.get(reason)
        if repeats is None:
            self._repeats[reason] = _Repeats()
            _log.warn(
                "Rejected {noun} {address}: {reason}{detail}",
                noun=self._noun,
                address=address,
                reason=reason,
                detail=detail,
                **({} if failure is None else {"log_failure": without_frames(failure)}),
            )
        else:
            repeats.clients += 1
            repeats.last = address

    def close(self) -> None:
        """Log the rejections counted so far, and stop the timer."""
        if self._check is not None:
            cancel(self._check)
            self._check = None
            self._log_repeats()
            self._repeats.clear()

    def _interval_passed(self) -> None:
        self._log_repeats()
        if self._repeats:
            self._check = self._clock.callLater(INTERVAL, self._interval_passed)
        else:
            self._check = None

    def _log_repeats(self) -> None:
        # After an interval without a rejection, the next one is logged immediately again.
        self._repeats = {reason: one for reason, one in self._repeats.items() if one.clients}
        for reason, repeats in self._repeats.items():
            _log.warn(
                "Rejected {clients} more {noun}: {reason}; the last was {address}",
                clients=repeats.clients,
                noun=self._noun if repeats.clients == 1 else f"{self._noun}s",
                reason=reason,
                address=repeats.last,
            )
            repeats.clients = 0


class LossReport:
    """
    Logs a series of losses as two lines: one when the losses begin, and one when they have ended.

    All clients of a server share one report.  Clients whose losses begin during the series are
    counted, and logged as one line every `INTERVAL` seconds.

    A slow client repeatedly catches up and falls behind again.  Therefore, a series ends only after
    an interval of `INTERVAL` seconds without a loss.
    """

    def __init__(self, clock: IReactorTime, where: str = "") -> None:
        """
        @param where: completes "Events are being dropped …": the place or the cause.  Not used for
            the losses of a `client`.
        """
        self._clock = clock
        self._where = where
        self._check: IDelayedCall | None = None
        # The state of the current series of losses.
        self._number = 0
        self._lost = 0
        self._began = 0.0
        self._last = 0.0
        self._continues = False
        self._clients = 0
        self._more = 0
        self._latest: ClientLosses | None = None
        self._worst: ClientLosses | None = None

    def client(self, address: str) -> ClientLosses:
        """Return an object that counts the losses of one client."""
        return ClientLosses(self, address)

    def lost(self, events: int, client: ClientLosses | None = None) -> None:
        """Count lost events."""
        self._last = self._clock.seconds()
        self._continues = True
        begins = not is_pending(self._check)
        if begins:
            self._check = self._clock.callLater(INTERVAL, self._interval_passed)
            self._number += 1
            self._began = self._last
            self._lost = self._clients = self._more = 0
            self._worst = None
        if client is not None:
            if client.number != self._number:
                client.number, client.events = self._number, 0
                self._clients += 1
                self._more += not begins
                self._latest = client
            client.events += events
            if self._worst is None or client.events > self._worst.events:
                self._worst = client
        self._lost += events
        if begins:
            _log.warn("Events are being dropped {where}", where=self._cause())

    def close(self) -> None:
        """Log the end of the losses if their beginning was logged, and stop the timer."""
        if self._check is not None:
            cancel(self._check)
            self._end()

    def _interval_passed(self) -> None:
        self._check = None
        if not self._continues:
            self._end()
            return
        self._continues = False
        self._check = self._clock.callLater(INTERVAL, self._interval_passed)
        if self._more and self._latest is not None:
            _log.warn(
                "Events are being dropped because {clients} more {noun} too slow; the last is"
                " {address}",
                clients=self._more,
                noun="client is" if self._more == 1 else "clients are",
                address=self._latest.address,
            )
            self._more = 0

    def _end(self) -> None:
        self._check = None
        _log.warn(
            "Events were dropped {where}: {lost} events within {seconds:.1f} seconds{most}",
            where=self._cause(),
            lost=self._lost,
            seconds=self._last - self._began,
            most=f"; client {self._worst.address} lost the most ({self._worst.events})"
            if self._worst is not None and self._clients > 1
            else "",
        )
        self._worst = self._latest = None

    def _cause(self) -> str:
        if self._worst is None:
            return self._where
        if self._clients == 1:
            return f"because client {self._worst.address} is too slow"
        return f"because {self._clients} clients are too slow"


class ClientLosses:
    """
    Counts the losses of one client for a `LossReport`.

    @ivar number: the number of the series of losses that C{events} belongs to.
    @ivar events: the events that the client lost in this series.
    """

    __slots__ = ("_report", "address", "events", "number")

    def __init__(self, report: LossReport, address: str) -> None:
        self._report = report
        self.address: str = address
        self.number: int = 0
        self.events: int = 0

    def lost(self, events: int) -> None:
        """Count lost events."""
        self._report.lost(events, self)


class MessageLimit:
    """
    Limits human-readable messages about clients to `MAX_MESSAGES` in `INTERVAL` seconds.  Further
    ones are counted, and reported as one message.
    """

    def __init__(
        self, clock: IReactorTime, say: Callable[[str], object], about: str = "clients"
    ) -> None:
        """
        @param about: what the messages are about, plural.
        """
        self._clock = clock
        self._say = say
        self._about = about
        self._began = -INTERVAL
        self._messages = 0
        self._check: IDelayedCall | None = None

    def say(self, message: str) -> None:
        """Pass on or count a message."""
        if not is_pending(self._check) and self._clock.seconds() - self._began >= INTERVAL:
            self._began = self._clock.seconds()
            self._messages = 0
        self._messages += 1
        if self._messages <= MAX_MESSAGES:
            self._say(message)
        elif not is_pending(self._check):
            self._check = self._clock.callLater(INTERVAL, self.close)

    def close(self) -> None:
        """Report the messages counted so far, and stop the timer."""
        if self._check is not None:
            cancel(self._check)
            self._check = None
            more = self._messages - MAX_MESSAGES
            self._messages = 0
            self._say(f"{more} more {'message' if more == 1 else 'messages'} about {self._about}")
