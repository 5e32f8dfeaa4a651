"""
What a port says when it cannot accept, because the process has no file descriptor left.

Twisted gets over it: it closes one that it keeps in reserve, accepts whoever waits, and hangs up
on them.  But it logs three lines for each, and whoever is turned away comes back soon.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IListeningPort
from twisted.internet.tcp import Port
from twisted.logger import ILogObserver, LogEvent, Logger
from zope.interface import provider

OUT_OF_DESCRIPTORS = "the process is out of file descriptors"


def say_briefly(port: IListeningPort, turned_away: Callable[[str, str], object]) -> None:
    """
    Have a port say through a function that it turned clients away, and not in the log.

    @param turned_away: called with the client, as one says it, and the reason.
    """
    if not isinstance(port, Port) or not hasattr(port, "_logger"):
        return
    own: Logger = port._logger

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        text = str(event.get("log_format"))
        if "Closed socket from" in text:
            turned_away(_shown(event.get("address")), OUT_OF_DESCRIPTORS)
        elif "Could not accept" in text:
            turned_away("of unknown address", f"accept failed with {event.get('acceptError')}")
        elif "EMFILE" not in text:
            own.observer(event)

    port._logger = Logger(namespace=own.namespace, observer=observe)


def _shown(address: Any) -> str:
    if not isinstance(address, tuple):
        return "unix"
    host, number = address[:2]
    return f"[{host}]:{number}" if ":" in str(host) else f"{host}:{number}"
