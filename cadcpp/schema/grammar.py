"""A JSON schema as a grammar of llama.cpp's: all that it lets through satisfies the schema.

Where a schema leaves a choice that no reader needs (the order of properties, undeclared ones, blanks, long numbers),
the grammar takes one. What it cannot say is a SchemaError.
"""

import json
from collections.abc import Callable
from typing import Any

from cadcpp.schema.alternatives import apart
from cadcpp.schema.arrays import Arrays
from cadcpp.schema.keywords import OF_TYPE, TYPES, allowed_types, checked, fits, restricts
from cadcpp.schema.language import either, text
from cadcpp.schema.merge import merged, same
from cadcpp.schema.multiples import number_rule
from cadcpp.schema.negation import without
from cadcpp.schema.objects import Objects
from cadcpp.schema.place import Place, Schema, SchemaError
from cadcpp.schema.references import References
from cadcpp.schema.rules import Rules, choice, literal
from cadcpp.schema.string_rules import language_rule, string_rule

_MOST_LETTERS = 600  # of words in a list that are followed together, which llama.cpp is faster with


def schema_grammar(schema: Any) -> str:
    """A grammar, in GBNF, for what satisfies ``schema``. Raises SchemaError, which names the place in it."""
    rules = Rules()
    return rules.grammar(schema_rule(rules, schema))


def schema_rule(rules: Rules, schema: Any) -> str:
    """The rule of a schema, and those that it needs, among ``rules``."""
    try:
        rule = _Converter(rules, schema).rule(schema, Place())
    except RecursionError:
        raise SchemaError(Place(), "is nested too deeply") from None
    if rule is None:
        raise SchemaError(Place(), "allows no value at all")
    return rules.add(rule)


class _Converter:
    """Turns the parts of one schema into rules; None stands for what no value satisfies."""

    def __init__(self, rules: Rules, root: Any) -> None:
        self._rules, self._references = rules, References(root)
        self._of_refs: dict[str, str] = {}
        self._open: list[str] = []  # references between here and the last container

    def rule(self, schema: Any, place: Place) -> str | None:
        if schema is True or schema is False:
            return "value" if schema else None
        if not isinstance(schema, dict):
            raise SchemaError(place, "is no schema")
        schema = checked(schema, place)
        rest = {key: value for key, value in schema.items() if key not in ("$defs", "definitions")}
        if "$ref" in rest:
            return self._reference(rest, place)
        if "not" in rest:
            return self._negated(rest, place)
        for key in ("allOf", "anyOf", "oneOf"):
            if key in rest:
                return self._combined(key, rest, place)
        if "const" in rest or "enum" in rest:
            return self._literals(rest, place)
        return self._typed(rest, place)

    # what refers to or combines others ----------------------------------------------------------------------

    def _reference(self, schema: dict[str, Any], place: Place) -> str | None:
        ref = schema["$ref"]
        beside = {key: value for key, value in schema.items() if key != "$ref" and restricts(key)}
        target = self._references.resolve(ref, place)
        if ref in self._open:
            raise SchemaError(place.at("$ref"), f"{ref} refers to itself without end")
        if beside:
            return self.rule(merged(target, beside, place), place)
        if ref not in self._of_refs:
            self._of_refs[ref] = name = self._rules.reserve()
            self._open.append(ref)
            body = self.rule(target, Place(ref))
            self._open.pop()
            if body is None:
                self._rules.drop(name)
                self._of_refs[ref] = ""
            else:
                self._rules.set(name, body)
        elif ref in self._open:
            raise SchemaError(place.at("$ref"), f"{ref} refers to itself without end")
        return self._of_refs[ref] or None

    def _combined(self, key: str, schema: dict[str, Any], place: Place) -> str | None:
        parts = schema[key]
        if not parts:
            raise SchemaError(place.at(key), "is empty")
        beside = {name: value for name, value in schema.items() if name != key and restricts(name)}
        if key == "allOf":
            whole: Schema = beside or True
            for i, part in enumerate(parts):
                whole = merged(whole, self._part(part, place.at(key, i)), place)
            return self.rule(whole, place)
        if key == "oneOf":
            parts = apart(parts, self._references, place.at(key))
        found = []
        for i, part in enumerate(parts):
            whole = merged(self._part(part, place.at(key, i)), beside, place) if beside else part
            found.append(self.rule(whole, place.at(key, i)))
        alternatives = list(dict.fromkeys(each for each in found if each is not None))
        return choice(alternatives) if alternatives else None

    def _part(self, schema: Any, place: Place) -> Any:
        """One of several schemas that have to hold together, which sees only what itself declares."""
        schema = self._references.followed(schema, place)
        for key in ("unevaluatedProperties", "unevaluatedItems") if isinstance(schema, dict) else ():
            if key in schema:
                raise SchemaError(place.at(key), "looks at a part of what has to hold")
        return schema

    def _negated(self, schema: dict[str, Any], place: Place) -> str | None:
        refused = self._references.followed(schema["not"], place.at("not"))
        rest = {key: value for key, value in schema.items() if key != "not"}
        return self.rule(without(rest, refused, place), place)

    # values -----------------------------------------------------------------------------------------------

    def _literals(self, schema: dict[str, Any], place: Place) -> str | None:
        values = [schema["const"]] if "const" in schema else list(schema["enum"])
        if "const" in schema and "enum" in schema:
            values = [value for value in values if any(same(value, other) for other in schema["enum"])]
        rest = {key: value for key, value in schema.items() if key not in ("const", "enum") and restricts(key)}
        for key in ("anyOf", "oneOf", "multipleOf"):
            if key in rest:
                raise SchemaError(place.at(key), "stands beside values that are listed")
        fitting = [value for value in values if fits(value, rest, place)]
        if not fitting:
            return None
        words = [value for value in fitting if isinstance(value, str)]
        if 1 < len(words) == len(fitting) and sum(map(len, words)) < _MOST_LETTERS:
            return language_rule(self._rules, either(map(text, words)), place)
        return choice([literal(json.dumps(value, ensure_ascii=False)) for value in fitting])

    def _typed(self, schema: dict[str, Any], place: Place) -> str | None:
        kinds = [kind for kind in TYPES if kind in allowed_types(schema, place)]
        if "number" in kinds and "integer" in kinds:
            kinds.remove("integer")
        if not any(key in schema for keys in OF_TYPE.values() for key in keys.split()) and "type" not in schema:
            return "value"
        makers: dict[str, Callable[[dict[str, Any], Place], str | None]] = {
            "null": lambda *_: "null",
            "boolean": lambda *_: "boolean",
            "integer": lambda schema, place: number_rule(self._rules, schema, True, place),
            "number": lambda schema, place: number_rule(self._rules, schema, False, place),
            "string": lambda schema, place: string_rule(self._rules, schema, place),
            "array": Arrays(self._rules, self._references, self._inside).rule,
            "object": Objects(self._rules, self._references, self._inside).rule,
        }
        found = [makers[kind](schema, place) for kind in kinds]
        parts = [each for each in found if each is not None]
        return choice(parts) if parts else None

    # containers -------------------------------------------------------------------------------------------

    def _inside(self, schema: Any, place: Place) -> str | None:
        """The rule of what a container holds."""
        before, self._open = self._open, []
        try:
            rule = self.rule(schema, place)
        finally:
            self._open = before
        return None if rule is None else self._rules.add(rule)
