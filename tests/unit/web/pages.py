"""
A page that applies frames, as the browser does.
"""

from __future__ import annotations

import json
import struct
import sys
from array import array
from typing import Any


def frames(data: bytes) -> tuple[list[bytes], bytes]:
    """Split a stream into frames; return them and the rest."""
    found = []
    while len(data) >= 4:
        (total,) = struct.unpack_from("<I", data)
        if len(data) < total:
            break
        found.append(data[:total])
        data = data[total:]
    return found, data


def unpack(frame: bytes) -> tuple[int, dict[str, Any], list[int], list[float]]:
    """Return the version, the head, and the numbers of series with their values."""
    total, size, count, version = struct.unpack_from("<IIII", frame)
    assert total == len(frame) == 16 + size + 12 * count
    assert (16 + size + 4 * count) % 8 == 0
    ids, values = array("I"), array("d")
    ids.frombytes(frame[16 + size : 16 + size + 4 * count])
    values.frombytes(frame[16 + size + 4 * count :])
    if sys.byteorder == "big":
        ids.byteswap()
        values.byteswap()
    return version, json.loads(frame[16 : 16 + size]), ids.tolist(), values.tolist()


class Page:
    """
    @ivar values: the value of each series, by source, kind, name and labels.
    @ivar bases: the bases in the same way.
    """

    def __init__(self) -> None:
        self.version = -1
        self.epoch: int | None = None
        self._clear()

    def _clear(self) -> None:
        self.metrics: dict[int, list[Any]] = {}
        self.names: dict[int, list[str]] = {}
        self.series: dict[int, list[Any]] = {}
        self.by_id: dict[int, float] = {}
        self.base_by_id: dict[int, int] = {}
        self.sources: dict[int, dict[str, Any]] = {}
        self.notes: list[dict[str, Any]] = []
        self.big: dict[int, str] = {}

    def apply(self, frame: bytes) -> dict[str, Any]:
        """Apply a frame; return its head."""
        self.version, head, ids, values = unpack(frame)
        if head.get("whole"):
            self._clear()
            self.epoch = head["epoch"]
        for number in head.get("gone", []):
            for store in self.series, self.by_id, self.base_by_id, self.big:
                store.pop(number, None)
        for number, *metric in head.get("metrics", []):
            self.metrics[number] = metric
        for number, names in head.get("names", []):
            self.names[number] = names
        for number, *definition in head.get("series", []):
            assert number not in self.series
            self.series[number] = definition
            self.base_by_id[number] = 0
        for number, base in head.get("base", {}).items():
            self.base_by_id[int(number)] = base
        for number, text in head.get("big", {}).items():
            self.big[int(number)] = text
        for source in head.get("sources", []):
            self.sources[source["no"]] = source
        self.notes += head.get("notes", [])
        for number, value in zip(ids, values, strict=True):
            assert number in self.series, number
            self.by_id[number] = value
        return head

    def _key(self, number: int) -> tuple[Any, ...]:
        metric, values, source, names = self.series[number]
        kind, name, *_ = self.metrics[metric]
        labels = tuple(zip(self.names[names], values, strict=True))
        return source, kind, name, labels

    @property
    def values(self) -> dict[tuple[Any, ...], float]:
        assert self.by_id.keys() == self.series.keys()
        return {self._key(number): value for number, value in self.by_id.items()}

    @property
    def bases(self) -> dict[tuple[Any, ...], int]:
        return {self._key(number): base for number, base in self.base_by_id.items()}

    def id(self, name: str) -> int:
        """Return the number of the only series of a metric."""
        (found,) = [one for one in self.series if self._key(one)[2] == name]
        return found
