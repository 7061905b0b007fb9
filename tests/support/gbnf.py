"""What a grammar of llama.cpp's lets through, without llama.cpp: the rules followed letter by letter."""

import math
import random
from dataclasses import dataclass
from typing import Any

Stack = tuple[Any, ...]  # what is still to come, the next first


@dataclass(frozen=True)
class Ref:
    name: str


@dataclass(frozen=True)
class Set:
    ranges: tuple[tuple[int, int], ...]
    negated: bool

    def __contains__(self, char: str) -> bool:
        return any(a <= ord(char) <= b for a, b in self.ranges) != self.negated


@dataclass(frozen=True)
class Times:
    item: Any
    least: int
    most: int | None


class Gbnf:
    """A grammar that can be asked for its texts."""

    def __init__(self, source: str) -> None:
        self.rules: dict[str, Any] = {}
        for line in source.strip().splitlines():
            name, _, body = line.partition(" ::= ")
            self.rules[name], rest = _alternatives(body)
            assert not rest, f"{name}: {rest}"
        self._least = self._lengths()

    def accepts(self, text: str) -> bool:
        """Whether ``text`` is one of them, as a whole."""
        stacks = self._expanded({(Ref("root"),)})
        for char in text:
            stacks = self._expanded({stack[1:] for stack in stacks if stack and char in stack[0]})
        return () in stacks

    def sample(self, seed: int, most: int = 2000) -> str:
        """A text, drawn with a taste for short ones."""
        draw, text = random.Random(seed), ""
        stacks = self._expanded({(Ref("root"),)})
        while True:
            assert len(text) < most, text
            if () in stacks and (draw.random() < 0.5 or stacks == {()}):
                return text
            ways = sorted((stack for stack in stacks if stack), key=lambda stack: (self._length(stack), repr(stack)))
            way = ways[0] if draw.random() < 0.3 or len(text) > 60 else draw.choice(ways)
            char = _letter(way[0], draw)
            text += char
            stacks = self._expanded({stack[1:] for stack in stacks if stack and char in stack[0]})

    def _lengths(self) -> dict[str, float]:
        """Letters of each rule's shortest text."""
        self._least = dict.fromkeys(self.rules, math.inf)
        while (found := {name: self._length((body,)) for name, body in self.rules.items()}) != self._least:
            self._least = found
        return found

    def _length(self, items: Stack) -> float:
        """Letters of the shortest text of some items."""
        total = 0.0
        for item in items:
            if isinstance(item, Set):
                total += 1
            elif isinstance(item, Ref):
                total += self._least[item.name]
            elif isinstance(item, Times):
                total += item.least * self._length((item.item,)) if item.least else 0
            else:
                total += min(map(self._length, item))
        return total

    def _expanded(self, stacks: set[Stack]) -> set[Stack]:
        """Until each begins with a set of letters, or is at its end."""
        found, pending, seen = set[Stack](), list(stacks), set[Stack]()
        while pending:
            stack = pending.pop()
            if stack in seen:
                continue
            seen.add(stack)
            if not stack or isinstance(stack[0], Set):
                found.add(stack)
                continue
            first, rest = stack[0], stack[1:]
            if isinstance(first, Ref):
                pending.append((self.rules[first.name], *rest))
            elif isinstance(first, Times):
                if first.least == 0:
                    pending.append(rest)
                if first.most != 0:
                    left = Times(first.item, max(first.least - 1, 0), None if first.most is None else first.most - 1)
                    pending.append((first.item, left, *rest))
            else:
                pending += [(*each, *rest) for each in first]
        return found


def _letter(chars: Set, draw: random.Random) -> str:
    if chars.negated:
        return draw.choice([char for char in "ab é\u65e5}]0,:" if char in chars])
    a, b = draw.choice(chars.ranges)
    return chr(draw.randint(a, min(b, a + 100)))


def _alternatives(body: str) -> tuple[tuple[Any, ...], str]:
    found: list[tuple[Any, ...]] = []
    while True:
        items, body = _sequence(body)
        found.append(items)
        if not body.startswith("|"):
            return tuple(found), body
        body = body[1:]


def _sequence(body: str) -> tuple[tuple[Any, ...], str]:
    items: list[Any] = []
    while (body := body.lstrip()) and body[0] not in "|)":
        item, body = _item(body)
        times, body = _times(body)
        items += item if times is None and isinstance(item, list) else [_repeated(item, times)]
    return tuple(items), body


def _repeated(item: Any, times: tuple[int, int | None] | None) -> Any:
    item = (tuple(item),) if isinstance(item, list) else item
    return item if times is None else Times(item, *times)


def _item(body: str) -> tuple[Any, str]:
    if body[0] == '"':
        letters, body = _letters(body[1:], '"')
        return [Set(((ord(char), ord(char)),), False) for char, _ in letters], body
    if body[0] == "[":
        negated = body[1] == "^"
        letters, body = _letters(body[1 + negated :], "]")
        return Set(_ranges(letters), negated), body
    if body[0] == "(":
        found, body = _alternatives(body[1:])
        return found, body[1:]
    n = next((i for i, char in enumerate(body) if not (char.isalnum() or char == "-")), len(body))
    return Ref(body[:n]), body[n:]


def _ranges(letters: list[tuple[str, bool]]) -> tuple[tuple[int, int], ...]:
    found, i = [], 0
    while i < len(letters):
        wide = i + 2 < len(letters) and letters[i + 1] == ("-", False)
        found.append((ord(letters[i][0]), ord(letters[i + 2 if wide else i][0])))
        i += 3 if wide else 1
    return tuple(found)


def _letters(body: str, end: str) -> tuple[list[tuple[str, bool]], str]:
    """Letters up to ``end``, each with whether it was written as an escape."""
    found: list[tuple[str, bool]] = []
    while body[0] != end:
        if body[0] != "\\":
            found.append((body[0], False))
            body = body[1:]
            continue
        n = {"x": 2, "u": 4, "U": 8}.get(body[1], 0)
        plain = {"n": "\n", "r": "\r", "t": "\t"}.get(body[1], body[1])
        found.append((chr(int(body[2 : 2 + n], 16)) if n else plain, True))
        body = body[2 + n :]
    return found, body[1:]


def _times(body: str) -> tuple[tuple[int, int | None] | None, str]:
    if body[:1] in ("*", "+", "?"):
        return {"*": (0, None), "+": (1, None), "?": (0, 1)}[body[0]], body[1:]
    if body[:1] != "{":
        return None, body
    inside, _, rest = body[1:].partition("}")
    low, comma, high = inside.partition(",")
    return (int(low), int(high) if high else None if comma else int(low)), rest
