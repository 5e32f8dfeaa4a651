"""
Metrics of this process: processor time, memory, files, threads, garbage collections.

Names and meanings are those of Prometheus' client libraries, with one exception:
``process_cpu_seconds_total``, a counter there, is here a gauge that only increases.  On the wire,
counters are whole numbers, so the counter of a process with a load of two percent would change only
once a minute.  Gauges have fractions.
"""

from __future__ import annotations

import gc
import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

from txmetrics_tcp._instruments.recorder import Recorder
from txmetrics_tcp._model import Metadata, MetricKind, Unit

_COUNTER, _GAUGE = MetricKind.COUNTER, MetricKind.GAUGE

METADATA = (
    Metadata(
        _GAUGE,
        "process_cpu_seconds_total",
        Unit.SECONDS,
        "Processor time used by the process, user and system.",
    ),
    Metadata(
        _GAUGE,
        "process_resident_memory_bytes",
        Unit.BYTES,
        "Memory of the process in RAM.",
    ),
    Metadata(
        _GAUGE,
        "process_virtual_memory_bytes",
        Unit.BYTES,
        "Mapped address space of the process.",
    ),
    Metadata(_GAUGE, "process_open_fds", Unit.COUNT, "Number of open file descriptors."),
    Metadata(
        _GAUGE,
        "process_max_fds",
        Unit.COUNT,
        "Maximum number of open file descriptors; infinite if unlimited.",
    ),
    Metadata(_GAUGE, "process_threads", Unit.COUNT, "Number of threads of the process."),
    Metadata(
        _GAUGE,
        "process_start_time_seconds",
        Unit.SECONDS,
        "Start time of the process, in seconds since the epoch.",
    ),
    Metadata(
        _COUNTER,
        "python_gc_collections_total",
        Unit.COUNT,
        "Runs of the garbage collector, by generation.",
    ),
    Metadata(
        _COUNTER,
        "python_gc_objects_collected_total",
        Unit.COUNT,
        "Objects freed by the garbage collector, by generation.",
    ),
    Metadata(
        _COUNTER,
        "python_gc_objects_uncollectable_total",
        Unit.COUNT,
        "Objects that the garbage collector could not free, by generation.",
    ),
    Metadata(_GAUGE, "python_info", Unit.COUNT, "Always 1; the labels describe this Python."),
)


@dataclass(frozen=True, slots=True)
class ProcessReading:
    """
    Readings of the process at one moment; None for unavailable values.

    Each field is recorded as the gauge of the same name.
    """

    process_cpu_seconds_total: float | None = None
    process_resident_memory_bytes: int | None = None
    process_virtual_memory_bytes: int | None = None
    process_open_fds: int | None = None
    process_max_fds: float | None = None
    process_threads: int | None = None
    process_start_time_seconds: float | None = None


def read_process() -> ProcessReading:
    """
    Read the available values of this process.  Never raises.

    The values come from ``/proc`` on Linux; elsewhere from psutil, if it is installed; otherwise
    from the standard library, which provides only a few of them.
    """
    return (
        _read_proc()
        or _read_psutil()
        or ProcessReading(time.process_time(), process_max_fds=_max_fds())
    )


class ProcessCollector:
    """
    Records metrics of the process that calls it, which may be a fork of the process that created
    it.
    """

    def __init__(
        self, recorder: Recorder, read: Callable[[], ProcessReading] = read_process
    ) -> None:
        self._recorder = recorder
        self._read = read
        for metadata in METADATA:
            recorder.describe(metadata)
        major, minor, patchlevel = platform.python_version_tuple()
        self._info = recorder.gauge(
            "python_info",
            implementation=platform.python_implementation(),
            version=platform.python_version(),
            major=major,
            minor=minor,
            patchlevel=patchlevel,
        )

    def __call__(self) -> None:
        """Read and record the metrics."""
        reading = self._read()
        for name in ProcessReading.__slots__:
            value = getattr(reading, name)
            if value is not None:
                self._recorder.gauge(name).set(value)
        self._info.set(1.0)
        for generation, stats in enumerate(gc.get_stats()):
            for field, number in stats.items():
                total = self._recorder.counter(_GC_TOTALS[field], generation=str(generation))
                total.absolute(number)


_GC_TOTALS = {
    "collections": "python_gc_collections_total",
    "collected": "python_gc_objects_collected_total",
    "uncollectable": "python_gc_objects_uncollectable_total",
}


def _read_proc() -> ProcessReading | None:
    try:
        with open("/proc/self/stat", "rb") as file:
            # See proc_pid_stat(5).  Field 2 is the command in parentheses, which may itself contain
            # spaces and parentheses.  This list begins with field 3.
            fields = file.read().rpartition(b")")[2].split()
        threads, started, virtual, resident = (int(fields[n - 3]) for n in (20, 22, 23, 24))
        boot_time = _boot_time()
    except (OSError, ValueError, IndexError):
        return None
    return ProcessReading(
        process_cpu_seconds_total=time.process_time(),
        process_resident_memory_bytes=resident * os.sysconf("SC_PAGE_SIZE"),
        process_virtual_memory_bytes=virtual,
        process_open_fds=_open_fds(),
        process_max_fds=_max_fds(),
        process_threads=threads,
        process_start_time_seconds=(
            None if boot_time is None else boot_time + started / os.sysconf("SC_CLK_TCK")
        ),
    )


def _read_psutil() -> ProcessReading | None:
    try:
        import psutil

        # Not kept: after a fork, it would still refer to the parent.
        process = psutil.Process()
        with process.oneshot():
            memory = process.memory_info()
            return ProcessReading(
                process_cpu_seconds_total=time.process_time(),
                process_resident_memory_bytes=memory.rss,
                process_virtual_memory_bytes=memory.vms,
                process_open_fds=process.num_fds(),
                process_max_fds=_max_fds(),
                process_threads=process.num_threads(),
                process_start_time_seconds=process.create_time(),
            )
    except Exception:
        # psutil is not installed, not permitted, or does not support this platform.
        return None


@cache
def _boot_time() -> float | None:
    """Return the boot time of the machine, in seconds since the epoch."""
    # Cached, because reading this file is slow on a machine with many processors.
    with suppress(OSError, ValueError), open("/proc/stat", "rb") as file:
        for line in file:
            if line.startswith(b"btime "):
                return float(line.split()[1])
    return None


def _open_fds() -> int | None:
    try:
        # Does not count the descriptor that lists the directory.
        return len(os.listdir("/proc/self/fd")) - 1
    except OSError:
        # The directory belongs to root if the process has dropped its privileges.
        return None


def _max_fds() -> float | None:
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    except (ImportError, AttributeError, OSError, ValueError):
        return None
    return float("inf") if limit == resource.RLIM_INFINITY else limit
