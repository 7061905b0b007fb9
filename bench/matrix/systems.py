"""The systems that are compared, as commands, and what is read from their output."""

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from bench.baselines import llama_speculative
from bench.matrix import models

PLAIN, SAME, LOOKUP, CHAIN, OURS = "plain", "same", "lookup", "chain8", "cadcpp"
OTHERS = (PLAIN, SAME, LOOKUP, CHAIN)
NAMES = {
    PLAIN: "plain llama.cpp",
    SAME: "llama.cpp, same settings",
    LOOKUP: "llama-cpp-python, prompt lookup",
    CHAIN: "llama.cpp, chain of 8",
    OURS: "cadcpp",
    "draft": "cadcpp, draft model alone",
    "off": "cadcpp, plain decoding",
    "ngram": "cadcpp, no draft model, 512 tokens",
    "agree": "cadcpp, one token drafted",
    "tree": "tree",
    "stages": "tree, two stages",
    "first": "cadcpp",
    "first-plain": "plain llama.cpp",
    "kernel": "trees of 64 rows, paging left to the kernel",
    "turns-steady": "+ pinning and streaming",
    "turns-llmcad": "+ fallback of LLMCad",
    "turns": "+ the cost model in its place",
    "llmcad": "cadcpp, fallback of LLMCad",
}
_MEMORY = {
    "upstream": "llama_cpp.Llama",
    "lookup": "llama_cpp.Llama, prompt lookup",
    "ngram": "cadcpp.Llama",
    "draft": "cadcpp.Llama with a draft",
}
STEADY = ("--fallback", "none")  # trees of one size
TURNS = ("--no-pipeline",)
OPTIONS: dict[str, tuple[str, ...]] = {  # of `cadcpp generate`, by the kind of a cell
    OURS: (),
    "draft": ("--speculative", "draft"),
    "off": ("--speculative", "off"),
    "ngram": ("--speculative", "ngram", "--ctx", "512"),
    "llmcad": ("--fallback", "llmcad"),
    "kernel": ("--no-pager", *TURNS, *STEADY),
    "turns-steady": (*TURNS, *STEADY),
    "turns-llmcad": (*TURNS, "--fallback", "llmcad"),
    "turns": TURNS,
    "agree": ("--speculative", "draft", "--max-tree-size", "2", *STEADY),
    "tree": ("--speculative", "draft", *STEADY),
    "stages": ("--speculative", "staged", *STEADY),
    "first": (),
}
SAMPLINGS = {
    "greedy": ("--temp", "0"),
    "T0.8": ("--temp", "0.8", "--seed", "1"),
    "top-k": ("--temp", "1", "--top-k", "50", "--top-p", "1", "--min-p", "0", "--seed", "1"),
}
_PYTHON = [sys.executable, "-m"]
_BASELINES = {
    PLAIN: ("bench.baselines.plain",),
    SAME: ("bench.baselines.plain", "--same-settings"),
    LOOKUP: ("bench.baselines.prompt_lookup",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is to be written, with which models, in how much memory."""

    prompt: str
    n: int  # tokens
    ctx: int
    ram: int | None  # MiB; None: no limit
    draft: Path
    verifier: Path
    sampling: str = "greedy"


def command(kind: str, task: Task) -> list[str]:
    """How a kind of cell is run: one of ``OPTIONS``, another system, "rows-N", "without-PIECE", "chain-N", ..."""
    name, _, rest = kind.partition("-")
    verifier, text = ["-m", str(task.verifier)], ["-p", task.prompt, "-n", str(task.n)]
    pair = [*verifier, "-d", str(task.draft)]
    ram = [str(task.ram)] if task.ram else []
    if (baseline := kind.removeprefix("first-")) in _BASELINES:
        return [*_PYTHON, *_BASELINES[baseline], *verifier, *text, "--ctx", str(task.ctx)]
    if kind == CHAIN:
        return llama_speculative.command(str(task.verifier), str(task.draft), task.prompt, task.n, 8, task.ctx)
    if name == "memory":
        return [*_PYTHON, "bench.studies.dropin_memory", "--one", rest]
    if name == "profile":
        return [*_PYTHON, "bench.studies.round_profile", "--json", "--rounds", "16", "--rows", rest]
    if name in ("without", "chain"):
        piece = ["--rows", str(int(rest) + 1), "--without", "branches"] if name == "chain" else ["--without", rest]
        budget = ["--ram", *ram] if ram else []
        return [*_PYTHON, "bench.matrix.ablations", *pair, *text, "--sampling", task.sampling, *budget, *piece]
    options = ("--max-tree-size", rest, *STEADY) if name == "rows" else OPTIONS[kind]
    budget = ["--ram", f"{task.ram}MiB"] if task.ram else []
    models_of = verifier if kind in ("off", "ngram") else pair
    shared = [*models_of, *text, "--ctx", str(task.ctx), *budget, *SAMPLINGS[task.sampling], "--json"]
    return [*_PYTHON, "cadcpp", "generate", *shared, *options]


def is_steady(kind: str, in_memory: bool) -> bool:
    """Whether the counts of such a cell are the same in every run, because no clock decides on trees."""
    if kind in (*OTHERS, "off", "first-plain"):
        return True
    name = kind.partition("-")[0]
    if name in ("rows", "agree", "tree", "stages"):
        return in_memory  # with a memory limit the draft goes on while the disk is slow
    return name == "chain" or kind in ("kernel", "turns-steady")


def parse(done: CompletedProcess[str]) -> dict[str, Any]:
    """What a run told of itself; raises ValueError or KeyError if it told nothing."""
    if done.args[0] == str(llama_speculative.BINARY):
        figures = llama_speculative.parse(done.stdout + done.stderr)
        return {"n": figures["n"], "s_per_token": figures["s_per_token"], "counts": {"pass": round(figures["pass"], 3)}}
    output = json.loads(done.stdout)
    if "tokens" not in output:  # figures of another kind
        return dict(output)
    tokens = output["tokens"]
    text = {"n": len(tokens), "text": digest(tokens), "tokens": tokens, "prompt_tokens": output["prompt_tokens"]}
    figures = _ours(output) if "stats" in output else _baseline(output)
    of_rest = ("s_per_token", "cpu_per_token", "read_per_token", "read_per_pass")  # a single token leaves none
    return text | {key: figures[key] for key in figures if len(tokens) > 1 or key not in of_rest}


def digest(tokens: list[int]) -> str:
    return hashlib.sha256(json.dumps(tokens).encode()).hexdigest()[:12]


def _baseline(output: dict[str, Any]) -> dict[str, Any]:
    return {
        "s_per_token": output["seconds_per_token"],
        "first_s": output["first_seconds"],
        "load_s": output["load_seconds"],
        "cpu_per_token": output["cpu_seconds_per_token"],
        "read_per_token": output["read_bytes_per_token"],
        "read_per_pass": output["read_bytes_per_token"],
    }


def _ours(output: dict[str, Any]) -> dict[str, Any]:
    stats, n = output["stats"], max(len(output["tokens"]), 1)
    passes = max(stats["passes"], 1)
    later = max(passes - 1, 1)  # the first one reads the prompt, and with it what stays in memory
    read = max(stats["read_bytes"] - stats["prompt_read_bytes"], 0) / later
    counts = {key: stats[key] for key in ("passes", "accepted", "draft_decodes", "streamed_bytes_per_pass")}
    return {
        "s_per_token": 1 / output["tokens_per_second"] if output["tokens_per_second"] else 0.0,
        "first_s": stats["load_seconds"] + output["prompt_seconds"],
        "load_s": stats["load_seconds"],
        "prompt_s": output["prompt_seconds"],
        "cpu_per_token": output["cpu_seconds_per_token"],
        "read_per_token": int(read * passes / n),
        "read_per_pass": int(read),
        "round_s": (output["seconds"] - output["prompt_seconds"]) / later,
        "draft_s": stats["draft_seconds"] / passes,
        "stall_s": stats["stall_seconds"] / passes,
        "hit_rate": stats["expert_hit_rate"],
        "counts": {"pass": stats["tokens_per_pass"], "rows": stats["drafted"] + passes, **counts},
    }


def name_of(kind: str) -> str:
    """For tables."""
    name, _, rest = kind.partition("-")
    made = {
        "rows": f"{rest} rows, always",
        "without": f"cadcpp without {rest}",
        "chain": f"chain of {rest}",
        "memory": _MEMORY.get(rest, rest),
        "profile": f"rounds of {rest} rows",
    }
    return NAMES.get(kind) or made.get(name, kind)


def models_of(kind: str, task: Task) -> list[Path]:
    """Files that must be there."""
    return (
        [models.verifier(), models.draft()] if kind.startswith(("memory", "profile")) else [task.verifier, task.draft]
    )
