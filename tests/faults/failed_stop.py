"""
Line 9: after a C{stop()} that timed out, another exporter can be installed.
"""

import threading

from tests.faults import Report, exporter, outcome, reactor, run


def main(report: Report) -> None:
    metrics = exporter()
    busy = threading.Event()
    reactor.callFromThread(busy.wait)
    report.contains("stop()", outcome(lambda: metrics.stop(0.1)), "TimeoutError")
    busy.set()

    def install() -> str:
        with exporter():
            return "installed"

    report.equal("another exporter", outcome(install), "installed")


if __name__ == "__main__":
    run(main)
