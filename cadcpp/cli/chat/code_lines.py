"""Which lines of a text in Markdown are code, told letter by letter."""

import re

_FENCE = re.compile(r"[ \t]*(?:(`{3,})[^`]*|(~{3,}).*)")  # ```code``` in a sentence is none
_INDENTED = re.compile(r"(?: {4}|\t)\s*[^\s\-*+\d]")  # what would begin a list is none


class CodeLines:
    """Follows one text. A line is code between fences, is a fence, or is indented."""

    def __init__(self) -> None:
        self._line, self._fence = "", ""  # the line so far, and what opened the block around it

    def is_code(self, letter: str) -> bool:
        """Take the next letter of the text; whether it belongs to a line that is code, as far as is known by then."""
        if letter == "\n":
            self._end_line()
            return False
        self._line += letter
        return bool(self._fence or _FENCE.fullmatch(self._line) or _INDENTED.match(self._line))

    def _end_line(self) -> None:
        line, self._line = self._line, ""
        if not self._fence:
            found = _FENCE.fullmatch(line)
            self._fence = (found[1] or found[2]) if found else ""
        elif re.fullmatch(rf"\s*{self._fence}{self._fence[0]}*\s*", line):
            self._fence = ""
