"""Schemas that a ``not`` stands in, as schemas without one."""

from typing import Any

from cadcpp.schema.keywords import listed_values, other_types, restricts
from cadcpp.schema.merge import merged, same
from cadcpp.schema.place import Place, Schema, SchemaError


def without(schema: dict[str, Any], refused: Schema, place: Place) -> Schema:
    """What ``schema`` allows and ``refused`` does not. Raises SchemaError where no schema without ``not`` says that."""
    if refused is False:
        return schema
    said = {key for key in refused if restricts(key)} if isinstance(refused, dict) else set[str]()
    if not isinstance(refused, dict) or not said:
        return False
    if said == {"type"} and (left := other_types(refused["type"])):
        return merged(schema, {"type": left}, place)
    listed = listed_values(refused)
    if listed is not None and said <= {"type", "const", "enum"}:
        values = listed_values(schema)
        if values is not None:
            return {**schema, "enum": [v for v in values if not any(same(v, other) for other in listed)]}
        if schema.get("type") == "string" and "type" not in said:
            return {**schema, "notTexts": [each for each in listed if isinstance(each, str)]}
    raise SchemaError(place.at("not"), "is beyond what a grammar can say")
