"""
Human-readable numbers.

The value chooses its scale: bytes are shown in powers of 1024, bits per second in powers of 1000,
times in units from nanoseconds to years.  A number has three significant digits without trailing
zeros, but whole numbers and integer parts are not rounded.  A number below the first or beyond the
last scale is in scientific notation, in the metric's own unit.

A space separates number and unit: ``1.5 ms``, ``22.8 KiB/s``.  There is none before ``%`` and
``/s``.  Durations from a minute to 100 days have two units: ``2m 05s``, ``3h 07m``, ``5d 03h``.

A caller with limited space passes a width, and does not cut the text.  If space is short, a number
without a scale gets a letter for the power of 1000; then digits are omitted, then the space before
the unit, then the end of the unit.  What remains of the number has the right magnitude.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from decimal import Decimal
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple

from txmetrics_tcp._model import Unit
from txmetrics_tcp._view.text import cell_width, cut

MIN_WIDTH = 7
"""The minimum width of a number in cells: that of C{-1e-308}."""

_Scale = tuple[tuple[float, str], ...]
"""Factors in ascending order, and the label of each."""


def _powers(base: int, *labels: str) -> _Scale:
    return tuple((base**power, label) for power, label in enumerate(labels))


_LETTERS = _powers(1000, "", "k", "M", "G", "T", "P", "E")
_BYTES = _powers(1024, "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_BITS = _powers(1000, "bps", "kbps", "Mbps", "Gbps", "Tbps", "Pbps", "Ebps")
_TIMES: _Scale = (
    (1e-9, "ns"),
    (1e-6, "μs"),
    (1e-3, "ms"),
    (1, "s"),
    (60, "min"),
    (3600, "h"),
    (86400, "d"),
    (365.25 * 86400, "y"),
)

_UNITS: dict[Unit, tuple[_Scale, float]] = {
    Unit.BYTES: (_BYTES, 1),
    Unit.KIBIBYTES: (_BYTES, 1024),
    Unit.MEBIBYTES: (_BYTES, 1024**2),
    Unit.GIBIBYTES: (_BYTES, 1024**3),
    Unit.TEBIBYTES: (_BYTES, 1024**4),
    Unit.BITS_PER_SECOND: (_BITS, 1),
    Unit.KILOBITS_PER_SECOND: (_BITS, 1000),
    Unit.MEGABITS_PER_SECOND: (_BITS, 1000**2),
    Unit.GIGABITS_PER_SECOND: (_BITS, 1000**3),
    Unit.TERABITS_PER_SECOND: (_BITS, 1000**4),
    Unit.SECONDS: (_TIMES, 1),
    Unit.MILLISECONDS: (_TIMES, 1e-3),
    Unit.MICROSECONDS: (_TIMES, 1e-6),
    Unit.NANOSECONDS: (_TIMES, 1e-9),
}
"""The scale of each unit that has one, and the factor that converts a value to it."""

_ROOM_FOR_UNIT = 3
"""The minimum number of cells for a unit that is cut: a space, a letter and an ellipsis."""

_FAR = 1e290
"""Values from here on are beyond every scale."""


class _Format(NamedTuple):
    """
    How to show a unit.

    @ivar label: the text after a number in this unit.
    @ivar scale: the scale; empty if values are not scaled.
    @ivar factor: the factor that converts a value to bytes, bits per second or seconds.
    """

    label: str
    scale: _Scale = ()
    factor: float = 1


@lru_cache(maxsize=1024)
def _format(unit: str | None) -> _Format:
    try:
        known = Unit(unit) if unit else Unit.COUNT
    except ValueError:
        return _Format(str(unit))
    return _Format(known.label, *_UNITS.get(known, ()))


def base_scale(unit: str | None) -> float:
    """
    Return the factor that converts a value of this unit to seconds, bytes or bits per second, so
    that values in different units can be compared.

        >>> base_scale("kibibytes"), base_scale("nanoseconds"), base_scale(None)
        (1024, 1e-09, 1)

    @param unit: as for `show_value`.
    """
    return _format(unit).factor


def show_value(value: int | float, unit: str | None = None, width: int | None = None) -> str:
    """
    Format a value with its unit.

        >>> show_value(1536, "bytes"), show_value(1500000, "nanoseconds"), show_value(1234567)
        ('1.5 KiB', '1.5 ms', '1,234,567')
        >>> show_value(1234567, width=8), show_value(-1.23e-05, "bytes", width=10)
        ('1.23M', '-1.2e-05 B')

    @param unit: a `Unit` or any other text.  Other text is shown unchanged; the caller must make
        it safe for a terminal.
    @param width: the maximum number of cells, at least `MIN_WIDTH`; None for no limit.
    """
    return _show(value, unit, "", width)


def show_rate(rate: float, unit: str | None = None, width: int | None = None) -> str:
    """
    Format a change per second.

        >>> show_rate(12.34), show_rate(1048576, "bytes"), show_rate(123456.7, width=8)
        ('12.3/s', '1 MiB/s', '123k/s')

    @param unit: the unit of the changing value.
    @param width: as for `show_value`.
    """
    return _show(rate, None if unit == Unit.COUNT_PER_SECOND else unit, "/s", width)


def show_seconds(seconds: float) -> str:
    """
    Format a time in seconds.

        >>> show_seconds(0.0015), show_seconds(125), show_seconds(2**64 / 1e9)
        ('1.5 ms', '2m 05s', '585 y')
    """
    return show_value(seconds, Unit.SECONDS)


def show_duration(seconds: float) -> str:
    """
    Format a time that is still running, rounded down to a second, so that it does not flicker.
    """
    return show_seconds(int(seconds))


def show_share(share: float) -> str:
    """Format a fraction from 0 to 1 as a percentage, rounded down: 100% means complete."""
    return show_value(int(share * 100), Unit.PERCENT)


def _show(value: float, unit: str | None, per: str, width: int | None) -> str:
    """
    @param per: the text after the unit.
    """
    if value != value or value in (math.inf, -math.inf):
        return str(value)
    # Zero has no sign.
    value = value or 0
    form = _format(unit)
    texts = _scaled_texts(value, form, per) if form.scale else _plain_texts(value, form, per)
    if width is None:
        return next(texts)
    for text in texts:
        if cell_width(text) <= width:
            return text
    numbers = [number for number in _numbers(value) if len(number) <= width]
    if not numbers:
        return "…"[:width]
    number = next((one for one in numbers if len(one) <= width - _ROOM_FOR_UNIT), numbers[0])
    room = width - len(number)
    return number if room < _ROOM_FOR_UNIT else number + cut(f" {form.label}{per}", room)


def _scaled_texts(value: float, form: _Format, per: str) -> Iterator[str]:
    """Generate the texts of a value with its whole unit, the preferred one first."""
    # The value may be an int beyond any float.
    size = abs(value) * form.factor if abs(value) < _FAR else math.inf
    sign = "-" if value < 0 else ""
    if form.scale is _TIMES and not per and (text := _two_units(size)):
        yield sign + text
    for gap in (" ", ""):
        for digits in (3, 2, 1):
            scaled = _scaled(size, form.scale, digits) if size or not value else None
            if scaled is None:
                yield f"{_exponent(value, digits)}{gap}{form.label}{per}"
            else:
                yield f"{sign}{scaled[0]}{gap}{scaled[1]}{per}"


def _plain_texts(value: float, form: _Format, per: str) -> Iterator[str]:
    """Generate the texts of a value in a unit without a scale, the preferred one first."""
    gap = "" if form.label in ("", "%", "/s") else " "
    for number in _numbers(value):
        yield f"{number}{gap}{form.label}{per}"


def _numbers(value: float) -> Iterator[str]:
    """Generate the texts of a number without a unit, the preferred one first."""
    if abs(value) >= 1000 * _LETTERS[-1][0]:
        for digits in (3, 2, 1):
            yield _exponent(value, digits)
        return
    yield f"{value:,}" if isinstance(value, int) else _digits(value, 3)
    if abs(value) >= 1000:
        scaled = _scaled(abs(value), _LETTERS, 3)
        if scaled is not None:
            yield ("-" if value < 0 else "") + "".join(scaled)
    for digits in (2, 1):
        yield _digits(value, digits)


def _scaled(size: float, scale: _Scale, digits: int) -> tuple[str, str] | None:
    """
    Return a number from zero up, and its label; None if it is below or beyond the scale.
    """
    if not size:
        return "0", next(label for factor, label in scale if factor == 1)
    at = max(0, bisect_right(scale, size, key=itemgetter(0)) - 1)
    number = _digits(size / scale[at][0], digits)
    if at + 1 < len(scale):
        # 1023.99 KiB are 1 MiB.
        if float(number.replace(",", "")) * scale[at][0] > scale[at + 1][0] * 0.9999999:
            at += 1
            number = _digits(size / scale[at][0], digits)
    elif not size < 1000 * scale[at][0]:
        return None
    return None if "e" in number else (number.replace(",", ""), scale[at][1])


def _two_units(seconds: float) -> str:
    """Format a time from a minute to 100 days; return an empty text for any other."""
    if not 59.95 <= seconds < 100 * 86400:
        return ""
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60}h {minutes % 60:02}m"
    hours = round(seconds / 3600)
    return f"{hours // 24}d {hours % 24:02}h" if hours < 100 * 24 else ""


def _digits(value: float, digits: int) -> str:
    """Format with this many significant digits, but do not round the integer part below 1e15."""
    text = f"{value:,.{digits}g}"
    return f"{value:,.0f}" if "e+" in text and abs(value) < 1e15 else text


def _exponent(value: float, digits: int) -> str:
    number = Decimal(value) if isinstance(value, int) else value
    mantissa, _, exponent = f"{number:.{digits - 1}e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.') if digits > 1 else mantissa}e{exponent}"
