"""
Recordings in memory, and their streams.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Iterable
from typing import Any, NamedTuple

from tests.wire_cases import CASES
from txmetrics_tcp import (
    Decoder,
    Key,
    Metadata,
    Metric,
    MetricKind,
    Operation,
    RecordingReader,
    RecordingWriter,
    Status,
    encode_metadata,
    encode_metric,
)
from txmetrics_tcp._codec.framing import varint
from txmetrics_tcp._codec.wire import encode_status
from txmetrics_tcp._model import METRIC_EVENTS
from txmetrics_tcp._recording.blocks import (
    CONNECTION,
    END,
    HEADER_SIZE,
    MAGIC,
    SESSION,
    ZLIB,
    encode_block,
)
from txmetrics_tcp._recording.reader import Chunk

FRAMES = [case.frame for case in CASES]
STREAM = b"".join(FRAMES)
SECOND = 1_000_000_000
STATUS = encode_status(Status("s", 1))
REQUESTS = Key(MetricKind.COUNTER, "requests_total")
MEMORY = Metadata(MetricKind.GAUGE, "memory", "bytes")
SET = Metric(Key(MetricKind.GAUGE, "memory"), Operation.SET_GAUGE, 1.0, 1)
FOREIGN = b"\x02\xff\xff"
"""A frame that is not an event."""
HTTP = b"HTTP/1.1 400 Bad Request\r\n\r\n"
NOON = 1_795_348_800 * SECOND


def increment(number: int) -> bytes:
    """Return the frame of one event, whose time follows from its number."""
    return encode_metric(Metric(REQUESTS, Operation.INCREMENT_COUNTER, number, NOON + number))


class Unclosed(io.BytesIO):
    """A file in memory whose content can be read after it was closed."""

    def close(self) -> None:
        self.flush()

    def fileno(self) -> int:
        raise OSError("no file descriptor")


class FullDisk(Unclosed):
    """@ivar room: the size of the disk in bytes."""

    room = 10_000

    def write(self, data: Any) -> int:
        taken = data[: max(self.room - self.tell(), 0)]
        if not taken:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(taken)


class Clock:
    """@ivar seconds: the current time."""

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
    """Return a recording of one connection, with a block for each piece."""
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


class RecordedFile(NamedTuple):
    """
    A file, and the expected result of reading it.

    @ivar data: the content of the file.
    @ivar stream: the frames that are read.
    @ivar says: the beginning of the message; empty for no message.
    @ivar code: the exit code of a command that reads the file.
    """

    data: bytes
    stream: bytes = b""
    says: str = ""
    code: int = 0


def _damaged() -> bytes:
    data = bytearray(record(THREE, THREE))
    data[-HEADER_SIZE - 1] ^= 1
    return bytes(data)


def _of_blocks(*blocks: tuple[bytes, bytes]) -> bytes:
    """
    Return a recording of one session.

    @param blocks: the kinds and payloads of its blocks.
    """
    session = b'{"time_ns": 42, "source": "127.0.0.1:5000"}'
    whole = (SESSION, session), *blocks, (END, b"")
    return MAGIC + b"".join(encode_block(kind, payload) for kind, payload in whole)


def chunk(frames: bytes) -> bytes:
    """Return a chunk of a block."""
    return varint(0) + varint(len(frames)) + frames


def with_payload(payload: bytes, blocks: int = 1) -> bytes:
    """Return a recording of equal blocks, whose chunks may differ from those of a writer."""
    return _of_blocks(*blocks * [(ZLIB, payload)])


EMPTY_FRAMES = chunk(bytes(16_000_000))
"""A payload that is stored in 16 kB, and takes many seconds to read."""

CUT_OFF = "cut off; read up to the last complete event"
FOREIGN_FRAME = "not a metrics stream: a frame of 2 bytes is not a valid event"
THREE = b"".join(map(increment, range(3)))
DESCRIBED = Metadata(MetricKind.COUNTER, "requests_total", None, "x" * 2 * 1024 * 1024)
LONG = encode_metadata(DESCRIBED) + THREE
WIDE = Metric(Key(MetricKind.COUNTER, "x" * 1000), Operation.INCREMENT_COUNTER, 1, NOON)
MANY = encode_metric(WIDE) * 400
# As long as its first byte says, if the byte is read as the length of a frame.
HTTP_FRAME = HTTP.ljust(1 + HTTP[0])

NO_RECORDING = "not a metrics recording; metrics-tcp tail --raw reads raw captures"
NO_RECORDINGS = {
    "empty": RecordedFile(b"", says="empty file, not a metrics recording", code=1),
    "something else": RecordedFile(b"hello", says=NO_RECORDING, code=1),
    "another format": RecordedFile(
        MAGIC.replace(b"1", b"2") + record(THREE)[len(MAGIC) :],
        says="unsupported recording format; a newer version of txmetrics-tcp may read it",
        code=1,
    ),
}
"""Files that every command rejects."""

RECORDINGS = {
    "no events": RecordedFile(_of_blocks((CONNECTION, b"{}"))),
    "several blocks": RecordedFile(record(STREAM[:500], STREAM[500:], compress=True), STREAM),
    "a frame of 2 MiB": RecordedFile(record(LONG), LONG),
    "one large chunk": RecordedFile(with_payload(chunk(MANY)), MANY),
    "two sessions": RecordedFile(record(THREE) + record(STREAM)[len(MAGIC) :], THREE + STREAM),
    "cut off in its first line": RecordedFile(MAGIC[:10], says=CUT_OFF),
    "cut off within a block": RecordedFile(
        record(THREE, THREE)[: -HEADER_SIZE - 1], THREE + THREE[: -len(increment(2))], CUT_OFF
    ),
    "cut off between blocks": RecordedFile(record(THREE)[:-HEADER_SIZE], THREE, CUT_OFF),
    "cut off by NUL bytes": RecordedFile(record(THREE) + bytes(5000), THREE, CUT_OFF),
    "cut off by NUL bytes within a block": RecordedFile(
        record(THREE, THREE)[: -HEADER_SIZE - 1] + bytes(5000),
        THREE + THREE[: -len(increment(2))],
        CUT_OFF,
    ),
    "only NUL bytes": RecordedFile(bytes(5000), says=CUT_OFF),
    "damaged": RecordedFile(_damaged(), THREE, "damaged after the first ", 1),
    "a foreign frame": RecordedFile(
        record(THREE, THREE + FOREIGN + THREE, THREE), THREE + THREE, FOREIGN_FRAME, 1
    ),
    "a foreign frame in a large chunk": RecordedFile(
        with_payload(chunk(MANY + FOREIGN + MANY)), MANY, FOREIGN_FRAME, 1
    ),
    "an empty chunk": RecordedFile(
        with_payload(chunk(THREE) + chunk(b"") + chunk(THREE)), THREE, "damaged after the first ", 1
    ),
    "a large chunk that ends within a frame": RecordedFile(
        with_payload(chunk(MANY + THREE[:-1])),
        MANY + THREE[: -len(increment(2))],
        "damaged after the first ",
        1,
    ),
    "an HTTP server": RecordedFile(
        record(THREE) + record(HTTP_FRAME)[len(MAGIC) :],
        THREE,
        "not a metrics stream: it looks like an HTTP server",
        1,
    ),
}
"""Files whose readable events every command shows."""


class BadDisk(io.FileIO):
    """
    A file that cannot be read to its end.

    @ivar room: the approximate number of bytes that can be read.
    """

    room = 500

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > self.room:
            raise OSError(errno.EIO, "Input/output error")
        return super().read(size) or b""


def metrics(stream: bytes) -> int:
    """Return the number of metric events in a stream, totals of histograms included."""
    events = Decoder(2 * len(stream)).feed(stream)
    return sum(isinstance(event, METRIC_EVENTS) for event in events)
