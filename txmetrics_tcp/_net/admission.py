"""
Admission control: the networks that clients may connect from, and limits on their number.
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

from txmetrics_tcp._checks import short_repr

Network = IPv4Network | IPv6Network

AnyNetwork = str | Network | IPv4Address | IPv6Address
"""What `network` accepts."""

_MAPPED = IPv6Network("::ffff:0:0/96")

_FORM = "192.0.2.0/24, 2001:db8::/32 or an address"


def network(name: str, value: AnyNetwork) -> Network:
    """
    Return a network: C{192.0.2.0/24}, C{2001:db8::/32}, or a single address.

    @param name: the name of the setting, for error messages.
    @raise TypeError: C{value} is neither a string, nor a network or address.
    @raise ValueError: C{value} is not a network, or has a zone that no client can have.  The
        message shows the expected form.
    """
    if not isinstance(value, AnyNetwork):
        # `ip_network` accepts integers and bytes as addresses.
        raise TypeError(f"{name}: expected {_FORM}; got {short_repr(value)}")
    subject = f"{name}: {short_repr(value)}"
    try:
        found = ip_network(value)
    except ValueError:
        raise ValueError(f"{subject} is not a network; {_suggestion(str(value))}") from None
    if zone := _zone(found):
        if not found.is_link_local:
            raise ValueError(f"{subject} has a zone, but is not link-local")
        if zone.isdigit():
            raise ValueError(f"{subject}: the zone must be the name of an interface")
    if isinstance(found, IPv6Network) and found.subnet_of(_MAPPED):
        # Dual-stack sockets report IPv4 clients with such addresses.
        mapped = found.network_address.ipv4_mapped
        return ip_network(f"{mapped}/{found.prefixlen - _MAPPED.prefixlen}")
    return found


def _suggestion(text: str) -> str:
    try:
        if "%" not in text:
            return f"did you mean {ip_network(text, strict=False)}?"
    except ValueError:
        pass
    return f"expected {_FORM}"


def _zone(value: Network | IPv4Address | IPv6Address) -> str | None:
    """Return the zone of a network or address: the interface on which it is valid."""
    address = value if isinstance(value, IPv4Address | IPv6Address) else value.network_address
    return address.scope_id if isinstance(address, IPv6Address) else None


def _contains(allowed: Network, host: IPv4Address | IPv6Address) -> bool:
    # `ipaddress` ignores the zone.
    return host in allowed and _zone(allowed) in (None, _zone(host))


class Admission:
    """
    Decides whether to accept clients, and counts connected clients.

    Clients of UNIX sockets count toward C{max_clients}.  The networks and the limit per address do
    not apply to them: the mode of the socket file controls access.
    """

    def __init__(
        self,
        networks: Sequence[Network] | None,
        max_clients: int | None,
        max_per_address: int | None,
    ) -> None:
        """
        @param networks: the networks that clients may connect from; None for any network.
        @param max_clients: the maximum number of connected clients; None for no limit.
        @param max_per_address: the maximum number of connected clients per IPv4 address or IPv6 /64
            network; None for no limit.  One machine usually has a whole /64 network.
        """
        self.networks = None if networks is None else tuple(networks)
        self._max_clients = max_clients
        self._max_per_address = max_per_address
        self._clients = 0
        self._per_address: Counter[object] = Counter()

    def rejection_reason(self, address: IAddress | None) -> str | None:
        """
        Return the reason for rejecting a client from this address, or None to accept it.

        The reason completes the log lines "Rejected client X: …" and "Rejected 5 more clients: …".
        """
        host = None
        if not isinstance(address, internet.UNIXAddress):
            host = ip_of(address)
            if self.networks is not None and not (
                host and any(_contains(allowed, host) for allowed in self.networks)
            ):
                return f"address not allowed{self._missing_family(host)}"
        if self._max_clients is not None and self._clients >= self._max_clients:
            return f"client limit reached ({self._max_clients})"
        limit = self._max_per_address
        if limit is not None and host is not None and self._per_address[_limit_key(host)] >= limit:
            return f"client limit per address reached ({limit})"
        return None

    def _missing_family(self, host: IPv4Address | IPv6Address | None) -> str:
        """
        Return a hint if no network of the host's version is allowed.  A port on C{::} usually
        accepts both versions.
        """
        if host is None or any(host.version == allowed.version for allowed in self.networks or ()):
            return ""
        every = "0.0.0.0/0" if host.version == 4 else "::/0"
        return f" (no IPv{host.version} network is allowed; {every} contains all)"

    def enter(self, address: IAddress | None) -> None:
        """Count a client that has connected."""
        self._clients += 1
        if (host := ip_of(address)) is not None:
            self._per_address[_limit_key(host)] += 1

    def leave(self, address: IAddress | None) -> None:
        """Stop counting a client that has disconnected."""
        self._clients -= 1
        if (host := ip_of(address)) is not None:
            key = _limit_key(host)
            self._per_address[key] -= 1
            if not self._per_address[key]:
                # Keeps memory bounded when clients connect from many addresses.
                del self._per_address[key]


def ip_of(address: IAddress | None) -> IPv4Address | IPv6Address | None:
    """
    Return the IP address, or None for an address of another kind.  An IPv4-mapped IPv6 address,
    which dual-stack sockets report, is converted to the IPv4 address.
    """
    if not isinstance(address, internet.IPv4Address | internet.IPv6Address):
        return None
    host = ip_address(address.host)
    if isinstance(host, IPv6Address) and host.ipv4_mapped is not None:
        return host.ipv4_mapped
    return host


def _limit_key(host: IPv4Address | IPv6Address) -> object:
    """Return the key under which the clients of an address are counted."""
    if isinstance(host, IPv4Address) or host.is_link_local:
        # All machines on a link share the upper half of a link-local address.
        return host
    return int(host) >> 64
