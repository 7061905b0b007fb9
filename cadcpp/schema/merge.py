"""Two schemas that both have to hold, as one; and whether no value can satisfy both."""

from typing import Any

from cadcpp.schema.place import Place, Schema, SchemaError

_LARGER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_SMALLER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_JOINED = {"pattern": "allPatterns", "format": "allFormats"}  # lists of all of them, names of our own


def merged(a: Schema, b: Schema, place: Place) -> Schema:
    """What satisfies ``a`` and ``b``. Raises SchemaError at a keyword that both have and that cannot be joined."""
    if a is False or b is False:
        return False
    if a is True or b is True:
        return b if a is True else a
    if "const" in a and "const" in b and not same(a["const"], b["const"]):
        return False
    result = dict(a)
    for key, value in b.items():
        if key not in ("properties", "additionalProperties", "required"):
            result[key] = value if key not in a or a[key] == value else _joined(key, a[key], value, place)
    return result | _object(a, b, place)


def _joined(key: str, a: Any, b: Any, place: Place) -> Any:
    if key in _LARGER:
        return max(a, b)
    if key in _SMALLER:
        return min(a, b)
    if key == "type":
        return _types(a, b)
    if key == "enum":
        return [value for value in a if any(same(value, other) for other in b)]
    if key in ("items", "propertyNames"):
        return merged(a, b, place.at(key))
    if key in ("allOf", "allPatterns", "allFormats"):
        return [*a, *b]
    if key in ("title", "description", "default", "examples", "$defs", "definitions", "$id", "$schema", "deprecated"):
        return b
    raise SchemaError(place.at(key), "is said twice in schemas that both have to hold")


def _types(a: Any, b: Any) -> list[str]:
    first, second = types_of(a), types_of(b)
    both = first & second
    if "integer" in first | second and "number" in first | second:
        both |= {"integer"}
    return sorted(both)


def types_of(kind: Any) -> set[str]:
    """The value of ``type`` as a set."""
    return {kind} if isinstance(kind, str) else set(kind)


def _object(a: dict[str, Any], b: dict[str, Any], place: Place) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "required" in a or "required" in b:
        found["required"] = list(dict.fromkeys([*a.get("required", ()), *b.get("required", ())]))
    rest_a, rest_b = a.get("additionalProperties", True), b.get("additionalProperties", True)
    if any("additionalProperties" in each for each in (a, b)):
        found["additionalProperties"] = merged(rest_a, rest_b, place.at("additionalProperties"))
    mine, theirs = a.get("properties", {}), b.get("properties", {})
    if mine or theirs:
        found["properties"] = {
            name: merged(mine.get(name, rest_a), theirs.get(name, rest_b), place.at("properties", name))
            for name in dict.fromkeys([*mine, *theirs])
        }
    return found


def same(a: Any, b: Any) -> bool:
    """Equality as JSON has it, where true is not 1."""
    return type(a) is type(b) and a == b or (is_number(a) and is_number(b) and a == b)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
