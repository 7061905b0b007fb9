"""Who may import what."""

import graphlib
import re
from pathlib import Path

import pytest

from tests.support.rooms import ROOMS, ROOT, imports, modules, room, table, upward

MODULES, BENCH = modules("cadcpp"), modules("bench")
COMMANDS = [ROOT / "Makefile", *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "bench").glob("*.md")]
MAY_IMPORT = {
    "llama_cpp": ("cadcpp.native", "cadcpp.models", "cadcpp.llama", "cadcpp.server"),
    "ctypes": ("cadcpp.native", "cadcpp.gguf", "cadcpp.system", "cadcpp.models"),
    "click": ("cadcpp.cli",),
    "signal": ("cadcpp.cli", "cadcpp.models", "cadcpp.system.file_guard"),
    "threading": (
        *("cadcpp.cli", "cadcpp.residency.prefetcher", "cadcpp.native.model", "cadcpp.runtime", "cadcpp.llama.serial"),
        *("cadcpp.llama.upstream", "cadcpp.link", "cadcpp.native.rpc_server", "cadcpp.gguf.ggml_base"),
    ),
    "starlette": ("cadcpp.server",),
    "uvicorn": ("cadcpp.server",),
    "cadcpp.server": ("cadcpp.cli.serve", "cadcpp.server"),
    "cadcpp.cli": ("cadcpp.cli", "cadcpp.__main__"),
    "cadcpp.models": ("cadcpp.cli", "cadcpp.models"),
}


@pytest.mark.parametrize("module", MODULES)
def test_a_library_is_imported_only_where_it_may_be(module: str) -> None:
    used = {name for name in MAY_IMPORT if any(f"{i}.".startswith(f"{name}.") for i in imports(module))}
    wrong = sorted(name for name in used if not module.startswith(MAY_IMPORT[name]))
    assert not wrong, f"{module} imports {wrong}"


@pytest.mark.parametrize("package", ROOMS)
def test_every_module_has_a_room(package: str) -> None:
    assert {room(module) for module in modules(package)} - {""} == set(ROOMS[package])


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_import_only_from_those_below(package: str) -> None:
    assert not upward(package)


@pytest.mark.parametrize("package", ROOMS)
def test_modules_have_no_circle(package: str) -> None:
    graph = {module: imports(module) & set(modules(package)) - {module} for module in modules(package)}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_an_import_that_goes_up_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROOMS, "cadcpp", tuple(reversed(ROOMS["cadcpp"])))
    assert "runtime -> native" in upward("cadcpp")


def test_the_picture_can_be_printed() -> None:
    lines = table("cadcpp").splitlines()
    assert lines[0].startswith("__main__") and lines[-1].endswith("0 of them up")


@pytest.mark.parametrize("path", [*BENCH.values(), *COMMANDS], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_of_the_bench_that_is_named_exists(path: Path) -> None:
    """Commands are made of such names, and documents show them."""
    named = set(re.findall(r"\bbench(?:\.[a-z_]+)+", path.read_text("utf-8")))
    assert named <= set(BENCH), f"{path.name} names {sorted(named - set(BENCH))}"
