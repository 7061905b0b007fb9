"""The line editor of a terminal: editing, history and completion, by prompt_toolkit."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import create_output
from prompt_toolkit.patch_stdout import patch_stdout


class Editor:
    """Lines from a keyboard. Prompts are on stderr, since stdout holds nothing but answers."""

    interactive = True

    def __init__(self, history: Path | None, words: Iterable[str]) -> None:
        self._session: PromptSession[str] = PromptSession(
            history=_history(history),
            output=create_output(sys.stderr),
            key_bindings=_keys(),
            completer=WordCompleter(sorted(words), sentence=True),
            complete_while_typing=False,
            enable_open_in_editor=True,
        )

    def read(self, prompt: str, text: str = "") -> str | None:
        try:
            with patch_stdout(raw=True):  # what is said meanwhile stands above the line
                line = self._session.prompt(prompt, default=text)
        except EOFError:
            return None
        return line.encode("utf-8", "replace").decode()  # bytes that are no text come as lone surrogates

    def abandon(self) -> None:
        app = self._session.app
        if (loop := app.loop) is not None:
            loop.call_soon_threadsafe(lambda: app.exit(exception=EOFError) if app.is_running else None)


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


def _history(path: Path | None) -> History:
    if path is None:
        return InMemoryHistory()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # nobody else's business
    except OSError:
        return InMemoryHistory()
    return FileHistory(path)
