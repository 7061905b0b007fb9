"""Who may import what."""

import ast
import graphlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "cadcpp"
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
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
    for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8"))):
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
