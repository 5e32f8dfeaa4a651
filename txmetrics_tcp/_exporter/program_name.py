"""
The name of the program that this process runs.
"""

from __future__ import annotations

import os
import sys


def program_name() -> str:
    """
    Return the file name of the program, or the name of the module or package that ``python -m``
    runs.  Empty in an interactive interpreter, and C{-c} for a program on the command line.

    With ``python -m``, the file is known only after the start of the interpreter.
    """
    program = sys.argv[0] if sys.argv else ""
    name = os.path.basename(program)
    if name in ("", "__main__.py"):
        # A package or a directory.
        return os.path.basename(os.path.dirname(program))
    if name != "-m":
        return name
    # The arguments of the module are those of the process.
    first = len(sys.orig_argv) - len(sys.argv)
    return sys.orig_argv[first].removeprefix("-m") if 0 < first < len(sys.orig_argv) else ""
