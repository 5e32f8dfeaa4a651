"""
Keys and certificates from PEM files, and the OpenSSL contexts that are made of them.

This module needs pyOpenSSL and service-identity; `txmetrics_tcp._tls` imports it late.
"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

# Not for its own sake: without it Twisted checks names less well, and no addresses at all.
import service_identity  # noqa: F401
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    TLSVersion,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)

_OLDEST = TLSVersion.TLSv1_2


class CertificateError(Exception):
    """A key or certificate cannot be used.  The text, one line, says which, and why."""


def server_context(key: Path, certificate: Path, client_ca: Path | None) -> SSL.Context:
    """
    @param certificate: that of the server first, then those that lead to its authority.
    @param client_ca: the authorities that a client's certificate has to be from; None if a
        client needs none.
    @raise CertificateError: a file cannot be used.
    """
    trust = None if client_ca is None else _trust(client_ca)
    return _context(trustRoot=trust, **_identity(key, certificate))


def client_creator(
    name: str, ca: Path | None, key: Path | None, certificate: Path | None
) -> IOpenSSLClientConnectionCreator:
    """
    @param name: the name, or address, that the server's certificate has to be for.
    @param ca: the authorities that it may be from; None for those that this machine trusts.
    @raise CertificateError: a file cannot be used, or the name is none.
    """
    own: dict[str, Any] = {"raiseMinimumTo": _OLDEST}
    if key is not None and certificate is not None:
        own.update(_identity(key, certificate))
    trust = platformTrust() if ca is None else _trust(ca)
    # What cannot be used is to be known now, and not with each connection.
    _context(trustRoot=trust, **own)
    try:
        return optionsForClientTLS(name, trust, extraCertificateOptions=own)
    except UnicodeError:
        raise CertificateError(f"{name!r} is no name that a certificate could be for") from None


def _context(**options: Any) -> SSL.Context:
    try:
        context: SSL.Context = CertificateOptions(
            **{"raiseMinimumTo": _OLDEST} | options
        ).getContext()
    except SSL.Error as error:
        # Too short a key, for example.
        raise CertificateError(
            f"OpenSSL refuses the certificate: {error.args[0][-1][-1]}"
        ) from None
    return context


def _identity(key_file: Path, certificate_file: Path) -> dict[str, Any]:
    """A key and its certificates, as arguments of `CertificateOptions`."""
    pem = _read(key_file)
    try:
        key = load_pem_private_key(pem, None)
    except TypeError:
        raise CertificateError(
            f"the key in {key_file} is encrypted; give one that is not"
        ) from None
    except Exception:
        # Whatever is raised (there are several), it is for people who read ASN.1.
        raise CertificateError(f"there is no private key in {key_file}, in PEM") from None
    own, *chain = _certificates(certificate_file)
    now = datetime.now(timezone.utc)
    if now > own.not_valid_after_utc:
        raise CertificateError(
            f"the certificate in {certificate_file} has expired ({own.not_valid_after_utc:%F})"
        )
    if now < own.not_valid_before_utc:
        raise CertificateError(
            f"the certificate in {certificate_file} is not valid yet"
            f" ({own.not_valid_before_utc:%F})"
        )
    if _bytes(key.public_key()) != _bytes(own.public_key()):
        raise CertificateError(
            f"the key in {key_file} is not that of the first certificate in {certificate_file}"
        )
    try:
        crypto.PKey.from_cryptography_key(key)  # type: ignore[arg-type]
    except TypeError:
        raise CertificateError(f"the key in {key_file} is of a kind that TLS has not") from None
    # Twisted hands them to pyOpenSSL as they are, which wants no objects of its own any more.
    return {"privateKey": key, "certificate": own, "extraCertChain": chain}


def _trust(file: Path) -> Any:
    return trustRootFromCertificates(
        [Certificate(crypto.X509.from_cryptography(one)) for one in _certificates(file)]
    )


def _certificates(file: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_read(file))
    except ValueError:
        raise CertificateError(f"there is no certificate in {file}, in PEM") from None


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise CertificateError(f"cannot read {file}: {error.strerror}") from None


def _bytes(public_key: Any) -> bytes:
    encoded: bytes = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded
