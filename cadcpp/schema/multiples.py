"""Numbers as a schema has them: of a type, in a range, and multiples of something."""

import re
from decimal import Decimal
from typing import Any

from cadcpp.schema.automaton import TooLarge, automaton
from cadcpp.schema.language import Multiple, both
from cadcpp.schema.numbers import Bound, integers, numbers
from cadcpp.schema.pattern import pattern
from cadcpp.schema.place import Place, SchemaError
from cadcpp.schema.rules import Rules, choice, literal

_MOST = 300  # multiples that are listed
_STATES = 3000  # of an automaton that counts
_RANGES: dict[str, tuple[int, int]] = {  # of formats that say how a reader holds a number
    **{f"int{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
    "uint": (0, 2**32 - 1),
}
_FREE = ("float", "double", "decimal", "time-delta", "unix-time")  # formats that every number has


def number_rule(rules: Rules, schema: dict[str, Any], whole: bool, place: Place) -> str | None:
    """The rule for the numbers, or only the whole ones, of a schema; None if there are none. Raises SchemaError."""
    low, high = _bounds(schema, place)
    if "multipleOf" in schema:
        return _multiples(rules, Decimal(str(schema["multipleOf"])), low, high, whole, place)
    if low is None and high is None:
        return "integer" if whole else "number"
    body = integers(low, high) if whole else numbers(low, high)
    return None if body is None else rules.add(body)


def _multiples(
    rules: Rules, step: Decimal, low: Bound | None, high: Bound | None, whole: bool, place: Place
) -> str | None:
    places = max(-int(step.normalize().as_tuple().exponent), 0)
    scaled = int(step.scaleb(places))
    digits = max(_STATES // max(scaled, 1), 1)
    try:
        body = integers(low, high, digits) if whole else numbers(low, high, places, digits)
        if body is None:
            return None
        if scaled > _STATES:
            raise TooLarge
        found = automaton(both((pattern(f"^(?:{_as_pattern(body)})$"), Multiple(scaled, places))))
    except (TooLarge, RecursionError):
        return _listed(step, low, high, whole, place)
    return None if found is None else rules.add(rules.content(found))


def _as_pattern(body: str) -> str:
    """An expression of digits, points and signs as a regular expression."""
    return re.sub(r'"([^"]*)"|\s+', lambda found: re.escape(found[1] or ""), body)


def _listed(step: Decimal, low: Bound | None, high: Bound | None, whole: bool, place: Place) -> str | None:
    """Multiples one by one, where they are few and their step is too large to be counted by."""
    if low is None or high is None or (high.value - low.value) / step > _MOST:
        raise SchemaError(place.at("multipleOf"), f"is {step}, which is too large to be counted by here")
    first = (low.value / step).to_integral_value("ROUND_CEILING")
    values = [(first + i) * step for i in range(_MOST + 1)]
    fitting = [value for value in values if _inside(value, low, high) and (not whole or value == int(value))]
    return choice([literal(f"{value.normalize():f}") for value in fitting]) if fitting else None


def _inside(value: Decimal, low: Bound, high: Bound) -> bool:
    above = value > low.value or (value == low.value and low.inside)
    return above and (value < high.value or (value == high.value and high.inside))


def _bounds(schema: dict[str, Any], place: Place) -> tuple[Bound | None, Bound | None]:
    low, high = _bound(schema, "minimum", "exclusiveMinimum"), _bound(schema, "maximum", "exclusiveMaximum")
    for name in (*([schema["format"]] if "format" in schema else []), *schema.get("allFormats", ())):
        if name in _RANGES:
            least, most = (Bound(Decimal(end), True) for end in _RANGES[name])
            low = least if low is None or low.value < least.value else low
            high = most if high is None or high.value > most.value else high
        elif name not in _FREE and schema.get("type") in ("number", "integer"):
            raise SchemaError(place.at("format"), f"is {name!r}, which is not known here for numbers")
    return low, high


def _bound(schema: dict[str, Any], inside: str, outside: str) -> Bound | None:
    exclusive = schema.get(outside)
    if isinstance(exclusive, bool):  # as the fourth draft says it
        return Bound(Decimal(str(schema[inside])), not exclusive) if inside in schema else None
    given = {is_in: Decimal(str(schema[key])) for key, is_in in ((inside, True), (outside, False)) if key in schema}
    if len(given) < 2:
        return next((Bound(value, is_in) for is_in, value in given.items()), None)
    limit = (max if inside == "minimum" else min)(*given.values())
    return Bound(limit, given[False] != limit)
