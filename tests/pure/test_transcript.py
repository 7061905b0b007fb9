"""Transcripts: what was said comes back, wherever their writing was cut off."""

import json
import os
from pathlib import Path

import pytest

from cadcpp.chat.transcript import Message, Transcript, is_transcript, load
from cadcpp.errors import ConfigError

TALK = [
    Message("system", "Be brief."),
    Message("user", "Café?\n\u4f60\u597d \u2028"),
    Message("assistant", "Yes.\n", (5, 6, 7)),
    Message("user", "And?"),
    Message("assistant", "No", (8,), partial=True),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "chats" / "one.jsonl"


def test_what_was_said_comes_back(file: Path) -> None:
    transcript = Transcript(file)
    assert not file.exists()
    transcript.save(TALK)
    assert load(file) == TALK and is_transcript(file)
    transcript.save(TALK[:3])
    assert load(file) == TALK[:3]
    assert os.listdir(file.parent) == [file.name]


def test_a_reply_comes_in_parts(file: Path) -> None:
    transcript = Transcript(file)
    transcript.save(TALK[:2])
    assert load(file)[2:] == [Message("assistant", "", partial=True)]
    transcript.add("Ye", [5], last=False)
    assert load(file)[2:] == [Message("assistant", "Ye", (5,), partial=True)]
    transcript.add("s.\n", [6, 7], last=True)
    assert load(file) == TALK[:3]


def test_a_file_that_ends_anywhere_is_read_up_to_there(file: Path, tmp_path: Path) -> None:
    transcript = Transcript(file)
    transcript.save(TALK[:2])
    for number in range(4):
        transcript.add(f"w\u00f6rd {number} ", [number], last=number == 3)
    data, torn = file.read_bytes(), tmp_path / "torn.jsonl"
    for end in range(len(data) + 1):
        torn.write_bytes(data[:end])
        messages = load(torn)
        n_lines = data[:end].count(b"\n")
        n_parts = max(n_lines - 3, 0)
        assert [m.content for m in messages[:2]] == [m.content for m in TALK[: min(max(n_lines - 1, 0), 2)]]
        assert "".join(m.content for m in messages[2:]) == "".join(f"w\u00f6rd {i} " for i in range(n_parts))
        assert all(m.partial == (n_parts < 4) for m in messages[2:])


def test_writing_that_fails_leaves_what_was_there(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Transcript(file).save(TALK)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        Transcript(file).save(TALK[:1])
    assert load(file) == TALK and os.listdir(file.parent) == [file.name]


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("no json", id="no json"),
        pytest.param("[1]", id="a list"),
        pytest.param('{"role": "user"}', id="no content"),
        pytest.param('{"role": "robot", "content": "x"}', id="no such role"),
        pytest.param('{"role": "user", "content": 5}', id="a number"),
        pytest.param('{"role": "assistant", "content": "x", "tokens": ["x"]}', id="tokens that are none"),
        pytest.param("[" * 100_000, id="deep"),
    ],
)
def test_a_line_that_is_no_message(file: Path, line: str) -> None:
    Transcript(file).save(TALK[:2])
    with file.open("a") as end:
        end.write(f"{line}\n{json.dumps({'role': 'user', 'content': 'x'})}\n")
    with pytest.raises(ConfigError, match="one.jsonl line 4 .*/save"):
        load(file)


@pytest.mark.parametrize("text", ["notes\n", "{}\n", '{"cadcpp": "chat", "version": 99}\n', "\x00\xff\n"])
def test_a_file_of_somebody_else(tmp_path: Path, text: str) -> None:
    file = tmp_path / "notes"
    file.write_text(text, "utf-8")
    assert not is_transcript(file)
    with pytest.raises(ConfigError, match="line 1"):
        load(file)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none")


def test_text_that_is_no_text_is_kept_as_far_as_it_goes(file: Path) -> None:
    Transcript(file).save([Message("user", "caf\udce9")])
    assert load(file)[0].content == "caf?"
