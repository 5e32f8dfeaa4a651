"""
Metrics of the process that we are: processor time, memory, files, threads, garbage collections.

Names are those of Prometheus' own client libraries, and so is their meaning.  One thing differs:
``process_cpu_seconds_total`` is a counter there, and here a gauge that only grows.  On the wire
counters are whole numbers, and a process that uses some hundredths of a second each second would
stand still for a minute and then leap; a gauge tells the fractions.
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
        "Processor time that the process has used, its own and the system's for it.",
    ),
    Metadata(
        _GAUGE,
        "process_resident_memory_bytes",
        Unit.BYTES,
        "Memory of the process that is in RAM.",
    ),
    Metadata(
        _GAUGE,
        "process_virtual_memory_bytes",
        Unit.BYTES,
        "Address space that the process has mapped.",
    ),
    Metadata(_GAUGE, "process_open_fds", Unit.COUNT, "File descriptors that are open."),
    Metadata(
        _GAUGE,
        "process_max_fds",
        Unit.COUNT,
        "File descriptors that the process may have open; infinite if there is no limit.",
    ),
    Metadata(_GAUGE, "process_threads", Unit.COUNT, "Threads of the process."),
    Metadata(
        _GAUGE,
        "process_start_time_seconds",
        Unit.SECONDS,
        "When the process started, in seconds since the epoch.",
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
        "Objects that the garbage collector has freed, by generation.",
    ),
    Metadata(
        _COUNTER,
        "python_gc_objects_uncollectable_total",
        Unit.COUNT,
        "Objects that the garbage collector could not free, by generation.",
    ),
    Metadata(_GAUGE, "python_info", Unit.COUNT, "Always 1; the labels say which Python this is."),
)


@dataclass(frozen=True, slots=True)
class ProcessReading:
    """
    What is known of the process at one moment; None for what cannot be read here.

    Each field goes to the gauge of that name.
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
    Read what can be read of the own process, wherever the system tells it: never raises.

    Linux tells it in ``/proc``; for other systems psutil, where that is installed, knows how to
    ask.  Without both, what is left is what Python itself can tell.
    """
    return (
        _read_proc()
        or _read_psutil()
        or ProcessReading(time.process_time(), process_max_fds=_max_fds())
    )


class ProcessCollector:
    """Records metrics of the process that it is called in, which may be a fork of its maker."""

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
        """Read, and record."""
        reading = self._read()
        for name in ProcessReading.__slots__:
            value = getattr(reading, name)
            if value is not None:
                self._recorder.gauge(name).set(value)
        self._info.set(1.0)
        for generation, stats in enumerate(gc.get_stats()):
            for what, number in stats.items():
                total = self._recorder.counter(_GC_TOTALS[what], generation=str(generation))
                total.absolute(number)


_GC_TOTALS = {
    "collections": "python_gc_collections_total",
    "collected": "python_gc_objects_collected_total",
    "uncollectable": "python_gc_objects_uncollectable_total",
}


def _read_proc() -> ProcessReading | None:
    try:
        with open("/proc/self/stat", "rb") as file:
            # The second field is the command in parentheses, and may itself hold both spaces
            # and parentheses.  What follows are fields 3 and up of proc_pid_stat(5).
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

        # Made each time: it is about the process that made it, and this one may fork.
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
        # Not installed, not permitted, not known on this platform.
        return None


@cache
def _boot_time() -> float | None:
    """When the machine started, in seconds since the epoch."""
    # Only once: on a machine with many processors this file is long.
    with suppress(OSError, ValueError), open("/proc/stat", "rb") as file:
        for line in file:
            if line.startswith(b"btime "):
                return float(line.split()[1])
    return None


def _open_fds() -> int | None:
    try:
        # One of them is the listing's own.
        return len(os.listdir("/proc/self/fd")) - 1
    except OSError:
        # It belongs to root where privileges were shed.
        return None


def _max_fds() -> float | None:
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    except (ImportError, AttributeError, OSError, ValueError):
        return None
    return float("inf") if limit == resource.RLIM_INFINITY else limit
