"""
Exports: JSON, CSV and SVG.  Does not use Textual.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from txmetrics_tcp._view.text import utc, visible
from txmetrics_tcp._view.windows import PERCENTILES
from txmetrics_tcp.observe.row import Row
from txmetrics_tcp.observe.rows import Rows

_HEAD = ("source", "kind", "name", "labels", "unit", "value", "rate", "events")
COLUMNS = (*_HEAD, "window_count", "window_sum", "window_partial", *PERCENTILES, "description")
"""The columns of the CSV file."""

# Where a spreadsheet finds a formula: at the start of a cell, or after a semicolon, which separates
# cells in many countries.  Some also accept the full-width and small forms of the first character.
_FORMULA = re.compile(
    r"(^|;)(?=[ \"]*[-=+@\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}"
    r"\N{FULLWIDTH HYPHEN-MINUS}\N{FULLWIDTH COMMERCIAL AT}"
    r"\N{SMALL EQUALS SIGN}\N{SMALL PLUS SIGN}\N{SMALL HYPHEN-MINUS}\N{SMALL COMMERCIAL AT}])"
)


def to_json(rows: Rows) -> str:
    """
    Return an ASCII JSON object with the time, the settings, the state of each source, and the
    listed series in order.  Infinities and NaN become null.
    """
    document = {
        "exported": utc(time.time_ns(), 3),
        "filter": rows.filter_text,
        "sort": rows.sort,
        "descending": rows.descending,
        "paused": rows.paused,
        "window_seconds": rows.window,
        "sources": [
            {
                "source": source.label,
                "state": source.state.value,
                "events": source.view.events,
                "missed_incoming": source.view.missed_incoming,
                "missed_client": source.view.missed_client,
                "unknown": source.view.unknown,
                "losses_known": source.view.status is not None,
                "restarts": source.view.restarts,
            }
            for source in rows.sources
        ],
        "series": [_series(row, rows.window) for row in rows.matching],
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def to_csv(rows: Rows) -> str:
    """
    Return one CSV line for each listed series.

    Names and labels may come from untrusted input.  Therefore text is quoted and escaped, and an
    apostrophe precedes what a spreadsheet would read as a formula.  Numbers are not quoted.
    """
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(COLUMNS)
    for row in rows.matching:
        series = _series(row, rows.window)
        summary = series["window"] or {}
        labels = " ".join(f"{label}={value}" for label, value in series["labels"].items())
        cells = {**series, "labels": labels, **{name: summary.get(name) for name in PERCENTILES}}
        cells["window_count"] = summary.get("count")
        cells["window_sum"] = summary.get("sum")
        cells["window_partial"] = str(summary["partial"]).lower() if summary else None
        writer.writerow([_cell(cells[column]) for column in COLUMNS])
    return text.getvalue()


def plain_svg(svg: str) -> str:
    """
    Remove the references to web fonts from a Textual screenshot.
    """
    svg = re.sub(r"@font-face\s*\{.*?\}", "", svg, flags=re.DOTALL)
    return svg.replace("Fira Code", "ui-monospace, DejaVu Sans Mono, Menlo, Consolas")


def write_new(directory: Path, ending: str, content: str) -> Path:
    """
    Write a new file, named by the time.  Existing files are never overwritten.

    @return: the path of the file.
    @raise OSError: the file cannot be written.
    """
    stem = datetime.now().strftime("metrics-%Y%m%d-%H%M%S")
    number = 1
    while True:
        path = directory / f"{stem}{'' if number == 1 else f'-{number}'}.{ending}"
        created = False
        try:
            with open(path, "x", encoding="utf-8", newline="") as file:
                created = True
                file.write(content)
        except FileExistsError:
            number += 1
        except OSError:
            # Do not leave an incomplete file, for example when the disk is full.  Without free
            # descriptors, open() fails also if the path is another file's.
            if created:
                with suppress(OSError):
                    os.unlink(path)
            raise
        else:
            return path


EXPORTS: dict[str, Callable[[Rows], str]] = {"json": to_json, "csv": to_csv}
"""The export functions by file extension."""


def _series(row: Row, window: float | None) -> dict[str, Any]:
    values = row.values(window)
    metadata = row.source.view.description(row.key)
    summary = values.summary
    return {
        "source": row.source.label,
        "kind": row.key.kind.value,
        "name": row.key.name,
        "labels": dict(row.key.labels),
        "unit": row.unit,
        "description": "" if metadata is None else metadata.description,
        "value": _number(values.value),
        "rate": _number(values.rate),
        "events": values.events,
        "updated": utc(values.timestamp_ns, 3),
        "window": None
        if summary is None
        else {
            "count": summary.count,
            "sum": _number(summary.sum),
            "partial": summary.partial,
            **{name: _number(getattr(summary, name)) for name in PERCENTILES},
        },
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _cell(value: object) -> object:
    return _FORMULA.sub(r"\1'", visible(value)) if isinstance(value, str) else value
