"""
How a port accepts: few at a time; and what it says when it cannot, because the process has no
file descriptor left.

Twisted accepts a hundred in one turn of the reactor, and more when so many come.  Each is then sent
where things stand, which takes a moment, and so a crowd would keep all others waiting for half a
second at a time.

Twisted gets over a lack of descriptors: it closes one that it keeps in reserve, accepts whoever
waits, and hangs up on them.  But it logs three lines for each, and whoever is turned away comes
back soon.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IListeningPort
from twisted.internet.tcp import Port
from twisted.logger import ILogObserver, LogEvent, Logger
from zope.interface import provider

FEW = 10
"""How many connections a port may accept in one turn of the reactor."""

OUT_OF_DESCRIPTORS = "the process is out of file descriptors"


def accept_few(port: IListeningPort) -> None:
    """
    Have a port leave the reactor its turn after `FEW` connections.

    Nothing happens to one that is none of Twisted's own.
    """
    if not isinstance(port, Port) or not hasattr(port, "numberAccepts"):
        return
    accept = port.doRead

    def accept_some() -> None:
        # It follows how many came the last time, upwards without a bound.
        port.numberAccepts = min(port.numberAccepts, FEW)
        accept()

    port.doRead = accept_some  # type: ignore[method-assign]


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
