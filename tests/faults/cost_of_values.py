"""
Line 4: an int costs at most twice a float.  Argument: calls.
"""

from timeit import repeat

from tests.faults import Report, run
from txmetrics_tcp import gauge, histogram


def main(report: Report, calls: int = 100_000) -> None:
    for name, record in {
        "Gauge.set": gauge("load").set,
        "Gauge.increment": gauge("load").increment,
        "Histogram.record": histogram("sizes").record,
    }.items():
        float_, int_ = (
            min(repeat(lambda: record(value), number=calls, repeat=5))  # noqa: B023
            for value in (7.0, 7)
        )
        report.at_most(f"{name} of an int, to that of a float", int_ / float_, 2, "x")


if __name__ == "__main__":
    run(main)
