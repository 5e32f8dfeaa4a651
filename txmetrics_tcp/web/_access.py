"""
Decides which requests are answered, against pages of other sites and names of other owners.

A browser sends requests on behalf of any page that it shows.  A page of another site must neither
read the answer, nor pretend with a name of its own that it is this site (DNS rebinding).
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress
from twisted.web.server import Request

from txmetrics_tcp._checks import short_repr
from txmetrics_tcp._net.admission import ip_of

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
        " img-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""The headers of all responses."""

MIN_TOKEN = 16
"""The minimum length of a token."""


class Refusal(NamedTuple):
    """
    Why a request is not answered.

    @ivar code: the status code of HTTP.
    """

    code: int
    text: str


class Access:
    """
    The rules of a page.

    @ivar token: what a request for data has to present; None for nothing.
    """

    def __init__(self, hosts: Iterable[str] = (), token: str | None = None) -> None:
        """
        @param hosts: further names of this site in the header C{Host}, with or without a port.
            The address that a client connects to, and localhost, are always accepted.
        @raise TypeError: they are not several `str`.
        @raise ValueError: one is not a name, or the token is too short.
        """
        if isinstance(hosts, str):
            raise TypeError(f"allow_hosts must be a list of names, not {short_repr(hosts)}")
        self._hosts = frozenset(check_host(host) for host in hosts)
        if token is not None:
            check_token(token)
        self.token = token

    def refusal(self, request: Request, data: bool, navigable: bool) -> Refusal | None:
        """
        Return why a request is not answered; None if it is.

        @param data: whether the answer contains metrics.
        @param navigable: whether it is the page itself, to which other sites may link.
        """
        if request.method not in (b"GET", b"HEAD"):
            return Refusal(405, "only GET and HEAD are allowed")
        local = _hosts_of(request.getHost())
        host = _only(request, "host")
        if host is None or not self._is_this_site(host.lower(), local):
            return Refusal(421, "the host is not one of this site's names: see --allow-host")
        if not navigable or not _is_navigation(request):
            site = _only(request, "sec-fetch-site") if _has(request, "sec-fetch-site") else "none"
            if site not in ("same-origin", "none"):
                return Refusal(403, "a page of another site has made the request")
            if _has(request, "origin") and not self._is_own_origin(_only(request, "origin"), local):
                return Refusal(403, "a page of another site has made the request")
        if data and self.token is not None and not self._has_token(request):
            return Refusal(401, "the token is missing or wrong")
        return None

    def _is_this_site(self, host: str, local: frozenset[str]) -> bool:
        if host in local or host in self._hosts:
            return True
        # A name without a port stands for the port that the client has connected to as well.
        name, _, port = host.rpartition(":")
        return name in self._hosts and any(one.endswith(f":{port}") for one in local)

    def _is_own_origin(self, origin: str | None, local: frozenset[str]) -> bool:
        try:
            parts = urlsplit(origin or "")
        except ValueError:
            return False
        if parts.scheme not in ("http", "https") or origin != f"{parts.scheme}://{parts.netloc}":
            return False
        return self._is_this_site(parts.netloc.lower(), local)

    def _has_token(self, request: Request) -> bool:
        scheme, _, given = (_only(request, "authorization") or "").partition(" ")
        expected = (self.token or "").encode()
        # In constant time, so that the time of the answer tells nothing of the token.
        same = hmac.compare_digest(given.strip().encode("latin-1", "replace"), expected)
        return scheme.lower() == "bearer" and same


def _has(request: Request, header: str) -> bool:
    return request.requestHeaders.hasHeader(header)


def _only(request: Request, header: str) -> str | None:
    """Return the value of a header; None without it, or if there are several."""
    values = request.requestHeaders.getRawHeaders(header.encode(), [])
    return values[0].decode("latin-1") if len(values) == 1 else None


def _is_navigation(request: Request) -> bool:
    """Whether the user follows a link to the page, or enters its address."""
    return (
        _only(request, "sec-fetch-mode") == "navigate"
        and _only(request, "sec-fetch-dest") == "document"
    )


def _hosts_of(address: IAddress) -> frozenset[str]:
    """Return the names of this site by the address that a client has connected to."""
    if not isinstance(address, IPv4Address | IPv6Address):
        # A UNIX socket: what connects to it is not a browser.
        return frozenset(["localhost"])
    ip, port = ip_of(address), address.port
    if ip is None:
        return frozenset()
    names = [f"[{ip}]" if ip.version == 6 else str(ip)]
    if ip.is_loopback:
        names.append("localhost")
    hosts = [f"{name}:{port}" for name in names]
    # The usual ports are left out.
    return frozenset(hosts + (names if port in (80, 443) else []))


def check_host(name: str) -> str:
    """
    Return a name of the site as it is compared.

    @raise TypeError: it is not a `str`.
    @raise ValueError: it is not NAME or NAME:PORT.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a host must be a str, not {short_repr(name)}")
    if not _HOST.fullmatch(name):
        raise ValueError(
            f"{short_repr(name)} is not the name of a host, such as metrics.example or"
            " metrics.example:8443"
        )
    return name.lower()


# A name that is not ASCII is sent as punycode.
_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


def check_token(token: str) -> None:
    """
    Check that a token can be sent in a header, and is not short.

    @raise TypeError: it is not a `str`.
    @raise ValueError: it cannot be used.
    """
    if not isinstance(token, str):
        # The token is a secret.
        raise TypeError(f"token must be a str, not {type(token).__name__}")
    if len(token) < MIN_TOKEN or not _TOKEN.fullmatch(token):
        raise ValueError(f"token must have at least {MIN_TOKEN} ASCII characters, without spaces")


_TOKEN = re.compile("[!-~]+")


def read_token(path: str) -> str:
    """
    Return the token in the first line of a file.

    @raise ValueError: the file cannot be read, or has no token.  The text names the file.
    """
    try:
        with open(path, encoding="ascii") as file:
            token = file.readline(4096).strip()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise ValueError(f"cannot read {path}: not ASCII text") from None
    try:
        check_token(token)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return token
