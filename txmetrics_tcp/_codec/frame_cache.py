"""
What protobuf made of frames, remembered by their bytes.

A frame of a metric looks like this, with what varies from event to event in brackets::

    length 12 length 0a length name 12 length | 08 second 10 [nanos] | 1a label tag | [value]
    '--------------- the head --------------'                         '- the tail -'

Once protobuf has parsed it, a frame with the same head and the same tail differs from it in
timestamp and number alone, and these can be read by hand.  The head tells how long the frame is,
so all the rest of it can be had with one `struct.Struct`, for which only one thing has to be
guessed: where the tail ends and the value begins.  Whatever is guessed, it has been right if the
tail is one that is remembered.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from struct import Struct
from typing import Any

from google.protobuf.message import DecodeError

from txmetrics_tcp._codec import event_pb2 as pb
from txmetrics_tcp._codec.framing import read_varint, varint
from txmetrics_tcp._model import Key, Metric, MetricKind, Operation

MAX_REMEMBERED_FRAME = 512
"""The size of a frame, in bytes, past which it is not remembered."""

MAX_REMEMBERED = 4 * 1024 * 1024
"""
How many bytes of heads and tails are remembered, each with its overhead on top, until all are
forgotten.  It bounds the memory that a peer can make us use: what is remembered of a tail of
many short labels takes sixteen times its bytes.
"""

HEAD_OVERHEAD = 500
TAIL_OVERHEAD = 100

Tails = dict[bytes, tuple[Key, Operation]]

Reading = tuple[Callable[..., Any], list[int], list[int], Any, Tails, Any]
"""
How to read what stands behind a head: what unpacks it into the second, three parts of the
nanoseconds, the tail and the value; what the second and the third of these parts are worth; the
same for the value, or None if it is as it is; what tails there are; and the next `Reading` to try
if the tail is not among them, or None.

Worth less than nothing is what cannot be.
"""

WRONG = -1 << 60

# Two bytes of a varint, or one, by where they stand and whether its last is among them: tables in
# place of `read_varint`, for what is read of every event.
_CONTINUED = range(0x80, 0x100)
_ENDED = range(0x80)
LOW = [
    pair & 0x7F | pair >> 1 & 0x3F80 if pair & 0x8080 == 0x8080 else WRONG
    for pair in range(1 << 16)
]
_PAIR = [
    pair & 0x7F | pair >> 1 & 0x3F80 if pair & 0x8080 == 0x0080 else WRONG
    for pair in range(1 << 16)
]
_BYTE = [byte if byte in _ENDED else WRONG for byte in range(1 << 8)]
# Nanoseconds have five bytes, of which the last has three bits at most, but for the first 0.27
# seconds of a second, when they have four, and hardly ever less.
_FIVE = (
    "HHB",
    [pair if pair == WRONG else pair << 14 for pair in LOW],
    [byte << 28 if byte < 8 else WRONG for byte in range(1 << 8)],
)
_FOUR = (
    "HBB",
    [(byte & 0x7F) << 14 if byte in _CONTINUED else WRONG for byte in range(1 << 8)],
    [byte << 21 if byte in _ENDED else WRONG for byte in range(1 << 8)],
)


class _Varints:
    """
    What varints of more than two bytes are worth: `read_varint` in another form, since it is done
    for most values of counters, and that one takes up to a fifth longer.
    """

    def __getitem__(self, encoded: bytes) -> int:
        if encoded[-1] >= 0x80:
            return WRONG
        value = 0
        for byte in reversed(encoded[:-1]):
            if byte < 0x80:
                return WRONG
            value = value << 7 | byte & 0x7F
        value |= encoded[-1] << 7 * (len(encoded) - 1)
        return value if value < 1 << 64 else WRONG


_VARINTS = _Varints()


class Memory:
    """
    @ivar layouts: by head, how to read the rest.
    @ivar second: the bytes of timestamps within one second, up to the nanoseconds, and that second
        in nanoseconds.
    @ivar size: what they count, see `MAX_REMEMBERED`.
    """

    __slots__ = ("_tails", "_unpackers", "layouts", "second", "size")

    def __init__(self) -> None:
        self.layouts: dict[bytes, Reading] = {}
        self.second = (b"", 0)
        # By name; those of gauges and histograms, whose values take eight bytes, and of counters.
        self._tails: dict[str, tuple[Tails, Tails]] = {}
        self._unpackers: dict[str, Callable[..., Any]] = {}
        self.size = 0

    def remember(self, frame: bytes, metric: Metric) -> None:
        """
        Take a whole frame to memory, if all is in its usual place.

        @param metric: what protobuf says that it means.
        """
        key, operation = metric.key, metric.operation
        counter = operation.kind is MetricKind.COUNTER
        name = key.name.encode()
        lengths = _LENGTHS.match(frame)
        if lengths is None or not frame.startswith(name, lengths.end()):
            return
        inner, named = lengths["inner"], lengths["name"]
        stamp = lengths.end() + len(name)
        # As long as it claims to be, and no longer: nothing stands beside the metric.  And there is
        # the timestamp that the decoder can read.
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
        # What stands before the operation's tag must be labels and nothing else, or that would
        # perhaps not be a tag.
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
        Remember a head, and one more way to read what stands behind it.

        @param tail: the size of the tail, in bytes.
        @param varint: that of the value, if it is a varint, else 0.
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
        # There are at most ten or so: all that stands behind a head is of one length.
        self.layouts[head] = (unpack, high, top, values, tails, first)
        self.size += len(head) + HEAD_OVERHEAD

    def turn(self, second: bytes) -> bool:
        """
        Another second begins.

        @param second: the first seven bytes of a timestamp, behind its size.
        @return: whether it is one as they all are, so that it is now in C{second}.
        """
        if _SECOND.fullmatch(second) is None:
            return False
        self.second = second, read_varint(second, 1)[0] * 1_000_000_000
        return True


# How a value is unpacked, and what that is worth, by the size of its varint; 0 for eight bytes that
# are a float.
_NUMBERS: dict[int, tuple[str, list[int] | None]] = {
    0: ("d", None),
    1: ("B", _BYTE),
    2: ("H", _PAIR),
}

# Sizes of frame, metric and name, as they are up to two bytes, and one for the name.
_LENGTHS = re.compile(
    rb"(?P<outer>[\x80-\xff]?[\x00-\x7f])\x12(?P<inner>[\x80-\xff]?[\x00-\x7f])\x0a(?P<name>[\x00-\x7f])"
)

# The seconds of a timestamp in five bytes (from 1978 to 3058), and the nanoseconds' tag; and before
# them, the timestamp's tag and size.
_SECOND = re.compile(rb"\x08[\x80-\xff]{4}[\x00-\x7f]\x10", re.DOTALL)
_STAMP = re.compile(rb"\x12[\x0b\x0c]" + _SECOND.pattern, re.DOTALL)
