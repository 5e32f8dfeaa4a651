"""
Recordings from before version 1 of the protocol.
"""

from __future__ import annotations

from txmetrics_tcp._codec.framing import StreamError, frame, read_varint, varint

# The tag of the stream status in an Event: its field number, and wire type 2.
_OLD = b"\x1a"
_NEW = varint(1000 << 3 | 2)


def upgrade(frames: bytes) -> bytes:
    """
    Renumber the stream status, which was field 3 of ``Event`` before version 1, to field 1000.

    @param frames: whole frames.
    """
    pieces = []
    at = copied = 0
    while at < len(frames):
        length, begin = read_varint(frames, at)
        end = begin + length
        if frames.startswith(_OLD, begin) and _is_whole(frames[begin:end]):
            pieces += [frames[copied:at], frame(_NEW + frames[begin + 1 : end])]
            copied = end
        at = end
    return b"".join((*pieces, frames[copied:])) if pieces else frames


def _is_whole(message: bytes) -> bool:
    """Return whether a message has a single field, with a length that is correct."""
    try:
        length, begin = read_varint(message, 1)
    except (IndexError, StreamError):
        return False
    return begin + length == len(message)
