"""Schemas of which one alone may hold."""

from typing import Any

from cadcpp.schema.keywords import listed_values, types_said
from cadcpp.schema.merge import same
from cadcpp.schema.place import Place, SchemaError
from cadcpp.schema.references import References


def apart(parts: list[Any], references: References, place: Place) -> list[Any]:
    """Alternatives of which no value satisfies two. Raises SchemaError if that cannot be seen."""
    whole = [references.followed(part, place.at(i)) for i, part in enumerate(parts)]
    required: list[set[str]] = [set() for _ in whole]
    for i, a in enumerate(whole):
        for j, b in enumerate(whole[:i]):
            apart = _disjoint(a, b, references)
            if apart is None:
                raise SchemaError(place.at(i), f"may hold together with {j}, and only one may")
            required[i].update(apart)
            required[j].update(apart)
    return [
        {**part, "required": list(dict.fromkeys([*part.get("required", ()), *sorted(names)]))} if names else part
        for part, names in zip(whole, required, strict=True)
    ]


def _disjoint(a: Any, b: Any, references: References) -> list[str] | None:
    """Properties by which no value satisfies both, if they are there; None if that cannot be seen."""
    if not (isinstance(a, dict) and isinstance(b, dict)):
        return [] if a is False or b is False else None
    values = [listed_values(each) for each in (a, b)]
    if values[0] is not None and values[1] is not None:
        return None if any(same(x, y) for x in values[0] for y in values[1]) else []
    kinds = [types_said(each) for each in (a, b)]
    if kinds[0] and kinds[1] and not kinds[0] & kinds[1]:
        return []
    mine, theirs = a.get("properties", {}), b.get("properties", {})
    for name in (name for name in mine if name in theirs):
        parts = [references.followed(each[name], Place()) for each in (mine, theirs)]
        values = [listed_values(each) if isinstance(each, dict) else None for each in parts]
        if values[0] is not None and values[1] is not None:
            if not any(same(x, y) for x in values[0] for y in values[1]):
                return [name]
    for one, other in ((a, b), (b, a)):
        if other.get("additionalProperties") is False:
            if any(name not in other.get("properties", {}) for name in one.get("required", ())):
                return []
    return None
