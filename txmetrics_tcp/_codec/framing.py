"""
How a stream is cut into frames, whatever is in them.  No I/O, no Twisted, no protobuf.

A stream is a sequence of frames: an unsigned LEB128 varint, then that many bytes of one
serialized ``Event`` of ``proto/event.proto``.  An ``Event`` without content is allowed and
means nothing; its frame is one zero byte.
"""

from __future__ import annotations

MAX_FRAME = 1024 * 1024
"""The default bound on the size of a frame that is received, in bytes."""

EMPTY_FRAME = b"\x00"
"""An ``Event`` without content.  Every reader skips it."""


NOT_A_STREAM = "not a metrics stream"
"""The beginning of what a `StreamError` says of a peer of another kind."""


class StreamError(Exception):
    """What was received is not a stream of metrics.  The text says why."""


def varint(value: int) -> bytes:
    """Encode an unsigned integer as LEB128: seven bits a byte, lowest first."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """
    Decode an unsigned integer from LEB128.

    @return: the integer, and where its bytes end.
    @raise IndexError: C{data} ends within it.
    @raise StreamError: it is longer than an integer of 64 bits can be.
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
    """Why a frame is refused."""
    return f"a frame of {length} bytes is announced, the limit is {max_frame}"


def cut_off(unfinished: int) -> str:
    """What is wrong with a stream that has ended."""
    return f"the stream ends within a frame, after {unfinished} bytes of it"


def frame(message: bytes) -> bytes:
    """Put the length of a serialized ``Event`` before it."""
    return varint(len(message)) + message


class Frames:
    """
    Turns the bytes of a stream into pieces that begin and end with a frame, however they came.

    It holds at most one unfinished frame.  What is in the frames is not looked at: it may be
    anything but a length past the limit.

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
        @param max_frame: the size of a frame, in bytes, past which the stream is refused.
        """
        self._max_frame = max_frame
        # Begins with a frame, of which it has less than `_needed` bytes unless it is empty.
        self._rest = bytearray()
        self._needed = 0
        self._failure: str | None = None

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """
        Take the next piece of the stream.

        @return: the frames that it completes, as the bytes that came, and how many they are.
        @raise StreamError: a frame is longer than allowed.  From then on nothing else comes.
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
                    # It ends within the length, which is a few bytes.
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
        """How many bytes have come of a frame that is not complete."""
        return len(self._rest)

    def _fail(self, reason: str) -> StreamError:
        self._failure = f"{NOT_A_STREAM}: {reason}"
        self._rest = bytearray()
        return StreamError(self._failure)
