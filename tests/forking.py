"""
Forks in tests.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable

from tests.daemon import LIMIT

if sys.version_info >= (3, 12):
    import warnings


def in_child(act: Callable[[], object], fork: Callable[[], int] = os.fork) -> str:
    """
    Call a function in a forked child.

    @param fork: forks; returns as C{os.fork}.
    @return: the C{repr} of its result, or the traceback of its exception; empty if it hangs.
    """
    reading, writing = os.pipe()
    with warnings_of_forking_off():
        child = fork()
    if child == 0:
        try:
            os.close(reading)
            # Ends a child that deadlocks, so that the parent does not wait for it.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(int(LIMIT))
            try:
                answer = repr(act())
            except BaseException:
                answer = traceback.format_exc()
            os.write(writing, answer.encode()[:4000])
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answers:
        answer = answers.read().decode()
    os.waitpid(child, 0)
    return answer


def is_open(descriptor: int) -> bool:
    """Return whether a file descriptor is open."""
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


class warnings_of_forking_off:
    """Suppresses the warning of Python 3.12 and later about forks in programs with threads."""

    def __enter__(self) -> None:
        if sys.version_info >= (3, 12):
            self._catch = warnings.catch_warnings()
            self._catch.__enter__()
            warnings.simplefilter("ignore", DeprecationWarning)

    def __exit__(self, *exception: object) -> None:
        if sys.version_info >= (3, 12):
            self._catch.__exit__(None, None, None)
