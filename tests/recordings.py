"""
Recordings in memory, and the streams that they are made of.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Iterable
from typing import Any

from tests.wire_cases import CASES
from txmetrics_tcp import (
    Key,
    Metadata,
    Metric,
    MetricKind,
    Operation,
    RecordingReader,
    RecordingWriter,
    Status,
    encode_metric,
)
from txmetrics_tcp._codec.wire import encode_status
from txmetrics_tcp._recording.reader import Chunk

FRAMES = [case.frame for case in CASES]
STREAM = b"".join(FRAMES)
SECOND = 1_000_000_000
STATUS = encode_status(Status("s", 1))
REQUESTS = Key(MetricKind.COUNTER, "requests_total")
MEMORY = Metadata(MetricKind.GAUGE, "memory", "bytes")
SET = Metric(Key(MetricKind.GAUGE, "memory"), Operation.SET_GAUGE, 1.0, 1)
FOREIGN = b"\x02\xff\xff"
"""What no stream of metrics has."""
HTTP = b"HTTP/1.1 400 Bad Request\r\n\r\n"
NOON = 1_795_348_800 * SECOND


def increment(number: int) -> bytes:
    """The frame of one event, with a time of its own."""
    return encode_metric(Metric(REQUESTS, Operation.INCREMENT_COUNTER, number, NOON + number))


class Unclosed(io.BytesIO):
    """A file in memory, to be looked at when it was closed."""

    def close(self) -> None:
        self.flush()

    def fileno(self) -> int:
        raise OSError("no file")


class FullDisk(Unclosed):
    """@ivar room: how many bytes it takes."""

    room = 10_000

    def write(self, data: Any) -> int:
        taken = data[: max(self.room - self.tell(), 0)]
        if not taken:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(taken)


class Clock:
    """@ivar seconds: what it shows."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> int:
        return round(self.seconds * SECOND)


def writer_to(
    file: Any, clock: Clock | None = None, *, compress: bool = False, begin: bool = True
) -> RecordingWriter:
    return RecordingWriter(
        file,
        "127.0.0.1:5000",
        compress=compress,
        begin=begin,
        clock=lambda: 42,
        monotonic=clock or Clock(),
    )


def record(*pieces: bytes, compress: bool = False) -> bytes:
    """A recording of one connection, with a block for each piece."""
    file = Unclosed()
    with writer_to(file, compress=compress) as writer:
        writer.connected()
        for piece in pieces:
            writer.write(piece)
            writer.flush()
    return file.getvalue()


def read(data: bytes) -> tuple[RecordingReader, list[Chunk]]:
    reader = RecordingReader(io.BytesIO(data))
    return reader, list(reader)


def joined(chunks: Iterable[Chunk]) -> bytes:
    return b"".join(chunk.frames for chunk in chunks)
