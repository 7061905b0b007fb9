"""A chat that is killed at any moment: the transcript holds every finished turn, and what was seen of the last."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from cadcpp.chat.transcript import load
from cadcpp.cli import main
from tests.support.command import ROOT
from tests.support.fakechat import WORDS, FakeSession, replace_session, say

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL here")

REPLY = " ".join(WORDS) + " ."
QUESTIONS = [f"question {number}" for number in range(500)]


@pytest.mark.parametrize("number", [*range(3), *(pytest.param(i, marks=pytest.mark.slow) for i in range(3, 50))])
def test_a_killed_chat_goes_on(number: int, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = kill_after(random.Random(number).uniform(0, 0.4)).removesuffix("\n").split("\n")
    (file,) = (state / "cadcpp" / "chats").glob("*.jsonl")
    messages = load(file)
    asked, replies = messages[::2], messages[1::2]
    assert [m.content for m in asked] == QUESTIONS[: len(asked)]
    for message in replies[:-1]:
        assert (message.content, message.partial) == (REPLY, False)
    last = replies[-1]
    assert REPLY.startswith(last.content) and last.partial == (last.content != REPLY)
    assert len(shown) <= len(replies) and all(m.content.startswith(s) for m, s in zip(replies, shown, strict=False))

    session = FakeSession([say("Welcome back.")])
    replace_session(session, monkeypatch.setattr)
    result = CliRunner().invoke(main, ["chat", "-m", "fake.gguf", "--continue"], input="Still there?\n")
    assert result.stdout == "Welcome back.\n"
    assert ("cut off" in result.stderr) == last.partial
    told = "".join(f"<u>{a.content}</><a>{b.content}</>" for a, b in zip(asked, replies, strict=True))
    assert session.prompts == [f"{told}<u>Still there?</><a>"]


def kill_after(seconds: float) -> str:
    """What a chat had shown ``seconds`` after its first word, when it was killed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.fakechat", "slow"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        bufsize=0,
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("".join(f"{question}\n" for question in QUESTIONS).encode())
    first = process.stdout.read(1)
    time.sleep(seconds)
    process.kill()
    rest, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL
    return (first + rest).decode()
