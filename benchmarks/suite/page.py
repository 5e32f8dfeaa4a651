"""
The outcome of all benchmarks, as JSON and as a page for docs/.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from suite.figures import Goal, Row, Section, Spread
from suite.plots import Chart

Machine = dict[str, str]
"""What it ran on, by what that is."""

BEGINNING = """\
# Benchmarks

What this library costs, and how it compares with the Rust crate that it comes from
(metrics-exporter-tcp), measured by `python benchmarks/run.py`, which also wrote this page. One
machine, one run, with everything else on it; so only ratios mean something elsewhere. Who is
compared with whom takes turns (A B A B); a cell has the median and, in brackets, the whole range.
A ratio (x) is the median of those of the pairs. Goals are about ratios. In charts, lines join
medians, and whiskers show the whole range.

All events are of one counter, with a name of 16 characters and two labels. Readers are processes
of their own, the same Rust program for both sides, and check the structure of every frame. What
they are short of must agree with what was recorded and with what our server says that it dropped,
or there is no figure; where something may be lost, events carry their number, and the gaps in the
sequence must come to the same.
"""


def to_json(machine: Machine, sections: Sequence[Section]) -> str:
    def spread(value: Spread) -> dict[str, Any]:
        return {
            "median": value.median,
            "low": value.low,
            "high": value.high,
            "samples": value.samples,
        }

    def row(one: Row) -> dict[str, Any]:
        return {
            "what": one.what,
            "unit": one.unit,
            "cells": {name: spread(cell) for name, cell in one.cells.items()},
            "base": one.base,
            "ratios": {name: spread(value) for name, value in one.ratios.items()},
            "goal": None if one.goal is None else asdict(one.goal),
        }

    return json.dumps(
        {
            "machine": machine,
            "sections": [
                {"title": section.title, "rows": [row(one) for one in section.rows]}
                for section in sections
            ],
        },
        indent=1,
    )


def from_json(text: str, how: Mapping[str, str]) -> tuple[Machine, list[Section]]:
    """
    What `to_json` has written.

    @param how: the text of each section, by its title; what is not among them is left out.
    @raise ValueError: it is no JSON of benchmarks.
    """

    def row(one: dict[str, Any]) -> Row:
        return Row(
            one["what"],
            one["unit"],
            {name: Spread.of(cell["samples"]) for name, cell in one["cells"].items()},
            one["base"],
            None if one["goal"] is None else Goal(**one["goal"]),
        )

    try:
        found = json.loads(text)
        sections = [
            Section(title, how[title], [row(one) for one in section["rows"]])
            for section in found["sections"]
            if (title := section["title"]) in how
        ]
        return dict(found["machine"]), sections
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no JSON of benchmarks: {error!r}") from None


def to_page(
    machine: Machine,
    sections: Sequence[Section],
    charts: Sequence[Chart] = (),
    directory: str = "benchmarks",
) -> str:
    """
    @param directory: where the charts are, as seen from the page.
    """
    parts = [BEGINNING]
    parts += [f"- {what}: {value}\n" for what, value in machine.items()]
    for section in sections:
        parts.append(f"\n## {section.title}\n\n{section.how}\n\n")
        for chart in charts:
            if chart.section == section.title:
                parts.append(f"![{chart.title}]({directory}/{chart.name}.svg)\n\n")
        parts.append(to_table(section.rows))
    return "".join(parts)


def to_table(rows: Sequence[Row]) -> str:
    """As Markdown, with a column for everybody who is in any of the rows."""
    columns = list(dict.fromkeys(name for row in rows for name in row.cells))
    goals = any(row.goal is not None for row in rows)
    titles = ["", *columns, *(["goal", "reached"] if goals else [])]
    lines = [titles, ["---", *["---:"] * len(columns), *(["---", "---"] if goals else [])]]
    for row in rows:
        line = [f"{row.what} ({row.unit})", *(_cell(row, name) for name in columns)]
        if goals:
            line += [f"{row.goal} x" if row.goal and row.base else "", _verdict(row)]
        lines.append(line)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(row: Row, name: str) -> str:
    if name not in row.cells:
        return ""
    value = row.cells[name]
    text = number(value.median)
    if len(value.samples) > 1:
        text += f" [{number(value.low)} to {number(value.high)}]"
    if name in row.ratios:
        text += f", **{number(row.ratios[name].median)} x**"
    return text


def _verdict(row: Row) -> str:
    """For each of ours."""
    goal = row.goal
    if goal is None or not row.ratios:
        return ""
    verdicts = [goal.met(value) for name, value in row.ratios.items() if name.startswith("ours")]
    return ", ".join("yes" if met else "no" for met in verdicts)


def number(value: float) -> str:
    """With as many digits as mean anything."""
    if abs(value) >= 100:
        rounded = round(value, 2 - len(str(int(abs(value)))) + 1)
        return f"{int(rounded):,}"
    return f"{value:.3g}"
