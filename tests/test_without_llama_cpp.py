"""What only computes loads where llama.cpp cannot be found."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.rooms import ROOT, modules

ROOMS = ("util", "telemetry", "gguf", "system", "sampling", "tree", "config", "ngram", "policy", "residency")
PARTS = ("draft", "verify.accept", "chat", "runtime.stages", "runtime.detokenizer", "runtime.compute_threads")
NEEDS = {"cadcpp.draft.model_drafter", "cadcpp.draft.staged"}  # contexts of llama.cpp
PURE = [
    module
    for module in modules("cadcpp")
    if any(f"{module}.".startswith(f"cadcpp.{name}.") for name in ROOMS + PARTS) and module not in NEEDS
]
TESTS = [f"tests.pure.{path.stem}" for path in sorted((Path(__file__).parent / "pure").glob("test_*.py"))]

BLOCKED = """
import importlib, sys

class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "llama_cpp":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Nowhere())
for module in sys.argv[1:]:
    try:
        importlib.import_module(module)
    except ImportError:
        print(module)
"""


def failing(modules: list[str]) -> list[str]:
    """Those that cannot be imported without llama-cpp-python."""
    command = [sys.executable, "-c", BLOCKED, *modules]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_every_room_is_there() -> None:
    for name in ROOMS + PARTS:
        assert [module for module in PURE if f"{module}.".startswith(f"cadcpp.{name}.")], f"{name} has moved"


def test_what_only_computes_loads_without_llama_cpp() -> None:
    assert failing(PURE) == []


def test_what_make_test_fast_runs_needs_none() -> None:
    assert failing(TESTS) == []


@pytest.mark.parametrize("module", ["cadcpp.native.lib", *sorted(NEEDS)])
def test_what_calls_it_does_not(module: str) -> None:
    assert failing([module]) == [module]
