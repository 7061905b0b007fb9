"""Who may import what."""

import ast
import graphlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def modules(package: str) -> dict[str, Path]:
    """Where each module of a package is."""
    paths = sorted((ROOT / package).rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


MODULES = modules("cadcpp")
BENCH = modules("bench")
BENCH_ROOMS = ("measure", "baselines", "matrix", "report", "studies", "predict", "repeat", "run")  # from the ground up
COMMANDS = [ROOT / "Makefile", *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "bench").glob("*.md")]
MAY_IMPORT = {
    "llama_cpp": ("cadcpp.native", "cadcpp.models", "cadcpp.llama", "cadcpp.server"),
    "ctypes": ("cadcpp.native", "cadcpp.gguf", "cadcpp.system", "cadcpp.models"),
    "click": ("cadcpp.cli",),
    "signal": ("cadcpp.cli", "cadcpp.models", "cadcpp.system.file_guard"),
    "threading": ("cadcpp.cli", "cadcpp.residency.prefetcher", "cadcpp.runtime.stages"),
    "fastapi": ("cadcpp.server",),
    "starlette": ("cadcpp.server",),
    "uvicorn": ("cadcpp.server",),
    "cadcpp.server": ("cadcpp.cli.serve", "cadcpp.server"),
    "cadcpp.cli": ("cadcpp.cli", "cadcpp.__main__"),
    "cadcpp.models": ("cadcpp.cli", "cadcpp.models"),
}


def imports(module: str) -> set[str]:
    """Every name that a module imports, inside functions too; `from a import b` counts as a and a.b."""
    found = set[str]()
    for node in ast.walk(ast.parse((MODULES | BENCH)[module].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.update([str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)])
    return found


@pytest.mark.parametrize("module", MODULES)
def test_a_library_is_imported_only_where_it_may_be(module: str) -> None:
    used = {name for name in MAY_IMPORT if any(f"{i}.".startswith(f"{name}.") for i in imports(module))}
    wrong = sorted(name for name in used if not module.startswith(MAY_IMPORT[name]))
    assert not wrong, f"{module} imports {wrong}"


def test_modules_import_only_downwards() -> None:
    graph = {module: imports(module) & set(MODULES) - {module} for module in MODULES}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the cycle


def bench_room(module: str) -> int:
    """Its floor, from the ground up; -1 for the house itself."""
    room = module.split(".")[1:2]
    return BENCH_ROOMS.index(room[0]) if room else -1


@pytest.mark.parametrize("module", BENCH)
def test_the_bench_imports_only_downwards(module: str) -> None:
    used = imports(module) & set(BENCH) - {"bench"}
    wrong = sorted(other for other in used if bench_room(other) > bench_room(module))
    assert not wrong, f"{module} imports {wrong}"


def test_the_bench_has_no_circle() -> None:
    graph = {module: imports(module) & set(BENCH) - {module} for module in BENCH}
    list(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("path", [*BENCH.values(), *COMMANDS], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_of_the_bench_that_is_named_exists(path: Path) -> None:
    """Commands are made of such names, and documents show them."""
    named = set(re.findall(r"\bbench(?:\.[a-z_]+)+", path.read_text("utf-8")))
    assert named <= set(BENCH), f"{path.name} names {sorted(named - set(BENCH))}"
