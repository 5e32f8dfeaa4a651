"""
What a process has inherited from the one that it was forked from, and must not use.

A reactor that was made before the fork, even one that never ran, shares its wake-up pipe and its
epoll set with the same reactor in the parent and in every other child: each would take what is
meant for the others.  Imported by all that instruments a program, as it has to be there before the
fork.
"""

from __future__ import annotations

import os
import sys
from typing import Any

inherited_reactor: Any = None
"""The global reactor of before the fork; None in a process that was not forked, or had none."""


def _after_fork_in_child() -> None:
    global inherited_reactor
    # Twisted knows it by this name.  Importing it would install one, and this room has no Twisted.
    inherited_reactor = sys.modules.get("twisted.internet.reactor")


os.register_at_fork(after_in_child=_after_fork_in_child)
