"""Objects that a schema allows, as rules of a grammar."""

import json
from dataclasses import dataclass
from typing import Any

from cadcpp.schema.automaton import automaton
from cadcpp.schema.language import ALL, Language, both, either, negate, text
from cadcpp.schema.members import Members
from cadcpp.schema.merge import merged
from cadcpp.schema.names import names_of
from cadcpp.schema.pattern import PatternError, pattern
from cadcpp.schema.place import Inside, Place, Schema, SchemaError
from cadcpp.schema.references import References
from cadcpp.schema.rules import Rules, choice, literal
from cadcpp.schema.string_rules import language_rule


@dataclass(frozen=True, slots=True)
class Objects:
    """Makes the rules of objects."""

    rules: Rules
    references: References
    inside: Inside

    def rule(self, schema: dict[str, Any], place: Place) -> str | None:
        """None if no object satisfies ``schema``."""
        names = names_of(schema.get("propertyNames", True), self.references, place.at("propertyNames"))
        patterned, required = schema.get("patternProperties", {}), schema.get("required", ())
        properties, declared = self._properties(schema, place), list[tuple[str, bool]]()
        for name, each in properties.items():
            member = self._property(name, each, names, patterned, place)
            if member is not None:
                declared.append((member, name in required))
            elif name in required:
                return None
        extra = self._extra(list(properties), _undeclared(schema), names, patterned, place)
        least, most = int(schema.get("minProperties", 0)), schema.get("maxProperties")
        limit = None if most is None else int(most)
        members = Members(declared=declared, extra=extra, least=least, most=limit, rules=self.rules)
        return self.rules.add(f'"{{" ws {members.rule(place)}"}}"')

    def _properties(self, schema: dict[str, Any], place: Place) -> dict[str, Any]:
        """Those that are declared, then others that are required."""
        properties, patterned = dict(schema.get("properties", {})), schema.get("patternProperties", {})
        undeclared = schema.get("additionalProperties", schema.get("unevaluatedProperties", True))
        for name in schema.get("required", ()):
            if name not in properties:
                matching = [where for source, where in patterned.items() if _matches(source, name, place)]
                whole: Schema = True
                for each in matching or [undeclared]:
                    whole = merged(whole, each, place)
                properties[name] = whole
        return properties

    def _property(self, name: str, schema: Any, names: Language, patterned: dict[str, Any], place: Place) -> str | None:
        where = place.at("properties", name)
        if names != ALL and automaton(both((names, text(name)))) is None:
            return None
        for source, other in patterned.items():
            if _matches(source, name, place):
                schema = merged(schema, other, where)
        value = self.inside(schema, where)
        key = literal(json.dumps(name, ensure_ascii=False))
        return None if value is None else f'{key} ws ":" ws {value}'

    def _extra(
        self, declared: list[str], other: Any, names: Language, patterned: dict[str, Any], place: Place
    ) -> str | None:
        """Members that no property is declared for."""
        found = []
        free = both((names, negate(either(map(text, declared)))))
        languages = list[Language]()
        for source, schema in patterned.items():
            _matches(source, "", place)  # that it can be read
            mine, where = both((free, pattern(source))), place.at("patternProperties", source)
            if any(automaton(both((mine, each))) is not None for each in languages):
                raise SchemaError(where, "may hold together with another pattern")
            languages.append(mine)
            found.append(self._member(mine, schema, where))
        rest = both((free, *map(negate, languages)))
        if other is not False:
            found.append(self._member(rest, other, place.at("additionalProperties")))
        parts = [each for each in found if each is not None]
        return choice(parts) if parts else None

    def _member(self, keys: Language, schema: Any, place: Place) -> str | None:
        value = self.inside(schema, place)
        key = "string" if keys == ALL else language_rule(self.rules, keys, place)
        return None if value is None or key is None else f'{key} ws ":" ws {value}'


def _undeclared(schema: dict[str, Any]) -> Any:
    """The schema of members that nothing is said of by name: where others are declared, the grammar has none."""
    declares = "properties" in schema or schema.get("required") or schema.get("patternProperties")
    return schema.get("additionalProperties", schema.get("unevaluatedProperties", not declares))


def _matches(source: str, name: str, place: Place) -> bool:
    try:
        return automaton(both((pattern(source), text(name)))) is not None
    except PatternError as error:
        raise SchemaError(place.at("patternProperties", source), f"has {error}, which no grammar can say") from None
