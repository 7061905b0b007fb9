"""What a contributor types: every target tells what it does, and every extra that a message names is there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
PROJECT = (ROOT / "pyproject.toml").read_text("utf-8")
EXTRAS = PROJECT.split("[project.optional-dependencies]")[1].split("\n[")[0]


@pytest.mark.parametrize("target", re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE))
def test_a_target_tells_what_it_does(target: str) -> None:
    assert re.search(rf"^{target}:.*  ## \w", MAKEFILE, re.MULTILINE), "`make help` would leave it out"


def test_the_first_target_is_help() -> None:
    assert re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE)[0] == "help"


def test_an_extra_that_a_command_asks_for_is_there() -> None:
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "cadcpp").rglob("*.py"))
    asked = {*re.findall(r"require\(\"(\w+)\"", sources), *re.findall(r"cadcpp\[(\w+)\]", sources)}
    assert asked >= {"chat", "models", "pull", "server"}
    assert asked <= set(re.findall(r"^(\w+) = \[", EXTRAS, re.MULTILINE))


@pytest.mark.parametrize(("options", "code"), [([], 1), (["--optional"], 0)])
def test_emulated_tests_say_so_where_they_cannot_run(options: list[str], code: int) -> None:
    command = [sys.executable, "-m", "tests.support.arm", *options]
    done = subprocess.run(command, env={**os.environ, "PATH": ""}, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code and not done.stderr
    assert re.fullmatch(r"not run: .*qemu.* not found \(apt install .*\)\n", done.stdout)
