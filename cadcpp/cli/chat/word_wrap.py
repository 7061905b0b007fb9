"""Lines that break between words, of a text that comes in pieces."""

from collections.abc import Callable
from dataclasses import dataclass

from cadcpp.cli.chat.code_lines import CodeLines
from cadcpp.cli.terminal import printable

_TAB = 8  # columns from one stop to the next
_JOINER = "\u200d"  # makes one picture of two


@dataclass(slots=True)
class _Piece:
    """What one call of `feed` brought, or a part of it."""

    text: str
    colour: str | None
    call: int


class WordWrap:
    """Writes a text to a terminal of ``columns()`` columns and moves words that do not fit to the next line.

    A word is held back while it could still be moved: until something follows it, or until it has a line of its own.
    Between wide letters (CJK, emoji) a line may break as well. Code, and words longer than a line, break where the
    terminal breaks them.
    """

    def __init__(self, write: Callable[[str, str | None], None], columns: Callable[[], int]) -> None:
        from prompt_toolkit.utils import get_cwidth

        self._write, self._ask_columns, self._width_of = write, columns, get_cwidth
        self._code = CodeLines()
        self._out = list[_Piece]()
        self._gap, self._word = list[_Piece](), list[_Piece]()  # held back: blanks, and the word behind them
        self._column = self._columns = self._n_calls = 0
        self._fixed = False  # the word at the cursor is not held back: it cannot be moved
        self._last = ""

    def feed(self, text: str, colour: str | None = None) -> None:
        """Take the next piece."""
        self._n_calls += 1
        self._columns = self._ask_columns() or 1 << 30
        for letter in printable(text):
            self._take(_Piece(letter, colour, self._n_calls))
            self._last = letter
        self._send()

    def flush(self) -> None:
        """Write what is held back."""
        self._release()
        self._send()

    def _take(self, piece: _Piece) -> None:
        code = self._code.is_code(piece.text)
        if piece.text == "\n" or piece.text == "\t" or code:
            self._release()
            self._put(piece)
            self._fixed = False
        elif piece.text == " ":
            if self._word:
                self._release()
            _append(self._gap, piece)
            self._fixed = False
        else:
            self._take_letter(piece)

    def _take_letter(self, piece: _Piece) -> None:
        width = self._width_of(piece.text)
        if not self._gap and not self._word and (not width or self._last == _JOINER):
            self._put(piece)  # a part of what is written already
            return
        if width > 1:  # a word by itself
            self._release(keep_gap=True)
            self._fixed = False
        _append(self._word, piece)
        if not self._fixed and self._column > 0 and not self._fits():
            self._break_line()
        if self._fixed or width > 1 or self._column == 0:
            self._release()
            self._fixed = width <= 1

    def _fits(self) -> bool:
        held = "".join(piece.text for piece in [*self._gap, *self._word])
        return self._column + sum(map(self._width_of, held)) <= self._columns

    def _break_line(self) -> None:
        self._gap.clear()
        self._put(_Piece("\n", None, 0))

    def _release(self, *, keep_gap: bool = False) -> None:
        """Write the word that is held back; a gap without one may wait for the next word."""
        if self._word or not keep_gap:
            for piece in [*self._gap, *self._word]:
                self._put(piece)
            self._gap.clear()
            self._word.clear()

    def _put(self, piece: _Piece) -> None:
        for letter in piece.text:
            self._column = self._after(letter)
        _append(self._out, piece)

    def _after(self, letter: str) -> int:
        """The column of the cursor behind a letter."""
        if letter == "\n":
            return 0
        if letter == "\t":
            return min((self._column // _TAB + 1) * _TAB, self._columns)
        width = self._width_of(letter)
        return self._column + width if self._column + width <= self._columns else width

    def _send(self) -> None:
        for piece in self._out:
            self._write(piece.text, piece.colour)
        self._out.clear()


def _append(pieces: list[_Piece], piece: _Piece) -> None:
    """Put a piece behind others; what one call brought stays together, so that it is coloured at once."""
    if pieces and pieces[-1].call == piece.call:
        pieces[-1].text += piece.text
    else:
        pieces.append(_Piece(piece.text, piece.colour, piece.call))
