"""Reads messages: where their lines come from, and how several make one."""

import sys
from dataclasses import dataclass
from typing import Protocol

_QUOTES = '"""'


class Lines(Protocol):
    """A keyboard or a pipe."""

    interactive: bool

    def read(self, prompt: str, text: str = "") -> str | None:
        """The next line without its end, None after the last; ``text`` is there to be changed.

        A keyboard's Ctrl-C is a KeyboardInterrupt.
        """
        ...

    def abandon(self) -> None:
        """End the reading that is under way, from another thread, as if there were no more lines."""
        ...


class Pipe:
    """Standard input that nobody types into."""

    interactive = False

    def read(self, prompt: str, text: str = "") -> str | None:
        line = sys.stdin.readline() if sys.stdin is not None else ""
        return line.rstrip("\r\n") if line else None

    def abandon(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Typed:
    """What was typed; ``verbatim`` if it was put between quotes, and so is no command."""

    text: str
    verbatim: bool = False


def read_typed(lines: Lines, text: str = "") -> Typed | None:
    """The next message or command, of one line or of several; None at the end.

    Several lines stand between triple quotes (ollama), between ``!multi`` and ``!end`` (llm), or end in a
    backslash, all but the last (llama-cli).
    """
    line = lines.read("> ", text)
    if line is None:
        return None
    line = line.strip()
    if line.startswith(_QUOTES):
        return Typed(_quoted(lines, line[len(_QUOTES) :]), verbatim=True)
    if line == "!multi" or line.startswith("!multi "):
        return Typed(_until(lines, "!end" + line[len("!multi") :]), verbatim=True)
    return Typed(_continued(lines, line))


def _quoted(lines: Lines, line: str) -> str:
    text = [line]
    while not text[-1].rstrip().endswith(_QUOTES):
        if (more := lines.read(". ")) is None:
            return "\n".join(text).strip()
        text.append(more)
    return "\n".join(text).rstrip().removesuffix(_QUOTES).strip()


def _until(lines: Lines, end: str) -> str:
    text: list[str] = []
    while (line := lines.read(". ")) is not None and line.strip() != end:
        text.append(line)
    return "\n".join(text).strip()


def _continued(lines: Lines, line: str) -> str:
    text = [line]
    while text[-1].endswith("\\"):
        text[-1] = text[-1][:-1]
        if (more := lines.read(". ")) is None:
            break
        text.append(more.rstrip())
    return "\n".join(text).strip()
