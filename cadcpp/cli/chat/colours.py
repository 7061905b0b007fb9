"""A reply on the screen, in one colour or in the colours of where its tokens came from."""

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from cadcpp.cli.terminal import answer, has_colours
from cadcpp.runtime.detokenizer import Detokenizer

if TYPE_CHECKING:
    from cadcpp.runtime.session import Chunk

COLOURS: Mapping[str, str | None] = {"draft": "green", "n-gram": "cyan", "own": None}
LEGEND = "green: drafted by the draft model, cyan: from n-grams; plain: the verifier's own"


class Painter:
    """Shows the chunks of one reply as they come."""

    def __init__(self, piece: Callable[[int], bytes], show: bool) -> None:
        self._piece, self._coloured = piece, show and has_colours(sys.stdout)
        self._text = Detokenizer()

    def paint(self, chunk: "Chunk") -> None:
        """Write a chunk to stdout; a letter that several tokens make has the colour of the last."""
        if not self._coloured or chunk.round is None:
            answer(chunk.text)
            return
        origins = chunk.round.accepted.origins(chunk.round.tree)
        for token, origin in zip(chunk.tokens, origins, strict=False):  # the end has no text
            answer(self._text.feed(self._piece(token)), COLOURS[origin])
        if chunk.finish:
            answer(self._text.finish())
