"""
Line 11: C{stats()} includes pending events, as C{snapshot()} does.
"""

from tests.faults import Report, exporter, run


def main(report: Report) -> None:
    with exporter() as metrics:
        recorder = metrics.recorder
        for _ in range(5):
            recorder.counter("jobs_total").increment()
        stats = recorder.stats()
        report.equal("recorded, series", (stats.recorded, stats.series), (5, 1))
        report.equal("snapshot()", list(recorder.snapshot().values()), [5])


if __name__ == "__main__":
    run(main)
