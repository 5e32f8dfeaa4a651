"""
The settings of an exporter: one value with all defaults and checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from txmetrics_tcp._model import checked_source
from txmetrics_tcp._net.admission import Network, network
from txmetrics_tcp._net.checks import at_least, seconds_from


@dataclass(frozen=True, slots=True, kw_only=True)
class ExporterSettings:
    """
    How an exporter behaves.  `MetricsFactory` takes them, and `TcpBuilder` makes them::

        factory = MetricsFactory(reactor, ExporterSettings(buffer_size=4096, dead_after=30))

    They never change; C{dataclasses.replace} makes others from them.

    @ivar buffer_size: how many events may be pending on the incoming side, and as many for each
        client; 1 or more, or None for no limit, which may take all memory.
    @ivar totals: whether the totals of counters and gauges are kept, for new clients and for those
        that lost events.  Without totals, recording costs less while no clients are connected.
    @ivar max_series: of how many series totals are kept at most; 0 or more.
    @ivar idle_after: after how many seconds without a change a series is left out of what a new
        client receives, and makes room for others; None for never.
    @ivar repair_interval: for how many seconds totals may be wrong at most for a client that does
        not catch up; 0.1 or more.
    @ivar dead_after: for how many seconds a client may take nothing of what is pending for it
        before it is disconnected, be it dead or only stalled; 0.1 or more, or None for as long as
        the kernel takes to find that its machine is gone, a quarter of an hour as a rule.  What
        counts is a piece of about 64 KiB: a client has to take that much in the time, while more is
        pending.
    @ivar flush_timeout: how many seconds clients have, when the exporter stops, to take what is
        pending for them, before they are disconnected; 0 or more.
    @ivar own_metrics: whether the exporter's own metrics are in the stream: what it records,
        delivers and drops.
    @ivar source: what viewers show as the name of this program, up to 64 KiB of UTF-8; None for its
        name, process number and host.
    @ivar allow: the networks that clients may come from (C{192.0.2.0/24}, C{2001:db8::/32}, or an
        address); from anywhere if there are none.  The mode of a UNIX socket decides about its
        clients.
    @ivar max_clients: how many clients may be connected at once; 1 or more, or None for any number.
    @ivar max_clients_per_address: how many of them from one address, or, of IPv6, from one /64; 1
        or more, or None for any number.
    @raise TypeError: a setting is of the wrong type.
    @raise ValueError: a number is out of range or not finite; a network is none; or C{source} is
        empty, too long, or cannot be encoded as UTF-8.
    """

    buffer_size: int | None = 1024
    totals: bool = True
    max_series: int = 10_000
    idle_after: float | None = None
    repair_interval: float = 5.0
    dead_after: float | None = None
    flush_timeout: float = 1.0
    own_metrics: bool = True
    source: str | None = None
    allow: Sequence[str | Network] = ()
    max_clients: int | None = 1000
    max_clients_per_address: int | None = None

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))


def checked_settings(settings: object) -> ExporterSettings:
    """
    Settings that a caller gives; the defaults for None.

    @raise TypeError: they are anything else.
    """
    if settings is None:
        return ExporterSettings()
    if not isinstance(settings, ExporterSettings):
        raise TypeError(f"settings must be ExporterSettings, not {settings!r}")
    return settings


_Check = Callable[[str, Any], object]


def _or_none(check: _Check) -> _Check:
    return lambda name, value: None if value is None else check(name, value)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, not {value!r}")
    return value


def _networks(name: str, value: Any) -> tuple[Network, ...]:
    # Each letter of a text would be a network.
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a sequence of networks, not {value!r}")
    return tuple(map(network, value))


_CHECKS: dict[str, _Check] = {
    "buffer_size": _or_none(partial(at_least, 1)),
    "totals": _flag,
    "max_series": partial(at_least, 0),
    "idle_after": _or_none(partial(seconds_from, 0)),
    "repair_interval": partial(seconds_from, 0.1),
    "dead_after": _or_none(partial(seconds_from, 0.1)),
    "flush_timeout": partial(seconds_from, 0),
    "own_metrics": _flag,
    "source": _or_none(lambda name, value: checked_source(value)),
    "allow": _networks,
    "max_clients": _or_none(partial(at_least, 1)),
    "max_clients_per_address": _or_none(partial(at_least, 1)),
}
