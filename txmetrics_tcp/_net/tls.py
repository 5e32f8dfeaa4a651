"""
TLS, for those who listen and those who connect.

What it is made of comes with the extra ``tls``, and is imported when TLS is asked for.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import (
    INegotiated,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from zope.interface import implementer

from txmetrics_tcp._net.tls_errors import TLS_NEEDS, TLSError

if TYPE_CHECKING:
    from OpenSSL.SSL import Connection

StrPath = str | os.PathLike[str]


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """
    The server's side of TLS, 1.2 or newer: its key and certificate, and who may connect.
    """

    def __init__(
        self, key: StrPath, certificate: StrPath, client_ca: StrPath | None = None
    ) -> None:
        """
        @param key: a file with the private key, in PEM, not encrypted.
        @param certificate: a file with the certificate and those that lead to its authority.
        @param client_ca: a file with the authorities that a client's certificate has to be from;
            without it, clients need none.
        @raise TLSError: a file cannot be used, or the extra is not installed.
        """
        # Absolute, since a daemon changes its directory before it reads them again.
        self._key = Path(key).absolute()
        self._certificate = Path(certificate).absolute()
        self._client_ca = None if client_ca is None else Path(client_ca).absolute()
        self.reload()

    @property
    def wants_certificate(self) -> bool:
        """Whether clients have to show a certificate."""
        return self._client_ca is not None

    def reload(self) -> None:
        """
        Read the files again, for connections to come; those that there are go on.

        @raise TLSError: a file cannot be used.  What was read before stays in use.
        """
        self._context = _certificates().server_context(
            self._key, self._certificate, self._client_ca
        )

    def wrap(self, factory: IProtocolFactory, clock: Any) -> IProtocolFactory:
        """Have the connections of a factory begin with TLS."""
        from twisted.protocols.tls import TLSMemoryBIOFactory

        return TLSMemoryBIOFactory(self, False, factory, clock=clock)

    def serverConnectionForTLS(self, tlsProtocol: Any) -> Connection:
        from OpenSSL.SSL import Connection

        return Connection(self._context, None)


def tls_endpoint(
    endpoint: IStreamClientEndpoint,
    name: str,
    ca: StrPath | None = None,
    key: StrPath | None = None,
    certificate: StrPath | None = None,
) -> IStreamClientEndpoint:
    """
    Connect with TLS, 1.2 or newer, to a server that proves who it is::

        plain = HostnameEndpoint(reactor, "metrics.example", 5000)
        stream = EventStream(reactor, tls_endpoint(plain, "metrics.example", ca="authority.pem"))

    @param endpoint: where the server is.
    @param name: the name, or IP address, that its certificate has to be for.
    @param ca: a file with the authorities that the certificate may be from, in PEM; those that
        this machine trusts unless given.
    @param key: a file with a private key, if the server asks for a certificate of ours.
    @param certificate: a file with that certificate and those that lead to its authority.
    @raise TLSError: a file cannot be used, or the extra is not installed.
    """
    if (key is None) != (certificate is None):
        raise TLSError("a key and a certificate are of use together only")
    creator = _certificates().client_creator(
        name, *(None if file is None else Path(file) for file in (ca, key, certificate))
    )
    wrapped: IStreamClientEndpoint = wrapClientTLS(creator, endpoint)
    return wrapped


def is_tls(transport: object) -> bool:
    """Whether a transport is TLS, directly or tapped: it then tells when its handshake is done."""
    if not INegotiated.providedBy(transport):
        return False
    # Late, since it needs OpenSSL; whatever provides that interface has imported it.
    from twisted.protocols.tls import TLSMemoryBIOProtocol

    return isinstance(getattr(transport, "untapped", transport), TLSMemoryBIOProtocol)


def check_server(transport: Any) -> None:
    """
    Check that the certificate of a server names anything at all.

    `tls_endpoint` checks for one name.  Endpoints that were made with Twisted's
    C{optionsForClientTLS} do the same, but since Twisted 26.4 they accept a certificate without a
    name, or with a name that is not valid, for every server.

    @param transport: a transport for which `is_tls` holds, after its handshake.
    @raise TLSError: the certificate has no name, or one that is not valid.
    """
    certificate = transport.getPeerCertificate()
    if certificate is None:
        # Some ciphers need no certificate; a program has to ask for them.
        return
    _certificates().check_names(getattr(transport, "untapped", transport), certificate)


def explain(error: BaseException | None) -> str | None:
    """Why TLS with the peer failed, in OpenSSL's words; None if the error is not one of TLS."""
    if isinstance(error, TLSError):
        return str(error)
    package = type(error).__module__.partition(".")[0]
    if package == "service_identity":
        return "its certificate is for another name"
    if error is None or package != "OpenSSL":
        return None
    match error.args:
        case [[(*_, reason), *_], *_]:
            # What failed (library, function, reason), before what failed because of it.
            return str(reason)
    return repr(error)


def _certificates() -> ModuleType:
    try:
        from txmetrics_tcp._net import certificates
    except ImportError:
        raise TLSError(TLS_NEEDS) from None
    return certificates
