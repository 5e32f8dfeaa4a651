"""
Line 1: the viewer shows every number with its magnitude, at any width.
"""

from textual.pilot import Pilot

from tests.faults import Report, run
from tests.observing import FedSource, draw, drawn, gauge, watch
from txmetrics_tcp import Metadata, MetricKind
from txmetrics_tcp.observe.app import ObserveApp

CASES = {
    "learning_rate": (1.23457e-05, None, "1.23e-05"),
    "planck": (6.62607e-34, None, "6.63e-34"),
    "tiny": (-1.60218e-19, None, "-1.6e-19"),
    "avogadro": (-6.02214e23, None, "-6.02e+23"),
    "age": (213_503 * 86400.0, "seconds", "585 y"),
    "never": (1.7976931348623157e308, "seconds", "e+308 s"),
    "limit": (1e300, "tebibytes", "1e+300"),
    "duration": (0.0015, "seconds", "1.5 ms"),
    "size": (1536.0, "bytes", "1.5 KiB"),
}
"""The name, the value, the unit, and what the cell has."""


def main(report: Report) -> None:
    for width in (80, 120, 200):
        source = FedSource()
        for name, (value, unit, _) in CASES.items():
            source.feed([Metadata(MetricKind.GAUGE, name, unit, ""), gauge(name, value)])

        async def scenario(pilot: Pilot[int], app: ObserveApp, width: int = width) -> None:
            await draw(pilot, app)
            lines = {
                line.split()[0].lstrip("▌"): line for line in drawn(app.table)[1:] if line.strip()
            }
            for name, (_, _, text) in CASES.items():
                cell = lines[name].partition("gauge")[2].strip().split("  ")[0]
                report.contains(f"{name} at {width} columns", cell, text)

        watch(scenario, source, size=(width, 24))


if __name__ == "__main__":
    run(main)
