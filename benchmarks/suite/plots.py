"""
The charts of the page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from suite import cost, latency, loss, throughput
from suite.bench import SUBJECTS, clients_text
from suite.drawing import Line, bars_chart, lines_chart, short
from suite.figures import OURS, REACTOR, REFERENCE, Row, Section, Spread

COLOURS = {
    # Okabe and Ito's, which nearly everybody can tell apart.
    OURS: "#0072b2",
    REACTOR: "#56b4e9",
    REFERENCE: "#d55e00",
    cost.PROMETHEUS: "#009e73",
    cost.OPENTELEMETRY: "#cc79a7",
    cost.EMPTY: "#999999",
}


@dataclass(frozen=True)
class Chart:
    """
    One picture.

    @ivar section: the title of the section that it belongs to.
    @ivar name: of its file, without the suffix.
    @ivar title: what it shows.
    """

    section: str
    name: str
    title: str
    svg: str


def charts(sections: Sequence[Section]) -> list[Chart]:
    """All for which there are figures."""
    made = []
    for section in sections:
        if section.title in _DRAWN:
            name, title, draw = _DRAWN[section.title]
            svg = draw(title, section.rows)
            if svg is not None:
                made.append(Chart(section.title, name, title, svg))
    return made


def _throughput(title: str, rows: Sequence[Row]) -> str | None:
    named = {f"delivered to {clients_text(clients)}": clients for clients in throughput.COUNTS}
    places = [(float(named[row.what]), row) for row in rows if row.what in named]
    return lines_chart(
        title,
        [(x, f"{x:g}") for x, _row in places],
        [_line(subject.name, places) for subject in SUBJECTS],
        x_title="clients",
        y_title="events/s in all, log scale",
    )


def _loss(title: str, rows: Sequence[Row]) -> str | None:
    named = {row.what: row for row in rows}
    rates = [rate for rate in loss.RATES if loss.lost_at(rate) in named]
    lines = []
    for subject in SUBJECTS:
        points = []
        for rate in rates:
            share = named[loss.lost_at(rate)].cells.get(subject.name)
            reached = named[loss.recorded_at(rate)].cells.get(subject.name)
            if share is not None and reached is not None:
                points.append((reached.median, share))
        lines.append(Line(subject.name, COLOURS[subject.name], points))
    return lines_chart(
        title,
        [(rate, short(rate)) for rate in rates],
        lines,
        x_title=f"events/s recorded, 1 client, buffers of {loss.BUFFER}",
        y_title="lost, %",
        y_ticks=(0, 20, 40, 60, 80, 100),
    )


def _latency(title: str, rows: Sequence[Row]) -> str | None:
    named = {row.what: row for row in rows}
    ticks: dict[float, str] = {}
    lines = []
    for rate in latency.RATES:
        places = []
        for percentile in latency.PERCENTILES:
            what = latency.what(percentile.name, rate)
            if what in named:
                # Each step to the right is a tenth of the events that are left.
                x = 1 / (1 - percentile.part)
                ticks[x] = f"{percentile.part * 100:g}"
                places.append((x, named[what]))
        for subject in SUBJECTS:
            label = f"{subject.name}, {short(rate)}/s"
            lines.append(_line(subject.name, places, label, dashed=rate != latency.RATES[0]))
    return lines_chart(
        title,
        list(ticks.items()),
        lines,
        x_title="percentile of the events",
        y_title="µs, log scale",
    )


def _cost(title: str, rows: Sequence[Row]) -> str | None:
    # A thing that is compared with two bases has two rows.
    things: dict[str, dict[str, Spread]] = {}
    for row in rows:
        things.setdefault(row.what, {}).update(row.cells)
    return bars_chart(title, things, COLOURS, x_title="ns, log scale; less is better")


def _line(
    column: str, places: Sequence[tuple[float, Row]], label: str = "", dashed: bool = False
) -> Line:
    points = [(x, row.cells[column]) for x, row in places if column in row.cells]
    return Line(label or column, COLOURS[column], points, dashed)


_DRAWN: dict[str, tuple[str, str, Callable[[str, Sequence[Row]], str | None]]] = {
    throughput.TITLE: (
        "throughput",
        "Delivered events per second, by the number of clients",
        _throughput,
    ),
    loss.TITLE: ("loss", "Share of events lost, by the rate at which they are recorded", _loss),
    latency.TITLE: ("latency", "Latency from the record to the client", _latency),
    cost.TITLE: ("cost", "What one record costs", _cost),
}
