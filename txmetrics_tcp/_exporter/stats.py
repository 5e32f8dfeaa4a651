"""
Statistics of an exporter, as immutable values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from txmetrics_tcp._exporter.cardinality import MetricCardinality
from txmetrics_tcp._exporter.ledger import Figures


@dataclass(frozen=True, slots=True)
class ClientStats:
    """
    The account of one client.  Events are counted from the start of its stream.

    On the reactor thread, while nothing is being delivered::

        recorded == dropped_incoming + dropped_client + written + discarded + waiting

    @ivar address: the client's address, human-readable.
    @ivar recorded: recorded events, including pending ones.
    @ivar dropped_incoming: events dropped on the incoming side, before they reached any client.
    @ivar dropped_client: events dropped because this client's buffer was full, the oldest first.
    @ivar written: events handed to the client's transport.
    @ivar discarded: events that were pending when the client disconnected.
    @ivar waiting: events pending for the client, on the incoming side and in its own buffer.
    @ivar repairs: the number of resyncs after lost events.
    @ivar high_water: the largest number of events that the client's buffer has held.
    @ivar bytes_written: bytes handed to the client's transport.
    """

    address: str
    recorded: int
    dropped_incoming: int
    dropped_client: int
    written: int
    discarded: int
    waiting: int
    repairs: int
    high_water: int
    bytes_written: int


@dataclass(frozen=True, slots=True)
class Stats:
    """
    Statistics of an exporter since it was made.

    On the reactor thread, all figures are of the same moment.  On another thread, the figures of
    clients may be slightly older than the rest.

    @ivar recorded: recorded events, including pending ones.  If totals are not kept, events
        recorded while no clients are connected are not counted.
    @ivar dropped_incoming: events dropped on the incoming side because its buffer was full.
    @ivar waiting: events pending on the incoming side; 0 while no clients are connected.
    @ivar series: the number of retained series, whose totals are in snapshots.
    @ivar series_refused: the number of series not retained because C{max_series} was reached.
    @ivar highest_cardinality: the three metrics with the most retained series, in descending order,
        when C{max_series} was first reached; empty before.
    @ivar clients: the connected clients whose stream has begun; a new client appears here when its
        first totals are queued.  While a client is connected, every event recorded after it has
        appeared here is sent to it or counted as dropped.
    @ivar connected: the number of connections since the exporter was made, including closed ones.
    @ivar written: events handed to all clients, present and past; once for each client.
    @ivar dropped_client: events dropped because a client's buffer was full; once for each client.
    @ivar repairs: the number of resyncs of all clients after lost events.
    @ivar bytes_written: bytes handed to all clients, present and past.
    """

    recorded: int
    dropped_incoming: int
    waiting: int
    series: int
    series_refused: int
    highest_cardinality: tuple[MetricCardinality, ...]
    clients: tuple[ClientStats, ...]
    connected: int
    written: int
    dropped_client: int
    repairs: int
    bytes_written: int


class Accounts:
    """
    The summed accounts of all clients, present and past.

    @ivar connected: see `Stats`.
    """

    def __init__(self) -> None:
        self.connected = 0
        self._disconnected = Counter[str]()

    def add(self, account: ClientStats) -> None:
        """Add the final account of a client that has disconnected."""
        for name in ("written", "dropped_client", "repairs", "bytes_written"):
            self._disconnected[name] += getattr(account, name)

    def stats(
        self,
        figures: Figures,
        cardinality: tuple[MetricCardinality, ...],
        present: Sequence[tuple[bool, ClientStats]],
    ) -> Stats:
        """
        Return the current statistics.

        @param figures: of the incoming side.
        @param cardinality: see `Stats`.
        @param present: for each connected client, whether its stream has begun, and its account.
        """
        clients = tuple(account for following, account in present if following)

        def total(name: str, accounts: Iterable[ClientStats] = clients) -> int:
            figures: list[int] = [getattr(account, name) for account in accounts]
            return self._disconnected[name] + sum(figures)

        counts = figures.counts
        return Stats(
            recorded=counts.recorded,
            dropped_incoming=counts.dropped,
            waiting=counts.waiting,
            series=figures.series,
            series_refused=figures.refused,
            highest_cardinality=cardinality,
            clients=clients,
            connected=self.connected,
            written=total("written"),
            dropped_client=total("dropped_client"),
            repairs=total("repairs"),
            # Includes clients whose stream has not begun: they may have received descriptions.
            bytes_written=total("bytes_written", (account for _, account in present)),
        )
