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

settings = ExporterSettings(buffer_size=None, own_metrics=False, max_delay=0)
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


# The time of day goes back by an hour while events are recorded.
BACK_ONCE = """
import os, threading, time
time_of_day, time_of_day_ns = time.time, time.time_ns
hours = 0
time.time = lambda: time_of_day() - 3600 * hours
time.time_ns = lambda: time_of_day_ns() - 3600 * 10**9 * hours
from twisted.internet import reactor
from txmetrics_tcp import ExporterSettings, MetricsFactory

factory = MetricsFactory(reactor, ExporterSettings(buffer_size=BUFFER_SIZE, own_metrics=False))
counter = factory.recorder.counter("c")
port = reactor.listenTCP(0, factory, interface="127.0.0.1")
os.write(1, f"port={port.getHost().port}\\n".encode())

def record():
    global hours
    while not factory.stats().clients:
        time.sleep(0.001)
    for i in range(2000):
        if i == 100:
            hours = 1
        for _ in range(100):
            counter.increment()
        time.sleep(0.001)

threading.Thread(target=record).start()
reactor.run()
"""


class RealReactorTests(SynchronousTestCase):
    def test_set_back_all_the_time(self) -> None:
        """
        If the clock always goes back, none of Twisted's timers fires.  A stream of several batches
        still arrives completely if it uses no timer.
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

    def test_set_back_once(self) -> None:
        """Events are delayed at most until the buffer is half full, also if it has no limit."""
        for buffer_size in ("1024", "None"):
            script = BACK_ONCE.replace("BUFFER_SIZE", buffer_size)
            program = Program(self, script, preamble="")
            last = 0
            for event in Viewer(self, program.port):
                if isinstance(event, Metric):
                    if event.timestamp_ns < last - 3000 * 10**9:
                        break
                    last = event.timestamp_ns
            else:
                self.fail("the stream ended")
