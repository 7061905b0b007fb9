"""Regular expressions as ECMA 262, Python's `re` and Rust's regex write them alike, as languages."""

from dataclasses import dataclass
from string import ascii_letters

from cadcpp.schema.charset import ANY, DIGIT, LINE_END, SPACE, WORD, CharSet
from cadcpp.schema.language import (
    ALL,
    EMPTY,
    NOTHING,
    Chars,
    Language,
    both,
    concat,
    either,
    negate,
    nullable,
    repeat,
)

# ECMA means ASCII by these, Python and Rust all of Unicode: what every reader takes for one, and what any does.
_CLASSES = {"d": DIGIT, "w": WORD, "s": SPACE}
_WIDE = {
    "d": DIGIT | CharSet.of((0x660, 0x10FFFF)),
    "w": WORD | CharSet.of((0xAA, 0x10FFFF)),
    "s": SPACE | CharSet.of("\u0085\u00a0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff", (0x1C, 0x1F), (0x2000, 0x200A)),
}
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "0": "\0"}
_STARTS, _ENDS = ("^", "\\A"), ("$", "\\Z", "\\z")
_MOST = 2000  # repetitions


class PatternError(ValueError):
    """A part of a pattern that no language stands for here."""


@dataclass(frozen=True, slots=True)
class Start:
    """The text's beginning."""


@dataclass(frozen=True, slots=True)
class End:
    """The text's end."""


@dataclass(frozen=True, slots=True)
class Look:
    """What must, or must not, come next."""

    inner: "Alternatives"
    wanted: bool


@dataclass(frozen=True, slots=True)
class Times:
    """A repeated item."""

    item: "Item"
    least: int
    most: int | None


Item = Chars | Start | End | Look | Times | tuple["Sequence", ...]
Sequence = tuple[Item, ...]
Alternatives = tuple[Sequence, ...]


def pattern(source: str) -> Language:
    """Texts in which ``source`` is found somewhere. Raises PatternError for what cannot be said."""
    found = _Parser(source).whole()
    here = _following(found, ALL, at_start=True)
    return either((here, concat(Chars(ANY), ALL, _following(found, ALL, at_start=False))))


def _following(alternatives: Alternatives, after: Language, at_start: bool) -> Language:
    """Texts that begin with one of the alternatives and go on with ``after``."""
    return either(_sequence(each, after, at_start) for each in alternatives)


def _sequence(items: Sequence, after: Language, at_start: bool) -> Language:
    if not items:
        return after
    first, rest = items[0], items[1:]
    match first:
        case Start():
            return _sequence(rest, after, at_start) if at_start else NOTHING
        case End():
            return both((EMPTY, _sequence(rest, after, at_start)))
        case Look(inner, wanted):
            seen = _following(inner, ALL, at_start)
            return both((seen if wanted else negate(seen), _sequence(rest, after, at_start)))
        case tuple() if not _is_plain(first):
            return either(_sequence(each + rest, after, at_start) for each in first)
    language = _plain(first)
    if at_start and nullable(language) and _has_start(rest):
        raise PatternError("a ^ behind something that may be empty")
    return concat(language, _sequence(rest, after, False))


def _has_start(items: Sequence) -> bool:
    return any(isinstance(item, Start) for item in items)


def _is_plain(item: Item) -> bool:
    """Whether an item has neither anchors nor lookaheads."""
    match item:
        case Chars():
            return True
        case Times(inner, _, _):
            return _is_plain(inner)
        case tuple():
            return all(_is_plain(each) for sequence in item for each in sequence)
    return False


def _plain(item: Item) -> Language:
    match item:
        case Chars():
            return item
        case Times(inner, least, most):
            if not _is_plain(inner):
                raise PatternError("an anchor or a lookahead that is repeated")
            return repeat(_plain(inner), least, most)
        case tuple():
            return either(concat(*map(_plain, sequence)) for sequence in item)
    raise PatternError("an anchor or a lookahead at this place")


class _Parser:
    """Recursive descent over one pattern."""

    def __init__(self, source: str) -> None:
        self._source, self._at = source, 0
        self._any_case = self._skip("(?i)")

    def whole(self) -> Alternatives:
        found = self._alternatives()
        if self._at < len(self._source):
            raise PatternError(f"an unmatched {self._source[self._at]}")
        return found

    def _peek(self, n: int = 1) -> str:
        return self._source[self._at : self._at + n]

    def _take(self, expected: str = "") -> str:
        char = self._peek()
        if not char or (expected and char != expected):
            raise PatternError(f"an end where {expected or 'more'} is missing")
        self._at += 1
        return char

    def _skip(self, text: str) -> bool:
        if self._source.startswith(text, self._at):
            self._at += len(text)
            return True
        return False

    def _alternatives(self) -> Alternatives:
        found = [self._items()]
        while self._skip("|"):
            found.append(self._items())
        return tuple(found)

    def _items(self) -> Sequence:
        items: list[Item] = []
        while self._peek() not in ("", "|", ")"):
            items.append(self._repeated(self._item()))
        return tuple(items)

    def _item(self) -> Item:
        for anchor in (*_STARTS, *_ENDS):
            if self._skip(anchor):
                return Start() if anchor in _STARTS else End()
        if self._skip("("):
            return self._group()
        if self._skip("["):
            return Chars(self._cased(self._set()))
        if self._skip("."):
            return Chars(ANY - LINE_END)
        if self._peek() == "\\":
            return Chars(self._cased(self._escape(in_set=False)))
        if self._peek() in "*+?":
            raise PatternError(f"{self._peek()} with nothing to repeat")
        return Chars(self._cased(CharSet.of(self._take())))

    def _cased(self, chars: CharSet) -> CharSet:
        """With the other case of ASCII's letters, where case is not looked at."""
        if not self._any_case:
            return chars
        return chars | CharSet.of("".join(c.swapcase() for c in ascii_letters if c in chars))

    def _group(self) -> Item:
        look = None
        if self._skip("?"):
            look = {"=": True, "!": False}.get(self._peek())
            if look is not None or self._skip(":"):
                self._at += look is not None
            elif self._skip("P<") or (self._peek() == "<" and self._peek(2)[1:] not in ("=", "!")):
                while self._take() != ">":
                    pass
            else:
                raise PatternError(f"(?{self._peek(2)}")
        inner = self._alternatives()
        self._take(")")
        return inner if look is None else Look(inner, look)

    def _repeated(self, item: Item) -> Item:
        while times := self._times():
            if isinstance(item, Start | End | Look):
                raise PatternError("an anchor or a lookahead that is repeated")
            item = Times(item, *times)
            if self._peek() == "+":
                raise PatternError("a possessive repetition")
            self._skip("?")  # lazy: which text matches does not depend on it
        return item

    def _times(self) -> tuple[int, int | None] | None:
        for sign, times in {"*": (0, None), "+": (1, None), "?": (0, 1)}.items():
            if self._skip(sign):
                return times
        return self._counted() if self._peek() == "{" else None

    def _counted(self) -> tuple[int, int | None] | None:
        end = self._source.find("}", self._at)
        low, comma, high = self._source[self._at + 1 : max(end, 0)].partition(",")
        if end < 0 or not low.isdecimal() or not (high == "" or high.isdecimal()):
            if end > 0 and not low and high.isdecimal():
                low = "0"
            else:
                return None  # the brace is meant as it stands
        self._at = end + 1
        least = int(low)
        most = int(high) if high else None if comma else least
        if max(least, most or 0) > _MOST or (most is not None and most < least):
            raise PatternError(f"the repetition {{{low}{comma}{high}}}")
        return least, most

    def _set(self) -> CharSet:
        negated, found, first = self._skip("^"), CharSet(()), True
        while first or self._peek() != "]":
            if self._peek(2) in ("[:", "&&", "--") and self._peek(2) != "--":
                raise PatternError(f"{self._peek(2)} in a set")
            found, first = found | self._range(negated), False
        self._take("]")
        return ANY - found if negated else found & ANY

    def _range(self, negated: bool) -> CharSet:
        low = self._member(negated)
        if self._peek() != "-" or self._peek(2) in ("-]", "-") or len(low.ranges) != 1:
            return low
        before = self._at
        self._take("-")
        high = self._member(negated)
        if len(low.ranges) != 1 or len(high.ranges) != 1 or low.ranges[0][0] != low.ranges[0][1]:
            self._at = before + 1
            return low | CharSet.of("-")
        if high.ranges[0][0] < low.ranges[0][0]:
            raise PatternError("a range that ends before it begins")
        return CharSet.of((low.ranges[0][0], high.ranges[0][1]))

    def _member(self, negated: bool) -> CharSet:
        return self._escape(in_set=True, wide=negated) if self._peek() == "\\" else CharSet.of(self._take())

    def _escape(self, in_set: bool, wide: bool = False) -> CharSet:
        self._take("\\")
        char = self._take()
        if char in _CLASSES:
            return (_WIDE if wide else _CLASSES)[char]
        if char.lower() in _CLASSES:
            return ANY - (_CLASSES if wide else _WIDE)[char.lower()]
        if char in _CONTROLS and not (char == "0" and self._peek().isdecimal()):
            return CharSet.of(_CONTROLS[char])
        if char == "b" and in_set:
            return CharSet.of("\b")
        if char in "xu":
            return CharSet.of(chr(self._code(char)))
        if char == "c" and self._peek().isalpha():
            return CharSet.of(chr(ord(self._take()) % 32))
        if char.isalnum():
            raise PatternError(f"\\{char}")
        return CharSet.of(char)

    def _code(self, kind: str) -> int:
        if self._skip("{"):
            digits = ""
            while (char := self._take()) != "}":
                digits += char
        else:
            n = 2 if kind == "x" else 4
            digits = self._peek(n)
            self._at += n
        try:
            code = int(digits, 16)
            if 0xD800 <= code <= 0xDBFF and self._skip("\\u"):  # a pair
                low = int(self._peek(4), 16)
                self._at += 4
                code = 0x10000 + (code - 0xD800) * 0x400 + (low - 0xDC00)
            chr(code)
        except (ValueError, OverflowError):
            raise PatternError(f"\\{kind}{digits}") from None
        return code
