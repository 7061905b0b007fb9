"""Regular languages by derivatives: what may follow once a character was read (Brzozowski 1964; Owens et al. 2009).

With them intersection and complement cost no more than a union, so that a pattern, its lookaheads, a length and a
format become one automaton.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from cadcpp.schema.charset import ANY, CharSet


class Language:
    """A set of strings. Make them by the functions below, which bring equal ones into one form."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Chars(Language):
    """One character."""

    chars: CharSet


@dataclass(frozen=True, slots=True)
class Concat(Language):
    first: Language
    rest: Language


@dataclass(frozen=True, slots=True)
class Either(Language):
    parts: frozenset[Language]


@dataclass(frozen=True, slots=True)
class Both(Language):
    parts: frozenset[Language]


@dataclass(frozen=True, slots=True)
class Not(Language):
    inner: Language


@dataclass(frozen=True, slots=True)
class Repeat(Language):
    """``inner`` from ``least`` to ``most`` times, without end if that is None."""

    inner: Language
    least: int
    most: int | None


NOTHING = Chars(CharSet(()))  # not even the empty string
EMPTY = Repeat(NOTHING, 0, 0)  # the empty string
ALL = Repeat(Chars(ANY), 0, None)


def concat(*parts: Language) -> Language:
    """One after the other."""
    result: Language = EMPTY
    for part in reversed(parts):
        if NOTHING in (part, result):
            return NOTHING
        if isinstance(part, Concat):
            result = concat(part.first, concat(part.rest, result))
        elif result == EMPTY:
            result = part
        elif part != EMPTY:
            result = Concat(part, result)
    return result


def either(parts: Iterable[Language]) -> Language:
    """Any of them."""
    flat = {each for part in parts for each in (part.parts if isinstance(part, Either) else (part,))} - {NOTHING}
    if ALL in flat:
        return ALL
    sets = [part for part in flat if isinstance(part, Chars)]
    if len(sets) > 1:
        joined = CharSet(())
        for each in sets:
            joined = joined | each.chars
        flat = flat - set(sets) | {Chars(joined)}
    return NOTHING if not flat else flat.pop() if len(flat) == 1 else Either(frozenset(flat))


def both(parts: Iterable[Language]) -> Language:
    """All of them at once."""
    flat = {each for part in parts for each in (part.parts if isinstance(part, Both) else (part,))} - {ALL}
    if NOTHING in flat:
        return NOTHING
    return ALL if not flat else flat.pop() if len(flat) == 1 else Both(frozenset(flat))


def negate(language: Language) -> Language:
    """Every other string."""
    if isinstance(language, Not):
        return language.inner
    return NOTHING if language == ALL else ALL if language == NOTHING else Not(language)


def repeat(language: Language, least: int, most: int | None) -> Language:
    """So many times."""
    if language in (NOTHING, EMPTY):
        return EMPTY if least == 0 or language == EMPTY else NOTHING
    if most == 0:
        return EMPTY
    if (least, most) == (1, 1):
        return language
    if isinstance(language, Repeat) and (language.least, language.most) == (0, None):
        return language
    return Repeat(language, least, most)


def text(string: str) -> Language:
    """One string."""
    return concat(*(Chars(CharSet.of(char)) for char in string))


@cache
def nullable(language: Language) -> bool:
    """Whether the empty string is one of them."""
    match language:
        case Chars():
            return False
        case Concat(first, rest):
            return nullable(first) and nullable(rest)
        case Either(parts):
            return any(map(nullable, parts))
        case Both(parts):
            return all(map(nullable, parts))
        case Not(inner):
            return not nullable(inner)
        case Repeat(inner, least, _):
            return least == 0 or nullable(inner)
    raise TypeError(language)


@cache
def derivative(language: Language, char: int) -> Language:
    """What may follow ``char``."""
    match language:
        case Chars(chars):
            return EMPTY if chr(char) in chars else NOTHING
        case Concat(first, rest):
            after = concat(derivative(first, char), rest)
            return either((after, derivative(rest, char))) if nullable(first) else after
        case Either(parts):
            return either(derivative(part, char) for part in parts)
        case Both(parts):
            return both(derivative(part, char) for part in parts)
        case Not(inner):
            return negate(derivative(inner, char))
        case Repeat(inner, least, most):
            left = repeat(inner, max(least - 1, 0), None if most is None else most - 1)
            return concat(derivative(inner, char), left)
    raise TypeError(language)


@cache
def classes(language: Language) -> frozenset[CharSet]:
    """A partition of all characters, those of a part having the same derivative."""
    match language:
        case Chars(chars):
            return frozenset(filter(None, (chars & ANY, ANY - chars)))
        case Concat(first, rest):
            return _refined(classes(first), classes(rest)) if nullable(first) else classes(first)
        case Either(parts) | Both(parts):
            found = frozenset({ANY})
            for part in parts:
                found = _refined(found, classes(part))
            return found
        case Not(inner) | Repeat(inner, _, _):
            return classes(inner)
    raise TypeError(language)


def _refined(a: frozenset[CharSet], b: frozenset[CharSet]) -> frozenset[CharSet]:
    return frozenset(filter(None, (x & y for x in a for y in b)))
