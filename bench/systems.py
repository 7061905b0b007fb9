"""The systems that the wall bench compares, as commands."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from bench import chain, record

PLAIN = "plain llama.cpp"
_PYTHON = [sys.executable, "-m"]


@dataclass(frozen=True, slots=True)
class System:
    """One way to write the same text."""

    name: str
    command: list[str]

    def parse(self, done: CompletedProcess[str]) -> dict[str, Any]:
        """Seconds a token after the first pass, tokens a pass, and what else the run told of itself."""
        if self.command[0] == str(chain.BINARY):
            return chain.parse(done.stdout + done.stderr)
        output = json.loads(done.stdout)
        if "stats" not in output:  # a baseline
            tokens = output["tokens"]
            return {"s_per_token": output["seconds_per_token"], "first_s": output["first_seconds"], "tokens": tokens}
        stats = output["stats"]
        return {
            "s_per_token": 1 / output["tokens_per_second"],
            "first_s": stats["load_seconds"] + output["prompt_seconds"],
            "decode_s": output["seconds"] - output["prompt_seconds"],
            "tokens": output["tokens"],
            "prompt_tokens": output["prompt_tokens"],
            "pass": stats["tokens_per_pass"],
            "stats": stats,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Tokens for slow and for fast systems, rows of a tree, and the group's memory in MiB."""

    n_plain: int
    n: int
    rows: int
    ram: int | None  # None: no limit
    draft: Path = field(default_factory=record.demo_draft)


def plain(prompt: str, sizes: Sizes) -> System:
    model = ["-m", str(record.demo_verifier()), "-p", prompt]
    return System(PLAIN, [*_PYTHON, "bench.plain", *model, "-n", str(sizes.n_plain)])


def cadcpp(prompt: str, sizes: Sizes, *more: str, name: str = "") -> System:
    ram = ["--ram", f"{sizes.ram}MiB"] if sizes.ram else []
    return System(
        name or f"cadcpp, {sizes.rows} rows",
        [*_PYTHON, "cadcpp", "generate", *_pair(prompt, sizes.draft), "--temp", "0", "--json", "--ctx", "2048"]
        + [*ram, "-n", str(sizes.n), "--rows", str(sizes.rows), *more],
    )


def others(prompt: str, sizes: Sizes) -> list[System]:
    """Speculation by others, on the same memory-mapped file."""
    verifier, draft = str(record.demo_verifier()), str(record.demo_draft())
    found = [
        System(
            "llama-cpp-python, prompt lookup",
            [*_PYTHON, "bench.lookup", "-m", verifier, "-p", prompt, "-n", str(sizes.n_plain)],
        )
    ]
    if chain.BINARY.exists():
        n = 3 * sizes.n_plain
        found.append(System("llama.cpp, chain of 8", chain.command(verifier, draft, prompt, n, 8)))
    else:
        print(f"left out: llama.cpp's chain speculation, not built ({chain.BINARY}); see `python -m bench.chain`")
    return found


def pieces(prompt: str, sizes: Sizes) -> list[System]:
    """cadcpp with one piece taken out."""
    return [without(piece, prompt, sizes) for piece in ("tree", "pinning", "stream", "lock")]


def without(piece: str, prompt: str, sizes: Sizes) -> System:
    n = {"tree": sizes.n_plain, "lock": sizes.n}.get(piece, sizes.n // 2)
    shared = [*_pair(prompt, sizes.draft), "--rows", str(sizes.rows), "--ram", str(sizes.ram), "-n", str(n)]
    return System(f"  without {piece}", [*_PYTHON, "bench.pieces", "--without", piece, *shared])


def _pair(prompt: str, draft: Path) -> list[str]:
    return ["-m", str(record.demo_verifier()), "-d", str(draft), "-p", prompt]
