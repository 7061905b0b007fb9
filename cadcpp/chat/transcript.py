"""A conversation on disk: JSON lines, one a message, and one for each piece of a reply that is being written."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cadcpp.errors import ConfigError

Role = Literal["system", "user", "assistant"]
_HEADER = {"cadcpp": "chat", "version": 1}
_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Message:
    """What somebody said."""

    role: Role
    content: str
    tokens: tuple[int, ...] = ()  # a reply's, as they were drawn
    partial: bool = False  # a reply that did not come to its end


class Transcript:
    """The file of one chat. Nothing is written before the first `save`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, messages: Iterable[Message]) -> None:
        """Write all messages, at once or not at all. Raises OSError."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lines = [_HEADER, *map(_entry, messages)]
        new = self.path.with_name(f"{self.path.name}.{os.getpid()}.new")
        try:
            _write(new, os.O_TRUNC, "".join(map(_line, lines)))
            os.replace(new, self.path)
        finally:
            new.unlink(missing_ok=True)

    def add(self, text: str, tokens: Sequence[int], *, last: bool) -> None:
        """Append a piece of the reply to the last question; a reply without a ``last`` one is partial."""
        _write(self.path, os.O_APPEND, _line({"part": text, "tokens": list(tokens), "last": last}))


def load(path: Path) -> list[Message]:
    """The messages of a chat, whenever its writing was cut off. A question without an answer gets an empty one.

    Raises ConfigError, naming the line, if the file is none of ours.
    """
    messages: list[Message] = []
    for number, entry in _entries(path):
        if "part" in entry:
            messages = _add_part(messages, entry)
        elif (message := _message(entry)) is not None:
            messages.append(message)
        else:
            raise ConfigError(f"{path} line {number} is no message of a chat: name a file that /save wrote")
    if messages and messages[-1].role == "user":
        messages.append(Message("assistant", "", partial=True))
    return messages


def is_transcript(path: Path) -> bool:
    """Whether a file is one of ours, whatever became of its end."""
    with open(path, "rb") as file:
        return _parse(file.readline(200).decode("utf-8", "replace")) == _HEADER


def _write(path: Path, flag: int, text: str) -> None:
    """One write, so that a crash can tear nothing but the end of the last line."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | flag, 0o600)
    with open(fd, "wb", buffering=0) as file:
        rest = memoryview(text.encode("utf-8", "replace"))
        while rest:
            rest = rest[file.write(rest) or 0 :]
        if flag == os.O_TRUNC:
            os.fsync(fd)


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False) + "\n"


def _entry(message: Message) -> dict[str, Any]:
    entry: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.role == "assistant":
        entry |= {"tokens": message.tokens, "partial": message.partial}
    return entry


def _entries(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Lines after the header with their numbers; a last one without its end is left out."""
    lines = _read(path).split("\n")[:-1]
    for number, line in enumerate(lines, 1):
        entry = _parse(line)
        if entry is None or (number == 1 and entry != _HEADER):
            raise ConfigError(f"{path} line {number} is not of a chat's transcript: name a file that /save wrote")
        if number > 1:
            yield number, entry


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; check the path") from None


def _parse(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _message(entry: dict[str, Any]) -> Message | None:
    role, content, tokens = entry.get("role"), entry.get("content"), entry.get("tokens", [])
    if role not in _ROLES or not isinstance(content, str) or not _are_tokens(tokens):
        return None
    return Message(role, content, tuple(tokens), entry.get("partial") is True)


def _are_tokens(tokens: object) -> bool:
    return isinstance(tokens, list) and all(type(token) is int for token in tokens)


def _add_part(messages: list[Message], part: dict[str, Any]) -> list[Message]:
    text, tokens = str(part["part"]), part.get("tokens", [])
    so_far = Message("assistant", "")
    if messages and messages[-1].role == "assistant":
        so_far = messages.pop()
    kept = so_far.tokens + (tuple(tokens) if _are_tokens(tokens) else ())
    return [*messages, Message("assistant", so_far.content + text, kept, part.get("last") is not True)]
