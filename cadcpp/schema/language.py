"""Regular languages by derivatives: what may follow once a character was read (Brzozowski 1964; Owens et al. 2009).

With them intersection and complement cost no more than a union, so that a pattern, its lookaheads, a length and a
format become one automaton.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from cadcpp.schema.charset import ANY, CharSet


class Language:
    """A set of strings. Make them by the functions below, which bring equal ones into one form.

    Each remembers its hash, which would take longer, and go deeper, the more it is made up of.
    """

    __slots__ = ("_hash",)
    _hash: int

    def __post_init__(self) -> None:
        fields = (getattr(self, name) for name in type(self).__slots__)
        object.__setattr__(self, "_hash", hash((type(self), *fields)))

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True, slots=True)
class Chars(Language):
    """One character."""

    __hash__ = Language.__hash__
    chars: CharSet


@dataclass(frozen=True, slots=True)
class Concat(Language):
    __hash__ = Language.__hash__
    first: Language
    rest: Language


@dataclass(frozen=True, slots=True)
class Either(Language):
    __hash__ = Language.__hash__
    parts: frozenset[Language]


@dataclass(frozen=True, slots=True)
class Both(Language):
    __hash__ = Language.__hash__
    parts: frozenset[Language]


@dataclass(frozen=True, slots=True)
class Not(Language):
    __hash__ = Language.__hash__
    inner: Language


@dataclass(frozen=True, slots=True)
class Repeat(Language):
    """``inner`` from ``least`` to ``most`` times, without end if that is None."""

    __hash__ = Language.__hash__
    inner: Language
    least: int
    most: int | None


@dataclass(frozen=True, slots=True)
class Multiple(Language):
    """Decimal numbers that are multiples of ``step / 10 ** places``, with at most so many places.

    ``remainder`` is that of the digits so far, and ``left`` the places still to come once there was a point.
    """

    __hash__ = Language.__hash__
    step: int
    places: int
    remainder: int = 0
    left: int | None = None

    def after(self, char: str) -> Language:
        if char == "-":
            return self
        if char == "." and self.left is None:
            return Multiple(self.step, self.places, self.remainder, self.places)
        if not char.isdecimal() or self.left == 0:
            return NOTHING
        left = None if self.left is None else self.left - 1
        return Multiple(self.step, self.places, (10 * self.remainder + int(char)) % self.step, left)

    @property
    def ends(self) -> bool:
        left = self.places if self.left is None else self.left
        return bool(self.remainder * 10**left % self.step == 0)


NOTHING = Chars(CharSet(()))  # not even the empty string
EMPTY = Repeat(NOTHING, 0, 0)  # the empty string
ALL = Repeat(Chars(ANY), 0, None)
_IN_NUMBERS = "0123456789-."


def concat(*parts: Language) -> Language:
    """One after the other."""
    result: Language = EMPTY
    for part in reversed(parts):
        for each in reversed(_firsts(part)):
            if NOTHING in (each, result):
                return NOTHING
            result = each if result == EMPTY else result if each == EMPTY else Concat(each, result)
    return result


def _firsts(language: Language) -> list[Language]:
    """What a language puts one after the other."""
    found = []
    while isinstance(language, Concat):
        found.append(language.first)
        language = language.rest
    return [*found, language]


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
        case Multiple():
            return language.ends
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
        case Multiple():
            return language.after(chr(char))
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
        case Multiple():
            return frozenset({*(CharSet.of(char) for char in _IN_NUMBERS), ANY - CharSet.of(_IN_NUMBERS)})
    raise TypeError(language)


def _refined(a: frozenset[CharSet], b: frozenset[CharSet]) -> frozenset[CharSet]:
    return frozenset(filter(None, (x & y for x in a for y in b)))


def n_taken() -> int:
    """How many derivatives were taken since the last `forget`."""
    return derivative.cache_info().misses


def forget() -> None:
    """Drop what was remembered of languages, which is more than the languages themselves."""
    for remembering in (nullable, derivative, classes):
        remembering.cache_clear()
