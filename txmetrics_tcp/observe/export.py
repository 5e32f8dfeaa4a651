"""
What is shown, as files: JSON, CSV, and a picture.  No Textual.
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

from txmetrics_tcp._view.sketch import PERCENTILES
from txmetrics_tcp._view.text import utc
from txmetrics_tcp.observe.row import Row
from txmetrics_tcp.observe.rows import Rows

_HEAD = ("source", "kind", "name", "labels", "unit", "value", "rate", "events")
COLUMNS = (*_HEAD, "window_count", "window_sum", *PERCENTILES, "description")
"""The columns of the CSV file."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def to_json(rows: Rows) -> str:
    """
    One object: when, with which settings, how each source is, and the series that are listed, in
    their order.  In ASCII; numbers that JSON does not have are null.
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
    One line a series, as they are listed.

    What a spreadsheet would take for a formula has an apostrophe before it: names come from
    whoever records them.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for row in rows.matching:
        series = _series(row, rows.window)
        summary = series["window"] or {}
        labels = " ".join(f"{label}={value}" for label, value in series["labels"].items())
        cells = {**series, "labels": labels, **{name: summary.get(name) for name in PERCENTILES}}
        cells["window_count"] = summary.get("count")
        cells["window_sum"] = summary.get("sum")
        writer.writerow([_cell(cells[column]) for column in COLUMNS])
    return text.getvalue()


def plain_svg(svg: str) -> str:
    """
    A screenshot without references to the net, which Textual's have for their font.
    """
    svg = re.sub(r"@font-face\s*\{.*?\}", "", svg, flags=re.DOTALL)
    return svg.replace("Fira Code", "ui-monospace, DejaVu Sans Mono, Menlo, Consolas")


def write_new(directory: Path, ending: str, content: str) -> Path:
    """
    Write a file that was not there, named by the time.

    @return: the file.
    @raise OSError: it cannot be written.
    """
    stem = datetime.now().strftime("metrics-%Y%m%d-%H%M%S")
    number = 1
    while True:
        path = directory / f"{stem}{'' if number == 1 else f'-{number}'}.{ending}"
        try:
            with open(path, "x", encoding="utf-8", newline="") as file:
                file.write(content)
        except FileExistsError:
            number += 1
        except OSError:
            # Half a file, of a full disk for example, is worse than none.
            with suppress(OSError):
                os.unlink(path)
            raise
        else:
            return path


EXPORTS: dict[str, Callable[[Rows], str]] = {"json": to_json, "csv": to_csv}
"""What can be exported, by the ending of the file."""


def _series(row: Row, window: float | None) -> dict[str, Any]:
    look = row.look(window)
    metadata = row.source.view.description(row.key)
    summary = look.summary
    return {
        "source": row.source.label,
        "kind": row.key.kind.value,
        "name": row.key.name,
        "labels": dict(row.key.labels),
        "unit": row.unit,
        "description": "" if metadata is None else metadata.description,
        "value": _number(look.value),
        "rate": _number(look.rate),
        "events": look.events,
        "updated": utc(look.timestamp_ns, 3),
        "window": None
        if summary is None
        else {
            "count": summary.count,
            "sum": _number(summary.sum),
            **{name: _number(getattr(summary, name)) for name in PERCENTILES},
        },
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _cell(value: object) -> object:
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return "" if value is None else value
