"""Commands in made environments: each goes on with what there is, and what is lost is said in one line."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import faultydisk
from tests.support.command import ROOT, run
from tests.support.environments import (
    Environment,
    one_core_s_quota,
    powerless_root,
    read_only,
    remove_quota,
    small_files,
    unknown_user,
    why_no_quota,
    why_not,
)
from tests.support.faultydisk import faulty_disk

OPTIONS = ("--temp", 0, "--ctx", 512, "--threads", 1, "--speculative", "off", "-p", "hello", "-n", 12, "--json")
Written = dict[str, object]


@pytest.fixture(scope="module")
def plainly(sound: Path) -> list[int]:
    """What is written where all is in memory."""
    return written(run("generate", "-m", sound, *OPTIONS))[0]


@pytest.fixture
def quota() -> Iterator[Environment]:
    if reason := why_no_quota():
        pytest.skip(reason)
    name = f"cadcpp-test-{os.getpid()}"
    yield one_core_s_quota(name)
    remove_quota(name)


@pytest.fixture
def place(sound: Path, tmp_path: Path) -> Iterator[Path]:
    """A folder with a link to a model on a mount without shared mappings."""
    if reason := faultydisk.why_not():
        pytest.skip(reason)
    with faulty_disk(sound, tmp_path / "disk", direct=True):
        (tmp_path / "models").mkdir()
        (tmp_path / "models" / "model.gguf").symlink_to(tmp_path / "disk" / "model.gguf")
        yield tmp_path / "models"


def made(make: Callable[[], Environment]) -> Environment:
    environment = make()
    if reason := why_not(environment):
        pytest.skip(reason)
    return environment


def written(done: "subprocess.CompletedProcess[str]") -> tuple[list[int], dict[str, object]]:
    """Tokens and statistics of a text."""
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    return record["tokens"], record["stats"]


def looked(environment: Environment, models: Path) -> list[str]:
    """What the doctor says, but for remedies; never a traceback."""
    done = environment.run("doctor", "--dir", models)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return [line for line in done.stdout.splitlines() if not line.startswith(" ")]


def only(lines: list[str], word: str) -> str:
    (line,) = (line for line in lines if word in line)
    return line


@pytest.mark.parametrize("make", [read_only, unknown_user, powerless_root])
def test_weights_are_streamed_all_the_same(
    sound: Path, half: int, plainly: list[int], make: Callable[[], Environment]
) -> None:
    done = made(make).run("generate", "-m", sound, *OPTIONS, "--ram", f"{half}B")
    tokens, stats = written(done)
    assert tokens == plainly and done.stderr == ""
    assert stats["streamed_bytes_per_pass"] and stats["streaming_limited"] == ""


def test_files_that_may_not_be_as_large_as_the_model_are_read_whole_and_streamed_then(
    sound: Path, half: int, plainly: list[int]
) -> None:
    done = small_files(1 << 16).run("generate", "-m", sound, *OPTIONS, "--exact", "off", "--ram", f"{half}B")
    tokens, stats = written(done)
    assert tokens == plainly and stats["streamed_bytes_per_pass"]
    (line,) = done.stderr.splitlines()
    assert line.startswith("cadcpp: loading reads all weights: no place takes") and "memory: File too large" in line
    assert line == f"cadcpp: {stats['streaming_limited']}"


def test_a_mount_and_a_limit_that_leave_no_way_to_stream_are_one_line(place: Path, half: int) -> None:
    arguments = ("-m", place / "model.gguf", *OPTIONS, "--exact", "off", "--ram", f"{half}B")
    done = small_files(1 << 16).run("generate", *arguments)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and line.startswith("cadcpp: weights cannot be streamed: no place takes")
    assert f"{place.parent / 'disk'} has no shared mappings: copy" in line


def test_what_is_lost_is_planned_and_found(sound: Path, half: int) -> None:
    small = small_files(1 << 16)
    plan = json.loads(small.run("plan", "-m", sound, "--ctx", 512, "--ram", f"{half}B", "--json").stdout)
    assert plan["streaming_limited"].startswith("loading reads all weights: ")
    lines = looked(small, sound.parent)
    assert only(lines, "loading reads").startswith("slow   loading reads all weights: no place takes 1 MiB")


def test_the_doctor_on_a_read_only_system(sound: Path) -> None:
    lines = looked(made(read_only), sound.parent)
    assert only(lines, "loading reads").startswith("ok     loading reads no more than")
    assert only(lines, "reports its layers").startswith("ok ")


def test_the_doctor_and_an_unknown_user_without_a_home(sound: Path) -> None:
    lines = looked(made(unknown_user), sound.parent)
    assert only(lines, "home directory").startswith("note   there is no home directory: chats are not kept")


def test_the_doctor_and_root_that_may_not_lock_memory(sound: Path, half: int) -> None:
    root = made(powerless_root)
    assert only(looked(root, sound.parent), "locked").startswith("note   65.5 kB may be locked in memory")
    plan = json.loads(root.run("plan", "-m", sound, "--ctx", 512, "--ram", f"{half}B", "--json").stdout)
    assert plan["lockable"] == 65536


def test_the_doctor_under_a_quota(sound: Path, quota: Environment) -> None:
    line = only(looked(quota, sound.parent), "by default")
    assert line.startswith("ok     1 thread by default: ") and ("quota is 1 of" in line or "one per core" in line)


def test_the_doctor_and_a_mount_without_shared_mappings(place: Path) -> None:
    line = only(looked(Environment(), place), "mappings")
    assert line == (
        f"note   {place.parent / 'disk'} has no shared mappings: what fits is read into memory, what is streamed is "
        "mapped privately"
    )


@pytest.mark.parametrize("room", ["half", "whole"])
@pytest.mark.parametrize("pager", [(), ("--no-pager",)], ids=["paged", "--no-pager"])
def test_a_mount_without_shared_mappings_gives_the_same_text(
    place: Path, half: int, plainly: list[int], room: str, pager: tuple[str, ...]
) -> None:
    ram = ("--ram", f"{half}B") if room == "half" else ()
    done = run("generate", "-m", place / "model.gguf", *OPTIONS, *ram, *pager)
    tokens, stats = written(done)
    assert tokens == plainly and done.stderr == ""
    assert bool(stats["streamed_bytes_per_pass"]) == (room == "half" and not pager)


@pytest.mark.parametrize("use_mmap", [True, False])
def test_the_class_on_a_mount_without_shared_mappings(place: Path, plainly: list[int], use_mmap: bool) -> None:
    code = (
        "import sys; from cadcpp import Llama\n"
        f"llama = Llama(sys.argv[1], n_ctx=512, n_threads=1, use_mmap={use_mmap}, speculative='off', verbose=False)\n"
        "tokens = llama.generate(llama.tokenize(b'hello'), temp=0.0, repeat_penalty=1.0)\n"
        "print([next(tokens) for _ in range(12)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(place / "model.gguf")], capture_output=True, text=True, cwd=ROOT, timeout=100
    )
    assert done.returncode == 0 and json.loads(done.stdout) == plainly, done.stderr


def test_a_chat_of_an_unknown_user_goes_on_and_is_not_kept(sound: Path) -> None:
    stdin = "hello\n/save ~54321/x\n/load ~nobody-at-all/x\n/read ~nobody-at-all/x\nagain\n"
    options = ("--temp", 0, "--ctx", 512, "--threads", 1, "--speculative", "off", "-n", 4)
    done = made(unknown_user).run("chat", "-m", sound, *options, stdin=stdin)
    lines = done.stderr.splitlines()
    assert done.returncode == 0 and done.stderr.count("tokens,") == 2
    assert lines[0] == ("cadcpp: this chat is not kept: there is no home directory: set HOME or XDG_STATE_HOME")
    assert done.stderr.count("has no home directory: name the file by its whole path") == 3
