"""
Metrics of the machine: processors, memory, disks, network, load.

Names follow Prometheus' node exporter, with the prefix ``host`` instead of ``node``.  As in
`txmetrics_tcp._collectors.process`, totals of seconds are gauges, although they only increase.

All readings come from kernel statistics, take microseconds, and never wait for a device.  Therefore
only the root file system is read: reading the size of another file system may block the reactor
indefinitely, if the server of that file system is down or its disk is failing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from txmetrics_tcp._collectors.service import Collector
from txmetrics_tcp._instruments.recorder import Recorder
from txmetrics_tcp._model import Metadata, MetricKind, Unit


def _gauge(name: str, unit: Unit, description: str) -> Metadata:
    return Metadata(MetricKind.GAUGE, name, unit, description)


def _counter(name: str, unit: Unit, description: str) -> Metadata:
    return Metadata(MetricKind.COUNTER, name, unit, description)


_CPU_SECONDS = _gauge(
    "host_cpu_seconds_total", Unit.SECONDS, "Total time of all processors, by mode."
)
_CPU_USAGE = _gauge(
    "host_cpu_usage_percent", Unit.PERCENT, "Processor usage during the last interval."
)
_CPUS = _gauge("host_cpus", Unit.COUNT, "Number of logical processors.")
_LOADS = (
    _gauge("host_load1", Unit.COUNT, "Load average over one minute."),
    _gauge("host_load5", Unit.COUNT, "Load average over five minutes."),
    _gauge("host_load15", Unit.COUNT, "Load average over fifteen minutes."),
)
_DISK_BUSY = _gauge(
    "host_disk_io_time_seconds_total", Unit.SECONDS, "Time the disk was busy with I/O, by device."
)

# Metadata by field of psutil's named tuples.  Not every platform has every field.

_MEMORY = {
    "total": _gauge("host_memory_total_bytes", Unit.BYTES, "Total memory."),
    "available": _gauge(
        "host_memory_available_bytes", Unit.BYTES, "Memory available to programs without swapping."
    ),
    "used": _gauge("host_memory_used_bytes", Unit.BYTES, "Memory used by programs and the system."),
    "free": _gauge("host_memory_free_bytes", Unit.BYTES, "Unused memory."),
    "buffers": _gauge(
        "host_memory_buffers_bytes", Unit.BYTES, "Memory used to cache file system metadata."
    ),
    "cached": _gauge("host_memory_cached_bytes", Unit.BYTES, "Memory used to cache files."),
}

_SWAP = {
    "total": _gauge("host_swap_total_bytes", Unit.BYTES, "Total swap space."),
    "used": _gauge("host_swap_used_bytes", Unit.BYTES, "Used swap space."),
    "free": _gauge("host_swap_free_bytes", Unit.BYTES, "Unused swap space."),
    "sin": _counter("host_swap_in_bytes_total", Unit.BYTES, "Bytes swapped in from disk."),
    "sout": _counter("host_swap_out_bytes_total", Unit.BYTES, "Bytes swapped out to disk."),
}

_DISK = {
    "read_bytes": _counter(
        "host_disk_read_bytes_total", Unit.BYTES, "Bytes read from the disk, by device."
    ),
    "write_bytes": _counter(
        "host_disk_written_bytes_total", Unit.BYTES, "Bytes written to the disk, by device."
    ),
    "read_count": _counter(
        "host_disk_reads_completed_total", Unit.COUNT, "Reads from the disk, by device."
    ),
    "write_count": _counter(
        "host_disk_writes_completed_total", Unit.COUNT, "Writes to the disk, by device."
    ),
}

_FILESYSTEM = {
    "total": _gauge(
        "host_filesystem_size_bytes", Unit.BYTES, "Size of the file system, by mount point."
    ),
    "used": _gauge(
        "host_filesystem_used_bytes", Unit.BYTES, "Used space of the file system, by mount point."
    ),
    "free": _gauge(
        "host_filesystem_avail_bytes",
        Unit.BYTES,
        "Space of the file system available to ordinary users, by mount point.",
    ),
}

_NETWORK = {
    "bytes_recv": _counter(
        "host_network_receive_bytes_total", Unit.BYTES, "Bytes received, by network interface."
    ),
    "bytes_sent": _counter(
        "host_network_transmit_bytes_total", Unit.BYTES, "Bytes sent, by network interface."
    ),
    "packets_recv": _counter(
        "host_network_receive_packets_total", Unit.COUNT, "Packets received, by network interface."
    ),
    "packets_sent": _counter(
        "host_network_transmit_packets_total", Unit.COUNT, "Packets sent, by network interface."
    ),
    "errin": _counter(
        "host_network_receive_errs_total", Unit.COUNT, "Receive errors, by network interface."
    ),
    "errout": _counter(
        "host_network_transmit_errs_total", Unit.COUNT, "Transmit errors, by network interface."
    ),
    "dropin": _counter(
        "host_network_receive_drop_total",
        Unit.COUNT,
        "Incoming packets dropped, by network interface.",
    ),
    "dropout": _counter(
        "host_network_transmit_drop_total",
        Unit.COUNT,
        "Outgoing packets dropped, by network interface.",
    ),
}


METADATA = (
    *(_CPU_SECONDS, _CPU_USAGE, _CPUS, *_LOADS, _DISK_BUSY),
    *(one for fields in (_MEMORY, _SWAP, _DISK, _FILESYSTEM, _NETWORK) for one in fields.values()),
)

_ROOT = os.path.abspath(os.sep)

# Linux includes these in "user" and "nice".
_COUNTED_TWICE = {"guest", "guest_nice"}

_IDLE = {"idle", "iowait"}

# Linux also lists partitions, and block devices that are not disks.
_NOT_A_DISK = re.compile(r"(z?ram|loop|fd|sr|(h|s|v|xv)d[a-z]+|(nvme\d+n|mmcblk)\d+p)\d+")


class HostCollectors:
    """
    Reads statistics of the machine with psutil, and records them.

    Each group of metrics has its own collector, so that a group that a platform lacks does not
    affect the others.
    """

    def __init__(self, recorder: Recorder, psutil: Any) -> None:
        """
        @param psutil: the module psutil, an optional dependency.
        """
        self._recorder = recorder
        self._psutil = psutil
        # Total and busy processor time at the last call, in seconds.
        self._spent: tuple[float, float] | None = None
        for metadata in METADATA:
            recorder.describe(metadata)

    def all(self) -> Mapping[str, Collector]:
        """Return the collectors by the names of their readings."""
        return {
            "processors": self.processors,
            "load": self.load,
            "memory": self.memory,
            "swap": self.swap,
            "disks": self.disks,
            "file system": self.filesystem,
            "network": self.network,
        }

    def processors(self) -> None:
        times = self._psutil.cpu_times()._asdict()
        modes = {mode: spent for mode, spent in times.items() if mode not in _COUNTED_TWICE}
        for mode, spent in modes.items():
            self._set(_CPU_SECONDS, spent, mode=mode)
        total = sum(modes.values())
        busy = total - sum(modes.get(mode, 0.0) for mode in _IDLE)
        if self._spent is not None:
            total_before, busy_before = self._spent
            if total > total_before:
                # The kernel sometimes corrects its figures, so they may decrease.
                share = (busy - busy_before) / (total - total_before)
                self._set(_CPU_USAGE, 100.0 * min(max(share, 0.0), 1.0))
        self._spent = total, busy
        self._set(_CPUS, self._psutil.cpu_count())

    def load(self) -> None:
        for metadata, load in zip(_LOADS, self._psutil.getloadavg(), strict=True):
            self._set(metadata, load)

    def memory(self) -> None:
        self._set_all(_MEMORY, self._psutil.virtual_memory())

    def swap(self) -> None:
        self._set_all(_SWAP, self._psutil.swap_memory())

    def disks(self) -> None:
        # psutil returns None on a machine without disks.
        for device, accounts in (self._psutil.disk_io_counters(perdisk=True) or {}).items():
            if _NOT_A_DISK.fullmatch(device):
                continue
            self._set_all(_DISK, accounts, device=device)
            busy_ms = getattr(accounts, "busy_time", None)
            if busy_ms is not None:
                self._set(_DISK_BUSY, busy_ms / 1000, device=device)

    def filesystem(self) -> None:
        self._set_all(_FILESYSTEM, self._psutil.disk_usage(_ROOT), mountpoint=_ROOT)

    def network(self) -> None:
        for device, accounts in self._psutil.net_io_counters(pernic=True).items():
            self._set_all(_NETWORK, accounts, device=device)

    def _set_all(self, fields: Mapping[str, Metadata], accounts: Any, **labels: str) -> None:
        for field, metadata in fields.items():
            self._set(metadata, getattr(accounts, field, None), **labels)

    def _set(self, metadata: Metadata, value: Any, **labels: str) -> None:
        if value is None:
            return
        # Handles are not kept: devices come and go, and the recorder has its own bounded cache.
        if metadata.kind is MetricKind.COUNTER:
            self._recorder.counter(metadata.name, **labels).absolute(value)
        else:
            self._recorder.gauge(metadata.name, **labels).set(value)
