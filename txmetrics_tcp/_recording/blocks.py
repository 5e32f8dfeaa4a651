"""
Encode and decode the blocks of a recording, with bounded memory and tolerance of truncated files.

docs/reference/recording-format.md describes them.  Does not import Twisted.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from struct import Struct
from typing import BinaryIO, NamedTuple

from txmetrics_tcp._codec.framing import Frames, StreamError, read_varint, varint

MAGIC = b"txmetrics-tcp recording 1\n"
"""The first line of every recording.  The number is the format version."""

BLOCK = 64 * 1024
"""
The approximate maximum size, in bytes, of the payload of a written block.  A larger frame gets a
larger block.
"""

PIECE = 16 * 1024
"""The approximate number of bytes of frames that are read in one step."""

MAX_BLOCK = 16 * 1024 * 1024
"""The maximum size of a block, in bytes, both stored and decompressed."""

MAX_RECORDED_FRAME = MAX_BLOCK - 2 * BLOCK
"""The largest frame that can be recorded, in bytes."""

PREFIX = MAGIC[:-2]
"""The beginning of every recording, in any format version: the first line without the number."""

# Little-endian: the fields of `BlockHeader`, then their CRC-32.
_HEADER = Struct("<4sIIIIQ")
_CHECK = Struct("<I")
HEADER_SIZE = _HEADER.size + _CHECK.size

_HOLE = bytes(HEADER_SIZE)
"""
File systems may leave NUL bytes in place of data that was written shortly before a power cut.  No
header has this many.
"""

_MAX_LOST = 256 * 1024 * 1024
"""The maximum number of NUL bytes, after the last block, that are part of a truncated recording."""

# The kinds of blocks.
SESSION = b"sess"
CONNECTION = b"conn"
PLAIN = b"data"
ZLIB = b"zlib"
END = b"end "


class RecordingError(Exception):
    """A file is not a recording, or cannot be appended to.  The text is the reason."""


class NotARecording(RecordingError):
    """The beginning of a file is not that of a recording."""


class BlockHeader(NamedTuple):
    """
    The header of a block.

    @ivar stored: the size of the payload in the file, in bytes.
    @ivar size: the size of the decompressed payload, in bytes.
    @ivar frames: the number of frames in the payload.
    @ivar checksum: the CRC-32 of the stored payload.
    @ivar offset_ns: nanoseconds since the session began.
    """

    kind: bytes
    stored: int
    size: int
    frames: int
    checksum: int
    offset_ns: int


class Damaged(Exception):
    """The content of the file is invalid.  The text is the reason."""


class Blocks:
    """
    Iterate over the blocks of a file, including a truncated last block.

    @ivar position: see `RecordingReader`.
    @ivar truncated: see `RecordingReader`.
    """

    def __init__(self, file: BinaryIO) -> None:
        """
        @raise RecordingError: the file is not a recording.
        """
        self._file = file
        self.position = 0
        self.truncated = 0
        beginning = _read(file, len(MAGIC))
        if beginning == MAGIC:
            self.position = len(MAGIC)
        elif MAGIC.startswith(self._before_hole(beginning)):
            # The first line itself is truncated.
            self.truncated = self.truncated or len(beginning)
        elif beginning.startswith(PREFIX):
            raise RecordingError(
                "unsupported recording format; a newer version of txmetrics-tcp may read it"
            )
        else:
            raise NotARecording("not a metrics recording")

    def __iter__(self) -> Iterator[tuple[BlockHeader, bytes]]:
        """
        @raise Damaged: a header, or the checksum of a complete block, is invalid.
        """
        while self.position and not self.truncated:
            start = _read(self._file, HEADER_SIZE)
            if not start:
                break
            if len(start) < HEADER_SIZE:
                self.truncated = len(start)
                break
            try:
                header = _parse_header(start)
            except Damaged:
                self._before_hole(start)
                if self.truncated:
                    break
                raise
            stored = _read(self._file, header.stored)
            if len(stored) < header.stored:
                self.truncated = HEADER_SIZE + len(stored)
                stored = stored.partition(_HOLE)[0]
            elif zlib.crc32(stored) != header.checksum:
                stored = self._before_hole(stored)
                if not self.truncated:
                    raise Damaged("wrong block checksum")
                self.truncated += HEADER_SIZE
            yield header, stored
            if not self.truncated:
                self.position += HEADER_SIZE + header.stored

    def _before_hole(self, data: bytes) -> bytes:
        """
        Handle invalid data.  If it has a hole, and only NUL bytes follow in the file, the recording
        is truncated there.

        @param data: the last data that was read.
        @return: the data before the hole, if there is one.
        """
        lost = 0
        while piece := self._file.read(BLOCK):
            lost += len(piece)
            if lost > _MAX_LOST or piece != bytes(len(piece)):
                return data
        before = (data + _HOLE[:lost]).partition(_HOLE)[0]
        if len(before) < len(data):
            self.truncated = len(data) + lost
        return before[: len(data)]

    def damage_message(self, error: Damaged) -> str:
        """Describe the damage: its position, after the blocks read so far, and the reason."""
        return f"damaged after the first {self.position} bytes: {error}"


def _parse_header(data: bytes) -> BlockHeader:
    if _CHECK.unpack_from(data, _HEADER.size)[0] != zlib.crc32(data[: _HEADER.size]):
        raise Damaged("wrong block header checksum")
    header = BlockHeader(*_HEADER.unpack_from(data))
    if max(header.stored, header.size) > MAX_BLOCK:
        raise Damaged(f"a block is larger than {MAX_BLOCK} bytes")
    return header


def encode_block(kind: bytes, payload: bytes, frames: int = 0, offset_ns: int = 0) -> bytes:
    """Encode a block with its header."""
    stored = zlib.compress(payload) if kind == ZLIB else payload
    header = _HEADER.pack(kind, len(stored), len(payload), frames, zlib.crc32(stored), offset_ns)
    return header + _CHECK.pack(zlib.crc32(header)) + stored


def _payload(header: BlockHeader, stored: bytes) -> bytes:
    """Decompress a payload.  From a truncated block, return as much as can be decompressed."""
    whole = len(stored) == header.stored
    if header.kind != ZLIB:
        return stored
    decompress = zlib.decompressobj()
    try:
        # One byte more than announced is enough to detect an oversized payload.
        payload = decompress.decompress(stored, header.size + 1)
    except zlib.error:
        raise Damaged("a block cannot be decompressed") from None
    if len(payload) > header.size or (
        whole and not (decompress.eof and len(payload) == header.size)
    ):
        raise Damaged("the size of a block differs from its header")
    return payload


def encode_chunk(after_ns: int, frames: bytes) -> bytes:
    """Encode one chunk of a block's payload, which `split` decodes."""
    return varint(after_ns) + varint(len(frames)) + frames


def split(header: BlockHeader, stored: bytes) -> Iterator[tuple[int, bytes, int]]:
    """
    Iterate over the chunks of a block, in pieces: a few compressed bytes may be millions of frames.

    @return: for each chunk, or about `PIECE` bytes of a larger one: nanoseconds since the block's
        time, whole frames, and their number.
    @raise Damaged: the payload is invalid.
    """
    whole = len(stored) == header.stored
    payload = _payload(header, stored)
    at = 0
    while at < len(payload):
        splitter = Frames(MAX_RECORDED_FRAME)
        try:
            after_ns, at = read_varint(payload, at)
            size, at = read_varint(payload, at)
            end = at + size
            if not size:
                raise Damaged("a chunk is empty")
            for begin in range(at, min(end, len(payload)), PIECE):
                frames, count = splitter.feed(payload[begin : min(begin + PIECE, end)])
                if count:
                    yield after_ns, frames, count
        except IndexError:
            if whole:
                raise Damaged("a block ends within a chunk") from None
            return
        except StreamError as error:
            raise Damaged(str(error)) from None
        if whole and (splitter.unfinished or end > len(payload)):
            raise Damaged("a chunk does not end with a frame")
        at = end


def _read(file: BinaryIO, size: int) -> bytes:
    """Read a number of bytes, or fewer at the end of the file."""
    data = bytearray()
    while len(data) < size and (piece := file.read(size - len(data))):
        data += piece
    return bytes(data)
