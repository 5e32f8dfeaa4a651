"""
Standard input, output and error of a process that was started without them (``>&-``).
"""

from __future__ import annotations

import os

_LAST = 2
"""The number of the last of the three."""


def occupy_standard_descriptors() -> None:
    """
    Have something at the numbers of those that are closed: what is opened next would get them.

    That would be the reactor's own descriptors, for example, which twistd then takes for standard
    output and closes when it goes into the background.
    """
    # What is opened gets the lowest number that is free.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _LAST:
        pass
    os.close(descriptor)
