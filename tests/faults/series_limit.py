"""
Line 5: when C{max_series} is reached, the log (without clients), C{stats()} and own metrics name
the metrics with most series, and their label with most values.
"""

from tests.faults import Report, Viewer, connect, exporter, log_lines, run
from tests.programs import until


def main(report: Report) -> None:
    lines = log_lines()
    with exporter(max_series=100, own_metrics=True) as metrics:
        recorder = metrics.recorder
        for user in range(90):
            recorder.counter("requests_total", user=user, method="GET").increment()
        for queue in range(20):
            recorder.gauge("queue_length", queue=queue).set(1)

        def is_logged() -> bool:
            # Without clients, events are applied many at a time.
            for _ in range(1000):
                recorder.counter("requests_total", user=0, method="GET").increment()
            return any("limit of series" in line for line in lines)

        until(is_logged)
        limit = [line for line in lines if "limit of series" in line]
        report.equal("log lines", len(limit), 1)
        report.contains("log", limit[0], "'requests_total': 90", "'user': 90", "'queue_length': 10")
        first = recorder.stats().highest_cardinality[0]
        found = (first.name, first.series, first.label, first.label_values)
        report.equal("stats()", found, ("requests_total", 90, "user", 90))
        client = Viewer(connect(metrics))

        def label_values() -> list[float]:
            # Own metrics are published while the program records.
            recorder.counter("requests_total", user=0, method="GET").increment()
            return [
                value
                for key, value in client.totals().items()
                if "txmetrics_label_values" in key and "requests_total" in key
            ]

        client.read_until(label_values)
        report.equal("own metrics", label_values(), [90])


if __name__ == "__main__":
    run(main)
