"""Arrays that a schema allows, as rules of a grammar."""

import json
from dataclasses import dataclass
from typing import Any

from cadcpp.schema.keywords import countable_values
from cadcpp.schema.lists import listed, subset
from cadcpp.schema.merge import same
from cadcpp.schema.place import Inside, Place, SchemaError
from cadcpp.schema.references import References
from cadcpp.schema.rules import LONGEST, Rules, literal


@dataclass(frozen=True, slots=True)
class Arrays:
    """Makes the rules of arrays."""

    rules: Rules
    references: References
    inside: Inside

    def rule(self, schema: dict[str, Any], place: Place) -> str | None:
        """None if no array satisfies ``schema``."""
        first, items = schema.get("prefixItems", []), schema.get("items", schema.get("unevaluatedItems", True))
        if isinstance(items, list):  # as older drafts say it
            first, items = items, schema.get("additionalItems", True)
        least, most = int(schema.get("minItems", 0)), schema.get("maxItems")
        rules = [self.inside(each, place.at("prefixItems", i)) for i, each in enumerate(first)]
        item = self.inside(items, place.at("items"))
        if item is None or None in rules:
            n = len(rules) if None not in rules else rules.index(None)
            rules, most = rules[:n], n if most is None else min(most, n)
        most = None if most is None else int(most)
        if most is not None and most < least:
            return None
        if least > LONGEST:
            raise SchemaError(place.at("minItems"), f"is more than {LONGEST}")
        if schema.get("uniqueItems") and (most is None or most > 1):
            return self._set(schema, least, most, place)
        return self.rules.add(f'"[" ws {listed([r for r in rules if r], item or "null", least, most)}"]"')

    def _set(self, schema: dict[str, Any], least: int, most: int | None, place: Place) -> str | None:
        """Different values, each from a list of possible ones, in the order of that list."""
        followed = self.references.followed(schema.get("items", True), place.at("items"))
        values = countable_values(followed) if isinstance(followed, dict) else None
        if values is None or schema.get("prefixItems"):
            raise SchemaError(place.at("uniqueItems"), "compares values, which a grammar cannot")
        different = [value for i, value in enumerate(values) if not any(same(value, other) for other in values[:i])]
        parts = [literal(json.dumps(value, ensure_ascii=False)) for value in different]
        if len(parts) < least:
            return None
        return self.rules.add(f'"[" ws {subset(self.rules, parts, least, most)}"]"')
