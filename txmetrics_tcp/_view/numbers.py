"""
Human-readable numbers, scaled according to the metric's unit.
"""

from __future__ import annotations

import math
from functools import lru_cache

from txmetrics_tcp._model import Unit

_BYTES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_BITS = ("bps", "kbps", "Mbps", "Gbps", "Tbps", "Pbps")

_IN_BYTES = {
    Unit.BYTES: 1,
    Unit.KIBIBYTES: 1024,
    Unit.MEBIBYTES: 1024**2,
    Unit.GIBIBYTES: 1024**3,
    Unit.TEBIBYTES: 1024**4,
}
_IN_BITS = {
    Unit.BITS_PER_SECOND: 1,
    Unit.KILOBITS_PER_SECOND: 1000,
    Unit.MEGABITS_PER_SECOND: 1000**2,
    Unit.GIGABITS_PER_SECOND: 1000**3,
    Unit.TERABITS_PER_SECOND: 1000**4,
}
_IN_SECONDS = {
    Unit.SECONDS: 1,
    Unit.MILLISECONDS: 1e3,
    Unit.MICROSECONDS: 1e6,
    Unit.NANOSECONDS: 1e9,
}
"""The number of units in one second."""


def show_value(value: int | float, unit: str | None = None) -> str:
    """
    Format a value with its unit.

        >>> show_value(1536, "bytes"), show_value(1500000, "nanoseconds"), show_value(1234567)
        ('1.50 KiB', '1.5ms', '1,234,567')

    @param unit: a `Unit` or any other text.  Other text is shown unchanged; the caller must make
        it safe for a terminal.
    """
    if not math.isfinite(value):
        return str(float(value))
    try:
        known = Unit(unit) if unit else Unit.COUNT
    except ValueError:
        return f"{show_number(value)} {unit}"
    if known in _IN_BYTES:
        return _scaled(value * _IN_BYTES[known], 1024, _BYTES)
    if known in _IN_BITS:
        return _scaled(value * _IN_BITS[known], 1000, _BITS)
    if known in _IN_SECONDS:
        return show_seconds(value / _IN_SECONDS[known])
    return f"{show_number(value)}{known.label}"


@lru_cache(maxsize=1024)
def base_scale(unit: str | None) -> float:
    """
    Return the factor that converts a value of this unit to seconds, bytes or bits per second, so
    that values in different units can be compared.

        >>> base_scale("kibibytes"), base_scale("nanoseconds"), base_scale(None)
        (1024, 1e-09, 1)

    @param unit: as for `show_value`.
    """
    try:
        known = Unit(unit) if unit else Unit.COUNT
    except ValueError:
        return 1
    if known in _IN_SECONDS:
        return 1 / _IN_SECONDS[known]
    return _IN_BYTES.get(known) or _IN_BITS.get(known) or 1


def show_rate(rate: float, unit: str | None = None) -> str:
    """
    Format a change per second.

        >>> show_rate(12.34), show_rate(1048576, "bytes")
        ('12.3/s', '1.00 MiB/s')

    @param unit: the unit of the changing value.
    """
    if unit is None or unit in (Unit.COUNT, Unit.COUNT_PER_SECOND):
        return f"{_digits(rate, 3)}/s"
    return f"{show_value(rate, unit)}/s"


def show_number(value: int | float) -> str:
    """
    Format a number with commas between thousands, and floats with six significant digits.

        >>> show_number(1234567), show_number(0.1 + 0.2), show_number(2.5e30)
        ('1,234,567', '0.3', '2.5e+30')
    """
    return f"{value:,}" if isinstance(value, int) else _digits(value, 6)


def show_brief(value: float) -> str:
    """
    Format a number with three significant digits and a letter for the power of 1000.

        >>> show_brief(7), show_brief(999.7), show_brief(1234567)
        ('7', '1k', '1.23M')
    """
    for letter in ("", "k", "M", "G", "T", "P"):
        if abs(value) < 999.5:
            return f"{_digits(value, 3)}{letter}"
        value /= 1000
    return f"{_digits(value, 3)}E"


def show_share(share: float) -> str:
    """Format a fraction from 0 to 1 as a percentage, rounded down: 100% means complete."""
    return show_value(int(share * 100), Unit.PERCENT)


def show_duration(seconds: float) -> str:
    """Format an elapsed time, rounded down to a second, like `show_seconds`."""
    return show_seconds(int(seconds))


def show_seconds(seconds: float) -> str:
    """
    Format a duration with three significant digits or two units: ``1.5ms``, ``12.3s``,
    ``2m 05s``, ``3h 07m``, ``5d 03h``.
    """
    size = abs(seconds)
    sign = "-" if seconds < 0 else ""
    if not math.isfinite(seconds):
        return str(seconds)
    if size < 59.95:
        for factor, label in ((1, "s"), (1e3, "ms"), (1e6, "μs")):
            if size * factor >= 0.9995:
                return f"{sign}{_digits(size * factor, 3)}{label}"
        return f"{sign}{_digits(size * 1e9, 3)}ns" if size else "0s"
    whole = round(size)
    if whole < 3600:
        return f"{sign}{whole // 60}m {whole % 60:02}s"
    minutes = round(size / 60)
    if minutes < 24 * 60:
        return f"{sign}{minutes // 60}h {minutes % 60:02}m"
    hours = round(size / 3600)
    return f"{sign}{hours // 24:,}d {hours % 24:02}h"


def _scaled(value: float, base: int, labels: tuple[str, ...]) -> str:
    size = abs(value)
    power = 0
    # A value that would round to 1024.00 is shown as 1.00 of the next unit.
    while power < len(labels) - 1 and round(size / base**power, 2) >= base:
        power += 1
    if power == 0:
        return f"{_digits(value, 4)} {labels[0]}"
    return f"{value / base**power:,.2f} {labels[power]}"


def _digits(value: float, digits: int) -> str:
    """Format with this many significant digits, but never round the integer part."""
    text = f"{value:,.{digits}g}"
    if "e+" in text and abs(value) < 1e15:
        text = f"{value:,.0f}"
    return "0" if text == "-0" else text
