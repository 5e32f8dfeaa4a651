"""
Line 5: labels that are mistakes raise an error that names C{describe_*}; names and values have one
rule for subclasses of str; conflicting kinds and units of a name are logged once.
"""

from enum import Enum

from tests.faults import Report, exporter, log_lines, outcome, run
from tests.programs import until
from txmetrics_tcp import counter, describe_gauge, gauge, histogram


class Route(str, Enum):
    HOME = "home"


def main(report: Report) -> None:
    for case, call in {
        "text for labels": lambda: counter("x", "help"),  # type: ignore[arg-type]
        "a list for labels": lambda: counter("x", ["route"]),  # type: ignore[arg-type]
        "documentation": lambda: counter("x", documentation=None),
        "description": lambda: gauge("x", description=5),
        "buckets": lambda: histogram("x", buckets=[1, 2]),
    }.items():
        report.contains(case, outcome(call), "TypeError", "describe_")
    key = counter(Route.HOME, {Route.HOME: Route.HOME}).key
    report.equal("name and labels of an enumeration", str(key), "home [home = home]")
    lines = log_lines()
    with exporter():
        for number in range(3):
            counter("requests", number=number).increment()
            gauge("requests", number=number).set(1)
            describe_gauge("size", "bytes")
            describe_gauge("size", "seconds")
        until(lambda: any("bytes" in line for line in lines))
    kinds = [line for line in lines if "requests" in line and "gauge" in line]
    units = [line for line in lines if "bytes" in line and "seconds" in line]
    report.equal("lines about the kinds of a name", len(kinds), 1)
    report.equal("lines about the units of a name", len(units), 1)


if __name__ == "__main__":
    run(main)
