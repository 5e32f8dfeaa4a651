"""
TLS for servers and clients.

TLS needs the packages of the extra ``tls``, which are imported on first use.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import (
    IListeningPort,
    INegotiated,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import ServerFactory
from zope.interface import implementer

from txmetrics_tcp._checks import short_repr
from txmetrics_tcp._net.tls_errors import TLS_NEEDS, TLSError

if TYPE_CHECKING:
    from OpenSSL.SSL import Connection, Context

StrPath = str | os.PathLike[str]


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """
    The server's side of TLS 1.2 or newer, with its key and certificate, and the authorities that it
    accepts for client certificates.
    """

    def __init__(
        self, key: StrPath, certificate: StrPath, client_ca: StrPath | None = None
    ) -> None:
        """
        @param key: a PEM file with the private key, not encrypted.
        @param certificate: a PEM file with the certificate, followed by any intermediate
            certificates.
        @param client_ca: a PEM file with certificates of authorities, one of which must have issued
            the client's certificate; None if clients need no certificate.
        @raise TLSError: a file cannot be used, or the extra ``tls`` is not installed.
        @raise TypeError: an argument is not a path.
        """
        # Absolute, since a daemon changes its working directory before it reloads the files.
        self._key = _path("key", key).absolute()
        self._certificate = _path("certificate", certificate).absolute()
        self._client_ca = None if client_ca is None else _path("client_ca", client_ca).absolute()
        self.reload()

    @property
    def wants_certificate(self) -> bool:
        """Whether clients need a certificate."""
        return self._client_ca is not None

    def reload(self) -> None:
        """
        Read the files again.  New connections use the new certificate; open connections continue.

        @raise TLSError: a file cannot be used.  The previous key and certificates stay in use.
        """
        context = _certificates().server_context(self._key, self._certificate, self._client_ca)
        _ignore_offered_protocols(context)
        self._context = context

    def wrap(self, factory: IProtocolFactory, clock: Any) -> IProtocolFactory:
        """Return a factory that adds TLS to the connections of another factory."""
        from twisted.protocols.tls import TLSMemoryBIOFactory

        return TLSMemoryBIOFactory(self, False, factory, clock=clock)

    def serverConnectionForTLS(self, tlsProtocol: Any) -> Connection:
        from OpenSSL.SSL import Connection

        return Connection(self._context, None)


class SSLReactor:
    """A wrapper of a reactor whose TLS ports serve clients that offer protocols (ALPN)."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def listenSSL(
        self,
        port: int,
        factory: ServerFactory,
        contextFactory: Any,
        backlog: int = 50,
        interface: str = "",
    ) -> IListeningPort:
        _ignore_offered_protocols(contextFactory.getContext())
        listening: IListeningPort = self._reactor.listenSSL(
            port, factory, contextFactory, backlog=backlog, interface=interface
        )
        return listening


def _ignore_offered_protocols(context: Context) -> None:
    """
    Make a server's context select none of the protocols that a client such as curl offers.

    With the callback of Twisted's C{CertificateOptions}, the handshake would fail with "internal
    error".
    """
    from OpenSSL.SSL import NO_OVERLAPPING_PROTOCOLS

    context.set_alpn_select_callback(lambda connection, offered: NO_OVERLAPPING_PROTOCOLS)


def tls_endpoint(
    endpoint: IStreamClientEndpoint,
    name: str,
    ca: StrPath | None = None,
    key: StrPath | None = None,
    certificate: StrPath | None = None,
) -> IStreamClientEndpoint:
    """
    Make an endpoint that connects with TLS 1.2 or newer, and verifies the server's certificate::

        plain = HostnameEndpoint(reactor, "metrics.example", 5000)
        stream = EventStream(reactor, tls_endpoint(plain, "metrics.example", ca="authority.pem"))

    @param endpoint: connects to the server without TLS.
    @param name: the host name or IP address that the server's certificate must be valid for.
    @param ca: a PEM file with certificates of accepted authorities; by default, the authorities
        that this machine trusts.
    @param key: a PEM file with the private key of C{certificate}, not encrypted.
    @param certificate: a PEM file with a certificate for servers that require one from their
        clients, followed by any intermediate certificates.
    @raise TLSError: a file cannot be used, only one of C{key} and C{certificate} is given, or the
        extra ``tls`` is not installed.
    @raise TypeError: an argument is of the wrong type.
    """
    if not IStreamClientEndpoint.providedBy(endpoint):
        raise TypeError(f"endpoint must be a client endpoint, not {short_repr(endpoint)}")
    if not isinstance(name, str):
        raise TypeError(f"name must be a str, not {short_repr(name)}")
    if (key is None) != (certificate is None):
        raise TLSError("a key and a certificate must be given together")
    creator = _certificates().client_creator(
        name,
        None if ca is None else _path("ca", ca),
        None if key is None else _path("key", key),
        None if certificate is None else _path("certificate", certificate),
    )
    wrapped: IStreamClientEndpoint = wrapClientTLS(creator, endpoint)
    return wrapped


def is_tls(transport: object) -> bool:
    """
    Whether a transport is TLS, and thus reports the end of its handshake.  A transport wrapped by
    this library's client is recognized by its attribute C{untapped}.
    """
    if not INegotiated.providedBy(transport):
        return False
    # Imported lazily, since it needs OpenSSL.  A provider of INegotiated has already imported it.
    from twisted.protocols.tls import TLSMemoryBIOProtocol

    return isinstance(getattr(transport, "untapped", transport), TLSMemoryBIOProtocol)


def check_server(transport: Any) -> None:
    """
    Check that the certificate of a server contains at least one name, and no invalid name.

    Endpoints from `tls_endpoint` verify the name.  Endpoints made with Twisted's
    C{optionsForClientTLS} verify it as well, except that since Twisted 26.4 they accept a
    certificate without a name, or with an invalid name, for every server.

    @param transport: a transport for which `is_tls` returns True, after its handshake.
    @raise TLSError: the certificate has no name, or an invalid one.
    """
    certificate = transport.getPeerCertificate()
    if certificate is None:
        # Only with anonymous ciphers, which a program must enable explicitly.
        return
    _certificates().check_names(getattr(transport, "untapped", transport), certificate)


def explain(error: BaseException | None) -> str | None:
    """
    Return the reason for a TLS failure, usually in OpenSSL's words; None if the error is not about
    TLS.
    """
    if isinstance(error, TLSError):
        return str(error)
    package = type(error).__module__.partition(".")[0]
    if package == "service_identity":
        return "the server's certificate is for another name"
    if error is None or package != "OpenSSL":
        return None
    match error.args:
        case [[(*_, reason), *_], *_]:
            # The first entry (library, function, reason) is the cause of the others.
            return str(reason)
    return repr(error)


def _path(name: str, value: StrPath) -> Path:
    """
    @param name: the name of the setting, for error messages.
    @raise TypeError: the value is not a path.
    """
    # The messages do not contain the value: it may be the private key itself.
    if isinstance(value, str) and "-----BEGIN" in value:
        raise TypeError(f"{name} must be the path of a PEM file, not its contents")
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be a path, not {type(value).__name__}")
    return Path(value)


def _certificates() -> ModuleType:
    try:
        from txmetrics_tcp._net import certificates
    except ImportError:
        raise TLSError(TLS_NEEDS) from None
    return certificates
