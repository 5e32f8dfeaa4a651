"""
What ``read.rs`` does, for where it cannot be built; several times slower.

``python -m suite.reader 127.0.0.1:PORT CLIENTS MODE``: so many clients of one server, in one
thread.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys
import time
from typing import Any

from suite.commands import SEQUENCE, allow_many_files, cpu_seconds, say

LENGTHS = frozenset(b"\x0a\x12\x1a")
DOUBLES = frozenset(b"\x31\x39\x41\x49")
SET_COUNTER, SET_GAUGE = 0x28, 0x41
PARTS = {"p50_ns": 0.5, "p90_ns": 0.9, "p99_ns": 0.99, "p999_ns": 0.999, "max_ns": 1.0}


class CorruptError(Exception):
    """A stream is not one of metrics."""


def varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at a position, and the position behind it; raises `IndexError` at the end."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise CorruptError("a varint of more than ten bytes")


def classify(message: bytes) -> tuple[str, int]:
    """What a frame is, and the value if it is an increment."""
    if not message:
        return "empty", 0
    size, at = varint(message, 1)
    if at + size != len(message):
        raise CorruptError("an event is no single field")
    if message[0] == 0x0A:
        return "metadata", 0
    if message[0] != 0x12:
        return "unknown", 0
    found, value = "", 0
    while at < len(message):
        tag = message[at]
        if tag in LENGTHS:
            size, at = varint(message, at + 1)
            at += size
        elif tag == 0x20:
            value, at = varint(message, at + 1)
            found = "events"
        elif tag == SET_COUNTER:
            _total, at = varint(message, at + 1)
            found = "sets"
        elif tag in DOUBLES:
            at += 9
            found = "sets" if tag == SET_GAUGE else "other"
        else:
            raise CorruptError("an unknown tag in a metric")
    if at != len(message) or not found:
        raise CorruptError("a metric is cut off")
    return found, value


class Client:
    """One connection."""

    def __init__(self, host: str, port: int, mode: str, latencies: list[int]) -> None:
        self.socket = socket.create_connection((host, port))
        self.socket.setblocking(False)
        self.report: dict[str, Any] = dict.fromkeys(
            (
                *("events", "sets", "metadata", "empty", "other", "unknown"),
                *("bytes", "reads", "gaps", "first_ns", "last_ns"),
            ),
            0,
        )
        self.report |= {"corrupt": None, "closed": False}
        self._mode = mode
        self._latencies = latencies
        self._data = b""
        self._expected = 0

    def read(self) -> None:
        try:
            data = self.socket.recv(256 * 1024)
        except BlockingIOError:
            return
        except OSError as error:
            self.report["corrupt"] = str(error)
            data = b""
        if not data:
            self.report["closed"] = True
            return
        self.report["bytes"] += len(data)
        self.report["reads"] += 1
        try:
            self._parse(self._data + data)
        except (CorruptError, IndexError) as error:
            self.report["corrupt"] = str(error)

    def _parse(self, data: bytes) -> None:
        report = self.report
        now = time.time_ns()
        before = report["events"]
        start = 0
        while True:
            try:
                size, at = varint(data, start)
            except IndexError:
                break
            if at + size > len(data):
                break
            start = at + size
            kind, value = classify(data[at:start])
            report[kind] += 1
            if kind == "events":
                if self._mode == "numbered":
                    report["gaps"] += (value - self._expected) % SEQUENCE
                    self._expected = value + 1
                elif self._mode == "timed":
                    self._latencies.append(max(0, now - value))
        self._data = data[start:]
        if report["events"] > before:
            report["last_ns"] = now
            report["first_ns"] = report["first_ns"] or now


def latency(latencies: list[int]) -> dict[str, int]:
    """Their distribution; forgets them."""
    ordered = sorted(latencies) or [0]
    answer = {"count": len(latencies)}
    for name, part in PARTS.items():
        answer[name] = ordered[round((len(ordered) - 1) * part)]
    latencies.clear()
    return answer


def main() -> None:
    address, count, mode = sys.argv[1:]
    host, port = address.split(":")
    allow_many_files()
    latencies: list[int] = []
    clients = [Client(host, int(port), mode, latencies) for _ in range(int(count))]
    say({"connected": len(clients)})
    selector = selectors.DefaultSelector()
    for client in clients:
        selector.register(client.socket, selectors.EVENT_READ, client)
    selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
    asked = b""
    while True:
        for key, _events in selector.select():
            if key.data is not None:
                key.data.read()
                if key.data.report["closed"]:
                    selector.unregister(key.data.socket)
                continue
            data = os.read(sys.stdin.fileno(), 4096)
            if not data:
                return
            *words, asked = (asked + data).split(b"\n")
            for word in words:
                if word == b"latency":
                    say(latency(latencies))
                else:
                    reports = [client.report for client in clients]
                    say({"clients": reports, "cpu_seconds": cpu_seconds()})


if __name__ == "__main__":
    main()
