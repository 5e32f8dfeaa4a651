"""
Line 4: the repr of a value is built only for an error, and errors are short and name the metric.
"""

from decimal import Decimal
from fractions import Fraction

from tests.faults import Report, outcome, run
from txmetrics_tcp import counter, describe_gauge, gauge, histogram

HUGE = 10**5000


class Unprintable:
    def __float__(self) -> float:
        return 1.5

    def __index__(self) -> int:
        return 3

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def main(report: Report) -> None:
    load, jobs, sizes = gauge("load"), counter("jobs_total"), histogram("sizes")
    value = Unprintable()
    report.equal("set() without a repr", outcome(lambda: load.set(value)), None)
    report.equal("increment() without a repr", outcome(lambda: jobs.increment(value)), None)
    report.equal("record() without a repr", outcome(lambda: sizes.record(value)), None)
    fraction = Fraction(HUGE + 1, HUGE)
    report.equal("set() of a long fraction", outcome(lambda: load.set(fraction)), None)
    for case, name, call in (
        ("long text", "load", lambda: load.set("x" * 10_000_000)),  # type: ignore[arg-type]
        ("large gauge", "load", lambda: load.set(HUGE)),
        ("sNaN", "load", lambda: load.set(Decimal("sNaN"))),
        ("bytes", "load", lambda: load.set(memoryview(b"12"))),  # type: ignore[arg-type]
        ("large counter", "jobs_total", lambda: jobs.increment(HUGE)),
        ("negative number", "sizes", lambda: sizes.record_many(1, -1)),
        ("unit", "load", lambda: describe_gauge("load", 5)),  # type: ignore[arg-type]
    ):
        result = str(outcome(call))
        report.contains(case, result, "Error", name)
        report.at_most(f"{case}, the message", len(result), 600, "characters")


if __name__ == "__main__":
    run(main)
