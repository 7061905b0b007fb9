"""Signals at random moments of a reply: the exit code tells which, nothing is lost, and no traceback is shown."""

import os
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from cadcpp.chat.transcript import load
from tests.support.command import ROOT
from tests.support.running import disturb, sends
from tests.support.terminal import Terminal

if sys.platform == "win32":
    pytest.skip("no such signals here", allow_module_level=True)

OPTIONS = ("--temp", 0, "--ctx", 512, "--threads", 1, "--speculative", "off")
FATAL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 12))]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("number", FATAL)
def test_a_signal_ends_generate_with_its_code(sound: Path, half: int, number: signal.Signals, seed: int) -> None:
    arguments = ["generate", "-m", sound, *OPTIONS, "--ram", f"{half}B", "-p", "hello there", "-n", 450]
    ended = disturb(arguments, sends(number), seed=seed, within_s=0.5)
    assert (ended.code, ended.err) == (128 + number, "\n" if number == signal.SIGINT else "")


@pytest.mark.parametrize("command", ["chat", "generate"])
def test_ctrl_c_while_it_is_ending_changes_nothing(sound: Path, command: str) -> None:
    ended = flooded("usual", command, sound)
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (130, "") and "Traceback" not in ended.stderr


@pytest.mark.parametrize("command", ["chat", "generate"])
def test_ctrl_c_while_python_is_ending_would_change_something(sound: Path, command: str) -> None:
    assert flooded("default", command, sound).returncode != 130


def flooded(how: str, command: str, model: Path) -> "subprocess.CompletedProcess[str]":
    """A command that gets Ctrl-C in its reply, and again before every line that is still run."""
    arguments = [command, "-m", str(model), *map(str, OPTIONS), *(["-p", "hello"] if command == "generate" else [])]
    return subprocess.run(
        [sys.executable, "-m", "tests.support.flood", how, *arguments],
        input="hello\n" * 3,
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("number", FATAL[1:])
def test_a_signal_ends_a_chat_and_its_transcript_has_all_that_was_seen(
    sound: Path, state: Path, number: signal.Signals, seed: int
) -> None:
    stdin = "".join(f"question {i}\n" for i in range(50))
    arguments = ["chat", "-m", sound, *OPTIONS, "-n", 30]
    ended = disturb(arguments, sends(number), seed=seed, within_s=0.5, stdin=stdin)
    assert ended.code == 128 + number and "Traceback" not in ended.err
    (kept,) = (state / "cadcpp" / "chats").glob("*.jsonl")
    text = "".join(m.content.rstrip("\n") + "\n" for m in load(kept)[1::2]).encode()
    assert text.startswith(ended.out.rstrip(b"\n"))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_stopped_reply_goes_on(sound: Path, seed: int) -> None:
    arguments = ["generate", "-m", sound, *OPTIONS, "-p", "hello there", "-n", 100]

    def stop(process: "subprocess.Popen[bytes]") -> None:
        sends(signal.SIGTSTP)(process)
        time.sleep(0.2)
        sends(signal.SIGCONT)(process)

    stopped, free = (disturb(arguments, fault, seed=seed) for fault in (stop, lambda _: None))
    assert (stopped.code, stopped.out) == (0, free.out)


@pytest.mark.parametrize("number", FATAL[1:])
def test_a_signal_at_the_prompt_leaves_the_terminal_as_it_was(number: signal.Signals) -> None:
    terminal = Terminal([sys.executable, "-m", "tests.support.fakechat", "slow"])
    try:
        before = termios.tcgetattr(terminal._inner)
        terminal.read_until("> ")
        assert termios.tcgetattr(terminal._inner) != before  # line editing
        os.kill(terminal._process.pid, number)
        terminal.press_until_it_ends("")
        assert terminal.wait() == 128 + number and termios.tcgetattr(terminal._inner) == before
        assert b"Traceback" not in terminal.raw
    finally:
        terminal.close()
