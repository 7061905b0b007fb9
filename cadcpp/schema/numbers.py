"""Numbers between bounds, as expressions of a grammar."""

from dataclasses import dataclass
from decimal import Decimal

from cadcpp.schema.rules import choice, literal

_DIGITS = 16  # of a number without bounds, before and behind its point


@dataclass(frozen=True, slots=True)
class Bound:
    """One end of a range, itself in it or not."""

    value: Decimal
    inside: bool


def integers(low: Bound | None, high: Bound | None, digits: int = _DIGITS) -> str | None:
    """Integers in a range, of up to ``digits`` digits where it has no end; None if there are none."""
    first = None if low is None else _next_up(low)
    last = None if high is None else -_next_up(Bound(-high.value, high.inside))
    if first is not None and last is not None and first > last:
        return None
    below = _naturals(max(1, 1 if last is None else -last), None if first is None else -first, digits)
    parts = [f'"-" {part}' for part in below] + _naturals(max(0, first or 0), last, digits)
    return choice(parts) if parts else None


def _next_up(low: Bound) -> int:
    """The least integer that is in the range."""
    whole = int(low.value.to_integral_value("ROUND_CEILING"))
    return whole + (not low.inside and whole == low.value)


def _naturals(first: int, last: int | None, digits: int) -> list[str]:
    """Numbers without a sign from ``first``, which is 0 or more, to ``last``, or of up to ``digits`` digits."""
    if last is None:
        last = 10 ** max(min(digits, _DIGITS), len(str(first)) + 1) - 1
    if last < first:
        return []
    parts = []
    for n in range(len(str(first)), len(str(last)) + 1):
        low, high = max(first, 10 ** (n - 1) if n > 1 else 0), min(last, 10**n - 1)
        parts += _same_length(str(low), str(high))
    return parts


def _same_length(low: str, high: str) -> list[str]:
    """Digits from ``low`` to ``high``, which are equally many."""
    n = len(low)
    if low == "0" * n and high == "9" * n:
        return [_digits(n, n)]
    if n == 1:
        return [_span(low, high)]
    if low[0] == high[0]:
        return [f"{literal(low[0])} {choice(_same_length(low[1:], high[1:]))}"]
    nines, zeros = "9" * (n - 1), "0" * (n - 1)
    parts, first, last = [], int(low[0]), int(high[0])
    if low[1:] != zeros:
        parts.append(f"{literal(low[0])} {choice(_same_length(low[1:], nines))}")
        first += 1
    if high[1:] != nines:
        last -= 1
    if first <= last:
        parts.append(f"{_span(str(first), str(last))} {_digits(n - 1, n - 1)}")
    if high[1:] != nines:
        parts.append(f"{literal(high[0])} {choice(_same_length(zeros, high[1:]))}")
    return parts


def _span(low: str, high: str) -> str:
    return f"[{low}]" if low == high else f"[{low}-{high}]"


def _digits(least: int, most: int) -> str:
    return "[0-9]" if (least, most) == (1, 1) else f"[0-9]{{{least},{most}}}"


def numbers(low: Bound | None, high: Bound | None, places: int = _DIGITS, digits: int = _DIGITS) -> str | None:
    """Decimal numbers in a range, with up to ``places`` digits behind the point; None if there are none.

    Where the range has no end, up to ``digits`` stand before the point.
    """
    parts = []
    below = None if low is None else Bound(-low.value, low.inside)
    above = Bound(Decimal(0), False) if high is None else Bound(-high.value, high.inside)
    negative = _decimals(max(above, Bound(Decimal(0), False), key=_as_low), below, places, digits)
    if negative:
        parts.append(f'"-" {choice(negative)}')
    zero = Bound(Decimal(0), True)
    parts += _decimals(zero if low is None else max(low, zero, key=_as_low), high, places, digits)
    return choice(parts) if parts else None


def _as_low(bound: Bound) -> tuple[Decimal, bool]:
    return bound.value, not bound.inside


def _decimals(low: Bound, high: Bound | None, places: int, digits: int) -> list[str]:
    """Numbers without a sign in a range whose lower end is 0 or more."""
    if high is not None and (high.value < low.value or (high.value == low.value and not (low.inside and high.inside))):
        return []
    first, last = int(low.value), None if high is None else int(high.value)
    floor, ceiling = low.value - first, None if high is None or last is None else high.value - last
    if first == last and ceiling is not None and high is not None:
        return _with(first, _between(_fraction(floor), _fraction(ceiling), low.inside, high.inside, places))
    parts = _with(first, _at_least(_fraction(floor), low.inside, places))
    middle = _naturals(first + 1, None if last is None else last - 1, digits)
    if middle:
        parts.append(f"{choice(middle)} {_any_fraction(places)}")
    if last is not None and ceiling is not None and high is not None:
        parts += _with(last, _at_most(_fraction(ceiling), high.inside, places))
    return parts


def _with(whole: int, fractions: list[str]) -> list[str]:
    return [f"{literal(str(whole))} {fraction}" for fraction in fractions]


def _fraction(value: Decimal) -> str:
    """The digits behind the point, without zeros at their end."""
    return f"{value:f}".partition(".")[2].rstrip("0")


def _any_fraction(places: int) -> str:
    return f'("." {_digits(1, places)})?' if places else '""'


def _more(n: int) -> str:
    return f" {_digits(0, n)}" if n > 0 else ""


def _at_least(digits: str, inside: bool, places: int) -> list[str]:
    """Points and digits of fractions from that of ``digits`` on; an empty one stands for none."""
    if not digits:
        return [_any_fraction(places)] if inside else _positive("", places)
    parts = [f'"." {literal(digits[:i])} {_span(str(int(d) + 1), "9")}{_more(places - i - 1)}'
             for i, d in enumerate(digits) if d != "9" and i < places]  # fmt: skip
    if len(digits) <= places:
        left = places - len(digits)
        parts += [f'"." {literal(digits)}{_more(left)}'] if inside else _positive(digits, places)
    return parts


def _positive(digits: str, places: int) -> list[str]:
    """Fractions that begin with ``digits`` and are larger than that."""
    left = places - len(digits)
    return [f'"." {literal(digits + "0" * i)} [1-9]{_more(left - i - 1)}' for i in range(left)]


def _at_most(digits: str, inside: bool, places: int) -> list[str]:
    parts = ['""'] if digits or inside else []
    for i, d in enumerate(digits[:places]):
        if d != "0":
            parts.append(f'"." {literal(digits[:i])} {_span("0", str(int(d) - 1))}{_more(places - i - 1)}')
        if 0 < i:
            parts.append(f'"." {literal(digits[:i])}')
    if inside and len(digits) <= places:
        left = places - len(digits)
        zeros = f" [0]{{0,{left}}}" if left else ""
        parts += [f'"." {literal(digits)}{zeros}'] if digits else [f'("." [0]{{1,{places}}})?'] if places else []
    return parts


def _between(low: str, high: str, low_inside: bool, high_inside: bool, places: int) -> list[str]:
    """Fractions of the same whole number from ``low`` to ``high``, which is not less."""
    n = max(len(low), len(high))
    if n > min(places, 9):
        return []
    if low == high:
        return [f'"." {literal(low)}'] if low else ['""']
    a, b, width = low.ljust(n, "0"), high.ljust(n, "0"), n
    inner = _same_length(str(int(a) + 1).zfill(width), str(int(b) - 1).zfill(width)) if int(b) - int(a) > 1 else []
    parts = [f'"." {each}{_more(places - n)}' for each in inner]
    parts += [f'"." {literal(a)}{_more(places - n)}'] if low_inside and a else _positive(a, places)
    if low_inside and not int(a or 0):
        parts.append('""')
    return parts + ([f'"." {literal(b)}'] if high_inside else [])
