"""
The clock is set back while the exporter streams, on a real reactor.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.daemon import Viewer
from tests.programs import Program
from txmetrics_tcp import Metric, Operation

# The time of day goes back by a second at each reading. It is patched before Twisted is imported,
# since Twisted keeps references to the original functions.
BACKWARDS = """
import itertools, os, threading, time
ticks = itertools.count(int(time.time()), -1)
time.time = lambda: float(next(ticks))
time.time_ns = lambda: next(ticks) * 10**9
from twisted.internet import reactor
from txmetrics_tcp import ExporterSettings, MetricsFactory

settings = ExporterSettings(buffer_size=None, max_delay=0, own_metrics=False)
factory = MetricsFactory(reactor, settings)
counter = factory.recorder.counter("c")
port = reactor.listenTCP(0, factory, interface="127.0.0.1")
os.write(1, f"port={port.getHost().port}\\n".encode())

def record():
    while not factory.stats().clients:
        time.sleep(0.001)
    for _ in range(5000):
        counter.increment()

threading.Thread(target=record).start()
reactor.run()
"""


class RealReactorTests(SynchronousTestCase):
    def test_set_back_all_the_time(self) -> None:
        """
        If the clock always goes back, none of Twisted's timers fires.  With a C{max_delay} of 0, a
        stream of several batches still arrives completely.
        """
        program = Program(self, BACKWARDS, preamble="")
        last: Metric | None = None
        total = 0
        for event in Viewer(self, program.port):
            if isinstance(event, Metric):
                if last is not None:
                    self.assertLess(event.timestamp_ns, last.timestamp_ns)
                last = event
                if event.operation is Operation.INCREMENT_COUNTER:
                    total += 1
                else:
                    total = int(event.value)
                if total == 5000:
                    break
        self.assertEqual(total, 5000)
