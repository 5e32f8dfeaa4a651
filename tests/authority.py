"""
Keys and certificates, made for one test.
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
    import OpenSSL  # noqa: F401  Twisted's TLS is made of it.
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
"""What a key may be used for, in the words of its certificate."""


@dataclass(frozen=True)
class Issued:
    """
    The files of a certificate.

    @ivar cert: the certificate, and those that lead to its authority.
    @ivar key: its private key.
    """

    cert: str
    key: str


class Authority:
    """
    Issues certificates, by way of one that it has issued to itself.

    @ivar file: what those who trust it have.
    """

    def __init__(self, case: SynchronousTestCase) -> None:
        self._directory = Path(case.mktemp()).resolve()
        self._directory.mkdir(parents=True)
        self._count = 0
        self._root = self._sign("the root", None, ca=True)
        self._between = self._sign("one between", self._root, ca=True)
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
        @param hosts: host names and addresses that the certificate is for.
        @param names: names of other kinds, as cryptography has them; with neither, it is for none.
        @param begins: when the certificate is valid, from now.
        @param password: what the key is to be encrypted with.
        @param own_key: a key of another kind.
        """
        key, certificate = self._sign(
            "somebody",
            self._between,
            names=[*map(_general_name, hosts), *names],
            begins=begins,
            ends=ends,
            key=own_key,
        )
        return self._issued(key, [certificate, self._between[1]], password)

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
        """A certificate that is from no authority."""
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
        # Without them, some that check strictly (Python from 3.13 on) trust nothing of it.
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
