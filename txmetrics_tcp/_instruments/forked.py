"""
The reactor that a forked process inherited from its parent, and must not use.

A reactor created before the fork, even one that never ran, shares its wake-up pipe and epoll set
with its copies in the parent and in all other children, so each copy would consume the others'
wake-ups.  The facade imports this module, because the hook must be registered before the fork.
"""

from __future__ import annotations

import os
import sys
from typing import Any

inherited_reactor: Any = None
"""The global reactor created before the fork, or None."""


def _after_fork_in_child() -> None:
    global inherited_reactor
    # Importing twisted.internet.reactor would install a reactor, and _instruments must not import
    # Twisted.
    inherited_reactor = sys.modules.get("twisted.internet.reactor")


os.register_at_fork(after_in_child=_after_fork_in_child)
