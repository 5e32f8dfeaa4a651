"""
Programs that report to a collector, as processes that start before it, fork or end at once.
"""

from __future__ import annotations

import signal

from tests.programs import total
from tests.system.quick.test_reporting import ReportingTestCase


class ReportingTests(ReportingTestCase):
    def test_endsAtOnce(self) -> None:
        """The collector receives everything of processes that end at once."""
        self.collector.listen()
        script = """
            report(wait_at_exit=600)
            for _ in range(100):
                events.increment()
            """
        programs = [self.program(script) for _ in range(4)]
        counts = [self.events(self.collector.accept()) for _ in programs]
        self.assertEqual(counts, [100] * 4)
        for program in programs:
            self.ends(program)

    def test_programFirst(self) -> None:
        """A program that starts before the collector reports what it has recorded meanwhile."""
        program = self.program(
            """
            metrics = report()
            events.increment(5)
            say("recorded", 5)
            wait_for_client(metrics)
            events.increment(2)
            """
        )
        program.said("recorded")
        self.collector.listen()
        self.assertEqual(self.events(self.collector.accept()), 7)
        self.ends(program, errors=None)

    def test_collectorRestarted(self) -> None:
        """A restarted collector receives exact totals, of the time in between too."""
        program = self.program(
            """
            signal.signal(signal.SIGTERM, lambda *_: sys.exit())
            report(wait_at_exit=600)
            recorded = 0
            try:
                while True:
                    events.increment()
                    recorded += 1
                    if recorded % 100 == 0:
                        time.sleep(0.001)
            finally:
                say("recorded", recorded)
            """
        )
        self.collector.listen()
        stream = self.collector.accept()
        stream.read_until(lambda reader: total(reader, "events_total") > 1000)
        self.collector.close()
        stream.close()
        self.collector.listen()
        stream = self.collector.accept()
        stream.read_until(lambda reader: total(reader, "events_total") > 2000)
        program.process.send_signal(signal.SIGTERM)
        received = self.events(stream)
        self.assertEqual(received, int(program.said("recorded")))
        self.ends(program, errors=None)

    def test_fork(self) -> None:
        """A forked child neither uses nor ends the connection of its parent."""
        program = self.program(
            """
            metrics = report()
            wait_for_client(metrics)
            child = os.fork()
            if not child:
                events.increment(1000)
                sys.exit()
            os.waitpid(child, 0)
            events.increment(2)
            """
        )
        self.collector.listen()
        stream = self.collector.accept()
        self.assertEqual(self.events(stream), 2)
        self.ends(program, errors=None)
