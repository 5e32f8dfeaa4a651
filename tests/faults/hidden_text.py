"""
Line 10: no text in a CSV export is a formula of a spreadsheet; characters that a terminal would act
on or not show are escaped in the viewer and in CSV.
"""

import csv
import io
import json
from unicodedata import normalize

from textual.pilot import Pilot

from tests.faults import Report, run
from tests.observing import FedSource, drawn, gauge, watch
from txmetrics_tcp.observe.app import ObserveApp
from txmetrics_tcp.observe.export import to_csv, to_json

FORMULAS = ["=1+1", "a;=1+1", "\N{FULLWIDTH EQUALS SIGN}1", "  =1+1", "\n=1+1", 'a; "=1']
HIDDEN = [
    *("\x1b[2J", "\u202e", "\u3164", "\uffa0", "\u115f", "\u1160", "\u034f", "\ufe0f"),
    *("\U000e0100", "\u180b", "\u2800", "a" + 500 * "\u0301"),
]


def main(report: Report) -> None:
    source = FedSource()
    source.feed([gauge(name, -1.5) for name in FORMULAS + HIDDEN])
    lines: list[str] = []

    async def look(pilot: Pilot[int], app: ObserveApp) -> None:
        lines.extend(drawn(app.table))

    rows = watch(look, source).rows
    text = to_csv(rows)
    for separator in ",;":
        cells = {cell for row in csv.reader(io.StringIO(text), delimiter=separator) for cell in row}
        cells -= {"", "-1.5"}
        formulas = [cell for cell in cells if normalize("NFKC", cell).strip(' "\n')[0] in "=+-@"]
        report.equal(f"formulas in CSV, cells separated by {separator}", formulas, [])
    values = {line["value"] for line in csv.DictReader(io.StringIO(text))}
    report.equal("numbers in CSV", values, {"-1.5"})
    names = [series["name"] for series in json.loads(to_json(rows))["series"]]
    report.equal("names in JSON are unchanged", {*names} == {*FORMULAS, *HIDDEN}, True)
    for place, shown in {"CSV": text, "the viewer": "\n".join(lines)}.items():
        found = [ascii(name) for name in HIDDEN if name[:4] != "a" + 3 * "\u0301" and name in shown]
        report.equal(f"hidden characters in {place}", found, [])
        report.at_most(f"accents in a row in {place}", shown.count("\u0301"), 4, "accents")


if __name__ == "__main__":
    run(main)
