"""
The blocks that a recording consists of: bytes to blocks and back, bounded, and cut off anywhere.

docs/reference/recording-format.md describes them.  No Twisted.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from struct import Struct
from typing import BinaryIO, NamedTuple

from txmetrics_tcp._codec.framing import Frames, StreamError, read_varint, varint

MAGIC = b"txmetrics-tcp recording 1\n"
"""What every recording begins with; the number is that of the format."""

BLOCK = 64 * 1024
"""How many bytes of frames are kept back, at most, to be written as one block."""

MAX_BLOCK = 16 * 1024 * 1024
"""The largest block, in bytes, also when decompressed."""

MAX_RECORDED_FRAME = MAX_BLOCK - 2 * BLOCK
"""The largest frame that can be recorded, in bytes."""

# Of what is a recording in any format.
_BEGINNING = MAGIC[:-2]

# Little-endian: the fields of `BlockHeader`, then the CRC-32 of these.
_HEADER = Struct("<4sIIIIQ")
_CHECK = Struct("<I")
HEADER_SIZE = _HEADER.size + _CHECK.size

# What kinds of block there are.
SESSION = b"sess"
CONNECTION = b"conn"
PLAIN = b"data"
ZLIB = b"zlib"
END = b"end "


class RecordingError(Exception):
    """A file is no recording, or cannot be appended to.  The text says why."""


class BlockHeader(NamedTuple):
    """
    What stands before each block.

    @ivar stored: the size of what comes behind it.
    @ivar size: the same when decompressed.
    @ivar frames: how many frames are in it.
    @ivar offset_ns: since the session began.
    """

    kind: bytes
    stored: int
    size: int
    frames: int
    checksum: int
    offset_ns: int


class Damaged(Exception):
    """Something in the file is not what was written.  The text says what."""


class Blocks:
    """
    The blocks of a file, one after the other, and at last what there is of one that is cut off.

    @ivar position: see `RecordingReader`.
    @ivar truncated: see `RecordingReader`.
    """

    def __init__(self, file: BinaryIO) -> None:
        """
        @raise RecordingError: the file is no recording.
        """
        self._file = file
        self.position = 0
        self.truncated = 0
        beginning = _read(file, len(MAGIC))
        if beginning == MAGIC:
            self.position = len(MAGIC)
        elif MAGIC.startswith(beginning):
            # Even so little may be what is left of one.
            self.truncated = len(beginning)
        elif beginning.startswith(_BEGINNING):
            raise RecordingError("it is a recording in a format that this version does not know")
        else:
            raise RecordingError("it is not a recording of metrics")

    def __iter__(self) -> Iterator[tuple[BlockHeader, bytes]]:
        """
        @raise Damaged: a header, or a block that is whole, is not what was written.
        """
        while self.position and not self.truncated:
            start = _read(self._file, HEADER_SIZE)
            if not start:
                break
            if len(start) < HEADER_SIZE:
                self.truncated = len(start)
                break
            header = _parse_header(start)
            stored = _read(self._file, header.stored)
            if len(stored) < header.stored:
                self.truncated = HEADER_SIZE + len(stored)
            elif zlib.crc32(stored) != header.checksum:
                raise Damaged("the checksum of a block is wrong")
            yield header, stored
            if not self.truncated:
                self.position += HEADER_SIZE + header.stored

    def where(self, error: Damaged) -> str:
        """Where the file is damaged, and how: behind all blocks that have been read."""
        return f"it is damaged behind its first {self.position} bytes: {error}"


def _parse_header(data: bytes) -> BlockHeader:
    if _CHECK.unpack_from(data, _HEADER.size)[0] != zlib.crc32(data[: _HEADER.size]):
        raise Damaged("the checksum of a header is wrong")
    header = BlockHeader(*_HEADER.unpack_from(data))
    if max(header.stored, header.size) > MAX_BLOCK:
        raise Damaged(f"a block is larger than {MAX_BLOCK} bytes")
    return header


def encode_block(kind: bytes, payload: bytes, frames: int = 0, offset_ns: int = 0) -> bytes:
    """Make a block, with its header."""
    stored = zlib.compress(payload) if kind == ZLIB else payload
    header = _HEADER.pack(kind, len(stored), len(payload), frames, zlib.crc32(stored), offset_ns)
    return header + _CHECK.pack(zlib.crc32(header)) + stored


def _payload(header: BlockHeader, stored: bytes) -> bytes:
    """What is in a block, decompressed; of one that is cut off, as much as can be."""
    whole = len(stored) == header.stored
    if header.kind != ZLIB:
        return stored
    decompress = zlib.decompressobj()
    try:
        # One byte more than announced is enough to know that it is too much.
        payload = decompress.decompress(stored, header.size + 1)
    except zlib.error:
        raise Damaged("a block cannot be decompressed") from None
    if len(payload) > header.size or (
        whole and not (decompress.eof and len(payload) == header.size)
    ):
        raise Damaged("a block is of another size than it says")
    return payload


def encode_chunk(after_ns: int, frames: bytes) -> bytes:
    """Make a chunk of a block's payload; `split` takes it apart."""
    return varint(after_ns) + varint(len(frames)) + frames


def split(header: BlockHeader, stored: bytes) -> Iterator[tuple[int, bytes, int]]:
    """
    The chunks of a block: after how many nanoseconds, whole frames, and how many they are.
    """
    whole = len(stored) == header.stored
    payload = _payload(header, stored)
    at = 0
    while at < len(payload):
        splitter = Frames(MAX_RECORDED_FRAME)
        try:
            after_ns, at = read_varint(payload, at)
            size, at = read_varint(payload, at)
            frames, count = splitter.feed(payload[at : at + size])
        except IndexError:
            if whole:
                raise Damaged("a block ends within a chunk") from None
            return
        except StreamError as error:
            raise Damaged(str(error)) from None
        at += size
        if whole and (splitter.unfinished or at > len(payload)):
            raise Damaged("a chunk does not end with a frame")
        if count:
            yield after_ns, frames, count


def _read(file: BinaryIO, size: int) -> bytes:
    """Read so many bytes, or all that there are."""
    data = bytearray()
    while len(data) < size and (piece := file.read(size - len(data))):
        data += piece
    return bytes(data)
