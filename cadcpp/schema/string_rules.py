"""Strings that a schema allows, as rules of a grammar."""

from typing import Any

from cadcpp.schema.automaton import TooLarge, automaton
from cadcpp.schema.language import Language
from cadcpp.schema.place import Place, SchemaError
from cadcpp.schema.rules import LONGEST, Rules
from cadcpp.schema.strings import says, string_language

_SHORTER = (1000, 300, 100, 30)  # letters, of texts that are followed letter by letter


def string_rule(rules: Rules, schema: dict[str, Any], place: Place) -> str | None:
    """The rule of the strings that a schema allows; None if there are none."""
    if says(schema):
        return _said(rules, schema, place)
    least, most = int(schema.get("minLength", 0)), schema.get("maxLength")
    if not least and most is None:
        return "string"
    if least > LONGEST:
        raise SchemaError(place.at("minLength"), f"is more than {LONGEST}")
    if most is not None and most < least:
        return None
    times = f"{{{least},}}" if most is None else f"{{{least},{max(min(int(most), LONGEST), least)}}}"
    return rules.add(rf'"\"" char{times} "\""')


def language_rule(rules: Rules, language: Language, place: Place) -> str | None:
    """The rule of JSON strings with any of these contents; None if there are none."""
    try:
        found = automaton(language)
    except (TooLarge, RecursionError):
        raise SchemaError(place, "has strings that are too complicated to follow") from None
    return None if found is None else rules.text(found)


def _said(rules: Rules, schema: dict[str, Any], place: Place) -> str | None:
    """Texts of which more is said than how long they are; those that are too long to be followed are left out."""
    most, least = schema.get("maxLength", 0), schema.get("minLength", 0)
    for shorter in (most, *(n for n in _SHORTER if least <= n < most)):
        given = schema | {"maxLength": shorter} if shorter else schema
        try:
            found = automaton(string_language(given, place))
        except (TooLarge, RecursionError):
            continue
        return None if found is None else rules.text(found)
    raise SchemaError(place, "has strings that are too complicated to follow")
