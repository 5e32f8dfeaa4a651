"""
Load keys and certificates from PEM files, and make OpenSSL contexts from them.

This module needs pyOpenSSL and service-identity; `txmetrics_tcp._net.tls` imports it lazily.
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

from txmetrics_tcp._checks import short_repr
from txmetrics_tcp._net.tls_errors import TLSError, TLSNameError

_OLDEST = TLSVersion.TLSv1_2

_MAX_CHAIN = 30_000

_NO_NAME = "the server's certificate has no valid host name or address in a subjectAltName"


def server_context(key: Path, certificate: Path, client_ca: Path | None) -> SSL.Context:
    """
    Make the context of a server.

    @param certificate: the server's certificate, followed by any intermediate certificates.
    @param client_ca: the authorities that must have issued a client's certificate; None if clients
        need no certificate.
    @raise TLSError: a file cannot be used.
    """
    trust = None if client_ca is None else _trust(client_ca)
    return _context(trustRoot=trust, **_identity(key, certificate))


def client_creator(
    name: str, ca: Path | None, key: Path | None, certificate: Path | None
) -> IOpenSSLClientConnectionCreator:
    """
    Make the connection creator of a client.

    @param name: the host name or address that the server's certificate must be valid for.
    @param ca: the accepted authorities; None for the authorities that this machine trusts.
    @raise TLSError: a file cannot be used, or C{name} is not a host name or address.
    """
    own = {} if key is None or certificate is None else _identity(key, certificate)
    context = _context(trustRoot=platformTrust() if ca is None else _trust(ca), **own)
    try:
        return _ClientTLS(context, name)
    except ValueError:
        # Includes UnicodeError.
        raise TLSNameError(f"{short_repr(name)} is not a valid host name or address") from None


@implementer(IOpenSSLClientConnectionCreator)
class _ClientTLS:
    """
    The client's side of TLS.  Verifies that the server's certificate is valid for a name.

    Twisted's C{optionsForClientTLS} verifies the name as well.  However, since 26.4 it accepts a
    certificate when service_identity raises C{CertificateError}: a certificate without a name, or
    with an invalid name, is accepted for every server.  This class requires a matching name.
    """

    def __init__(self, context: SSL.Context, name: str) -> None:
        """
        @param context: verifies the authority.
        @raise ValueError: C{name} is not a valid host name or address.
        """
        self._context = context
        self._server_name: bytes | None = None
        self._wanted: hazmat.DNS_ID | hazmat.IPAddress_ID
        # Addresses in certificates have no zone, and names have no trailing dot.
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
        # Avoids a reference cycle: the protocol refers to the connection, which refers to verify.
        protocol = weakref.ref(tlsProtocol)

        def verify(
            connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int
        ) -> bool:
            # OpenSSL would discard an exception raised here.
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
"""The TLS protocols whose server certificates `_ClientTLS` has verified."""


def check_names(protocol: Any, certificate: crypto.X509) -> None:
    """
    Reject server certificates that Twisted accepts without verifying the name; see `_ClientTLS`.

    @param protocol: the TLS protocol of the connection.
    @raise TLSError: the certificate has no name, or a name that makes Twisted skip its check.
    """
    if protocol in _checked:
        return
    try:
        names = pyopenssl.extract_patterns(certificate)
    except Exception as error:
        # service_identity raises several types.
        text = str(error).rstrip(".")
        raise TLSError(f"the server's certificate contains an invalid name: {text}") from None
    if not names:
        raise TLSError(_NO_NAME)


def _names_in(certificate: crypto.X509) -> list[Any]:
    """
    Return the valid host names and addresses in a server's certificate.

    @raise TLSError: the certificate has no valid name.
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
        # For example, the key is too short.
        raise TLSError(f"OpenSSL rejected the certificate: {error.args[0][-1][-1]}") from None
    return context


def _identity(key_file: Path, certificate_file: Path) -> dict[str, Any]:
    """
    Load and check a key and its certificates, and return them as arguments of `CertificateOptions`.

    @raise TLSError: a file cannot be used.
    """
    pem = _read(key_file)
    try:
        key = load_pem_private_key(pem, None)
    except TypeError:
        raise TLSError(f"the private key in {key_file} is encrypted; decrypt it first") from None
    except Exception:
        # cryptography raises several types, whose messages describe ASN.1.
        raise TLSError(f"no private key in PEM format in {key_file}") from None
    own, *chain = _certificates(certificate_file)
    if sum(len(one.public_bytes(Encoding.DER)) for one in (own, *chain)) > _MAX_CHAIN:
        # Twisted sends at most 32 KiB before the peer answers, so the handshake would never end.
        raise TLSError(
            f"the certificates in {certificate_file} are larger than {_MAX_CHAIN} bytes in total;"
            " keep only the server's certificate and its intermediate certificates"
        )
    now = datetime.now(timezone.utc)
    if now > own.not_valid_after_utc:
        raise TLSError(
            f"the certificate in {certificate_file} expired on {own.not_valid_after_utc:%F}"
        )
    if now < own.not_valid_before_utc:
        raise TLSError(
            f"the certificate in {certificate_file} is not valid before"
            f" {own.not_valid_before_utc:%F}"
        )
    if _bytes(key.public_key()) != _bytes(own.public_key()):
        raise TLSError(
            f"the private key in {key_file} does not match the first certificate in"
            f" {certificate_file}"
        )
    try:
        crypto.PKey.from_cryptography_key(key)  # type: ignore[arg-type]
    except TypeError:
        raise TLSError(f"the private key in {key_file} is of a type that TLS cannot use") from None
    if own.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS:
        # OpenSSL would not match the key with its certificate.
        raise TLSError(
            f"the private key in {key_file} is restricted to RSA-PSS, which is not supported; use"
            " an ordinary RSA key, which also makes RSA-PSS signatures"
        )
    # Twisted passes these objects to pyOpenSSL, which has deprecated its own types for them.
    identity = {"privateKey": key, "certificate": own, "extraCertChain": chain}
    if not _is_usable(identity):
        curve = getattr(key, "curve", None)
        raise TLSError(
            f"a test handshake with the private key in {key_file} failed"
            + (f": TLS does not support the curve {curve.name}; use secp256r1" if curve else "")
        )
    return identity


def _is_usable(identity: dict[str, Any]) -> bool:
    """Whether a handshake between a server with this identity and a default client succeeds."""
    server = SSL.Connection(_context(**identity), None)
    client = SSL.Connection(_context(), None)
    server.set_accept_state()
    client.set_connect_state()
    done: set[SSL.Connection] = set()
    # More steps than any handshake takes.
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
        raise TLSError(f"no certificate in PEM format in {file}") from None


def _read(file: Path) -> bytes:
    try:
        if file.exists() and not file.is_file():
            # Reading a pipe, for example, would block.
            raise TLSError(f"cannot read {file}: not a regular file")
        return file.read_bytes()
    except TLSError:
        raise
    except (OSError, ValueError) as error:
        # ValueError: the path cannot be encoded.  No path is longer than 4096 bytes.
        reason = error.strerror if isinstance(error, OSError) else error
        raise TLSError(f"cannot read {str(file)[:4096]}: {reason}") from None


def _bytes(public_key: Any) -> bytes:
    encoded: bytes = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded
