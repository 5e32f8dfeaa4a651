"""
Creates keys and certificates for a test.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

try:
    import OpenSSL  # noqa: F401  Twisted's TLS uses it.
    import service_identity  # noqa: F401
except ImportError:
    no_tls = "needs pyOpenSSL and service-identity"
else:
    no_tls = ""

DAY = timedelta(days=1)

_USES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)
"""The possible uses of a key, as named in a certificate."""


@dataclass(frozen=True)
class Issued:
    """
    The files of a certificate.

    @ivar cert: the certificate, followed by its intermediate certificates.
    @ivar key: its private key.
    """

    cert: str
    key: str


class Authority:
    """
    Issues certificates, through an intermediate certificate.

    @ivar file: its root certificate, for clients that trust it.
    """

    def __init__(self, case: SynchronousTestCase) -> None:
        self._directory = Path(case.mktemp()).resolve()
        self._directory.mkdir(parents=True)
        self._count = 0
        self._root = self._sign("the root", None, ca=True)
        self._intermediate = self._sign("an intermediate", self._root, ca=True)
        self.file = self._write("root.pem", [self._root[1]])

    def issue(
        self,
        hosts: Sequence[str] = ("127.0.0.1", "localhost"),
        begins: timedelta = -DAY,
        ends: timedelta = DAY,
        password: bytes | None = None,
        own_key: Any = None,
        names: Sequence[Any] = (),
    ) -> Issued:
        """
        @param hosts: the host names and addresses in the certificate.
        @param names: other subject alternative names, as objects of the package cryptography.
        @param begins: the beginning of the certificate's validity, relative to now.
        @param ends: the end of the certificate's validity, relative to now.
        @param password: encrypts the key; by default, the key is not encrypted.
        @param own_key: the key to use; by default, a new key on an elliptic curve.
        """
        key, certificate = self._sign(
            "somebody",
            self._intermediate,
            names=[*map(_general_name, hosts), *names],
            begins=begins,
            ends=ends,
            key=own_key,
        )
        return self._issued(key, [certificate, self._intermediate[1]], password)

    def _issued(
        self, key: Any, certificates: Sequence[Any], password: bytes | None = None
    ) -> Issued:
        from cryptography.hazmat.primitives import serialization

        self._count += 1
        key_file = self._directory / f"{self._count}.key"
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(password)
                if password
                else serialization.NoEncryption(),
            )
        )
        return Issued(self._write(f"{self._count}.pem", certificates), str(key_file))

    def issue_self_signed(self) -> Issued:
        """Return a self-signed certificate."""
        key, certificate = self._sign("itself", None, names=[_general_name("127.0.0.1")])
        return self._issued(key, [certificate])

    def _sign(
        self,
        name: str,
        issuer: tuple[Any, Any] | None,
        names: Sequence[Any] = (),
        ca: bool = False,
        begins: timedelta = -DAY,
        ends: timedelta = DAY,
        key: Any = None,
    ) -> tuple[Any, Any]:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        now = datetime.now(timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer[1].subject if issuer else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + min(begins, ends - DAY))
            .not_valid_after(now + ends)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        # Strict verification (the default from Python 3.13) requires these extensions.
        identifier = x509.SubjectKeyIdentifier.from_public_key
        signer = issuer[0] if issuer else key
        builder = builder.add_extension(identifier(key.public_key()), critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        if ca:
            signs_certificates = dict.fromkeys(_USES, False) | {"key_cert_sign": True}
            builder = builder.add_extension(x509.KeyUsage(**signs_certificates), critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return key, builder.sign(signer, hashes.SHA256())

    def _write(self, name: str, certificates: list[Any]) -> str:
        from cryptography.hazmat.primitives.serialization import Encoding

        path = self._directory / name
        path.write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in certificates))
        return str(path)


def _general_name(host: str) -> Any:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
