"""
Line 9: stopped exporters do not stay in memory, also if they logged an exception.  Arguments:
exporters, series.
"""

import gc
import weakref

from tests.faults import Report, exporter, resident_bytes, run
from txmetrics_tcp import MetricsFactory, TcpRecorder, counter
from txmetrics_tcp.testing import FakeReactor, PausingTransport


class FailingTransport(PausingTransport):
    def write(self, data: bytes) -> None:
        raise RuntimeError("a transport that fails")


def main(report: Report, exporters: int = 20, series: int = 5000) -> None:
    handles = [counter("requests_total", route=f"/some/route/{n}") for n in range(series)]
    recorders: list[weakref.ref[TcpRecorder]] = []

    def use() -> None:
        with exporter() as metrics:
            for handle in handles:
                handle.increment()
        factory = MetricsFactory(FakeReactor())
        factory.doStart()
        for number in range(series):
            factory.recorder.counter("requests_total", route=f"/{number}").increment()
        transport = FailingTransport()
        transport.connect(factory.buildProtocol(transport.getPeer()))
        factory.stop()
        recorders.extend((weakref.ref(metrics.recorder), weakref.ref(factory.recorder)))

    # The first one fills memory that later ones use again.
    use()
    before = resident_bytes()
    for _ in range(exporters):
        use()
    gc.collect()
    alive = sum(recorder() is not None for recorder in recorders)
    report.equal("recorders in memory", alive, 0)
    each = (resident_bytes() - before) / exporters / 1e6
    report.at_most("memory of each exporter that stopped", each, 0.5, "MB")


if __name__ == "__main__":
    run(main)
