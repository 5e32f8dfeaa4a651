"""
Metrics collected by the daemon: the process, the reactor and the machine, with fake readings.
"""

from __future__ import annotations

import gc
import math
import os
import threading
import time
from collections import namedtuple
from types import SimpleNamespace
from typing import Any
from unittest import skipIf

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests import needs
from tests.logs import log_lines
from tests.recorders import ListRecorder
from txmetrics_tcp import Key, Operation, Unit
from txmetrics_tcp._collectors import host, process
from txmetrics_tcp._collectors import service as service_module
from txmetrics_tcp._collectors.host import HostCollectors
from txmetrics_tcp._collectors.process import ProcessCollector, ProcessReading, read_process
from txmetrics_tcp._collectors.reactor_lag import (
    MAX_MISSED,
    MAX_PERIOD,
    MIN_PERIOD,
    SAMPLES,
    LagService,
)
from txmetrics_tcp._collectors.service import PollingService

SET = {"counter": Operation.SET_COUNTER, "gauge": Operation.SET_GAUGE}


class KeyRecorder(ListRecorder):
    """A recorder that returns recorded operations with keys, rather than as text."""

    def take_keys(self) -> list[tuple[Key, Operation | None, Any]]:
        """Return the operations recorded since the last call."""
        taken = [(series.key, operation, value) for series, operation, value, _ in self.entries]
        self.entries.clear()
        return taken

    def take_set(self) -> dict[str, Any]:
        """Return the values set since the last call, by series as text."""
        values = {}
        for key, operation, value in self.take_keys():
            assert operation is SET[key.kind.value], (key, operation)
            values[str(key)] = value
        return values


class CollectorTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.recorder = KeyRecorder()

    def assert_described(self) -> None:
        """Assert that all recorded metrics are described, with a unit."""
        described = {
            (metadata.kind, metadata.name): metadata for metadata in self.recorder.described
        }
        for key, _, _ in self.recorder.take_keys():
            metadata = described[key.kind, key.name]
            self.assertIsInstance(metadata.unit, Unit, metadata)
            self.assertTrue(metadata.description.endswith("."), metadata)


class CollectorServiceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.calls: list[tuple[str, float]] = []
        self.logged = log_lines(self, service_module)

    def called(self, name: str) -> None:
        self.calls.append((name, self.clock.seconds()))

    def test_interval(self) -> None:
        """Metrics are collected at the start, and then at every interval until the end."""
        service = PollingService({"a": lambda: self.called("a")}, 2.5, self.clock)
        self.assertEqual(self.calls, [])
        service.startService()
        self.assertTrue(service.running)
        self.assertEqual(self.calls, [("a", 0.0)])
        self.clock.pump([0.5] * 10)
        self.assertEqual(self.calls, [("a", 0.0), ("a", 2.5), ("a", 5.0)])
        self.successResultOf(service.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertFalse(service.running)

    def test_starts_again(self) -> None:
        service = PollingService({"a": lambda: self.called("a")}, 1.0, self.clock)
        for _ in range(2):
            service.startService()
            self.successResultOf(service.stopService())
        self.assertEqual(len(self.calls), 2)

    def test_slow_reactor(self) -> None:
        """Collections missed by a blocked reactor are skipped."""
        service = PollingService({"a": lambda: self.called("a")}, 1.0, self.clock)
        service.startService()
        self.clock.advance(10.5)
        self.clock.advance(0.5)
        self.assertEqual([when for _, when in self.calls], [0.0, 10.5, 11.0])

    def test_unreadable(self) -> None:
        """A failure is logged once, and does not affect other collectors."""
        attempts: list[float] = []

        def unreadable() -> None:
            attempts.append(self.clock.seconds())
            raise PermissionError(13, "Permission denied", "/proc/diskstats")

        collectors = {"disks": unreadable, "a": lambda: self.called("a")}
        PollingService(collectors, 1.0, self.clock).startService()
        self.clock.pump([1.0] * 3)
        self.assertEqual(len(attempts), 4)
        self.assertEqual(len(self.calls), 4)
        [line] = self.logged
        self.assertIn("disks", line)
        self.assertIn("/proc/diskstats", line)

    def test_broken(self) -> None:
        """An unexpected exception is logged once per collector."""

        def broken() -> None:
            raise ZeroDivisionError

        PollingService({"disks": broken, "load": broken}, 1.0, self.clock).startService()
        self.clock.pump([1.0] * 3)
        self.assertEqual(len(self.logged), 2)
        self.assertIn("disks", self.logged[0])
        self.assertIn("load", self.logged[1])


PERIOD = 0.25
"""Seconds between two samples of the lag.  Its multiples are exact floats."""


class LagTests(CollectorTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        # A monotonic clock has another epoch than the reactor's clock.
        self.offset = 1000.0

    def service(self, interval: float = PERIOD * SAMPLES) -> LagService:
        service = LagService(
            self.recorder,
            interval,
            self.clock,
            monotonic=lambda: self.clock.seconds() + self.offset,
        )
        service.startService()
        return service

    def take(self) -> list[float]:
        return [value for _, _, value in self.recorder.take_keys()]

    def test_in_time(self) -> None:
        self.service()
        self.clock.pump([PERIOD / 2] * 8)
        self.assertEqual(self.take(), [0.0] * 4)

    def test_late(self) -> None:
        """A late call does not delay the next ones."""
        self.service()
        self.clock.pump([PERIOD + 0.125, PERIOD, PERIOD - 0.125])
        self.assertEqual(self.take(), [0.125, 0.125, 0.0])

    def test_missed(self) -> None:
        """A delay of several periods is recorded for each missed call."""
        self.service()
        self.clock.advance(3 * PERIOD + 0.125)
        self.assertEqual(self.take(), [2 * PERIOD + 0.125, PERIOD + 0.125, 0.125])
        self.clock.advance(PERIOD - 0.125)
        self.assertEqual(self.take(), [0.0])

    def test_limit(self) -> None:
        """The number of samples for one delay is limited, for example after a suspend."""
        self.service()
        self.clock.advance(40_000.0)
        samples = self.take()
        self.assertEqual(len(samples), MAX_MISSED)
        self.assertEqual(max(samples), 40_000.0 - PERIOD)
        self.clock.advance(PERIOD)
        self.assertEqual(len(self.take()), 1)

    def test_early(self) -> None:
        """A call that is early, since the time of day was set forward, has no lag."""
        self.service()
        self.offset -= 0.125
        self.clock.advance(PERIOD)
        self.assertEqual(self.take(), [0.0])
        self.clock.advance(PERIOD + 0.125)
        self.assertEqual(self.take(), [0.0])

    def test_periods(self) -> None:
        for interval, period in ((0.001, MIN_PERIOD), (2.0, 2.0 / SAMPLES), (3600, MAX_PERIOD)):
            service = self.service(interval)
            [call] = self.clock.getDelayedCalls()
            self.assertAlmostEqual(call.getTime() - self.clock.seconds(), period)
            service.stopService()

    def test_stop(self) -> None:
        service = self.service()
        self.clock.advance(PERIOD)
        service.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertFalse(service.running)
        service.stopService()

    def test_nothing_before_start(self) -> None:
        LagService(self.recorder, 1.0, self.clock)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_described(self) -> None:
        self.service()
        self.clock.advance(PERIOD)
        self.assert_described()


class ProcessTests(CollectorTestCase):
    def test_reading(self) -> None:
        """Each field is recorded as the gauge of the same name."""
        reading = ProcessReading(
            process_cpu_seconds_total=1.25,
            process_resident_memory_bytes=4096,
            process_max_fds=math.inf,
        )
        ProcessCollector(self.recorder, lambda: reading)()
        values = self.recorder.take_set()
        self.assertEqual(
            {name: value for name, value in values.items() if name.startswith("process")},
            {
                "process_cpu_seconds_total": 1.25,
                "process_resident_memory_bytes": 4096.0,
                "process_max_fds": math.inf,
            },
        )

    def test_garbage(self) -> None:
        """Counters are set to the totals of each generation."""
        collector = ProcessCollector(self.recorder, ProcessReading)
        gc.collect()
        collector()
        before = self.recorder.take_set()
        gc.collect()
        collector()
        after = self.recorder.take_set()
        name = "python_gc_collections_total [generation = 2]"
        self.assertEqual(after[name], before[name] + 1)
        for generation in range(3):
            for field in ("objects_collected", "objects_uncollectable"):
                self.assertIn(f"python_gc_{field}_total [generation = {generation}]", after)

    def test_info(self) -> None:
        ProcessCollector(self.recorder, ProcessReading)()
        [info] = [key for key, _, _ in self.recorder.take_keys() if key.name == "python_info"]
        self.assertEqual(dict(info.labels)["version"].split(".")[0], "3")

    def test_described(self) -> None:
        ProcessCollector(self.recorder)()
        self.assert_described()


class ReadProcessTests(SynchronousTestCase):
    """Readings of the test process are plausible."""

    def check_full(self, reading: ProcessReading | None) -> None:
        assert reading is not None
        now = time.time()
        assert reading.process_cpu_seconds_total is not None
        assert reading.process_resident_memory_bytes is not None
        assert reading.process_virtual_memory_bytes is not None
        assert reading.process_start_time_seconds is not None
        assert reading.process_open_fds is not None
        assert reading.process_max_fds is not None
        assert reading.process_threads is not None
        self.assertGreater(reading.process_cpu_seconds_total, 0.01)
        self.assertGreater(reading.process_resident_memory_bytes, 1_000_000)
        self.assertGreater(
            reading.process_virtual_memory_bytes, reading.process_resident_memory_bytes
        )
        self.assertGreater(reading.process_open_fds, 2)
        self.assertGreaterEqual(reading.process_max_fds, reading.process_open_fds)
        self.assertGreaterEqual(reading.process_threads, threading.active_count())
        self.assertLess(reading.process_start_time_seconds, now + 1)
        self.assertGreater(reading.process_start_time_seconds, now - 24 * 3600)

    def test_proc(self) -> None:
        if not os.path.exists("/proc/self/stat"):
            self.skipTest("needs /proc/self/stat")
        self.check_full(process._read_proc())

    @skipIf(needs("psutil"), needs("psutil"))
    def test_psutil(self) -> None:
        self.check_full(process._read_psutil())

    def test_open_files(self) -> None:
        """The descriptor used to list the descriptors is not counted."""
        before = read_process().process_open_fds
        if before is None:
            self.skipTest("not available on this system")
        with open(os.devnull):
            self.assertEqual(read_process().process_open_fds, before + 1)

    def test_nothing_to_read(self) -> None:
        """Without /proc and psutil, the values of the standard library are returned."""
        self.patch(process, "_read_proc", lambda: None)
        self.patch(process, "_read_psutil", lambda: None)
        reading = read_process()
        assert reading.process_cpu_seconds_total is not None
        self.assertGreater(reading.process_cpu_seconds_total, 0)
        self.assertIsNone(reading.process_resident_memory_bytes)


CPU = namedtuple("CPU", "user nice system idle iowait guest guest_nice")
Memory = namedtuple("Memory", "total available percent used free")
Swap = namedtuple("Swap", "total used free percent sin sout")
Disk = namedtuple("Disk", "read_count write_count read_bytes write_bytes busy_time")
Usage = namedtuple("Usage", "total used free percent")
Net = namedtuple(
    "Net", "bytes_sent bytes_recv packets_sent packets_recv errin errout dropin dropout"
)


class HostTests(CollectorTestCase):
    def collectors(self, **functions: Any) -> HostCollectors:
        """Return collectors with a fake psutil."""
        return HostCollectors(self.recorder, SimpleNamespace(**functions))

    def test_processors(self) -> None:
        times = [
            CPU(10.0, 1.0, 5.0, 80.0, 4.0, 2.0, 0.5),
            CPU(12.0, 1.0, 6.0, 85.0, 6.0, 3.0, 0.5),
        ]
        collectors = self.collectors(cpu_times=lambda: times.pop(0), cpu_count=lambda: 4)
        collectors.processors()
        self.assertEqual(
            self.recorder.take_set(),
            {
                # "user" and "nice" include the time of guests.
                "host_cpu_seconds_total [mode = user]": 10.0,
                "host_cpu_seconds_total [mode = nice]": 1.0,
                "host_cpu_seconds_total [mode = system]": 5.0,
                "host_cpu_seconds_total [mode = idle]": 80.0,
                "host_cpu_seconds_total [mode = iowait]": 4.0,
                "host_cpus": 4.0,
            },
        )
        collectors.processors()
        # 3 of 10 seconds were busy.
        self.assertAlmostEqual(self.recorder.take_set()["host_cpu_usage_percent"], 30.0)

    def test_usage_stays_within_bounds(self) -> None:
        """Usage stays between 0 and 100 even if the kernel's figures decrease."""
        times = [
            CPU(10.0, 0.0, 5.0, 80.0, 9.0, 0.0, 0.0),
            CPU(10.0, 0.0, 5.0, 80.0, 9.0, 0.0, 0.0),
            CPU(10.0, 0.0, 4.9, 90.0, 9.0, 0.0, 0.0),
            CPU(20.0, 0.0, 4.9, 90.0, 8.0, 0.0, 0.0),
        ]
        usage = []
        collectors = self.collectors(cpu_times=lambda: times.pop(0), cpu_count=lambda: None)
        for _ in range(4):
            collectors.processors()
            usage.append(self.recorder.take_set().get("host_cpu_usage_percent"))
        self.assertEqual(usage, [None, None, 0.0, 100.0])

    def test_load(self) -> None:
        self.collectors(getloadavg=lambda: (0.5, 0.25, 0.125)).load()
        self.assertEqual(
            self.recorder.take_set(),
            {"host_load1": 0.5, "host_load5": 0.25, "host_load15": 0.125},
        )

    def test_memory(self) -> None:
        """Fields that the platform lacks are not recorded."""
        self.collectors(virtual_memory=lambda: Memory(100, 70, 30.0, 20, 50)).memory()
        self.assertEqual(
            self.recorder.take_set(),
            {
                "host_memory_total_bytes": 100.0,
                "host_memory_available_bytes": 70.0,
                "host_memory_used_bytes": 20.0,
                "host_memory_free_bytes": 50.0,
            },
        )

    def test_swap(self) -> None:
        self.collectors(swap_memory=lambda: Swap(100, 30, 70, 30.0, 5, 2**40)).swap()
        self.assertEqual(
            self.recorder.take_set(),
            {
                "host_swap_total_bytes": 100.0,
                "host_swap_used_bytes": 30.0,
                "host_swap_free_bytes": 70.0,
                "host_swap_in_bytes_total": 5,
                "host_swap_out_bytes_total": 2**40,
            },
        )

    def test_disks(self) -> None:
        self.collectors(
            disk_io_counters=lambda perdisk: {"sda": Disk(1, 2, 2**40, 4, 1500)}
        ).disks()
        self.assertEqual(
            self.recorder.take_set(),
            {
                "host_disk_reads_completed_total [device = sda]": 1,
                "host_disk_writes_completed_total [device = sda]": 2,
                "host_disk_read_bytes_total [device = sda]": 2**40,
                "host_disk_written_bytes_total [device = sda]": 4,
                "host_disk_io_time_seconds_total [device = sda]": 1.5,
            },
        )

    def test_only_disks(self) -> None:
        """Partitions and block devices that are not disks are left out."""
        disks = {"sda", "sdaa", "vdb", "xvda", "nvme0n1", "mmcblk0", "dm-0", "md127", "disk0"}
        others = {"sda1", "sdaa12", "vdb1", "xvda1", "nvme0n1p2", "mmcblk0p1", "loop7", "ram0"}
        others |= {"zram0", "fd0", "sr0"}
        accounts = Disk(0, 0, 0, 0, 0)
        self.collectors(
            disk_io_counters=lambda perdisk: dict.fromkeys(disks | others, accounts)
        ).disks()
        self.assertEqual(
            {dict(key.labels)["device"] for key, _, _ in self.recorder.take_keys()}, disks
        )

    def test_no_disk(self) -> None:
        self.collectors(disk_io_counters=lambda perdisk: None).disks()
        self.assertEqual(self.recorder.take_keys(), [])

    def test_filesystem(self) -> None:
        """Only the root file system is read, since reading others may block."""
        asked = []

        def disk_usage(path: str) -> Usage:
            asked.append(path)
            return Usage(100, 60, 30, 66.7)

        self.collectors(disk_usage=disk_usage).filesystem()
        root = os.path.abspath(os.sep)
        self.assertEqual(asked, [root])
        self.assertEqual(
            self.recorder.take_set(),
            {
                f"host_filesystem_size_bytes [mountpoint = {root}]": 100.0,
                f"host_filesystem_used_bytes [mountpoint = {root}]": 60.0,
                f"host_filesystem_avail_bytes [mountpoint = {root}]": 30.0,
            },
        )

    def test_network(self) -> None:
        self.collectors(
            net_io_counters=lambda pernic: {"lo": Net(1, 2, 3, 4, 5, 6, 7, 8)}
        ).network()
        self.assertEqual(
            self.recorder.take_set(),
            {
                "host_network_transmit_bytes_total [device = lo]": 1,
                "host_network_receive_bytes_total [device = lo]": 2,
                "host_network_transmit_packets_total [device = lo]": 3,
                "host_network_receive_packets_total [device = lo]": 4,
                "host_network_receive_errs_total [device = lo]": 5,
                "host_network_transmit_errs_total [device = lo]": 6,
                "host_network_receive_drop_total [device = lo]": 7,
                "host_network_transmit_drop_total [device = lo]": 8,
            },
        )

    @skipIf(needs("psutil"), needs("psutil"))
    def test_this_machine(self) -> None:
        """Readings of the real psutil can be recorded, and are described."""
        import psutil

        for collect in HostCollectors(self.recorder, psutil).all().values():
            try:
                collect()
            except (OSError, NotImplementedError):
                # Not available on this machine.
                continue
            self.assert_described()


class NameTests(SynchronousTestCase):
    """Names follow the conventions of Prometheus."""

    def test_names(self) -> None:
        every = [*process.METADATA, *host.METADATA]
        names = [metadata.name for metadata in every]
        self.assertEqual(len(names), len(set(names)))
        for metadata in every:
            self.assertRegex(metadata.name, r"\A[a-z][a-z0-9_]*\Z")
            if metadata.kind.value == "counter":
                self.assertTrue(metadata.name.endswith("_total"), metadata)
            if metadata.unit in (Unit.BYTES, Unit.SECONDS):
                base = metadata.name.removesuffix("_total")
                self.assertTrue(base.endswith(f"_{metadata.unit}"), metadata)
