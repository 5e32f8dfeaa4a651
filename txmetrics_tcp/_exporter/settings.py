"""
Settings of an exporter: an immutable value, with defaults and validation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from txmetrics_tcp._checks import at_least, flag, seconds_from, short_repr
from txmetrics_tcp._model import checked_text
from txmetrics_tcp._net.admission import AnyNetwork, Network, network


@dataclass(frozen=True, slots=True, kw_only=True)
class ExporterSettings:
    """
    Settings of an exporter.  `MetricsFactory` and `TcpBuilder` take them::

        factory = MetricsFactory(reactor, ExporterSettings(buffer_size=4096, dead_after=30))

    Instances are immutable; C{dataclasses.replace} makes a changed copy.

    @ivar buffer_size: the maximum number of pending events, on the incoming side and again for
        each client; 1 or more, or None for no limit, which may exhaust memory.
    @ivar max_delay: the longest time, in seconds, for which events are collected while the program
        keeps recording; 0 or more.  An event after a quiet time, and one that exceeds half of the
        buffer, wake the reactor at once.  Less than 0.001 is the same as 0.
    @ivar totals: whether to keep the totals of all series, for new clients and for clients that
        lost events.  Without totals, recording costs less while no clients are connected.
    @ivar max_series: the maximum number of series whose totals are kept; 0 or more.
    @ivar idle_after: the number of seconds without a change after which the total of a series is
        released; 0 or more, or None for never.  Clients receive `Gone` for the series, and
        C{max_series} does not count it.  The exporter's own metrics are not released.
    @ivar repair_interval: the number of seconds after which a client that lost events is resynced
        even if it has not caught up; 0.1 or more.  Its pending events are dropped then.
    @ivar dead_after: the number of seconds in which a client has to read about 64 KiB of its
        pending data, or all if less is pending, or else it is disconnected; 0.1 or more, or None
        for no limit.  The kernel detects the loss of a peer in any case, usually within a quarter
        of an hour, but not a client that has stopped reading.
    @ivar flush_timeout: the number of seconds that clients have to read their pending data when the
        exporter stops; 0 or more.  After that, they are disconnected.
    @ivar own_metrics: whether the stream contains the exporter's own metrics: how much it records,
        delivers and drops.
    @ivar source: the name of this program in viewers, up to 64 KiB of UTF-8; by default, the
        program's name, process number and host.
    @ivar allow: the networks from which clients are accepted (C{192.0.2.0/24}, C{2001:db8::/32}, or
        an address), at least one; None for any.  C{::/0} contains no IPv4 address, C{0.0.0.0/0} no
        IPv6 address.  A link-local network may have a zone (C{fe80::%eth0/64}), the name of the
        interface that its clients use.  Clients of UNIX sockets are not checked: the mode of the
        socket file controls access.
    @ivar max_clients: the maximum number of connected clients; 1 or more, or None for no limit.
    @ivar max_clients_per_address: the maximum number of connected clients per IPv4 address or IPv6
        /64 network; 1 or more, or None for no limit.
    @raise TypeError: a setting is of the wrong type.
    @raise ValueError: a number is out of range; a number of seconds is 1,000,000,000 or more; a
        network is invalid, or there is none; or C{source} is empty, too long, or cannot be encoded
        as UTF-8.
    """

    buffer_size: int | None = 1024
    max_delay: float = 0.02
    totals: bool = True
    max_series: int = 10_000
    idle_after: float | None = None
    repair_interval: float = 5.0
    dead_after: float | None = None
    flush_timeout: float = 1.0
    own_metrics: bool = True
    source: str | None = None
    allow: Sequence[AnyNetwork] | None = None
    max_clients: int | None = 1000
    max_clients_per_address: int | None = None

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))


def checked_settings(settings: object) -> ExporterSettings:
    """
    Return the settings that a caller passed; for None, the defaults.

    @raise TypeError: the value is not `ExporterSettings`.
    """
    if settings is None:
        return ExporterSettings()
    if not isinstance(settings, ExporterSettings):
        raise TypeError(f"settings must be ExporterSettings, not {short_repr(settings)}")
    return settings


_Check = Callable[[str, Any], object]


def _or_none(check: _Check) -> _Check:
    return lambda name, value: None if value is None else check(name, value)


def _networks(name: str, value: Any) -> tuple[Network, ...]:
    # A str and a network are iterable too.
    if isinstance(value, AnyNetwork) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a sequence of networks, not {short_repr(value)}")
    networks = tuple(network(name, one) for one in value)
    if not networks:
        # An empty list must not accept clients from everywhere.
        raise ValueError(f"{name} must contain at least one network; None accepts any")
    return networks


def _source(name: str, value: Any) -> str:
    try:
        return checked_text(name, value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{error}; got {short_repr(value)}") from None


_CHECKS: dict[str, _Check] = {
    "buffer_size": _or_none(partial(at_least, 1)),
    "max_delay": partial(seconds_from, 0),
    "totals": flag,
    "max_series": partial(at_least, 0),
    "idle_after": _or_none(partial(seconds_from, 0)),
    "repair_interval": partial(seconds_from, 0.1),
    "dead_after": _or_none(partial(seconds_from, 0.1)),
    "flush_timeout": partial(seconds_from, 0),
    "own_metrics": flag,
    "source": _or_none(_source),
    "allow": _or_none(_networks),
    "max_clients": _or_none(partial(at_least, 1)),
    "max_clients_per_address": _or_none(partial(at_least, 1)),
}
