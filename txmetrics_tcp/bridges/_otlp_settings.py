"""
The settings of an export with OTLP, most of which come from the environment.

Nothing here imports Twisted or protobuf.
"""

from __future__ import annotations

import os
import re
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from ipaddress import ip_address
from typing import Final
from urllib.parse import unquote, urlsplit

from txmetrics_tcp._checks import MAX_DURATION, seconds_from
from txmetrics_tcp._model import Labels

MISSING: Final = "OTLP requires opentelemetry-proto: pip install 'txmetrics-tcp[otlp]'"

DEFAULT_URL: Final = "http://localhost:4318/v1/metrics"
"""Where a collector of OpenTelemetry listens on this machine, by default."""

DEFAULT_INTERVAL: Final = 15.0
"""The time between two exports, in seconds."""

DEFAULT_TIMEOUT: Final = 10.0
"""The time that an attempt to export may take, in seconds."""

FROM_ENVIRONMENT: Final = "env"
"""Stands for the URL in the environment, in options that require a value."""

VARIABLES: Final = (
    "ENDPOINT",
    "HEADERS",
    "CERTIFICATE",
    "CLIENT_KEY",
    "CLIENT_CERTIFICATE",
    "COMPRESSION",
    "TIMEOUT",
    "PROTOCOL",
)
"""
The environment variables that begin with C{OTEL_EXPORTER_OTLP_} or, with precedence,
C{OTEL_EXPORTER_OTLP_METRICS_}.
"""

_PATH = "/v1/metrics"
_PROTOCOL = "http/protobuf"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e]*")
_SECRET = re.compile(r"auth|cookie|key|pass|secret|token", re.IGNORECASE)
# What a header of the request must not replace.
_OURS = {"connection", "content-encoding", "content-length", "content-type", "host"}


def is_installed() -> bool:
    """Whether the extra is installed."""
    try:
        return find_spec("opentelemetry.proto") is not None
    except ModuleNotFoundError:
        return False


@dataclass(frozen=True)
class OtlpSettings:
    """
    Where and how metrics are exported with OTLP.  Its text contains no secrets.

    @ivar url: the URL that requests are sent to, C{http://} or C{https://}, without a user, a
        password and a query.
    @ivar headers: headers of each request, such as credentials.
    @ivar interval: seconds between two exports.
    @ivar timeout: seconds that an attempt to export may take.
    @ivar gzip: whether requests are compressed.
    @ivar ca: a PEM file with certificates of accepted authorities; None for those that this machine
        trusts.
    @ivar key: a PEM file with the private key of C{certificate}.
    @ivar certificate: a PEM file with the certificate of this client.
    @ivar attributes: the attributes of the resource.
    """

    url: str = DEFAULT_URL
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    interval: float = DEFAULT_INTERVAL
    timeout: float = DEFAULT_TIMEOUT
    gzip: bool = True
    ca: str | None = None
    key: str | None = None
    certificate: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """
        @raise ValueError: a value is not valid, or the headers contain credentials and the URL is
            C{http://} and not of this machine.  The text has one line, without secrets.
        """
        host = _check_url("", self.url)
        seconds_from(0.001, "interval", self.interval)
        seconds_from(0.001, "timeout", self.timeout)
        for name, value in self.headers.items():
            _check_header(name, value)
        if (self.key is None) != (self.certificate is None):
            raise ValueError("a client key and a client certificate must be given together")
        secrets = [name for name in self.headers if _SECRET.search(name)]
        if secrets and self.url.startswith("http:") and not _is_loopback(host):
            raise ValueError(
                f"the header {secrets[0]} is not sent to another machine without TLS: use https://"
            )

    @classmethod
    def from_environment(
        cls,
        url: str | None = None,
        interval: float | None = None,
        *,
        service_name: str = "unknown_service",
        environ: Mapping[str, str] = os.environ,
    ) -> OtlpSettings:
        """
        Return the settings that the environment variables of OpenTelemetry contain:
        C{OTEL_EXPORTER_OTLP_ENDPOINT}, C{_HEADERS}, C{_CERTIFICATE}, C{_CLIENT_KEY},
        C{_CLIENT_CERTIFICATE}, C{_COMPRESSION}, C{_TIMEOUT}, C{_PROTOCOL}, the same with
        C{OTEL_EXPORTER_OTLP_METRICS_}, C{OTEL_SERVICE_NAME}, C{OTEL_RESOURCE_ATTRIBUTES} and
        C{OTEL_METRIC_EXPORT_INTERVAL}.

        @param url: precedes that of the environment.  Without a path, C{/v1/metrics} is appended.
        @param interval: precedes that of the environment, in seconds.
        @param service_name: the service name if the environment has none.
        @raise ValueError: a value is not valid.  The text names the variable, without its value.
        """
        found = {}
        for variable in VARIABLES:
            name = f"OTEL_EXPORTER_OTLP_{variable}"
            specific = f"OTEL_EXPORTER_OTLP_METRICS_{variable}"
            name = specific if environ.get(specific, "").strip() else name
            found[variable] = name, environ.get(name, "").strip()
        name, protocol = found["PROTOCOL"]
        if protocol not in ("", _PROTOCOL):
            raise ValueError(f"{name}: only {_PROTOCOL} is supported")
        name, compression = found["COMPRESSION"]
        if compression not in ("", "gzip", "none"):
            raise ValueError(f"{name}: expected gzip or none")
        if interval is None:
            variable = "OTEL_METRIC_EXPORT_INTERVAL"
            interval = _milliseconds(variable, environ.get(variable, ""), DEFAULT_INTERVAL)
        return cls(
            url=_url(url, *found["ENDPOINT"]),
            headers=_headers(*found["HEADERS"]),
            interval=interval,
            timeout=_milliseconds(*found["TIMEOUT"], DEFAULT_TIMEOUT),
            gzip=compression != "none",
            ca=_path(found["CERTIFICATE"][1]),
            key=_path(found["CLIENT_KEY"][1]),
            certificate=_path(found["CLIENT_CERTIFICATE"][1]),
            attributes=_resource(environ, service_name),
        )

    def resource(self) -> Labels:
        """
        Return the attributes of a program, which identify this run of it: C{service.instance.id} is
        random, unless it is set.
        """
        return _sorted({"service.instance.id": str(uuid.uuid4()), **self.attributes})

    def resource_of(self, name: str) -> Labels:
        """
        Return the attributes of one of several servers, seen from this process.

        @param name: the name of the server; empty for this process.
        """
        here = self.attributes.get("service.instance.id") or socket.gethostname()
        instance = f"{here}/{name}" if name else here
        return _sorted({**self.attributes, "service.instance.id": instance})


def _sorted(attributes: Mapping[str, str]) -> Labels:
    return tuple(sorted(attributes.items()))


def _url(given: str | None, variable: str, value: str) -> str:
    if given is not None:
        _check_url("", given)
        return given.rstrip("/") + _PATH if urlsplit(given).path in ("", "/") else given
    if not value:
        return DEFAULT_URL
    _check_url(f"{variable}: ", value)
    if "_METRICS_" in variable:
        return value
    return value.rstrip("/") + _PATH


def _check_url(prefix: str, url: str) -> str:
    """
    @param prefix: precedes the message, which does not contain the URL.
    @return: the host.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise ValueError(
            f"{prefix}a URL with a user or a password is not accepted; put credentials into"
            " OTEL_EXPORTER_OTLP_HEADERS"
        )
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise ValueError(
            f"{prefix}a URL with a query is not accepted; put credentials into"
            " OTEL_EXPORTER_OTLP_HEADERS"
        )
    printable = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme not in ("http", "https") or not host or port == 0 or not printable:
        raise ValueError(
            f"{prefix}expected a URL such as http://localhost:4318 or https://HOST/PATH"
        )
    return host


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _headers(variable: str, text: str) -> dict[str, str]:
    """Return the headers in a variable: C{NAME=VALUE,…}, with percent encoding."""
    headers = {}
    for name, value in _pairs(variable, text):
        try:
            _check_header(name, value)
        except ValueError as error:
            raise ValueError(f"{variable}: {error}") from None
        headers[name] = value
    return headers


def _check_header(name: str, value: str) -> None:
    if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
        # The text may be a part of a secret.
        raise ValueError("a header has a character that is not allowed in it")
    if name.lower() in _OURS:
        raise ValueError(f"the header {name} cannot be set")


def _pairs(variable: str, text: str) -> list[tuple[str, str]]:
    pairs = []
    for part in text.split(","):
        if part.strip():
            name, equals, value = part.partition("=")
            if not equals or not name.strip():
                raise ValueError(f"{variable}: expected NAME=VALUE, separated by commas")
            try:
                pairs.append((unquote(name.strip()), unquote(value.strip(), errors="strict")))
            except UnicodeDecodeError:
                raise ValueError(f"{variable}: a value is not UTF-8") from None
    return pairs


def _milliseconds(variable: str, text: str, default: float) -> float:
    text = text.strip()
    if not text:
        return default
    seconds = int(text) / 1000 if text.isascii() and text.isdigit() and len(text) < 20 else 0.0
    if not 0 < seconds < MAX_DURATION:
        raise ValueError(f"{variable}: expected a number of milliseconds, 1 or more")
    return seconds


def _path(text: str) -> str | None:
    # A daemon changes its working directory.
    return os.path.abspath(text) if text else None


def _resource(environ: Mapping[str, str], service_name: str) -> dict[str, str]:
    attributes = {"service.name": service_name}
    variable = "OTEL_RESOURCE_ATTRIBUTES"
    attributes |= _pairs(variable, environ.get(variable, ""))
    if name := environ.get("OTEL_SERVICE_NAME", "").strip():
        attributes["service.name"] = name
    return attributes
