"""Rules of a llama.cpp grammar (GBNF) as they are collected."""

import re
from collections.abc import Callable

from cadcpp.schema.automaton import Automaton
from cadcpp.schema.charset import ANY, CharSet

_PLAIN = ANY - CharSet.of((0, 0x1F), '"\\\x7f')  # what stands in a JSON string as it is
_ESCAPES = {"\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t", '"': '"', "\\": "\\"}
BASE = {
    "ws": r'"" | " " | "\n" [ \t]{0,20}',  # with an end, or a greedy model may write blanks for ever
    "hex": "[0-9a-fA-F]",
    "char": r'[^"\\\x00-\x1F\x7F] | "\\" (["\\/bfnrt] | "u" ([0-9a-cA-CefEF] hex hex hex | [dD] [0-7] hex hex))',
    "string": r'"\"" char* "\""',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "integer": '"0" | "-"? [1-9] [0-9]{0,15}',
    "number": '"-"? ("0" | [1-9] [0-9]{0,15}) ("." [0-9]{1,16})? ([eE] [-+]? [0-9] [0-9]?)?',
    "member": 'string ws ":" ws value',
    "object": '"{" ws (member ws ("," ws member ws)*)? "}"',
    "array": '"[" ws (value ws ("," ws value ws)*)? "]"',
    "value": "object | array | string | number | boolean | null",
}


LONGEST = 1500  # repetitions; llama.cpp takes 2000


class Rules:
    """Named rules; equal ones share a name."""

    def __init__(self) -> None:
        self._bodies: dict[str, str | None] = dict(BASE)
        self._names = {body: name for name, body in BASE.items()}

    def reserve(self) -> str:
        """A name whose rule is set later, so that it may refer to itself."""
        name = f"r{len(self._bodies)}"
        self._bodies[name] = None
        return name

    def set(self, name: str, body: str) -> None:
        self._bodies[name] = body

    def drop(self, name: str) -> None:
        self._bodies[name] = "null"  # nothing refers to it

    def add(self, body: str) -> str:
        """The name of a rule; a body that is one already stays."""
        if body in self._bodies:
            return body
        if body not in self._names:
            self._names[body] = name = self.reserve()
            self._bodies[name] = body
        return self._names[body]

    def grammar(self, root: str) -> str:
        """All rules that ``root`` needs, it first."""
        lines, pending, seen = [f"root ::= {root}"], [root], set[str]()
        while pending:
            for name in re.findall(r"[a-z][a-z0-9-]*", _without_literals(pending.pop())):
                if name in self._bodies and name not in seen:
                    seen.add(name)
                    body = self._bodies[name] or ""
                    lines.append(f"{name} ::= {body}")
                    pending.append(body)
        return "\n".join(lines) + "\n"

    def text(self, found: Automaton) -> str:
        """The name of a rule for JSON strings whose content an automaton accepts."""
        return self.add(rf'"\"" {self.content(found)} "\""')

    def content(self, found: Automaton, raw: bool = False) -> str:
        """The name of a rule for what an automaton accepts, spelled as in JSON strings or, if ``raw``, as it is."""
        names = [self.reserve() for _ in found.edges]
        for state, name in enumerate(names):
            self.set(name, _state(found, state, names, _set if raw else _edge))
        return names[0]


def _without_literals(body: str) -> str:
    return re.sub(r'"(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\]', " ", body)


def literal(text: str) -> str:
    """A text as a grammar has it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r") + '"'


def choice(parts: list[str]) -> str:
    """Any of some expressions."""
    return parts[0] if len(parts) == 1 else "(" + " | ".join(parts) + ")"


def _state(found: Automaton, state: int, names: list[str], spell: Callable[[CharSet], str]) -> str:
    parts = [f"{spell(chars)}{_onward(found, target, names)}" for chars, target in found.edges[state]]
    return " | ".join([*(['""'] if found.ends[state] else []), *parts]) or '""'


def _onward(found: Automaton, state: int, names: list[str]) -> str:
    return "" if found.ends[state] and not found.edges[state] else f" {names[state]}"


def _edge(chars: CharSet) -> str:
    if chars == ANY:
        return "char"
    parts = [_set(chars & _PLAIN)] if chars & _PLAIN else []
    escapes = "".join(letter for char, letter in _ESCAPES.items() if char in chars)
    if escapes:
        parts.append(rf'"\\" {_set(CharSet.of(escapes))}')
    if not parts:  # control characters alone
        parts = [rf'"\\u{code:04x}"' for a, b in chars.ranges for code in range(a, b + 1)]
    return choice(parts)


def _set(chars: CharSet) -> str:
    return "[" + "".join(_code(a) if a == b else f"{_code(a)}-{_code(b)}" for a, b in chars.ranges) + "]"


def _code(code: int) -> str:
    if chr(code).isascii() and chr(code).isalnum():
        return chr(code)
    return f"\\x{code:02X}" if code < 0x100 else f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"
