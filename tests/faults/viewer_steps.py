"""
Line 11: the viewer shows the result of sorting, goes back step by step, keeps the beginning of
names, counts many sources in one line, and names the command that starts a missing server.
"""

from textual.pilot import Pilot

from tests.faults import Report, run
from tests.observing import FedSource, count, draw, drawn, watch
from txmetrics_tcp.observe.app import ObserveApp
from txmetrics_tcp.observe.sources import State

SMALL = (80, 24)
NAME = "http_client_request_duration_seconds_total"


def main(report: Report) -> None:
    source = FedSource()
    source.feed(count(f"n{number:02}", number) for number in range(60))
    source.feed([count(NAME, 1000, route="/api/orders", method="GET", status="200")])

    async def table(pilot: Pilot[int], app: ObserveApp) -> None:
        await pilot.press("end", "s", "s", "s")
        first = drawn(app.table)[1]
        report.contains("the first line after sorting by value", first, NAME[:10], "1,000")
        report.contains("the kind at 80 cells", first, " counter ")
        await pilot.press("enter", "q")
        report.equal(
            "open after q in the details", (app.detail_open, app.is_running), (False, True)
        )
        await pilot.press("g", *("slash", "n", "0", "enter"), "slash", "x", "escape")
        report.equal("the filter after Esc in its field", app.rows.filter_text, "n0")
        await pilot.press("escape", "escape", "escape")
        report.equal("groups after Esc", app.rows.grouping, None)

    watch(table, source, size=SMALL)
    sources = [FedSource(f"here:{number}") for number in range(40)]
    for connecting in sources[:2]:
        connecting.set_state(State.CONNECTING)

    async def many(pilot: Pilot[int], app: ObserveApp) -> None:
        lines = drawn(app.header)[1:]
        report.contains("the line of 40 sources", lines[0], "38 connected, 2 connecting")
        report.equal("lines of 40 sources", len(lines), 1)

    watch(many, *sources, size=SMALL)
    missing = FedSource()
    missing.set_state(State.LOST, "Connection refused")
    missing.refused = True
    missing.server_command = "twistd -n metrics-tcp"

    async def start(pilot: Pilot[int], app: ObserveApp) -> None:
        await draw(pilot, app)
        report.contains("the table without a server", "".join(drawn(app.table)), "twistd -n")

    watch(start, missing, size=SMALL)


if __name__ == "__main__":
    run(main)
