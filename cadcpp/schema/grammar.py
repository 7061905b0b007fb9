"""A JSON schema as a grammar of llama.cpp's: all that it lets through satisfies the schema.

Where a schema leaves a choice that no reader needs (the order of properties, undeclared ones, blanks, long numbers),
the grammar takes one. What it cannot say is a SchemaError.
"""

import json
from collections.abc import Callable
from typing import Any

from cadcpp.schema.automaton import TooLarge, automaton
from cadcpp.schema.keywords import (
    OF_TYPE,
    TYPES,
    allowed_types,
    checked,
    countable_values,
    fits,
    listed_values,
    other_types,
    restricts,
    types_said,
)
from cadcpp.schema.language import ALL, Language, both, either, negate, text
from cadcpp.schema.merge import merged, same
from cadcpp.schema.multiples import number_rule
from cadcpp.schema.pattern import PatternError, pattern
from cadcpp.schema.place import Place, Schema, SchemaError
from cadcpp.schema.rules import Rules, choice, literal
from cadcpp.schema.strings import says, string_language

_LONGEST = 1500  # repetitions; llama.cpp takes 2000
_MOST_LETTERS = 600  # of words in a list that are followed together, which llama.cpp is faster with
_SHORTER = (1000, 300, 100, 30)  # letters, of texts that are followed letter by letter


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
        self._rules, self._root = rules, root
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
        target = self.resolve(ref, place)
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
            parts = self._apart(parts, place.at(key))
        found = []
        for i, part in enumerate(parts):
            whole = merged(self._part(part, place.at(key, i)), beside, place) if beside else part
            found.append(self.rule(whole, place.at(key, i)))
        alternatives = list(dict.fromkeys(each for each in found if each is not None))
        return choice(alternatives) if alternatives else None

    def _part(self, schema: Any, place: Place) -> Any:
        """One of several schemas that have to hold together, which sees only what itself declares."""
        schema = self._followed(schema, place)
        for key in ("unevaluatedProperties", "unevaluatedItems") if isinstance(schema, dict) else ():
            if key in schema:
                raise SchemaError(place.at(key), "looks at a part of what has to hold")
        return schema

    def _negated(self, schema: dict[str, Any], place: Place) -> str | None:
        """What a schema allows without what its ``not`` allows."""
        inner = self._followed(schema["not"], place.at("not"))
        rest = {key: value for key, value in schema.items() if key != "not"}
        said = {key for key in inner if restricts(key)} if isinstance(inner, dict) else set[str]()
        listed = listed_values(inner) if isinstance(inner, dict) else None
        if inner is False:
            return self.rule(rest, place)
        if not said:
            return None
        if said == {"type"} and (left := other_types(inner["type"])):
            return self.rule(merged(rest, {"type": left}, place), place)
        if listed is not None and said <= {"type", "const", "enum"}:
            values = listed_values(rest)
            if values is not None:
                kept = [value for value in values if not any(same(value, other) for other in listed)]
                return self.rule({**rest, "enum": kept}, place)
            if rest.get("type") == "string" and "type" not in said:
                return self.rule({**rest, "notTexts": [each for each in listed if isinstance(each, str)]}, place)
        raise SchemaError(place.at("not"), "is beyond what a grammar can say")

    def _followed(self, schema: Any, place: Place) -> Any:
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

    def _apart(self, parts: list[Any], place: Place) -> list[Any]:
        """Alternatives of which no value satisfies two. Raises SchemaError if that cannot be seen."""
        whole = [self._followed(part, place.at(i)) for i, part in enumerate(parts)]
        required: list[set[str]] = [set() for _ in whole]
        for i, a in enumerate(whole):
            for j, b in enumerate(whole[:i]):
                apart = self._disjoint(a, b)
                if apart is None:
                    raise SchemaError(place.at(i), f"may hold together with {j}, and only one may")
                required[i].update(apart)
                required[j].update(apart)
        return [
            {**part, "required": list(dict.fromkeys([*part.get("required", ()), *sorted(names)]))} if names else part
            for part, names in zip(whole, required, strict=True)
        ]

    def _disjoint(self, a: Any, b: Any) -> list[str] | None:
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
            parts = [self._followed(each[name], Place()) for each in (mine, theirs)]
            values = [listed_values(each) if isinstance(each, dict) else None for each in parts]
            if values[0] is not None and values[1] is not None:
                if not any(same(x, y) for x in values[0] for y in values[1]):
                    return [name]
        for one, other in ((a, b), (b, a)):
            if other.get("additionalProperties") is False:
                if any(name not in other.get("properties", {}) for name in one.get("required", ())):
                    return []
        return None

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
            return self._text(either(map(text, words)), place)
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
            "string": self._string,
            "array": self._array,
            "object": self._object,
        }
        found = [makers[kind](schema, place) for kind in kinds]
        parts = [each for each in found if each is not None]
        return choice(parts) if parts else None

    def _string(self, schema: dict[str, Any], place: Place) -> str | None:
        if says(schema):
            return self._said(schema, place)
        least, most = int(schema.get("minLength", 0)), schema.get("maxLength")
        if not least and most is None:
            return "string"
        if least > _LONGEST:
            raise SchemaError(place.at("minLength"), f"is more than {_LONGEST}")
        if most is not None and most < least:
            return None
        times = f"{{{least},}}" if most is None else f"{{{least},{max(min(int(most), _LONGEST), least)}}}"
        return self._rules.add(rf'"\"" char{times} "\""')

    def _said(self, schema: dict[str, Any], place: Place) -> str | None:
        """Texts of which more is said than how long they are; those that are too long to be followed are left out."""
        most, least = schema.get("maxLength", 0), schema.get("minLength", 0)
        for shorter in (most, *(n for n in _SHORTER if least <= n < most)):
            given = schema | {"maxLength": shorter} if shorter else schema
            try:
                found = automaton(string_language(given, place))
            except (TooLarge, RecursionError):
                continue
            return None if found is None else self._rules.text(found)
        raise SchemaError(place, "has strings that are too complicated to follow")

    def _text(self, language: Language, place: Place) -> str | None:
        try:
            found = automaton(language)
        except (TooLarge, RecursionError):
            raise SchemaError(place, "has strings that are too complicated to follow") from None
        return None if found is None else self._rules.text(found)

    # containers -------------------------------------------------------------------------------------------

    def _inside(self, schema: Any, place: Place) -> str | None:
        """The rule of what a container holds."""
        before, self._open = self._open, []
        try:
            rule = self.rule(schema, place)
        finally:
            self._open = before
        return None if rule is None else self._rules.add(rule)

    def _array(self, schema: dict[str, Any], place: Place) -> str | None:
        first, items = schema.get("prefixItems", []), schema.get("items", schema.get("unevaluatedItems", True))
        if isinstance(items, list):  # as older drafts say it
            first, items = items, schema.get("additionalItems", True)
        least, most = int(schema.get("minItems", 0)), schema.get("maxItems")
        rules = [self._inside(each, place.at("prefixItems", i)) for i, each in enumerate(first)]
        item = self._inside(items, place.at("items"))
        if item is None or None in rules:
            n = len(rules) if None not in rules else rules.index(None)
            rules, most = rules[:n], n if most is None else min(most, n)
        most = None if most is None else int(most)
        if most is not None and most < least:
            return None
        if least > _LONGEST:
            raise SchemaError(place.at("minItems"), f"is more than {_LONGEST}")
        if schema.get("uniqueItems") and (most is None or most > 1):
            return self._set(schema, least, most, place)
        return self._rules.add(f'"[" ws {_listed([r for r in rules if r], item or "null", least, most)}"]"')

    def _set(self, schema: dict[str, Any], least: int, most: int | None, place: Place) -> str | None:
        """Different values, each from a list of possible ones, in the order of that list."""
        followed = self._followed(schema.get("items", True), place.at("items"))
        values = countable_values(followed) if isinstance(followed, dict) else None
        if values is None or schema.get("prefixItems"):
            raise SchemaError(place.at("uniqueItems"), "compares values, which a grammar cannot")
        different = [value for i, value in enumerate(values) if not any(same(value, other) for other in values[:i])]
        parts = [literal(json.dumps(value, ensure_ascii=False)) for value in different]
        if len(parts) < least:
            return None
        return self._rules.add(f'"[" ws {self._subset(parts, least, most)}"]"')

    def _subset(self, parts: list[str], least: int, most: int | None) -> str:
        """Some of ``parts`` in their order, separated, and blanks behind them."""
        known: dict[tuple[int, int], str | None] = {}

        def after(i: int, n: int) -> str | None:
            """What may follow when ``n`` were taken of those before ``i``; None if it comes to too few."""
            if (i, n) not in known:
                comma = '"," ws ' if n else ""
                found = ['""'] if n >= least else []
                for j in range(i, len(parts)) if most is None or n < most else ():
                    rest = after(j + 1, n + 1)
                    found += [] if rest is None else [f"{comma}{parts[j]} {rest}"]
                known[i, n] = self._rules.add(" | ".join(found)) if found else None
            return known[i, n]

        return f"{after(0, 0)} ws "

    def _object(self, schema: dict[str, Any], place: Place) -> str | None:
        properties, required = dict(schema.get("properties", {})), list(schema.get("required", ()))
        patterned = schema.get("patternProperties", {})
        undeclared = schema.get("additionalProperties", schema.get("unevaluatedProperties"))
        other = undeclared
        if undeclared is None:
            undeclared, other = True, "properties" not in schema and not (required or patterned)
        for name in required:
            if name not in properties:
                matching = [each for each, where in patterned.items() if self._matches(each, name, place)]
                whole: Schema = True
                for each in [patterned[p] for p in matching] or [undeclared]:
                    whole = merged(whole, each, place)
                properties[name] = whole
        names = self._key_language(schema, place)
        members: list[tuple[str, bool]] = []
        for name, each in properties.items():
            rule = self._property(name, each, names, patterned, place)
            if rule is not None:
                members.append((rule, name in required))
            elif name in required:
                return None
        extra = self._extra(list(properties), other, names, patterned, place)
        return self._rules.add(f'"{{" ws {self._members(members, extra, schema, place)}"}}"')

    def _matches(self, source: str, name: str, place: Place) -> bool:
        try:
            return automaton(both((pattern(source), text(name)))) is not None
        except PatternError as error:
            raise SchemaError(place.at("patternProperties", source), f"has {error}, which no grammar can say") from None

    def _property(self, name: str, schema: Any, names: Language, patterned: dict[str, Any], place: Place) -> str | None:
        where = place.at("properties", name)
        if names != ALL and automaton(both((names, text(name)))) is None:
            return None
        for source, other in patterned.items():
            if self._matches(source, name, place):
                schema = merged(schema, other, where)
        value = self._inside(schema, where)
        key = literal(json.dumps(name, ensure_ascii=False))
        return None if value is None else f'{key} ws ":" ws {value}'

    def _key_language(self, schema: dict[str, Any], place: Place) -> Language:
        names = schema.get("propertyNames", True)
        return self._keys(names, place.at("propertyNames"))

    def _keys(self, schema: Any, place: Place) -> Language:
        schema = self._followed(schema, place)
        if schema is True:
            return ALL
        if not isinstance(schema, dict):
            return both((text("a"), text("b")))
        schema = checked(schema, place)
        for key in schema:
            if restricts(key) and key not in ("type", "enum", "const", "anyOf", "allOf", *OF_TYPE["string"].split()):
                raise SchemaError(place.at(key), "says of names what no grammar can say")
        parts = [string_language(schema, place)]
        listed = listed_values(schema)
        if listed is not None:
            parts.append(either(text(value) for value in listed if isinstance(value, str)))
        for key, join in (("anyOf", either), ("allOf", both)):
            if key in schema:
                parts.append(join(self._keys(each, place.at(key, i)) for i, each in enumerate(schema[key])))
        return both(parts)

    def _extra(
        self, declared: list[str], other: Any, names: Language, patterned: dict[str, Any], place: Place
    ) -> str | None:
        """Members that no property is declared for."""
        found = []
        free = both((names, negate(either(map(text, declared)))))
        languages = list[Language]()
        for source, schema in patterned.items():
            self._matches(source, "", place)  # that it can be read
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
        value = self._inside(schema, place)
        key = "string" if keys == ALL else self._text(keys, place)
        return None if value is None or key is None else f'{key} ws ":" ws {value}'

    def _members(self, members: list[tuple[str, bool]], extra: str | None, schema: dict[str, Any], place: Place) -> str:
        """Members with what separates them, and blanks behind them."""
        least, most = int(schema.get("minProperties", 0)), schema.get("maxProperties")
        n_required = sum(required for _, required in members)
        if most is not None and most < n_required:
            raise SchemaError(place.at("maxProperties"), "is less than what is required")
        if not members and extra is not None:
            if least > 1:
                raise SchemaError(place.at("minProperties"), "counts different names, which a grammar cannot")
            return _listed([], self._rules.add(extra), least, None if most is None else int(most)) or "ws "
        return self._counted_members(members, extra, least, None if most is None else int(most), place)

    def _counted_members(
        self, members: list[tuple[str, bool]], extra: str | None, least: int, most: int | None, place: Place
    ) -> str:
        counts = least > sum(required for _, required in members) or (
            most is not None and (most < len(members) or extra is not None)
        )
        if counts and extra is not None and least > len(members) + 1:
            raise SchemaError(place.at("minProperties"), "counts different names, which a grammar cannot")
        known: dict[tuple[int, int], str | None] = {}

        def after(i: int, n: int) -> str | None:
            """What may follow when ``n`` were written of those before ``i``; None if it comes to nothing allowed."""
            n_known = n if counts else min(n, 1)
            if (i, n_known) not in known:
                known[i, n_known] = self._after(members, extra, i, n, after, least, most if counts else None)
            return known[i, n_known]

        body = after(0, 0)
        if body is None:
            raise SchemaError(place, "counts properties as no object can have them")
        return f"{body} ws "

    def _after(
        self,
        members: list[tuple[str, bool]],
        extra: str | None,
        i: int,
        n: int,
        after: Callable[[int, int], str | None],
        least: int,
        most: int | None,
    ) -> str | None:
        comma = '"," ws ' if n else ""
        if i == len(members):
            return self._at_end(extra, comma, n, least, most)
        member, required = members[i]
        taken = after(i + 1, n + 1) if most is None or n < most else None
        left = None if required else after(i + 1, n)
        parts = [] if taken is None else [f"{comma}{member} {taken}"]
        parts += [] if left is None else [left]
        return self._rules.add(" | ".join(parts)) if parts else None

    def _at_end(self, extra: str | None, comma: str, n: int, least: int, most: int | None) -> str | None:
        if extra is None or n < least - 1 or (most is not None and n >= most):  # names of two may be the same
            return '""' if n >= least else None
        member = self._rules.add(extra)
        times = "*" if most is None else f"{{0,{most - n - 1}}}"
        more = f'{comma}{member} ("," ws {member}){times}'
        return self._rules.add(f'"" | {more}' if n >= least else more)


def _listed(first: list[str], item: str, least: int, most: int | None) -> str:
    """Items with commas between and blanks behind: those of ``first``, then ``item`` again and again."""
    n = len(first)
    more = None if most is None else min(most, _LONGEST) - n
    if more is not None and more <= 0:
        first, more = first[: n + more], 0
    tail = f'("," ws {item}){{{max(least - max(n, 1), 0)},{"" if more is None else max(more - (not n), 0)}}}'
    if not n:
        if more == 0:
            return ""
        return f"{item} {tail} ws " if least else f"({item} {tail} ws)? "
    rest = "" if more == 0 else f" {tail}"
    n = len(first)
    body = rest
    for i in reversed(range(n)):
        comma = '"," ws ' if i else ""
        body = f"{comma}{first[i]}{f' {body}' if body else ''}"
        if i >= least and i:
            body = f"({body})?"
    return f"{body} ws " if least or not first else f"({body} ws)? "
