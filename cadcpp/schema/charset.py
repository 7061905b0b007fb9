"""Sets of Unicode characters, as sorted ranges."""

from collections.abc import Iterable
from dataclasses import dataclass

_LAST = 0x10FFFF
_SURROGATES = (0xD800, 0xDFFF)


@dataclass(frozen=True, slots=True)
class CharSet:
    """Characters: code points of ``ranges``, first and last of each, in order and apart from each other."""

    ranges: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, *ranges: tuple[int, int] | str) -> "CharSet":
        """Of ranges and of the characters of strings."""
        given = [(ord(c), ord(c)) for part in ranges if isinstance(part, str) for c in part]
        return cls(_joined([*given, *(part for part in ranges if not isinstance(part, str))]))

    def __or__(self, other: "CharSet") -> "CharSet":
        return CharSet(_joined([*self.ranges, *other.ranges]))

    def __and__(self, other: "CharSet") -> "CharSet":
        pairs = [(max(a, c), min(b, d)) for a, b in self.ranges for c, d in other.ranges]
        return CharSet(_joined([(a, b) for a, b in pairs if a <= b]))

    def __invert__(self) -> "CharSet":
        edges = [-1, *(edge for a, b in self.ranges for edge in (a, b)), _LAST + 1]
        gaps = [(edges[i] + 1, edges[i + 1] - 1) for i in range(0, len(edges), 2)]
        return CharSet(_joined([(a, b) for a, b in gaps if a <= b]))

    def __sub__(self, other: "CharSet") -> "CharSet":
        return self & ~other

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def __contains__(self, char: str) -> bool:
        return any(a <= ord(char) <= b for a, b in self.ranges)


def _joined(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    joined: list[tuple[int, int]] = []
    for a, b in sorted(ranges):
        if joined and a <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(b, joined[-1][1]))
        else:
            joined.append((a, b))
    return tuple(joined)


ANY = CharSet(((0, _SURROGATES[0] - 1), (_SURROGATES[1] + 1, _LAST)))
DIGIT = CharSet.of((0x30, 0x39))
WORD = CharSet.of((0x30, 0x39), (0x41, 0x5A), (0x61, 0x7A), "_")
SPACE = CharSet.of(" \t\n\v\f\r")
LINE_END = CharSet.of("\n\r\u2028\u2029")
