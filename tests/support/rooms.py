"""The house as its imports draw it; `python -m tests.support.rooms` prints every room and what it imports."""

import ast
import sys
from functools import cache
from pathlib import Path

from bench.program import run_program

ROOT = Path(__file__).parents[2]
ROOMS = {  # from the ground up; a room imports only from rooms before it
    "cadcpp": (
        *("errors", "_version", "modes", "util", "schema", "telemetry", "gguf", "system", "link", "sampling", "tree"),
        *("config", "ngram", "policy", "residency", "native", "kv", "chat", "draft", "verify", "runtime", "models"),
        *("llama", "server", "cli"),
        "__main__",
    ),
    "bench": ("program", "measure", "baselines", "matrix", "report", "studies", "predict", "repeat", "run"),
}


@cache
def modules(package: str) -> dict[str, Path]:
    """Where each module of a package is."""
    paths = sorted((ROOT / package).rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


@cache
def imports(module: str) -> set[str]:
    """Every name that a module imports, inside functions too; `from a import b` counts as a and a.b."""
    found = set[str]()
    for node in ast.walk(ast.parse(modules(module.split(".")[0])[module].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.update([str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)])
    return found


def room(module: str) -> str:
    """The room of a module; empty for the package itself, which may import any."""
    return module.split(".")[1] if "." in module else ""


def arrows(package: str) -> dict[str, set[str]]:
    """For each room, from the ground up, the rooms that it imports from."""
    inside = modules(package)
    found: dict[str, set[str]] = {name: set() for name in ROOMS[package]}
    for module in filter(room, inside):
        used = {room(name) for name in imports(module) if name in inside}
        found[room(module)] |= used - {room(module), ""}
    return found


def upward(package: str) -> list[str]:
    """Imports that do not go down, such as ``tree -> native``."""
    floor = {name: i for i, name in enumerate(ROOMS[package])}
    return [f"{a} -> {b}" for a, used in arrows(package).items() for b in used if floor[b] > floor[a]]


def table(package: str) -> str:
    """A line for each room, the ground floor last."""
    inside, lines = modules(package), []
    for name, used in reversed(arrows(package).items()):
        mine = [module for module in inside if room(module) == name]
        n_lines = sum(len(inside[module].read_text("utf-8").splitlines()) for module in mine)
        order = sorted(used, key=ROOMS[package].index)
        lines.append(f"{name:<12}{len(mine):>3} modules {n_lines:>5} lines   {', '.join(order) or '-'}")
    n_arrows = sum(map(len, arrows(package).values()))
    return "\n".join([*lines, f"{len(lines)} rooms, {n_arrows} arrows, {len(upward(package))} of them up"])


def main() -> None:
    for name in sys.argv[1:] or ROOMS:
        print(f"{name}\n{table(name)}\n")


if __name__ == "__main__":
    run_program(main)
