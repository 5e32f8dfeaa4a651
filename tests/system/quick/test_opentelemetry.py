"""
The bridge from OpenTelemetry in processes with threads and forks, and its example.
"""

from __future__ import annotations

import os
import signal
import sys

from tests.daemon import Daemon
from tests.programs import EXAMPLES, PREAMBLE, Program, ProgramTestCase, Stream, total

POLLED = (
    PREAMBLE
    + """
from opentelemetry.metrics import Observation, get_meter_provider, set_meter_provider
from txmetrics_tcp.bridges.opentelemetry import StreamingMeterProvider

set_meter_provider(StreamingMeterProvider(interval=0.01))
meter = get_meter_provider().get_meter("m")
counted = meter.create_counter("counted")
meter.create_observable_gauge("pid", [lambda _: [Observation(os.getpid())]])
"""
)


class ProcessTests(ProgramTestCase):
    def test_polled(self) -> None:
        """A thread polls observable instruments, and does not delay the end."""
        program = Program(
            self,
            """
            metrics = start()
            wait_for_client(metrics)
            signal.sigwait([signal.SIGTERM])
            counted.add(7)
            """,
            "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])" + POLLED,
        )
        stream = Stream(self, program.port)
        pid = program.process.pid
        stream.read_until(lambda reader: reader.values("pid").count(pid) >= 3)
        program.process.send_signal(signal.SIGTERM)
        self.ends(program)
        self.assertEqual(total(stream.read_all(), "counted"), 7)

    def test_forked(self) -> None:
        """In the child after a fork, a thread polls observable instruments again."""
        program = Program(
            self,
            """
            import warnings

            warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads
            counted.add(1)
            if child := os.fork():
                sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            say("child", os.getpid())
            with start() as metrics:
                counted.add(2)
                wait_for_client(metrics)
                signal.sigwait([signal.SIGTERM])
            """,
            "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])" + POLLED,
        )
        stream = Stream(self, program.port)
        child = int(program.said("child"))
        reader = stream.read_until(lambda reader: reader.values("pid").count(child) >= 3)
        self.assertEqual(set(reader.values("pid")), {child})
        self.assertEqual(total(reader, "counted"), 2)
        os.kill(child, signal.SIGTERM)
        self.ends(program)

    def test_example(self) -> None:
        example = Daemon(
            self,
            str(EXAMPLES / "opentelemetry_app.py"),
            "0",
            runner=["env", "OTEL_PYTHON_METER_PROVIDER=txmetrics", sys.executable, "-u"],
        )
        stream = Stream(self, example.port)
        reader = stream.read_until(
            lambda reader: (
                total(reader, "shop.orders", kind="book", express="false") >= 2
                and len(reader.values("shop.order.duration")) >= 2
                and bool(reader.values("shop.orders.waiting"))
            )
        )
        units = {one.name: one.unit for one in reader.metadata}
        self.assertEqual(units["shop.orders"], "count")
        self.assertEqual(units["shop.order.duration"], "seconds")
        example.process.send_signal(signal.SIGINT)
        self.ends(example)
        stream.read_all()
