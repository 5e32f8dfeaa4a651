"""
A cache of parsed frames, by their constant bytes.

A metric frame has the following layout, with the parts that vary between events in brackets::

    length 12 length 0a length name 12 length | 08 second 10 [nanos] | 1a label tag | [value]
    '--------------- the head --------------'                         '- the tail -'

After protobuf has parsed a frame, any frame with the same head and tail differs from it only in
timestamp and value, which can be read without protobuf.  The head contains the size of the frame,
so a single `struct.Struct` can unpack the rest, once the boundary between tail and value is known.
The decoder tries each boundary that was seen after this head.  A boundary is correct if the
resulting tail is in the cache.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from struct import Struct
from typing import Any

from google.protobuf.message import DecodeError

from txmetrics_tcp import event_pb2 as pb
from txmetrics_tcp._codec.framing import read_varint, varint
from txmetrics_tcp._model import Key, Metric, MetricKind, Operation

MAX_REMEMBERED_FRAME = 512
"""The size of the largest frame that is cached, in bytes."""

MAX_REMEMBERED = 4 * 1024 * 1024
"""
The total size of all cached heads and tails, in bytes and including overhead, above which the cache
is cleared.  This limits the memory that a peer can make a client use.  The limit is low, because a
cached tail with many short labels takes sixteen times its size.
"""

HEAD_OVERHEAD = 500
TAIL_OVERHEAD = 100

Tails = dict[bytes, tuple[Key, Operation]]

Reading = tuple[Callable[..., Any], list[int], list[int], Any, Tails, Any]
"""
How to read the bytes after a head: a function that unpacks them into the second, three parts of the
nanoseconds, the tail and the value; tables that decode the second and the third of these parts; a
table that decodes the value, or None if no decoding is needed; the known tails; and the next
`Reading` to try if the tail is unknown, or None.

The tables decode invalid bytes to `INVALID`, which makes the result negative.
"""

INVALID = -1 << 60

# Tables that decode one or two bytes of a varint.  Each table is for certain positions in the
# varint, which include or exclude its last byte.  The tables replace `read_varint` for the parts
# that are read for every event.
_CONTINUED = range(0x80, 0x100)
_ENDED = range(0x80)
LOW = [
    pair & 0x7F | pair >> 1 & 0x3F80 if pair & 0x8080 == 0x8080 else INVALID
    for pair in range(1 << 16)
]
_PAIR = [
    pair & 0x7F | pair >> 1 & 0x3F80 if pair & 0x8080 == 0x0080 else INVALID
    for pair in range(1 << 16)
]
_BYTE = [byte if byte in _ENDED else INVALID for byte in range(1 << 8)]
# Nanoseconds usually take five bytes, the last of which has at most three bits.  In the first 0.27
# seconds of a second they take four, and very rarely fewer.
_FIVE = (
    "HHB",
    [pair if pair == INVALID else pair << 14 for pair in LOW],
    [byte << 28 if byte < 8 else INVALID for byte in range(1 << 8)],
)
_FOUR = (
    "HBB",
    [(byte & 0x7F) << 14 if byte in _CONTINUED else INVALID for byte in range(1 << 8)],
    [byte << 21 if byte in _ENDED else INVALID for byte in range(1 << 8)],
)


class _Varints:
    """
    Decodes varints of more than two bytes.  Used like a table.

    Many counters have such large values, and `read_varint` would take up to a fifth longer.
    """

    def __getitem__(self, encoded: bytes) -> int:
        if encoded[-1] >= 0x80:
            return INVALID
        value = 0
        for byte in reversed(encoded[:-1]):
            if byte < 0x80:
                return INVALID
            value = value << 7 | byte & 0x7F
        value |= encoded[-1] << 7 * (len(encoded) - 1)
        return value if value < 1 << 64 else INVALID


_VARINTS = _Varints()


class Memory:
    """
    The cache of one decoder.

    @ivar layouts: how to read the rest of a frame, by its head.
    @ivar second: the second of the last timestamp, as a pair: its encoding, up to the tag of the
        nanoseconds, and its start in nanoseconds since the epoch.
    @ivar size: the accounted size of the cache, limited by `MAX_REMEMBERED`.
    """

    __slots__ = ("_tails", "_unpackers", "layouts", "second", "size")

    def __init__(self) -> None:
        self.layouts: dict[bytes, Reading] = {}
        self.second = (b"", 0)
        # By metric name: tails of gauges and histograms, whose values take eight bytes, and tails
        # of counters.
        self._tails: dict[str, tuple[Tails, Tails]] = {}
        self._unpackers: dict[str, Callable[..., Any]] = {}
        self.size = 0

    def remember(self, frame: bytes, metric: Metric) -> None:
        """
        Cache a complete frame, if its fields are in the usual order.

        @param metric: the frame as parsed by protobuf.
        """
        key, operation = metric.key, metric.operation
        counter = operation.kind is MetricKind.COUNTER
        name = key.name.encode()
        lengths = _LENGTHS.match(frame)
        if lengths is None or not frame.startswith(name, lengths.end()):
            return
        inner, named = lengths["inner"], lengths["name"]
        stamp = lengths.end() + len(name)
        # The lengths must be exact, with no other fields next to the metric, and the timestamp must
        # have the form that the decoder reads.
        if (
            lengths["outer"] != varint(len(frame) - len(lengths["outer"]))
            or inner != varint(len(frame) - lengths.end("inner"))
            or named[0] != len(name)
            or len(frame) < stamp + 14
            or _STAMP.match(frame, stamp) is None
        ):
            return
        labels = stamp + 2 + frame[stamp + 1]
        if counter:
            value = len(frame) - 1
            while frame[value - 1] >= 0x80:
                value -= 1
        else:
            value = len(frame) - 8
        # The bytes between the timestamp and the operation's tag must be labels only.  Otherwise,
        # the supposed tag could be part of another field.
        if frame[value - 1] >> 3 != operation or value - 1 < labels:
            return
        try:
            alone = pb.Metric.FromString(frame[labels : value - 1])
        except DecodeError:
            return
        if alone != pb.Metric(labels=dict(key.labels)):
            return
        head, tail = frame[: stamp + 2], frame[labels:value]
        if self.size + len(head) + len(tail) + HEAD_OVERHEAD + TAIL_OVERHEAD > MAX_REMEMBERED:
            self.layouts.clear()
            self._tails.clear()
            self._unpackers.clear()
            self.size = 0
        tails = self._tails.setdefault(key.name, ({}, {}))[counter]
        if tail not in tails:
            tails[tail] = key, operation
            self.size += len(tail) + TAIL_OVERHEAD
        self._lay_out(head, len(tail), tails, len(frame) - value if counter else 0)

    def _lay_out(self, head: bytes, tail: int, tails: Tails, varint: int) -> None:
        """
        Cache a head, and one more layout of the bytes after it.

        @param tail: the size of the tail, in bytes.
        @param varint: the size of the value in bytes, if it is a varint; 0 for a float.
        """
        nanos, high, top = _FIVE if head[-1] == 0x0C else _FOUR
        number, values = _NUMBERS.get(varint) or (f"{varint}s", _VARINTS)
        unpack = self._unpackers.setdefault(
            format := f"<7s{nanos}{tail}s{number}", Struct(format).unpack_from
        )
        first = layout = self.layouts.get(head)
        while layout is not None:
            if layout[0] is unpack:
                return
            layout = layout[-1]
        # The list has at most about ten layouts, since frames with the same head have the same
        # size.
        self.layouts[head] = (unpack, high, top, values, tails, first)
        self.size += len(head) + HEAD_OVERHEAD

    def set_second(self, second: bytes) -> bool:
        """
        Set C{second} from the start of a timestamp.

        @param second: the first seven bytes of a timestamp, after its size.
        @return: whether the bytes have the usual form; if not, C{second} is unchanged.
        """
        if _SECOND.fullmatch(second) is None:
            return False
        self.second = second, read_varint(second, 1)[0] * 1_000_000_000
        return True


# The format of a value and the table that decodes it, by the size of its varint; 0 for a float of
# eight bytes.
_NUMBERS: dict[int, tuple[str, list[int] | None]] = {
    0: ("d", None),
    1: ("B", _BYTE),
    2: ("H", _PAIR),
}

# The sizes of frame and metric, in one or two bytes, and of the name, in one byte.
_LENGTHS = re.compile(
    rb"(?P<outer>[\x80-\xff]?[\x00-\x7f])\x12(?P<inner>[\x80-\xff]?[\x00-\x7f])\x0a(?P<name>[\x00-\x7f])"
)

# The seconds of a timestamp in five bytes (1978 to 3058), with the tag of the nanoseconds; and the
# same after the timestamp's tag and size.
_SECOND = re.compile(rb"\x08[\x80-\xff]{4}[\x00-\x7f]\x10", re.DOTALL)
_STAMP = re.compile(rb"\x12[\x0b\x0c]" + _SECOND.pattern, re.DOTALL)
