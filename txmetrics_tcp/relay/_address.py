"""
The addresses of streams of a broker.

No I/O.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit

DEFAULT_PORT: Final = 4222
"""The port of NATS servers."""

PREFIX: Final = "nats:"
"""What addresses of streams begin with."""

MAX_TOKEN: Final = 512
"""The maximum length of the name of a source, in which some characters count as three."""

FORM: Final = "nats://HOST[:PORT]/STREAM[?source=GLOB]"

_NAME = re.compile(r"[^\s.*>/\\\x00-\x1f\x7f]{1,255}")
_HOST = re.compile(r"[^\s/\\@\x00-\x1f\x7f]+")


def source_token(source: str) -> str:
    """Return the token of a subject for the name of a source."""
    return quote(source, safe="").replace(".", "%2E")


def check_source_name(source: str) -> None:
    """
    @raise ValueError: the name of a source is blank, too long, or not text.
    """
    try:
        length = len(source_token(source))
    except UnicodeEncodeError:
        raise ValueError("the name of a source must be valid UTF-8") from None
    if not source.strip() or length > MAX_TOKEN:
        raise ValueError(
            f"the name of a source must have 1 to {MAX_TOKEN} characters, of which all but letters,"
            " digits and _~- take three for each byte"
        )


@dataclass(frozen=True, slots=True)
class NatsAddress:
    """
    A stream of a broker, and which of its sources to follow.

        >>> NatsAddress.parse("nats://broker/METRICS?source=web*")
        NatsAddress(broker='broker:4222', stream='METRICS', sources='web*')
        >>> str(NatsAddress("broker:4222", "METRICS"))
        'nats://broker:4222/METRICS'

    @ivar broker: host and port.
    @ivar sources: a pattern of the names of sources, as in `fnmatch`.
    """

    broker: str
    stream: str
    sources: str = "*"

    @classmethod
    def parse(cls, url: str) -> NatsAddress:
        """
        Return the address for C{nats://HOST[:PORT]/STREAM[?source=GLOB]}.

        @raise ValueError: the URL is not valid.  The text does not contain the URL, which may have
            a password.
        """
        try:
            url.encode()
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port or DEFAULT_PORT
            options = parse_qsl(
                parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)
            )
        except ValueError:
            raise ValueError(f"must be {FORM}") from None
        if "@" in parts.netloc:
            raise ValueError(
                "must not contain credentials; set NATS_USER and NATS_PASSWORD, or NATS_CREDS, in"
                " the environment"
            )
        stream = parts.path.removeprefix("/")
        if parts.scheme != "nats" or not host or parts.fragment:
            raise ValueError(f"must be {FORM}")
        if not (_NAME.fullmatch(stream) and _HOST.fullmatch(host)):
            raise ValueError(f"must be {FORM}")
        patterns = [value for name, value in options if name == "source"]
        if len(options) != len(patterns) or len(patterns) > 1 or "" in patterns:
            raise ValueError(f"must be {FORM}")
        if ":" in host:
            host = f"[{host}]"
        return cls(f"{host}:{port}", stream, *patterns)

    def names(self, other: NatsAddress, source: str | None = None) -> bool:
        """
        Whether an address has the same stream.

        @param source: with a name, whether the pattern also matches it.
        """
        same = (self.broker, self.stream) == (other.broker, other.stream)
        return same and (source is None or fnmatchcase(source, self.sources))

    def __str__(self) -> str:
        """The stream as a URL, without the pattern."""
        return f"nats://{self.broker}/{self.stream}"
