"""A model's file that is cut, overwritten, deleted or replaced while in use: never a wrong token, never SIGBUS."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cadcpp.chat.transcript import load
from tests.support.command import ROOT, run
from tests.support.running import Ended, disturb

if sys.platform != "linux":
    pytest.skip("files are mapped in another way", allow_module_level=True)

OPTIONS = ("--temp", 0, "--ctx", 512, "--threads", 1, "--speculative", "off")
QUESTIONS = [f"question {number}" for number in range(4)]


def cut(path: Path, rng: random.Random) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size))


def overwrite(path: Path, rng: random.Random) -> None:
    with path.open("r+b") as file:
        file.seek(rng.randrange(1 << 20, path.stat().st_size))
        file.write(rng.randbytes(1 << 16))


def delete(path: Path, _rng: random.Random) -> None:
    path.unlink()


def replace(path: Path, rng: random.Random) -> None:
    path.with_suffix(".new").write_bytes(rng.randbytes(1 << 16))
    path.with_suffix(".new").replace(path)


def generate(model: Path, where: list[object], seed: int, damage: Callable[[Path, random.Random], None]) -> Ended:
    arguments = ["generate", "-m", model, *OPTIONS, *where, "-p", "hello there", "-n", 120]
    return disturb(arguments, lambda _: damage(model, random.Random(seed)), seed=seed)


@pytest.fixture(scope="session")
def text(sound: Path) -> bytes:
    """What the sound model writes."""
    return disturb(
        ["generate", "-m", sound, *OPTIONS, "-p", "hello there", "-n", 120], lambda _: None, seed=0, within_s=0
    ).out


@pytest.fixture(params=["in memory", "streamed", pytest.param("paged by the kernel", marks=pytest.mark.slow)])
def where(request: pytest.FixtureRequest, half: int) -> list[object]:
    ram: list[object] = ["--ram", f"{half}B"]
    places = {"in memory": [], "streamed": ram, "paged by the kernel": [*ram, "--no-pager"]}
    return places[request.param]


SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 12))]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("damage", [cut, pytest.param(overwrite, marks=pytest.mark.slow)])
def test_a_damaged_file_ends_the_text_in_one_line(
    model: Path, where: list[object], text: bytes, seed: int, damage: Callable[[Path, random.Random], None]
) -> None:
    ended = generate(model, where, seed, damage)
    assert ended.code == 1 and text.startswith(ended.out)
    assert len(ended.err.splitlines()) == 1 and "put it back and start again" in ended.err


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("damage", [delete, pytest.param(replace, marks=pytest.mark.slow)])
def test_a_deleted_or_replaced_file_stays_what_it_was(
    model: Path, where: list[object], text: bytes, seed: int, damage: Callable[[Path, random.Random], None]
) -> None:
    ended = generate(model, where, seed, damage)
    assert ended.code == 0 and ended.out == text


@pytest.mark.parametrize("seed", SEEDS)
def test_a_chat_outlives_its_model(
    sound: Path, model: Path, where: list[object], state: Path, tmp_path: Path, seed: int
) -> None:
    """It says what is wrong, takes commands, and --continue goes on with all that was seen."""
    arguments = ["chat", "-m", model, *OPTIONS, *where, "-n", 20]
    kept = tmp_path / "kept.jsonl"
    before, after = ("\n".join(lines) + "\n" for lines in (QUESTIONS, ["one more", f"/save {kept}", "/quit"]))

    def harm(process: "subprocess.Popen[bytes]") -> None:
        cut(model, random.Random(seed))
        assert process.stdin is not None
        process.stdin.write(after.encode())  # a fast chat may have answered everything before
        process.stdin.flush()

    ended = disturb(arguments, harm, seed=seed, within_s=0.4, stdin=before)
    assert ended.code == 0 and "put it back and start again" in ended.err and "Traceback" not in ended.err
    messages = load(kept)
    assert "".join(m.content.rstrip("\n") + "\n" for m in messages[1::2]).encode() == ended.out
    shutil.copy(sound, model)
    again = run("chat", "-m", model, *OPTIONS, *where, "-n", 4, "--continue", stdin=b"more\n")
    assert again.returncode == 0 and "goes on with" in again.stderr


CUT_IN_MID_PASS = """
import os, sys
from cadcpp.errors import ModelError
from cadcpp.native.context import Context
from cadcpp.residency.context_shape import ContextShape
from cadcpp.native.model import Model

model = Model(sys.argv[1])
context = Context(model, ContextShape(n_cells=256, n_batch=8, n_outputs=8, n_seq=1), 2)
check, seen = model.check, []

def cut_after_the_check():
    check()
    os.truncate(sys.argv[1], 1 << 20)

model.check = lambda: seen.append(1) or (cut_after_the_check() if len(seen) == 1 else check())
for _ in range(2):
    context.batch.clear()
    context.batch.add(list(range(100, 108)), 0, 0, 1, True)
    try:
        context.decode()
    except ModelError as error:
        print(len(seen), str(error).split(" ", 1)[1])
"""


def test_a_file_cut_in_mid_pass_is_an_error_after_it(model: Path) -> None:
    """The pass meets SIGBUS for certain: it begins right after the check, and nothing is read before."""
    command = [sys.executable, "-c", CUT_IN_MID_PASS, str(model)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=100)
    words = "was cut or changed while it was in use: put it back and start again"
    assert (done.returncode, done.stdout) == (0, f"2 {words}\n3 {words}\n"), done.stderr
