"""
The files that a command writes when all is done.
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path


def output_file(text: str) -> Path:
    """
    The value of such an option.  That nothing can be written there is told before an hour's work
    and not after it, by the only thing that is sure to know: opening it.
    """
    path = Path(text)
    new = not path.exists()
    try:
        path.open("a").close()
    except OSError as error:
        raise ArgumentTypeError(f"{text}: {error.strerror}") from None
    if new:
        path.unlink()
    return path
