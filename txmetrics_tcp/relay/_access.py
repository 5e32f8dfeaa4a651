"""
What a client needs to be admitted by a broker.

Nothing here imports nats-py.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

VARIABLES: Final = (
    "NATS_USER",
    "NATS_PASSWORD",
    "NATS_TOKEN",
    "NATS_CREDS",
    "NATS_NKEY",
    "NATS_CA",
    "NATS_CERT",
    "NATS_KEY",
)
"""The environment variables, most of which the command C{nats} also reads."""


_SEED = re.compile(rb"\bSU[A-Z2-7]{56}\b")
"""The seed of the nkey of a user."""


@dataclass(frozen=True)
class Access:
    """
    What a client needs to be admitted by a broker.  Its text contains no secrets.

    @ivar nkey_file: the path of a file with the seed of an nkey.
    @ivar credentials_file: the path of a file with a JWT and the seed of an nkey.
    @ivar tls: the TLS context, with which brokers without TLS are rejected; None for a plain
        connection, unless the broker requires TLS.
    """

    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    nkey_file: str | None = None
    credentials_file: str | None = None
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Access:
        """
        Return what the environment variables C{NATS_USER}, C{NATS_PASSWORD}, C{NATS_TOKEN},
        C{NATS_CREDS}, C{NATS_NKEY}, C{NATS_CA}, C{NATS_CERT} and C{NATS_KEY} contain.  Those of the
        last five are paths of files.  As for the command C{nats}, a user without a password is a
        token.

        @raise ValueError: a file cannot be used, or the variables contradict each other.  The text
            has one line, without secrets.
        """
        user, password, token, credentials, nkey, ca, certificate, key = (
            environ.get(name) or None for name in VARIABLES
        )
        if user is None and password is not None:
            raise ValueError("NATS_PASSWORD is set without NATS_USER")
        if user is not None and password is None:
            if token is not None:
                raise ValueError("NATS_USER is set without NATS_PASSWORD")
            user, token = None, user
        ways = {
            "NATS_USER": user,
            "NATS_TOKEN": token,
            "NATS_CREDS": credentials,
            "NATS_NKEY": nkey,
        }
        given = [name for name, value in ways.items() if value is not None]
        if len(given) > 1:
            raise ValueError(f"{given[0]} and {given[1]} cannot be used together")
        for name, path in ("NATS_CREDS", credentials), ("NATS_NKEY", nkey):
            if path is not None and not _SEED.search(_read(name, path)):
                raise ValueError(f"{name}: {path} does not contain the seed of an nkey")
        return cls(user, password, token, nkey, credentials, _tls(ca, certificate, key))


def _read(name: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ValueError(f"{name}: cannot read {path}: {error.strerror}") from None


def _tls(ca: str | None, certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    if (certificate is None) != (key is None):
        raise ValueError("NATS_CERT and NATS_KEY must be set together")
    if ca is None and certificate is None:
        return None
    for name, path in ("NATS_CA", ca), ("NATS_CERT", certificate), ("NATS_KEY", key):
        if path is not None:
            _read(name, path)
    try:
        context = ssl.create_default_context(cafile=ca)
    except ssl.SSLError:
        raise ValueError(f"NATS_CA: {ca} contains no certificates") from None
    if certificate is not None:
        try:
            # Without the function, OpenSSL would ask for a passphrase on the terminal.
            context.load_cert_chain(certificate, key, lambda: "")
        except ssl.SSLError:
            raise ValueError(
                "NATS_CERT and NATS_KEY: not a certificate and its private key, not encrypted"
            ) from None
    return context
