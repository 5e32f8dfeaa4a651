"""
Write to pipes, FIFOs and devices without blocking for long.  Does not import Twisted.
"""

from __future__ import annotations

import errno
import os
import select
from contextlib import suppress

PATIENCE = 1.0
"""The time, in seconds, that messages, and other writes after a signal, wait for a slow reader."""


def is_writable(descriptor: int, seconds: float) -> bool:
    """Wait until a write of a few bytes would not block, but no longer than a time."""
    # Unlike `select.select`, this accepts any descriptor.
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(seconds * 1000))


def write_some(descriptor: int, data: memoryview, interrupted: bool) -> int:
    """
    Write the beginning of the data, if the reader reads.  The caller repeats this until all data is
    written.  It can stop in between, for example after a signal.

    @param interrupted: whether to wait for the reader for at most `PATIENCE` seconds.
    @return: the number of bytes that were written; 0 if the reader has not read for a moment.
    @raise TimeoutError: the reader does not read, and C{interrupted} is true.
    @raise OSError: the data cannot be written.
    """
    # If the descriptor is ready, a write of up to PIPE_BUF bytes does not block.  A blocked write
    # could not be interrupted, since Python resumes it after a signal.
    if not is_writable(descriptor, 0.1):
        if not interrupted:
            return 0
        if not is_writable(descriptor, PATIENCE):
            raise TimeoutError(errno.ETIMEDOUT, "the reader does not read")
    # Another process may make the file non-blocking and fill it.
    with suppress(BlockingIOError):
        return os.write(descriptor, data[: select.PIPE_BUF])
    return 0
