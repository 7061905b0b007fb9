"""Names that a schema allows for the members of an object."""

from typing import Any

from cadcpp.schema.keywords import OF_TYPE, checked, listed_values, restricts
from cadcpp.schema.language import ALL, Language, both, either, text
from cadcpp.schema.place import Place, SchemaError
from cadcpp.schema.references import References
from cadcpp.schema.strings import string_language

_OF_NAMES = ("type", "enum", "const", "anyOf", "allOf", *OF_TYPE["string"].split())
_NONE = both((text("a"), text("b")))


def names_of(schema: Any, references: References, place: Place) -> Language:
    """All names that satisfy ``schema``. Raises SchemaError where a grammar cannot say which."""
    schema = references.followed(schema, place)
    if not isinstance(schema, dict):
        return ALL if schema is True else _NONE
    schema = checked(schema, place)
    for key in schema:
        if restricts(key) and key not in _OF_NAMES:
            raise SchemaError(place.at(key), "says of names what no grammar can say")
    parts = [string_language(schema, place)]
    if (listed := listed_values(schema)) is not None:
        parts.append(either(text(value) for value in listed if isinstance(value, str)))
    for key, join in (("anyOf", either), ("allOf", both)):
        if key in schema:
            parts.append(join(names_of(each, references, place.at(key, i)) for i, each in enumerate(schema[key])))
    return both(parts)
