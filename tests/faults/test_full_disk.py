"""Out of disk while something is saved: one line, what was there stays, and the reply goes on.

A limit on the size of files fails like a full disk, in the middle of a write, and needs no rights.
"""

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cadcpp.chat.transcript import Message, Transcript, load
from tests.support.command import COMMAND, ROOT
from tests.support.running import disturb

if sys.platform == "win32":
    pytest.skip("no such limit here", allow_module_level=True)

OPTIONS = ("--temp", 0, "--ctx", 512, "--threads", 1, "--speculative", "off")


@pytest.fixture(autouse=True)
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is covered could not be written down either, and would be one more complaint."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


def limit(n_bytes: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))


def test_a_transcript_without_room_ends_and_the_chat_does_not(sound: Path, tmp_path: Path, state: Path) -> None:
    saved = tmp_path / "saved.jsonl"
    Transcript(saved).save([Message("user", "before"), Message("assistant", "yes")])
    before = saved.read_bytes()
    stdin = "\n".join([*(f"question {i} " + "x" * 60 for i in range(3)), f"/save {saved}", "last"]) + "\n"
    arguments = ["chat", "-m", sound, *OPTIONS, "-n", 8, "--keep-cache"]
    ended = disturb(arguments, lambda _: None, seed=0, stdin=stdin, enter=limit(600))
    assert ended.code == 0 and ended.err.count("tokens,") == 4 and "Traceback" not in ended.err
    assert ended.err.count("this chat is no longer kept") == 1 and ended.err.count("name another file") == 1
    assert saved.read_bytes() == before
    (kept,) = (state / "cadcpp" / "chats").glob("*.jsonl")
    assert load(kept)[0].content.startswith("question 0") and not list(kept.parent.glob("*.new"))


def test_a_cache_without_room_is_not_kept(sound: Path, state: Path) -> None:
    arguments = ["chat", "-m", sound, *OPTIONS, "-n", 8, "--keep-cache"]
    ended = disturb(arguments, lambda _: None, seed=0, stdin="hello\n", enter=limit(8000))
    assert ended.code == 0 and "the next chat will read this one again" in ended.err
    assert [path.suffix for path in (state / "cadcpp" / "chats").iterdir()] == [".jsonl"]


def test_a_trace_without_room_ends_and_the_reply_does_not(sound: Path, tmp_path: Path) -> None:
    arguments = ["generate", "-m", sound, *OPTIONS, "-p", "hello", "-n", 20, "--trace", tmp_path / "trace.json"]
    free, full = (disturb(arguments, lambda _: None, seed=0, enter=enter) for enter in (None, limit(1000)))
    assert (full.code, full.out) == (0, free.out)
    assert full.err.count("ends early") == 1 and "Traceback" not in full.err


def test_an_ngram_model_without_room_leaves_the_old_one(sound: Path, tmp_path: Path) -> None:
    target = tmp_path / "model.ngram"
    target.write_bytes(b"old")
    command: list[str | Path] = [*COMMAND, "models", "make-ngram", "-m", sound, "-o", target, ROOT / "README.md"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, preexec_fn=limit(2000), timeout=100)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and "has room" in done.stderr
    assert target.read_bytes() == b"old" and list(tmp_path.iterdir()) == [target]
