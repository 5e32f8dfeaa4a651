"""
Periodic collection of metrics of the process and the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.application.internet import TimerService
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmetrics_tcp._net.failures import without_frames

_log = Logger(namespace="txmetrics_tcp")

Collector = Callable[[], object]
"""
A function that reads values and records them.

It is called on the reactor thread.  It must not block, and may take a few milliseconds at most.
"""


class PollingService(TimerService):
    """
    Calls collectors once when the service starts, and then at a regular interval.

    A collector that raises is called again at the next interval, since the failure may be temporary
    or concern one device only.  Only its first failure is logged.
    """

    def __init__(
        self, collectors: Mapping[str, Collector], interval: float, clock: IReactorTime
    ) -> None:
        """
        @param collectors: collectors by the names of their readings, which appear in log lines.
        @param interval: seconds between two calls; more than 0.
        """
        super().__init__(interval, self._collect)
        self.clock = clock
        self._collectors = dict(collectors)
        self._reported: set[str] = set()

    def _collect(self) -> None:
        for name, collect in self._collectors.items():
            try:
                collect()
            except Exception as error:
                if name not in self._reported:
                    self._reported.add(name)
                    self._log_failure(name, error)

    def _log_failure(self, name: str, error: Exception) -> None:
        if isinstance(error, OSError | NotImplementedError):
            # Containers and unusual platforms lack some readings, which is not a bug.
            _log.warn("Cannot collect metrics of the {name}: {error}", name=name, error=str(error))
        else:
            _log.failure(
                "Failed to collect metrics of the {name}; will keep trying",
                without_frames(Failure(error)),
                name=name,
            )
