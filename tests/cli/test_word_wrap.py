"""Replies on a terminal: where their lines break, as an emulator of a terminal shows them."""

import random
from collections.abc import Iterator
from itertools import accumulate, cycle, pairwise

import pytest

from cadcpp.cli.chat.word_wrap import WordWrap

pyte = pytest.importorskip("pyte", reason="pyte is not installed")

PROSE = (
    "A model that is larger than memory is read from the disk once for every token, unless several tokens are "
    "drafted and verified at once."
)
WIDE = "日本語の文章は単語の間に空白がありません。だからどこでも折り返せます"
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"


class Screen:
    """A terminal of so many columns, and what wraps for it."""

    def __init__(self, width: int, *, wrap: bool = True) -> None:
        self.width, self.written = width, ""
        self.screen = pyte.Screen(width, 200)
        self._stream = pyte.Stream(self.screen)
        self._wrap = WordWrap(self._write, lambda: self.width) if wrap else None

    def feed(self, *pieces: str) -> "Screen":
        for piece in pieces:
            if self._wrap is None:
                self._write(piece, None)
            else:
                self._wrap.feed(piece)
        return self

    def flush(self) -> "Screen":
        if self._wrap is not None:
            self._wrap.flush()
        return self

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display[: self.screen.cursor.y + 1]]

    def _write(self, text: str, _colour: str | None) -> None:
        self.written += text
        self._stream.feed(text.replace("\n", "\r\n"))


def pieces(text: str, *sizes: int) -> Iterator[str]:
    """A text as tokens come."""
    ends = accumulate(cycle(sizes), initial=0)
    for start, end in pairwise(ends):
        if start >= len(text):
            return
        yield text[start:end]


@pytest.mark.parametrize("width", [20, 33, 80])
@pytest.mark.parametrize("sizes", [(1,), (4, 3, 6), (1000,)], ids=["letters", "tokens", "at once"])
def test_words_stay_whole(width: int, sizes: tuple[int, ...]) -> None:
    wrapped = Screen(width).feed(*pieces(PROSE, *sizes)).flush()
    assert " ".join(wrapped.lines) == PROSE
    for line, following in pairwise(wrapped.lines):
        assert len(line) + 1 + len(following.split()[0]) > width  # no line ends before it must


def test_words_are_cut_without_it() -> None:
    assert " ".join(Screen(20, wrap=False).feed(PROSE).lines) != PROSE


def test_only_the_last_word_is_held_back() -> None:
    screen = Screen(20)
    shown = [screen.feed(piece).written for piece in ("one", " tw", "o", " ", "three four f")]
    assert shown == ["one", "one", "one", "one two", "one two three four"]
    assert screen.feed("ive").written == "one two three four\nfive"  # it does not fit, and cannot be moved again
    assert screen.feed("!").written.endswith("five!")
    assert screen.feed("?").written.endswith("five!?")
    assert screen.flush().written.endswith("five!?")


def test_a_word_that_is_longer_than_the_line_breaks_where_it_did() -> None:
    long = "x" * 50
    assert Screen(20).feed(*pieces(f"see {long} there", 3)).flush().lines == [
        "see",
        "x" * 20,
        "x" * 20,
        "x" * 10 + " there",
    ]
    at_start, plain = (Screen(20, wrap=wrap).feed(*pieces(long, 7)).flush() for wrap in (True, False))
    assert at_start.written == plain.written


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("```python\nif a_long_name and another_long_name:\n    return 1\n```\n", id="fence"),
        pytest.param("~~~\nif a_long_name and ``` another_long_name:\n~~~\n", id="tildes"),
        pytest.param("   ```\nif a_long_name and another_long_name:\n   ```\n", id="fence in a list"),
        pytest.param("````\n```\nif a_long_name and another_long_name:\n```\n````\n", id="four"),
        pytest.param("    if a_long_name and another_long_name:\n", id="indented"),
        pytest.param("\tif a_long_name and another_long_name:\n", id="tab"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_code_breaks_where_it_did(code: str, size: int) -> None:
    assert Screen(24).feed(*pieces(code, size)).written == code
    # As text it is wrapped:
    assert Screen(24).feed("so: " + code.replace("`", "").replace("~", "").replace("    ", "")).written != code


@pytest.mark.parametrize(
    "start",
    [
        pytest.param("```\ncode\n```\n", id="after a block"),
        pytest.param("```code``` is a word\n", id="three backticks in a sentence"),
        pytest.param("    - ", id="an indented list"),
        pytest.param("    2. ", id="a numbered one"),
    ],
)
def test_what_is_no_code_is_wrapped(start: str) -> None:
    wrapped = Screen(30).feed(*pieces(start + PROSE, 3)).flush()
    assert wrapped.written.count("\n") > start.count("\n") + 3
    assert wrapped.written.replace("\n", " ") == (start + PROSE).replace("\n", " ")


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        pytest.param(WIDE[:13], [WIDE[:5], WIDE[5:10], WIDE[10:13]], id="CJK"),
        pytest.param("abc 日本語の文", ["abc 日本語", "の文"], id="a word, then CJK"),
        pytest.param("日本 abcdef gh", ["日本", "abcdef gh"], id="CJK, then words"),
        pytest.param("cafe\u0301s cafe\u0301s", ["caf\u00e9s", "caf\u00e9s"], id="combining marks need no column"),
        pytest.param("cafe\u0301 cafe\u0301 x", ["caf\u00e9 caf\u00e9", "x"], id="combining marks that fit"),
        pytest.param("ab cd ef \U0001f389", ["ab cd ef", "\U0001f389"], id="emoji"),
    ],
)
def test_columns_are_those_of_the_terminal(text: str, lines: list[str]) -> None:
    for size in (1, 3, 1000):
        assert Screen(10).feed(*pieces(text, size)).flush().lines == [shown(line) for line in lines]


def shown(line: str) -> str:
    """A line as pyte has it: a column behind a wide letter holds nothing."""
    return Screen(40, wrap=False).feed(line).lines[0]


def test_a_joined_picture_stays_in_one_piece() -> None:
    assert FAMILY in Screen(10).feed(*f"abcdef {FAMILY}").flush().written


def test_a_resize_counts_from_the_next_word_on() -> None:
    screen = Screen(40).feed("one two three four ")
    screen.width = 26
    assert screen.feed("five six seven").flush().written == "one two three four five\nsix seven"


def test_a_terminal_that_does_not_tell_its_width_gets_the_text_as_it_is() -> None:
    written: list[str] = []
    wrap = WordWrap(lambda text, _: written.append(text), lambda: 0)
    wrap.feed(PROSE * 10)
    wrap.flush()
    assert "".join(written) == PROSE * 10


def test_colours_stay_with_their_words() -> None:
    written: list[tuple[str, str | None]] = []
    wrap = WordWrap(lambda text, colour: written.append((text, colour)), lambda: 12)
    for text, colour in (("one", None), (" tw", "green"), ("o", "cyan"), (" thre", None), ("e", "green")):
        wrap.feed(text, colour)
    wrap.flush()
    assert written == [("one", None), (" tw", "green"), ("o", "cyan"), ("\n", None), ("thre", None), ("e", "green")]


@pytest.mark.parametrize("seed", range(30))
def test_any_text_is_written_whole_and_breaks_at_words_only(seed: int) -> None:
    draw = random.Random(seed)
    words = ["a", "be", "sea,", "ocean", "日", "語", "e\u0301t\u00e9", "\U0001f389", "x" * 9, "\n", "\n\n"]
    text = "".join(draw.choice(words) + draw.choice(["", " ", " ", "  "]) for _ in range(200))
    screen = Screen(draw.randint(9, 30)).feed(*pieces(text, *(draw.randint(1, 7) for _ in range(9)))).flush()
    assert "".join(screen.written.split()) == "".join(text.split())
    assert screen._wrap is not None and screen._wrap._column == screen.screen.cursor.x  # pyte has the same count
    assert screen.written.count("\n") - text.count("\n") < len(text) // 4
    for line in text.split("\n"):
        for word in (word for word in line.split() if word.isascii()):
            assert word in screen.written or len(word) > screen.width
