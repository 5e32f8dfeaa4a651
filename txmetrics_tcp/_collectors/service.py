"""
Asks, again and again, for readings that nobody announces: of the process, of the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.application.internet import TimerService
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

_log = Logger(namespace="txmetrics_tcp")

Collector = Callable[[], object]
"""
Reads something, and records it.

It is called on the reactor thread: so it must not block, and take a few milliseconds at most.
"""


class CollectorService(TimerService):
    """
    Calls collectors: once when it starts, then every so many seconds.

    A collector that raises is called again all the same, since what failed may work later (or
    for another device); the log says so once.
    """

    def __init__(
        self, collectors: Mapping[str, Collector], interval: float, clock: IReactorTime
    ) -> None:
        """
        @param collectors: by what they read, in the words that the log will use.
        @param interval: seconds from one call to the next; more than 0.
        """
        super().__init__(interval, self._collect)
        self.clock = clock
        self._collectors = dict(collectors)
        self._complained: set[str] = set()

    def _collect(self) -> None:
        for what, collect in self._collectors.items():
            try:
                collect()
            except Exception as error:
                if what not in self._complained:
                    self._complained.add(what)
                    self._complain(what, error)

    def _complain(self, what: str, error: Exception) -> None:
        if isinstance(error, OSError | NotImplementedError):
            # Containers and unusual platforms lack one thing or another: no bug of ours.
            _log.warn("No metrics of the {what}: {error}", what=what, error=error)
        else:
            _log.failure("No metrics of the {what}, at least for now", what=what)
