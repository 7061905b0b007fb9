"""References within a schema."""

from typing import Any

from cadcpp.schema.keywords import checked, restricts
from cadcpp.schema.merge import merged
from cadcpp.schema.place import Place, Schema, SchemaError


class References:
    """What the references of one schema point to."""

    def __init__(self, root: Any) -> None:
        self._root = root

    def resolve(self, ref: str, place: Place) -> Schema:
        """What a reference points to."""
        if not ref.startswith("#"):
            raise SchemaError(place.at("$ref"), f"points to {ref!r}, outside of the schema")
        found = self._root
        for key in ref[1:].split("/")[1:]:
            key = key.replace("~1", "/").replace("~0", "~")
            try:
                found = found[int(key)] if isinstance(found, list) else found[key]
            except (KeyError, IndexError, ValueError, TypeError):
                raise SchemaError(place.at("$ref"), f"points to {ref!r}, which is not there") from None
        if (ref != "#" and not ref.startswith("#/")) or not isinstance(found, dict | bool):
            raise SchemaError(place.at("$ref"), f"points to {ref!r}, which is no schema")
        return found

    def followed(self, schema: Any, place: Place) -> Any:
        """A schema without a reference of its own."""
        seen = set[str]()
        while isinstance(schema, dict) and "$ref" in schema:
            ref = checked(schema, place)["$ref"]
            if ref in seen:
                raise SchemaError(place.at("$ref"), f"{ref} refers to itself without end")
            seen.add(ref)
            beside = {key: value for key, value in schema.items() if key != "$ref" and restricts(key)}
            schema = merged(self.resolve(ref, place), beside, place)
        return schema
