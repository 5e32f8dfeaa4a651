"""
Programs that report to a collector, as processes.
"""

from __future__ import annotations

from tests.collecting import Collector
from tests.programs import Program, ProgramTestCase, Stream, total

REPORT = """
def report(**options):
    builder = TcpBuilder().report_to("unix:" + {path!r}, **options)
    return builder.flush_timeout(600).install_in_thread()
"""


class ReportingTestCase(ProgramTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.collector = Collector(self)

    def program(self, script: str) -> Program:
        indented = "\n".join(
            f"            {line}" for line in REPORT.format(path=self.collector.path).splitlines()
        )
        return Program(self, indented + script)

    def events(self, stream: Stream) -> float:
        return total(stream.read_all(), "events_total")


class ReportingTests(ReportingTestCase):
    def test_waitsAtExit(self) -> None:
        """A program whose collector starts after the program has ended waits for it."""
        program = self.program(
            """
            report(wait_at_exit=600)
            atexit.register(lambda: say("ending", 1))
            events.increment(9)
            """
        )
        program.said("ending")
        self.collector.listen()
        self.assertEqual(self.events(self.collector.accept()), 9)
        self.ends(program, errors=None)

    def test_collectorDown(self) -> None:
        """A program ends without its collector, after its time, and logs it twice in all."""
        program = self.program(
            """
            report(wait_at_exit=0.3)
            events.increment(9)
            """
        )
        _, _, errors = program.end()
        self.assertEqual(program.process.returncode, 0)
        lines = errors.splitlines()
        self.assertEqual(len(lines), 2, errors)
        self.assertIn("No connection to the collector unix:", lines[0])
        self.assertIn("Stopping without a connection to the collector unix:", lines[1])

    def test_forkedWorkers(self) -> None:
        """Each process of a pool reports by itself, if it installs after the fork."""
        program = self.program(
            """
            def work(number):
                report(wait_at_exit=600)
                for _ in range(100):
                    events.increment()

            import multiprocessing
            workers = [
                multiprocessing.get_context("fork").Process(target=work, args=(number,))
                for number in range(4)
            ]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
                say("status", worker.exitcode)
            """
        )
        self.collector.listen()
        counts = [self.events(self.collector.accept()) for _ in range(4)]
        self.assertEqual(counts, [100] * 4)
        self.assertEqual(self.ends(program, errors=None), "status=0\n" * 4)
