"""Keywords of a JSON schema: which are known, what they may have as values, and what they say of types and values."""

import json
from collections.abc import Callable
from math import ceil, floor, isfinite
from typing import Any

from cadcpp.schema.automaton import automaton
from cadcpp.schema.language import both, text
from cadcpp.schema.merge import is_number, types_of
from cadcpp.schema.place import Place, SchemaError
from cadcpp.schema.strings import says, string_language

OF_TYPE = {
    "object": "properties required additionalProperties propertyNames patternProperties minProperties maxProperties "
    "unevaluatedProperties",
    "array": "items prefixItems minItems maxItems uniqueItems additionalItems unevaluatedItems",
    "string": "minLength maxLength pattern format allPatterns allFormats notTexts contentEncoding contentMediaType",
    "number": "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf",
}
TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
_UNSAID = (  # keywords that restrict values in ways that a grammar does not follow
    "if then else dependentRequired dependentSchemas dependencies contains minContains maxContains "
    "$dynamicRef $recursiveRef contentSchema"
).split()
_SHAPES: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("properties", "patternProperties", "$defs", "definitions"), lambda value: isinstance(value, dict)),
    "enum": lambda value: isinstance(value, list) and _is_written(value),
    **dict.fromkeys(("anyOf", "oneOf", "allOf", "prefixItems"), lambda value: isinstance(value, list)),
    "const": lambda value: _is_written(value),
    "required": lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value),
    "type": lambda value: all(isinstance(each, str) for each in (value if isinstance(value, list) else [value])),
    "items": lambda value: isinstance(value, bool | dict | list),
    **dict.fromkeys(("additionalProperties", "propertyNames"), lambda value: isinstance(value, bool | dict)),
    **dict.fromkeys(("pattern", "format", "$ref"), lambda value: isinstance(value, str)),
    **dict.fromkeys(("minimum", "maximum"), lambda value: is_number(value) and isfinite(value)),
    **dict.fromkeys(
        ("exclusiveMinimum", "exclusiveMaximum"),
        lambda value: isinstance(value, bool) or (is_number(value) and isfinite(value)),
    ),
    "multipleOf": lambda value: is_number(value) and isfinite(value) and value > 0,
    **dict.fromkeys(
        ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
        lambda value: is_number(value) and isfinite(value) and value >= 0 and value == int(value),
    ),
}
_MOST_COUNTED = 64  # values of a range that are listed


_CHECKS: dict[str, Callable[[Any, Any], bool]] = {  # of values that are listed; whether one satisfies a keyword
    "minimum": lambda value, bound: not is_number(value) or value >= bound,
    "maximum": lambda value, bound: not is_number(value) or value <= bound,
    "exclusiveMinimum": lambda value, bound: not is_number(value) or value > bound,
    "exclusiveMaximum": lambda value, bound: not is_number(value) or value < bound,
    "minLength": lambda value, n: not isinstance(value, str) or len(value) >= n,
    "maxLength": lambda value, n: not isinstance(value, str) or len(value) <= n,
}


def _is_written(value: Any) -> bool:
    """Whether JSON has a spelling for a value: for infinity it has none."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


def fits(value: Any, schema: dict[str, Any], place: Place) -> bool:
    """Whether a listed value satisfies what stands beside the list."""
    if "type" in schema and not _kinds_of(value) & types_of(schema["type"]):
        return False
    for key, bound in schema.items():
        if isinstance(value, dict) and key in OF_TYPE["object"].split():
            raise SchemaError(place.at(key), "stands beside values that are listed")
        if isinstance(value, list) and key in OF_TYPE["array"].split():
            raise SchemaError(place.at(key), "stands beside values that are listed")
        if key in _CHECKS and not _CHECKS[key](value, bound):
            return False
    if isinstance(value, str) and says(schema):
        return automaton(both((string_language(schema, place), text(value)))) is not None
    return True


def _kinds_of(value: Any) -> set[str]:
    if isinstance(value, bool):
        return {"boolean"}
    if is_number(value):
        return {"number", "integer"} if value % 1 == 0 else {"number"}
    kinds: dict[type, str] = {str: "string", list: "array", dict: "object", type(None): "null"}
    return {kinds[type(value)]}


def listed_values(schema: dict[str, Any]) -> list[Any] | None:
    """The values that a schema lists; None if it lists none."""
    if "const" in schema:
        return [schema["const"]]
    return list(schema["enum"]) if isinstance(schema.get("enum"), list) else None


def countable_values(schema: dict[str, Any]) -> list[Any] | None:
    """All values of a schema that has few; None if it has many, or says more of them."""
    said = {key for key in schema if restricts(key)}
    if said == {"type"} and schema["type"] == "boolean":
        return [False, True]
    if said == {"type", "minimum", "maximum"} and schema["type"] == "integer":
        low, high = ceil(schema["minimum"]), floor(schema["maximum"])
        return list(range(low, high + 1)) if high - low < _MOST_COUNTED else None
    return listed_values(schema)


def types_said(schema: dict[str, Any]) -> set[str] | None:
    """The types that values of a schema have, numbers being of one; None if it says nothing of that."""
    values = listed_values(schema)
    if values is not None:
        found = set[str]().union(*map(_kinds_of, values))
    elif "type" in schema:
        found = types_of(schema["type"])
    else:
        return None
    return {"number" if kind == "integer" else kind for kind in found}


def other_types(kind: Any) -> list[str]:
    """All types but these; none if numbers would be left that are not whole."""
    these = types_of(kind)
    if "integer" in these and "number" not in these:
        return []
    return [each for each in TYPES if each not in these and not (each == "integer" and "number" in these)]


def allowed_types(schema: dict[str, Any], place: Place) -> set[str]:
    """The types of which a value may be."""
    if "type" in schema:
        found = types_of(schema["type"])
        if unknown := found - set(TYPES):
            raise SchemaError(place.at("type"), f"is {sorted(unknown)[0]!r}, which no type is called")
        return found
    return {kind for kind, keys in OF_TYPE.items() if any(key in schema for key in keys.split())}


def restricts(key: str) -> bool:
    """Whether a keyword says which values are right."""
    known = (key in keys.split() for keys in OF_TYPE.values())
    return key in ("type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref", "not") or any(known)


def checked(schema: dict[str, Any], place: Place) -> dict[str, Any]:
    """A schema of whose keywords all can be followed."""
    for key in _UNSAID:
        if key in schema and not _says_nothing(key, schema[key]):
            raise SchemaError(place.at(key), "is beyond what a grammar can say")
    for key, is_right in _SHAPES.items():
        if key in schema and not is_right(schema[key]):
            raise SchemaError(place.at(key), "has a value that this keyword cannot have")
    if schema.get("additionalItems", True) is not True and not isinstance(schema.get("items"), list):
        schema = {key: value for key, value in schema.items() if key != "additionalItems"}
    return schema


def _says_nothing(key: str, value: Any) -> bool:
    if key == "contentSchema":
        return value in (True, {})
    return key in ("then", "else", "dependentRequired", "dependentSchemas", "dependencies") and not value
