"""
Keys and certificates from PEM files, and the OpenSSL contexts that are made of them.

This module needs pyOpenSSL and service-identity; `txmetrics_tcp._net.tls` imports it late.
"""

from __future__ import annotations

import weakref
from contextlib import suppress
from datetime import datetime, timezone
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import idna
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import PublicKeyAlgorithmOID
from OpenSSL import SSL, crypto
from service_identity import hazmat, pyopenssl
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    TLSVersion,
    platformTrust,
    trustRootFromCertificates,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from txmetrics_tcp._net.tls_errors import TLSError

_OLDEST = TLSVersion.TLSv1_2

_MAX_CHAIN = 30_000

_NO_NAME = "its certificate names no server (no valid host name or address in a subjectAltName)"


def server_context(key: Path, certificate: Path, client_ca: Path | None) -> SSL.Context:
    """
    @param certificate: that of the server first, then those that lead to its authority.
    @param client_ca: the authorities that a client's certificate has to be from; None if a
        client needs none.
    @raise TLSError: a file cannot be used.
    """
    trust = None if client_ca is None else _trust(client_ca)
    return _context(trustRoot=trust, **_identity(key, certificate))


def client_creator(
    name: str, ca: Path | None, key: Path | None, certificate: Path | None
) -> IOpenSSLClientConnectionCreator:
    """
    @param name: the name, or address, that the server's certificate has to be for.
    @param ca: the authorities that it may be from; None for those that this machine trusts.
    @raise TLSError: a file cannot be used, or the name is none.
    """
    own = {} if key is None or certificate is None else _identity(key, certificate)
    context = _context(trustRoot=platformTrust() if ca is None else _trust(ca), **own)
    try:
        return _ClientTLS(context, name)
    except ValueError:
        # UnicodeError is one of them.
        raise TLSError(f"{name!r} is no name that a certificate could be for") from None


@implementer(IOpenSSLClientConnectionCreator)
class _ClientTLS:
    """
    The client's side of TLS: checks that a server's certificate is for a name.

    Twisted's C{optionsForClientTLS} does it too, but accepts a certificate, since 26.4, when
    service_identity raises its C{CertificateError}: one without a name, or with one that is not
    valid, passes for every server.  Here a certificate passes only if a name in it is right.
    """

    def __init__(self, context: SSL.Context, name: str) -> None:
        """
        @param context: checks the authority.
        @raise ValueError: it is no name that a certificate could be for.
        """
        self._context = context
        self._server_name: bytes | None = None
        self._wanted: hazmat.DNS_ID | hazmat.IPAddress_ID
        # A certificate has neither the zone of an address nor the last dot of a name.
        address = name.partition("%")[0]
        if isIPAddress(address) or isIPv6Address(address):
            self._wanted = hazmat.IPAddress_ID(address)
        else:
            if not name.isascii():
                name = idna.encode(name, uts46=True).decode()
            name = name.removesuffix(".")
            if not all(0 < len(label) < 64 for label in name.split(".")):
                raise ValueError("a label is empty or too long")
            self._wanted = hazmat.DNS_ID(name)
            self._server_name = name.encode()

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        if self._server_name is not None:
            connection.set_tlsext_host_name(self._server_name)
        # A connection keeps its callback, and its protocol keeps the connection.
        protocol = weakref.ref(tlsProtocol)

        def verify(
            connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int
        ) -> bool:
            # What is raised here would be lost in OpenSSL.
            if not ok or depth != 0:
                return bool(ok)
            try:
                hazmat.verify_service_identity(_names_in(certificate), [self._wanted], [])
            except Exception:
                if (failed := protocol()) is not None:
                    failed.failVerification(Failure())
                return False
            if (passed := protocol()) is not None:
                _checked.add(passed)
            return True

        connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, verify)
        return connection


_checked: weakref.WeakSet[Any] = weakref.WeakSet()
"""The protocols of TLS whose servers `_ClientTLS` has checked."""


def check_names(protocol: Any, certificate: crypto.X509) -> None:
    """
    Check a server's certificate for what Twisted's own check leaves out; see `_ClientTLS`.

    @param protocol: that of TLS.
    @raise TLSError: there is no name, or one that makes Twisted skip its check.
    """
    if protocol in _checked:
        return
    try:
        names = pyopenssl.extract_patterns(certificate)
    except Exception as error:
        # Whatever is raised (there are several).
        said = str(error).rstrip(".")
        raise TLSError(f"a name in its certificate is not valid: {said}") from None
    if not names:
        raise TLSError(_NO_NAME)


def _names_in(certificate: crypto.X509) -> list[Any]:
    """
    The host names and addresses that a server's certificate is for; those that are not valid are
    left out.

    @raise TLSError: there are none.
    """
    found: list[Any] = []
    with suppress(Exception):
        names = certificate.to_cryptography().extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
        for host in names.value.get_values_for_type(x509.DNSName):
            with suppress(Exception):
                found.append(hazmat.DNSPattern.from_bytes(host.encode()))
        for address in names.value.get_values_for_type(x509.IPAddress):
            if isinstance(address, IPv4Address | IPv6Address):
                found.append(hazmat.IPAddressPattern(address))
    if not found:
        raise TLSError(_NO_NAME)
    return found


def _context(**options: Any) -> SSL.Context:
    try:
        context: SSL.Context = CertificateOptions(
            **{"raiseMinimumTo": _OLDEST} | options
        ).getContext()
    except SSL.Error as error:
        # Too short a key, for example.
        raise TLSError(f"OpenSSL refuses the certificate: {error.args[0][-1][-1]}") from None
    return context


def _identity(key_file: Path, certificate_file: Path) -> dict[str, Any]:
    """A key and its certificates, as arguments of `CertificateOptions`."""
    pem = _read(key_file)
    try:
        key = load_pem_private_key(pem, None)
    except TypeError:
        raise TLSError(f"the key in {key_file} is encrypted; give one that is not") from None
    except Exception:
        # Whatever is raised (there are several), it is for people who read ASN.1.
        raise TLSError(f"there is no private key in {key_file}, in PEM") from None
    own, *chain = _certificates(certificate_file)
    if sum(len(one.public_bytes(Encoding.DER)) for one in (own, *chain)) > _MAX_CHAIN:
        # Twisted sends no more than 32 KiB before the other side answers, and would wait for that.
        raise TLSError(
            f"the certificates in {certificate_file} are too long together; keep the first, and"
            " those that lead to its authority"
        )
    now = datetime.now(timezone.utc)
    if now > own.not_valid_after_utc:
        raise TLSError(
            f"the certificate in {certificate_file} has expired ({own.not_valid_after_utc:%F})"
        )
    if now < own.not_valid_before_utc:
        raise TLSError(
            f"the certificate in {certificate_file} is not valid yet"
            f" ({own.not_valid_before_utc:%F})"
        )
    if _bytes(key.public_key()) != _bytes(own.public_key()):
        raise TLSError(
            f"the key in {key_file} is not that of the first certificate in {certificate_file}"
        )
    try:
        crypto.PKey.from_cryptography_key(key)  # type: ignore[arg-type]
    except TypeError:
        raise TLSError(f"the key in {key_file} is of a kind that TLS has not") from None
    if own.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS:
        # It would be taken for another key than that of its certificate.
        raise TLSError(
            f"the key in {key_file} is one for RSA-PSS alone, which is not supported; a key for RSA"
            " is good for that, too"
        )
    # Twisted hands them to pyOpenSSL as they are, which wants no objects of its own any more.
    identity = {"privateKey": key, "certificate": own, "extraCertChain": chain}
    if not _is_usable(identity):
        curve = getattr(key, "curve", None)
        raise TLSError(
            f"no peer could use the key in {key_file}"
            + (f": TLS has no use for the curve {curve.name}; take secp256r1" if curve else "")
        )
    return identity


def _is_usable(identity: dict[str, Any]) -> bool:
    """Whether a handshake with a key and its certificates succeeds, with the usual client."""
    server = SSL.Connection(_context(**identity), None)
    client = SSL.Connection(_context(), None)
    server.set_accept_state()
    client.set_connect_state()
    done: set[SSL.Connection] = set()
    # A handshake takes fewer steps than this.
    for one, other in [(client, server), (server, client)] * 5:
        try:
            one.do_handshake()
            done.add(one)
        except SSL.WantReadError:
            pass
        except SSL.Error:
            return False
        with suppress(SSL.WantReadError):
            other.bio_write(one.bio_read(2**16))
    return len(done) == 2


def _trust(file: Path) -> Any:
    return trustRootFromCertificates(
        [Certificate(crypto.X509.from_cryptography(one)) for one in _certificates(file)]
    )


def _certificates(file: Path) -> list[x509.Certificate]:
    pem = _read(file)
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise TLSError(f"there is no certificate in {file}, in PEM") from None


def _read(file: Path) -> bytes:
    try:
        if file.exists() and not file.is_file():
            # Reading a pipe, say, would wait for who writes to it.
            raise TLSError(f"cannot read {file}: it is not a regular file")
        return file.read_bytes()
    except OSError as error:
        raise TLSError(f"cannot read {file}: {error.strerror}") from None


def _bytes(public_key: Any) -> bytes:
    encoded: bytes = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded
