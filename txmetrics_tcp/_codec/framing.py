"""
The framing of a stream, independent of the frames' content.  No I/O, no Twisted, no protobuf.

A stream is a sequence of frames.  A frame is an unsigned LEB128 varint, followed by that many bytes
of one serialized ``Event`` of ``event.proto``.  An empty ``Event`` has no meaning; its frame
is a single zero byte.
"""

from __future__ import annotations

MAX_FRAME = 1024 * 1024
"""The default limit on the size of a received frame, in bytes."""

EMPTY_FRAME = b"\x00"
"""The frame of an empty ``Event``.  Every reader skips it."""


NOT_A_STREAM = "not a metrics stream"
"""The start of the message of each `StreamError` that reports an invalid stream."""


class StreamError(Exception):
    """
    The received data is not a valid metrics stream.

    The message states the reason.  If the data looks like HTTP, TLS, SSH or another known protocol,
    the message names it.
    """


def varint(value: int) -> bytes:
    """Encode an unsigned integer as LEB128: seven bits per byte, least significant first."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """
    Decode the LEB128 integer at an offset.

    @return: the integer, and the offset of the byte after it.
    @raise IndexError: the integer is incomplete.
    @raise StreamError: the integer is longer than 10 bytes.
    """
    value = shift = 0
    while (byte := data[at]) > 0x7F:
        value |= (byte & 0x7F) << shift
        at += 1
        shift += 7
        if shift > 63:
            raise StreamError("a varint is longer than 10 bytes")
    return value | byte << shift, at + 1


def too_long(length: int, max_frame: int) -> str:
    """Return the error message for a frame that exceeds the limit."""
    return f"a frame of {length} bytes exceeds the limit of {max_frame} bytes"


def cut_off(unfinished: int) -> str:
    """Return the error message for a stream that ended with an incomplete frame."""
    return f"the stream ends within a frame, after {unfinished} bytes of it"


def frame(message: bytes) -> bytes:
    """Prefix a serialized ``Event`` with its length."""
    return varint(len(message)) + message


class Frames:
    """
    Splits a stream at frame boundaries, without decoding the frames.

    It buffers at most one incomplete frame.

        >>> frames = Frames()
        >>> frames.feed(b"\\x00\\x02ab\\x03cd")
        (b'\\x00\\x02ab', 2)
        >>> frames.unfinished
        3
        >>> frames.feed(b"e")
        (b'\\x03cde', 1)
    """

    def __init__(self, max_frame: int = MAX_FRAME) -> None:
        """
        @param max_frame: the largest accepted frame, in bytes.
        """
        self._max_frame = max_frame
        # Empty, or the start of a frame.  Splitting continues when this has `_needed` bytes.
        self._rest = bytearray()
        self._needed = 0
        self._failure: str | None = None

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """
        Process the next piece of the stream.

        @return: the bytes of the frames that are now complete, and the number of these frames.
        @raise StreamError: a frame exceeds the limit.  All later calls raise the same error.
        """
        if self._failure is not None:
            raise StreamError(self._failure)
        rest = self._rest
        if rest:
            rest += data
            if len(rest) < self._needed:
                return b"", 0
            data = bytes(rest)
        size = len(data)
        count = end = 0
        while end < size:
            length, head = data[end], end + 1
            if length > 0x7F:
                try:
                    length, head = read_varint(data, end)
                except IndexError:
                    # The length itself is incomplete.
                    self._needed = size - end + 1
                    break
                except StreamError as error:
                    raise self._fail(str(error)) from None
            if length > self._max_frame:
                raise self._fail(too_long(length, self._max_frame))
            if head + length > size:
                self._needed = head + length - end
                break
            end = head + length
            count += 1
        self._rest = bytearray(data[end:])
        return data[:end], count

    @property
    def unfinished(self) -> int:
        """The number of bytes received of an incomplete frame."""
        return len(self._rest)

    def _fail(self, reason: str) -> StreamError:
        self._failure = f"{NOT_A_STREAM}: {reason}"
        self._rest = bytearray()
        return StreamError(self._failure)
