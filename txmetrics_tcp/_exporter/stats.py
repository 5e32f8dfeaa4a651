"""
What an exporter counts, as values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from txmetrics_tcp._exporter.ledger import Counts


@dataclass(frozen=True, slots=True)
class ClientStats:
    """
    The account of one client.  All figures are events since it connected.

    On the reactor thread, while nothing is being delivered::

        recorded == dropped_incoming + dropped + written + discarded + waiting

    @ivar address: who it is, for people.
    @ivar recorded: how many were recorded, as far as they were taken out of the log.
    @ivar dropped_incoming: lost on the incoming side, before they came to any client.
    @ivar dropped: lost because this client's buffer was full, its oldest first.
    @ivar written: handed to its transport.
    @ivar discarded: what still waited for it when it disconnected.
    @ivar waiting: on their way to it: in the incoming side's buffer and its own.
    @ivar repairs: how often it got totals that make up for what it lost.
    @ivar high_water: the most that ever waited in its buffer.
    @ivar bytes_written: bytes handed to its transport.
    """

    address: str
    recorded: int
    dropped_incoming: int
    dropped: int
    written: int
    discarded: int
    waiting: int
    repairs: int
    high_water: int
    bytes_written: int


@dataclass(frozen=True, slots=True)
class Stats:
    """
    What an exporter has done so far.

    Read on the reactor thread, the figures belong to one moment; read on another thread, those
    of the clients may be a moment older than the rest.

    @ivar recorded: events recorded since the start, as far as they were taken out of the log.
        Without totals, what is recorded while nobody listens is not counted.
    @ivar dropped: how many of them were lost on the incoming side, because its buffer was full.
    @ivar waiting: how many of them wait there.
    @ivar series: how many series are retained, so that their totals are in snapshots.
    @ivar series_refused: how many found no room among them.
    @ivar clients: the clients that follow the stream: whatever is recorded after one has been
        seen here is sent to it as it happens.  One that has just connected comes here with its
        totals.
    @ivar connected: how many clients ever connected.
    @ivar written: events handed to clients that are or were connected, once for each.
    @ivar dropped_by_clients: events lost because the buffer of one of them was full, likewise.
    @ivar repairs: how often one of them got totals that make up for what it lost.
    @ivar bytes_written: bytes handed to all of them.
    """

    recorded: int
    dropped: int
    waiting: int
    series: int
    series_refused: int
    clients: tuple[ClientStats, ...]
    connected: int
    written: int
    dropped_by_clients: int
    repairs: int
    bytes_written: int


class Accounts:
    """
    The accounts of all clients that ever connected, added up.

    @ivar connected: how many there were.
    """

    def __init__(self) -> None:
        self.connected = 0
        self._gone = Counter[str]()

    def add(self, account: ClientStats) -> None:
        """A client has disconnected."""
        for name in ("written", "dropped", "repairs", "bytes_written"):
            self._gone[name] += getattr(account, name)

    def stats(
        self,
        counts: Counts,
        series: int,
        series_refused: int,
        present: Sequence[tuple[bool, ClientStats]],
    ) -> Stats:
        """
        @param present: for each client that is connected, whether it follows the stream, and its
            account.
        """
        clients = tuple(account for following, account in present if following)

        def total(name: str, accounts: Iterable[ClientStats] = clients) -> int:
            figures: list[int] = [getattr(account, name) for account in accounts]
            return self._gone[name] + sum(figures)

        return Stats(
            recorded=counts.recorded,
            dropped=counts.dropped,
            waiting=counts.waiting,
            series=series,
            series_refused=series_refused,
            clients=clients,
            connected=self.connected,
            written=total("written"),
            dropped_by_clients=total("dropped"),
            repairs=total("repairs"),
            # Also of those that have been sent descriptions, and nothing else yet.
            bytes_written=total("bytes_written", (account for _, account in present)),
        )
