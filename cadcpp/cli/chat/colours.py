"""A reply on the screen: its lines, and the colours of where its tokens came from."""

import sys
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from cadcpp.cli.chat.word_wrap import WordWrap
from cadcpp.cli.terminal import answer, columns, has_colours, is_terminal
from cadcpp.runtime.detokenizer import Detokenizer

if TYPE_CHECKING:
    from cadcpp.runtime.session import Chunk

COLOURS: Mapping[str, str | None] = {"draft": "green", "n-gram": "cyan", "own": None}
LEGEND = "green: drafted by the draft model, cyan: from n-grams; plain: the verifier's own"


class Painter:
    """Shows the chunks of one reply as they come, on a terminal in lines that break between words.

    A part of the last word may be shown at the end of the block only.
    """

    def __init__(self, piece: Callable[[int], bytes], show: bool) -> None:
        self._piece, self._coloured = piece, show and has_colours(sys.stdout)
        self._text = Detokenizer()
        self._wrap = WordWrap(answer, lambda: columns(sys.stdout)) if is_terminal(sys.stdout) else None
        self._write: Callable[[str, str | None], None] = answer if self._wrap is None else self._wrap.feed

    def __enter__(self) -> "Painter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._wrap is not None:
            self._wrap.flush()

    def paint(self, chunk: "Chunk") -> None:
        """Write a chunk to stdout; a letter that several tokens make has the colour of the last."""
        if not self._coloured or chunk.round is None:
            self._write(chunk.text, None)
            return
        origins = chunk.round.accepted.origins(chunk.round.tree)
        for token, origin in zip(chunk.tokens, origins, strict=False):  # the end has no text
            self._write(self._text.feed(self._piece(token)), COLOURS[origin])
        if chunk.finish:
            self._write(self._text.finish(), None)
