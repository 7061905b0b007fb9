"""JSON schemas as grammars: what a grammar lets through satisfies its schema, and what cannot be said is refused."""

import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest

from cadcpp.schema.grammar import schema_grammar
from cadcpp.schema.place import SchemaError
from tests.support.gbnf import Gbnf

NODE = {
    "type": "object",
    "properties": {"v": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]}},
    "required": ["v", "next"],
}
ZOD_EMAIL = r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$"
ZOD_UUID = (
    "^([0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[1-8][0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}"
    "|00000000-0000-0000-0000-000000000000|ffffffff-ffff-ffff-ffff-ffffffffffff)$"
)
ZOD_SCHEMA = {"type": "string", "format": "email", "pattern": ZOD_EMAIL}
KINDS = {
    "oneOf": [
        {"type": "object", "properties": {"kind": {"const": "a"}, "n": {"type": "integer"}}},
        {"type": "object", "properties": {"kind": {"const": "b"}, "s": {"type": "string"}}},
    ]
}


def obj(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


CASES: list[tuple[str, Any, list[str], list[str]]] = [
    ("unanchored pattern", {"type": "string", "pattern": "ab"}, ['"ab"', '"xaby"'], ['"ba"', "ab", '""']),
    ("digits", {"type": "string", "pattern": r"^\d{3}$"}, ['"123"'], ['"12"', '"1234"', '"12a"', '"٣٣٣"']),
    ("words", {"type": "string", "pattern": r"^[\w-]+$"}, ['"a-b_9"'], ['""', '"a b"', '"é"']),
    ("a group", {"type": "string", "pattern": "^(?:a|bc)+$"}, ['"abca"'], ['"b"', '""']),
    ("named group", {"type": "string", "pattern": "^(?P<x>a)(?<y>b)$"}, ['"ab"'], ['"a"']),
    ("half anchored", {"type": "string", "pattern": "^a|b$"}, ['"ax"', '"xb"'], ['"xax"']),
    ("lazy", {"type": "string", "pattern": "^a+?b*?$"}, ['"aab"'], ['"b"']),
    ("lookahead", {"type": "string", "pattern": "^(?!ab)[ab]{2}$"}, ['"ba"', '"aa"'], ['"ab"']),
    ("lookahead wanted", {"type": "string", "pattern": r"^(?=.*\d)[a-z0-9]{2,3}$"}, ['"a1"'], ['"ab"']),
    (
        "zod's email",
        ZOD_SCHEMA,
        ['"a.b@c.de"'],
        ['"a..b@c.de"', '"a"'],
    ),
    ("a quote in a set", {"type": "string", "pattern": '^["x]$'}, ['"\\""', '"x"'], ['"""']),
    ("negated", {"type": "string", "pattern": "^[^a]$"}, ['"b"', '"日"', '"\\n"'], ['"a"']),
    ("code points", {"type": "string", "pattern": r"^\u00e9\x41$"}, ['"éA"'], ['"eA"']),
    ("pattern and length", {"type": "string", "pattern": "^[a-z][a-z0-9]*$", "maxLength": 3}, ['"ab1"'], ['"abcd"']),
    ("nullable with length", {"type": ["string", "null"], "maxLength": 2}, ["null", '"ab"'], ['"abc"']),
    ("optional of pydantic", {"anyOf": [{"type": "string", "maxLength": 1}, {"type": "null"}]}, ["null"], ['"ab"']),
    (
        "length counts characters",
        {"type": "string", "minLength": 2, "maxLength": 2},
        ['"日é"', '"\\n\\u0041"'],
        ['"a"'],
    ),
    ("no halves of pairs", {"type": "string", "maxLength": 1}, ['"😀"'], ['"\\ud83d"']),
    ("integers", {"type": "integer", "minimum": -3, "exclusiveMaximum": 120}, ["-3", "0", "119"], ["-4", "120", "1.0"]),
    ("0 or more", {"type": "integer", "minimum": 0}, ["0", "10"], ["-1", "01", "-0"]),
    ("numbers", {"type": "number", "exclusiveMinimum": 0, "maximum": 1}, ["0.5", "1", "1.0"], ["0", "0.0", "1.01"]),
    ("decimals", {"type": "number", "minimum": 0.25, "maximum": 2.5}, ["0.25", "0.3", "2.5"], ["0.2", "2.51", "3"]),
    ("cents", {"type": "number", "multipleOf": 0.01}, ["1.25", "-3"], ["1.255"]),
    ("multiples", {"type": "integer", "multipleOf": 7}, ["0", "14", "-21"], ["15"]),
    ("multiples in a range", {"type": "integer", "multipleOf": 5, "minimum": 7, "maximum": 20}, ["10", "20"], ["5"]),
    ("halves", {"type": "number", "multipleOf": 0.5}, ["0.5", "-3", "2.0"], ["0.25", "1.75"]),
    (
        "quarters in a range",
        {"type": "number", "multipleOf": 0.25, "minimum": 0, "maximum": 1},
        ["0.75", "1"],
        ["1.25"],
    ),
    ("multiples from", {"type": "integer", "multipleOf": 5, "minimum": 12}, ["15", "100"], ["10", "13", "-15"]),
    ("multiples below", {"type": "integer", "multipleOf": 3, "exclusiveMaximum": 6}, ["3", "-9", "0"], ["6", "9", "4"]),
    (
        "large multiples",
        {"multipleOf": 5000, "minimum": 1, "maximum": 20000, "type": "number"},
        ["5000", "20000"],
        ["1"],
    ),
    ("bytes", {"type": "integer", "format": "uint8"}, ["0", "255"], ["256", "-1"]),
    (
        "a set of bools",
        {"type": "array", "items": {"type": "boolean"}, "uniqueItems": True},
        ["[false,true]"],
        ["[true,true]"],
    ),
    (
        "a set of dice",
        {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 6}, "uniqueItems": True, "minItems": 2},
        ["[1,6]"],
        ["[1,1]", "[1]"],
    ),
    ("any case", {"type": "string", "pattern": "(?i)^a[b-c]$"}, ['"Ab"', '"aC"'], ['"ad"']),
    (
        "two patterns of names",
        {
            "type": "object",
            "patternProperties": {"^a": {"type": "null"}, "^b": {"type": "string"}},
            "unevaluatedProperties": False,
        },
        ['{"ax":null,"b":"y"}'],
        ['{"a":"x"}', '{"c":null}'],
    ),
    (
        "three of few declared",
        {"type": "object", "properties": {"a": {}, "b": {}}, "additionalProperties": {}, "minProperties": 3},
        ['{"a":1,"b":2,"c":3}'],
        ['{"a":1,"c":2}', '{"c":1,"c":2,"c":3}'],
    ),
    ("never", {"type": "object", "properties": {"a": {"not": {}}, "b": {"type": "null"}}}, ['{"b":null}'], ['{"a":1}']),
    ("not a type", {"type": ["string", "null"], "not": {"type": "null"}}, ['"a"'], ["null"]),
    ("not a word", {"type": "string", "not": {"enum": ["ab", ""]}}, ['"a"', '"abc"'], ['"ab"', '""']),
    ("not of a list", {"enum": [1, 2, 3], "not": {"const": 2}}, ["1"], ["2"]),
    (
        "zod's intersection",
        {"allOf": [obj(a={"type": "null"}), obj(b={"type": "null"})], "unevaluatedProperties": False},
        ['{"a":null,"b":null}'],
        ['{"a":null,"b":null,"c":1}'],
    ),
    ("no more items", {"type": "array", "prefixItems": [True], "unevaluatedItems": False}, ["[1]"], ["[1,2]"]),
    ("what is long", {"type": "string", "minLength": 1, "maxLength": 5000, "pattern": r"\S"}, ['"a b"'], ['" "', '""']),
    (
        "zod's uuid",
        {"type": "string", "format": "uuid", "pattern": ZOD_UUID},
        ['"c8145dd8-598e-4dc3-8f9d-ba5291a918ac"'],
        ['"c8145dd8"'],
    ),
    (
        "a code",
        {"type": "string", "format": "ulid"},
        ['"01ARZ3NDEKTSV4RRFFQ69G5FAV"'],
        ['"01arz3ndektsv4rrffq69g5fav"'],
    ),
    ("a network", {"type": "string", "format": "ipv4network"}, ['"10.0.0.0/8"'], ['"10.0.0.1/8"']),
    ("encoded", {"type": "string", "contentEncoding": "base64"}, ['"YWI="'], ['"YWI"']),
    ("long words", {"enum": ["a" * 400, "b" * 400]}, [json.dumps("a" * 400)], ['"a"']),
    ("recursion", {"$ref": "#/$defs/Node", "$defs": {"Node": NODE}}, ['{"v":1,"next":{"v":2,"next":null}}'], ["null"]),
    ("root reference", obj(a={"anyOf": [{"$ref": "#"}, {"type": "null"}]}), ['{"a":{"a":null}}'], ['{"a":{}}']),
    ("true", True, ["1", "[{}]", '"x"'], ["x"]),
    ("true as a property", obj(a=True), ['{"a":[1]}'], ['{"b":1}']),
    ("false as a property", {"type": "object", "properties": {"a": False, "b": {}}}, ["{}", '{"b":1}'], ['{"a":1}']),
    ("const", {"const": {"a": [1, None]}}, ['{"a": [1, null]}'], ["{}"]),
    ("enum beside a type", {"type": "string", "enum": ["a", 1, "b"]}, ['"a"', '"b"'], ["1"]),
    ("optional in order", {"type": "object", "properties": {"a": {}, "b": {}}}, ['{"b":1}', "{}"], ['{"b":1,"a":1}']),
    ("a map", {"type": "object", "additionalProperties": {"type": "integer"}}, ['{"x": 1}'], ['{"x":"y"}']),
    (
        "more than declared",
        obj(a={"type": "integer"}) | {"additionalProperties": {"type": "string"}},
        ['{"a":1,"ab":"x"}'],
        ['{"a":1,"a":"x"}', '{"a":1,"b":2}'],
    ),
    ("names", {"type": "object", "propertyNames": {"enum": ["x", "y"]}}, ['{"x":1}'], ['{"z":1}']),
    (
        "names by pattern",
        {"type": "object", "patternProperties": {"^S_": {"type": "string"}}, "additionalProperties": False},
        ['{"S_a":"b"}'],
        ['{"S_a":1}', '{"a":"b"}'],
    ),
    ("no properties", {"type": "object", "properties": {}}, ["{}"], ['{"a":1}']),
    ("required only", {"type": "object", "required": ["a"]}, ['{"a":1}'], ["{}"]),
    ("at least one", {"type": "object", "properties": {"a": {}, "b": {}}, "minProperties": 1}, ['{"b":1}'], ["{}"]),
    (
        "a tuple",
        {"type": "array", "prefixItems": [{"type": "null"}], "items": False, "minItems": 1},
        ["[null]"],
        ["[]"],
    ),
    (
        "lengths of lists",
        {"type": "array", "items": {"type": "null"}, "minItems": 1, "maxItems": 2},
        ["[null]"],
        ["[]"],
    ),
    ("a set", {"type": "array", "items": {"enum": [1, 2]}, "uniqueItems": True}, ["[1,2]", "[]"], ["[1,1]"]),
    ("all of", {"allOf": [obj(a={"type": "null"}), obj(b={"type": "null"})]}, ['{"a":null,"b":null}'], ['{"a":null}']),
    ("one of", KINDS, ['{"kind":"a","n":1}', '{"kind":"b"}'], ["{}", '{"kind":"a","s":"x"}']),
    ("one of two types", {"oneOf": [{"type": "string"}, {"type": "null"}]}, ["null", '"a"'], ["1"]),
    ("a date", {"type": "string", "format": "date"}, ['"2024-02-28"'], ['"2024-02-30"', '"2024-13-01"']),
    ("a uuid", {"type": "string", "format": "uuid"}, ['"c8145dd8-598e-4dc3-8f9d-ba5291a918ac"'], ['"c8145dd8"']),
    ("annotations", {"type": "null", "title": "T", "description": "d", "x-mine": 1, "default": None}, ["null"], ["1"]),
]


@pytest.mark.parametrize(("schema", "right", "wrong"), [pytest.param(*case[1:], id=case[0]) for case in CASES])
def test_a_grammar_lets_through_what_the_schema_allows(schema: Any, right: list[str], wrong: list[str]) -> None:
    grammar = Gbnf(schema_grammar(schema))
    assert [text for text in right if not grammar.accepts(text)] == []
    assert [text for text in wrong if grammar.accepts(text)] == []
    for seed in range(5):
        json.loads(grammar.sample(seed))


@pytest.mark.parametrize("source", [r"^\s?\S{2}$", r"^[^\d\s]$", r"^\D\W$", ZOD_EMAIL, r"^(a|b){2,3}c*$", r"x[.]?y|^z"])
@pytest.mark.parametrize("seed", range(10))
def test_what_is_written_for_a_pattern_matches_it(source: str, seed: int) -> None:
    text = json.loads(Gbnf(schema_grammar({"type": "string", "pattern": source})).sample(seed))
    assert re.search(source, text)


REFUSED: list[tuple[Any, str]] = [
    ({"not": {"type": "integer"}}, "#/not "),
    ({"not": {"required": ["a"]}}, "#/not "),
    ({"not": {}}, "allows no value"),
    ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, "#/uniqueItems compares"),
    ({"type": "object", "additionalProperties": {}, "minProperties": 2}, "#/minProperties counts"),
    ({"type": "object", "patternProperties": {"^a": {}, "b$": {}}}, "#/patternProperties/b$ may hold together"),
    ({"allOf": [obj(a={}) | {"unevaluatedProperties": False}, obj(b={})]}, "#/allOf/0/unevaluatedProperties looks"),
    ({"type": "integer", "format": "int7"}, "#/format is 'int7'"),
    ({"type": "number", "multipleOf": 12345}, "#/multipleOf is 12345"),
    ({"type": "string", "contentMediaType": "application/json"}, "#/contentMediaType is JSON"),
    ({"type": "string", "contentSchema": {"type": "object"}}, "#/contentSchema is beyond"),
    ({"type": "string", "contentEncoding": "quoted-printable"}, "#/contentEncoding is 'quoted"),
    (obj(a={"$ref": "#/$defs/X"}), "#/properties/a/$ref .*not there"),
    ({"$ref": "other.json"}, "#/$ref .*outside"),
    ({"$ref": "#"}, "#/$ref .*without end"),
    ({"anyOf": [{"$ref": "#"}]}, "without end"),
    ({"type": "string", "pattern": r"(a)\1"}, r"#/pattern has \\1"),
    ({"type": "string", "pattern": r"a\b"}, r"#/pattern has \\b"),
    ({"type": "string", "pattern": "(?<=a)b"}, "#/pattern has"),
    ({"type": "string", "pattern": "["}, "#/pattern has"),
    (obj(**{"a/b": {"type": "array", "uniqueItems": True}}), "#/properties/a~1b/uniqueItems"),
    ({"if": {}, "then": False}, "#/if "),
    ({"type": "array", "contains": {}}, "#/contains "),
    ({"type": "object", "dependentRequired": {"a": ["b"]}}, "#/dependentRequired "),
    ({"type": "string", "format": "isbn"}, "#/format is 'isbn'"),
    ({"type": "text"}, "#/type is 'text'"),
    ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "#/oneOf/1 may hold together with 0"),
    ({"type": "string", "minLength": 5, "maxLength": 2}, "allows no value"),
    ({"enum": []}, "allows no value"),
    ({"properties": []}, "#/properties has a value"),
    ({"type": "integer", "minimum": "x"}, "#/minimum has a value"),
    ({"type": "object", "required": [5]}, "#/required has a value"),
    ({"enum": [1e999]}, "#/enum has a value"),
    (obj(a={"const": [float("nan")]}), "#/properties/a/const has a value"),
    ({"multipleOf": 0}, "#/multipleOf has a value"),
    ({"type": "object", "minProperties": 3}, "#/minProperties counts"),
    ([], "is no schema"),
]


@pytest.mark.parametrize(("schema", "words"), REFUSED)
def test_what_cannot_be_said_is_refused_with_its_place(schema: Any, words: str) -> None:
    with pytest.raises(SchemaError, match=re.sub(r"[$]", r"\\$", words)):
        schema_grammar(schema)


def test_a_schema_that_is_nested_too_deeply_is_refused() -> None:
    schema: Any = {"type": "null"}
    for _ in range(3000):
        schema = {"type": "array", "items": schema}
    with pytest.raises(SchemaError, match="nested too deeply"):
        schema_grammar(schema)


@pytest.mark.parametrize(
    "source",
    [
        r"^(a|b)*a(a|b){20}$",
        r"^(?=.*a)(?=.*b)(?=.*c)(?=.*d)(?=.*e)(?=.*f)(?=.*g)(?=.*h)(?=.*i)(?=.*j)(?=.*k)(?=.*l)(?=.*m).*$",
        "^" + "(?:" * 200 + "a" + ")?" * 200 + "$",
        "^(?:(?:[a-f]{1,900}x){1,900}y){1,900}$",
        "|".join(f"^{i:b}$".replace("0", "(?:0|2)") for i in range(2000)),
    ],
)
def test_a_pattern_that_is_too_much_work_ends_in_bounded_steps(source: str) -> None:
    """Steps are derivatives that are taken; a server would work at one request for ever."""
    try:
        grammar = schema_grammar({"type": "string", "pattern": source})
    except SchemaError as error:
        assert "complicated" in str(error) or "nested" in str(error)
    else:
        assert len(grammar) < 2_000_000


def test_a_schema_has_one_grammar_in_every_process() -> None:
    """Sets have other orders there."""
    code = f"from cadcpp.schema.grammar import schema_grammar; print(schema_grammar({ZOD_SCHEMA!r}), end='')"
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, check=True, capture_output=True
        ).stdout
        for seed in "1234"
    }
    assert len(found) == 1
