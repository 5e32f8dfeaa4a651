"""
The extra ``nats``, which need not be installed, and what its users report.

Nothing here imports it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from txmetrics_tcp._net.endpoint_syntax import EndpointError
from txmetrics_tcp.relay._access import Access
from txmetrics_tcp.relay._address import PREFIX, NatsAddress

MISSING = "nats:// requires nats-py and zstandard: pip install 'txmetrics-tcp[nats]'"


def is_nats(text: object) -> bool:
    """Whether an endpoint is the address of a stream of a broker."""
    return isinstance(text, str) and text.strip().startswith(PREFIX)


def parse_address(text: str) -> NatsAddress:
    """
    Return the address of a stream, if the extra is installed.

    @raise EndpointError: the URL is not valid, or the extra is not installed.  The text does not
        contain the URL, which may have a password.
    """
    try:
        address = NatsAddress.parse(text.strip())
    except ValueError as error:
        raise EndpointError(f"a nats:// URL {error}") from None
    if find_spec("nats") is None or find_spec("zstandard") is None:
        raise EndpointError(MISSING)
    return address


def parse_target(text: str, source_option: str) -> NatsAddress:
    """
    Return the address of a stream to publish to, if the extra is installed.

    @param source_option: the option for the name of the source.
    @raise EndpointError: see `parse_address`.
    """
    if not is_nats(text):
        raise EndpointError("expected nats://HOST[:PORT]/STREAM")
    address = parse_address(text)
    if address.sources != "*":
        raise EndpointError(f"give the name of the source with {source_option}")
    return address


def access_from(environ: Mapping[str, str] = os.environ) -> Access:
    """
    Return the credentials in the environment.

    @raise EndpointError: see `Access.from_environment`.
    """
    try:
        return Access.from_environment(environ)
    except ValueError as error:
        raise EndpointError(str(error)) from None


def capitalized(text: str) -> str:
    """Return a message of `BrokerReport` for a log."""
    return text[:1].upper() + text[1:]


class BrokerReport:
    """
    Reports the states of a broker, each change once.  May be shared by several services.
    """

    def __init__(
        self,
        address: NatsAddress,
        doing: tuple[str, str],
        say: Callable[[str], object],
        failed: Callable[[str], object] | None = None,
        succeeded: Callable[[str], object] | None = None,
    ) -> None:
        """
        @param doing: what is done with the stream, as in "publish to" and "publishing to".
        @param say: called with messages of one line.
        @param failed: called instead, with a message, if the broker has not done what is asked
            yet, and never will.
        @param succeeded: called instead of C{say} when the broker does it, for the first time or
            again.
        """
        infinitive, participle = doing
        self._cannot = f"cannot {infinitive} {address}"
        self._does = f"{participle} {address}"
        self._say = say
        self._failed = failed
        self._say_success = succeeded or say
        self._last = ""
        self._succeeded = False

    def __call__(self, state: Any) -> None:
        """Handle a `BrokerUnavailable` or a `BrokerAvailable`."""
        reason = getattr(state, "reason", None)
        if reason is None:
            self._succeeded = True
            text, say = self._does, self._say_success
        else:
            say = self._say
            text = f"{self._cannot}: {reason}"
            if state.permanent and self._failed is not None and not self._succeeded:
                self._failed(text)
                return
            text += "; retrying"
        if text != self._last:
            self._last = text
            say(text)
