"""
Line 3: Ctrl-C ends a command soon that reads a recording of few bytes and many frames.
"""

import struct
import time
import zlib
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, TimeoutExpired
from tempfile import TemporaryDirectory

from tests.faults import Report, run, start
from tests.programs import until

SIZE = 16 * 1024 * 1024
LENGTH = bytes([0xF8, 0xFF, 0xFF, 0x07])
PAYLOADS = {
    "empty chunks": bytes(SIZE),
    "empty frames in one chunk": b"\x00" + LENGTH + bytes(SIZE - 8),
    "chunks of an empty frame": b"\x00\x01\x00" * (SIZE // 3),
}


def block(kind: bytes, payload: bytes) -> bytes:
    stored = zlib.compress(payload, 9) if kind == b"zlib" else payload
    header = struct.pack("<4sIIIIQ", kind, len(stored), len(payload), 0, zlib.crc32(stored), 0)
    return header + struct.pack("<I", zlib.crc32(header)) + stored


def seconds_to_end(path: str, command: str) -> float:
    """Return the time in which SIGINT ends a command; 0 if it ended before; a minute at most."""
    with start(command, path, stdout=DEVNULL, stderr=DEVNULL) as child:
        until(lambda: child.poll() is not None or position(child.pid, path) > 16_000)
        started = time.monotonic()
        child.send_signal(2)
        try:
            child.wait(60)
        except TimeoutExpired:
            child.kill()
        return time.monotonic() - started


def position(process: int, path: str) -> int:
    """Return the number of bytes of the file that a process has read."""
    # It may close a descriptor, or end, meanwhile.
    with suppress(OSError):
        for descriptor in Path(f"/proc/{process}/fd").iterdir():
            if str(descriptor.resolve()) == path:
                information = Path(f"/proc/{process}/fdinfo/{descriptor.name}").read_text()
                return int(information.split()[1])
    return 0


def main(report: Report, blocks: int = 200) -> None:
    with TemporaryDirectory() as directory:
        path = str(Path(directory).resolve() / "a.rec")
        for name, payload in PAYLOADS.items():
            session = block(b"sess", b'{"time_ns": 1, "source": "x"}')
            data = b"txmetrics-tcp recording 1\n" + session + block(b"zlib", payload) * blocks
            Path(path).write_bytes(data)
            for command in ("stats", "tail"):
                seconds = seconds_to_end(path, command)
                report.at_most(f"{name} ({len(data)} bytes), {command}", seconds, 2, "s")


if __name__ == "__main__":
    run(main)
