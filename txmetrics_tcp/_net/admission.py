"""
Who may connect: from where, and how many at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from twisted.internet import address as internet
from twisted.internet.interfaces import IAddress

Network = IPv4Network | IPv6Network

_MAPPED = IPv6Network("::ffff:0:0/96")


def network(text: str | Network) -> Network:
    """
    A network, from what a user wrote: C{192.0.2.0/24}, C{2001:db8::/32}, or a single address.

    @raise TypeError: it is neither text nor a network.
    @raise ValueError: it is none.  The text says what would be one.
    """
    if not isinstance(text, str | Network):
        # A number would be an address, too.
        raise TypeError(f"a network must be a str, not {text!r}")
    try:
        found = ip_network(text)
    except ValueError:
        raise ValueError(f"{text!r} is no network{_instead(str(text))}") from None
    if isinstance(found, IPv6Network) and found.subnet_of(_MAPPED):
        # The addresses of IPv4, as a socket for both has them.
        mapped = found.network_address.ipv4_mapped
        return ip_network(f"{mapped}/{found.prefixlen - _MAPPED.prefixlen}")
    return found


def _instead(text: str) -> str:
    try:
        return f"; do you mean {ip_network(text, strict=False)}?"
    except ValueError:
        return "; give one as 192.0.2.0/24 or 2001:db8::/32, or an address"


class Admission:
    """
    Decides about clients as they come, and counts those that are there.

    Those that come over UNIX sockets count among all, and are not asked for more: who may
    connect to a file is said by its mode.

    @ivar networks: see the parameter.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        max_clients: int | None,
        max_per_address: int | None,
    ) -> None:
        """
        @param networks: where clients may come from; from anywhere if there are none.
        @param max_clients: how many there may be at once; None for any number.
        @param max_per_address: how many of them from one address, or, of IPv6, from one /64, which
            is what a machine is given at least; None for any number.
        """
        self.networks = tuple(networks)
        self._max_clients = max_clients
        self._max_per_address = max_per_address
        self._clients = 0
        self._by_place: Counter[object] = Counter()

    def refuses(self, address: IAddress | None) -> str | None:
        """
        Why a client from an address is not let in, as the end of a sentence; None if it is.
        """
        host = None
        if not isinstance(address, internet.UNIXAddress):
            host = ip_of(address)
            if self.networks and not any(host in allowed for allowed in self.networks if host):
                return "its address is not allowed"
        if self._max_clients is not None and self._clients >= self._max_clients:
            return f"{_there_are(self._clients)}, which is the limit"
        limit = self._max_per_address
        if limit is not None and host is not None and self._by_place[_place(host)] >= limit:
            return f"{_there_are(limit)} from its address, which is the limit"
        return None

    def enter(self, address: IAddress | None) -> None:
        """A client is there."""
        self._clients += 1
        if (host := ip_of(address)) is not None:
            self._by_place[_place(host)] += 1

    def leave(self, address: IAddress | None) -> None:
        """A client that was there is gone."""
        self._clients -= 1
        if (host := ip_of(address)) is not None:
            place = _place(host)
            self._by_place[place] -= 1
            if not self._by_place[place]:
                # There are many addresses, and each may come once.
                del self._by_place[place]


def ip_of(address: IAddress | None) -> IPv4Address | IPv6Address | None:
    """The address of a machine, if there is one: of IPv4 also as a socket for both has it."""
    if not isinstance(address, internet.IPv4Address | internet.IPv6Address):
        return None
    host = ip_address(address.host)
    if isinstance(host, IPv6Address) and host.ipv4_mapped is not None:
        return host.ipv4_mapped
    return host


def _place(host: IPv4Address | IPv6Address) -> object:
    if isinstance(host, IPv4Address) or host.is_link_local:
        # All machines on a link share the upper half of such an address.
        return host
    return int(host) >> 64


def _there_are(clients: int) -> str:
    return "there is 1 client" if clients == 1 else f"there are {clients} clients"
