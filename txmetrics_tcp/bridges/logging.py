"""
Counts the records of Python's `logging`::

    logging.getLogger().addHandler(CountingHandler())
"""

from __future__ import annotations

import logging

from txmetrics_tcp._checks import at_least
from txmetrics_tcp._instruments.recorder import Recorder
from txmetrics_tcp._model import Metadata, MetricKind, Unit
from txmetrics_tcp.bridges._log_counts import MAX_NAMES, OTHER, LogCounts

__all__ = ["MAX_NAMES", "CountingHandler"]

METADATA = Metadata(
    MetricKind.COUNTER,
    "python_log_records_total",
    Unit.COUNT,
    "Records of Python's logging, by level and logger.",
)

_LEVELS = {
    logging.DEBUG: "debug",
    logging.INFO: "info",
    logging.WARNING: "warning",
    logging.ERROR: "error",
    logging.CRITICAL: "critical",
}


class CountingHandler(logging.Handler):
    """
    A handler that counts log records by level and by the name of the logger, and writes nothing.

    The counter is ``python_log_records_total{level,logger}``.  Levels of one's own have the label
    C{other}, and so has each logger after the first C{max_loggers}.  The records of this library
    are not counted.  Thread-safe; takes no lock, and never raises an exception into the program.

    Configure `logging` before adding this handler: without any other handler, Python would write
    warnings to the standard error, and no longer does so if it finds this one.
    """

    def __init__(
        self,
        level: int | str = logging.NOTSET,
        recorder: Recorder | None = None,
        *,
        max_loggers: int = MAX_NAMES,
    ) -> None:
        """
        @param level: the lowest level that is counted.
        @param recorder: the recorder; by default, the global one, also if it is installed later.
        @param max_loggers: the maximum number of loggers with series of their own; 0 or more.
        @raise TypeError: an argument is of the wrong type.
        @raise ValueError: C{level} is unknown, or C{max_loggers} is negative.
        """
        super().__init__(level)
        maximum = at_least(0, "max_loggers", max_loggers)
        self._counts = LogCounts(recorder, METADATA, "logger", maximum)

    def handle(self, record: logging.LogRecord) -> bool:
        """Count a record unless a filter rejects it.  Acquires no lock."""
        is_accepted = bool(self.filter(record))
        if is_accepted:
            self.emit(record)
        return is_accepted

    def emit(self, record: logging.LogRecord) -> None:
        """Count a record."""
        self._counts.count(_LEVELS.get(record.levelno, OTHER), record.name)
