"""
Concurrent threads and connections, in larger numbers than in unit tests.
"""

from __future__ import annotations

import os
import socket
import threading
from unittest import skipIf

from twisted.internet.task import deferLater

from tests import DESCRIPTORS, no_descriptors
from tests.daemon import LIMIT
from tests.loopback import LoopbackTestCase, Numbers, Pace, reactor, record_numbers
from tests.recorders import GlobalRecorderTestCase
from txmetrics_tcp import Counter, counter, set_global_recorder
from txmetrics_tcp._instruments import facade


class RecorderTests(GlobalRecorderTestCase):
    def test_handlesWhileInstalling(self) -> None:
        """Every handle, made at any time, records to the last installed recorder."""
        stop = threading.Event()
        made: list[list[Counter]] = [[], []]

        def make(handles: list[Counter]) -> None:
            while not handles or (not stop.is_set() and len(handles) < 20_000):
                handles.append(counter("c", i=len(handles), t=id(handles)))

        threads = [threading.Thread(target=make, args=(handles,)) for handles in made]
        for thread in threads:
            thread.start()
        for _ in range(20):
            set_global_recorder(self.recorder)
            facade.unset_global_recorder(self.recorder)
        set_global_recorder(self.recorder)
        stop.set()
        for thread in threads:
            thread.join()
        self.assertTrue(all(made))
        self.assertEqual(
            {handle._series.sink for handles in made for handle in handles}, {self.recorder.sink}
        )

    def test_oneSeries(self) -> None:
        """Threads that request the same series at the same time get handles of one series."""
        barrier = threading.Barrier(4)
        found: list[Counter] = []

        def ask() -> None:
            barrier.wait(LIMIT)
            for i in range(200):
                found.append(self.recorder.counter("c", i=i))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(found), 800)
        self.assertEqual(len({id(handle._series) for handle in found}), 200)


class AdmissionTests(LoopbackTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.logged = self.log_rejections()

    @skipIf(no_descriptors, no_descriptors)
    async def test_manyConnections(self) -> None:
        """
        Thousands of connections arrive at once, most of them over the limit: a client that reads
        receives every event, few lines are logged, and no descriptor leaks.
        """
        events, threads = 60_000, 2
        factory = await self.exporter(max_clients=20)
        client = await self.connect()
        before = len(os.listdir(DESCRIPTORS))
        pace = Pace(threads, 1024)
        numbers = Numbers(threads, pace)
        reading = self.in_thread(numbers.read, client.socket, events)
        recording = self.all_in_threads(
            lambda thread: record_numbers(factory.recorder, thread, events // threads, pace.record),
            threads,
        )
        port = self.address.port  # type: ignore[attr-defined]

        def come_and_go() -> None:
            crowd = []
            for _ in range(3000):
                # The exporter may close the connection before `connect_ex` returns.
                one = socket.socket()
                one.connect_ex(("127.0.0.1", port))
                crowd.append(one)
                if len(crowd) == 60:
                    for one in crowd:
                        one.close()
                    crowd.clear()

        await self.in_thread(come_and_go)
        await recording
        await reading
        await factory.clients(1)
        # Transports are closed in the following reactor iterations.
        while len(os.listdir(DESCRIPTORS)) > before:
            await deferLater(reactor, 0.01, lambda: None)
        self.assertEqual((numbers.total, factory.stats().dropped_incoming), (events, 0))
        self.assertEqual(len(factory._present), 1)
        # Short-lived clients may also lose events, which is logged.
        rejections = [line for line in self.logged if line.startswith("Rejected")]
        self.assertLess(len(rejections), 10)
