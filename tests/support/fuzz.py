"""Opens damaged files in a process of its own, with little memory and little time, and tells what became of it."""

import contextlib
import faulthandler
import json
import os
import resource
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.support.command import ROOT
from tests.support.mutate import mutate

MEMORY = 512 << 20  # bytes of address space beyond what the libraries take
TIME_S = 20  # for one file; some milliseconds are usual


@dataclass
class Outcome:
    """What became of many damaged files."""

    results: Counter[str] = field(default_factory=Counter)  # refused, accepted, failed
    failures: dict[int, str] = field(default_factory=dict)  # by seed: whatever is neither
    accepted: list[int] = field(default_factory=list)
    peak_bytes: int = 0  # that a process grew by

    def __str__(self) -> str:
        kinds = ("refused", "refused-later", "accepted", "failed")
        counts = ", ".join(f"{self.results[kind]} {kind}" for kind in kinds)
        return f"{self.results.total()} mutations: {counts}; peak memory {self.peak_bytes / 1e6:.1f} MB"


def fuzz(door: str, source: Path, scratch: Path, seeds: Sequence[int]) -> Outcome:
    """Open ``source`` by a door, with the damage of every seed."""
    outcome, left = Outcome(), list(seeds)
    while left:
        done = _run(door, source, scratch, left, outcome)
        left = left[done:]
    return outcome


def _run(door: str, source: Path, scratch: Path, seeds: Sequence[int], outcome: Outcome) -> int:
    """Until all is done or the process ends; returns how many seeds need not be tried again."""
    command = [sys.executable, "-m", "tests.support.fuzz", door, str(source), str(scratch)]
    environment = {**os.environ, "GGML_NO_BACKTRACE": "1"}  # an abort would start a debugger
    done = subprocess.run(
        command, input=json.dumps(list(seeds)), capture_output=True, text=True, errors="replace",
        cwd=ROOT, env=environment,
    )  # fmt: skip
    n = 0
    for line in done.stdout.splitlines():
        kind, seed, what = line.split(" ", 2)
        n += 1
        outcome.results[kind] += 1
        if kind == "failed":
            outcome.failures[int(seed)] = what
        elif kind == "accepted":
            outcome.accepted.append(int(seed))
        outcome.peak_bytes = max(outcome.peak_bytes, int(what) if kind != "failed" else 0)
    if n < len(seeds):
        outcome.results["failed"] += 1
        outcome.failures[seeds[n]] = f"ended with {done.returncode}: {done.stderr.strip()[-600:]}"
        n += 1
    return n


# In the other process: what opens files. Each raises CadError, or returns. -----------------------------


def _header(path: Path, good: Path) -> None:
    """All that is told from a header, up to the plan; what llama.cpp would be handed is accepted."""
    from cadcpp.cli.options import default_ctx
    from cadcpp.gguf.header import read_header, read_token_types, read_vocabulary
    from cadcpp.gguf.summary import read_summary
    from cadcpp.gguf.validate import check_generative
    from cadcpp.gguf.vocabulary import fingerprint
    from cadcpp.residency.memory_plan import make_plan

    header = read_header(path)
    read_vocabulary(header), read_token_types(header), fingerprint(header), json.dumps(asdict(read_summary(header)))
    check_generative(header)
    default_ctx(path)
    for ram in (1 << 40, 100 << 20, 1 << 20):
        with contextlib.suppress(_config_error()):
            make_plan(header, read_header(good), ram=ram, n_ctx=2048, rows=64).to_dict()
            make_plan(read_header(good), header, ram=ram, n_ctx=2048, rows=64).to_dict()


def _config_error() -> type[Exception]:
    from cadcpp.errors import ConfigError

    return ConfigError


def _pair(path: Path, good: Path) -> None:
    from cadcpp.gguf.header import read_header
    from cadcpp.gguf.vocabulary import check_pair

    check_pair(read_header(good), read_header(path))


def _command(*arguments: str) -> Callable[[Path, Path], None]:
    """A command of cadcpp's, which tells of an error in one line."""

    def call(path: Path, good: Path) -> None:
        from click.testing import CliRunner

        from cadcpp.cli import main
        from cadcpp.errors import CadError

        result = CliRunner().invoke(main, [a.format(path=path, good=good) for a in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        if result.exit_code:
            lines = result.stderr.splitlines()
            assert len(lines) == 1 and lines[0].startswith("cadcpp: "), result.stderr
            raise CadError(lines[0])

    return call


def _tools(path: Path, good: Path) -> None:
    from cadcpp.models.edit.drop_layers import drop_layers
    from cadcpp.models.edit.narrow_ffn import narrow
    from cadcpp.models.edit.widen_ffn import Widenable

    with_new = path.with_name("new.gguf")
    widenable = Widenable(path)
    widenable.file_bytes_at(widenable.n_ff_within(1 << 20))
    widenable.write(with_new, widenable.n_ff + 256)
    narrow(path, with_new)
    drop_layers(path, with_new, [0])


def _quantize(path: Path, good: Path) -> None:
    from cadcpp.models.edit.quantize import requantize

    requantize(path, path.with_name("new.gguf"), "Q8_0")


def _load(path: Path, good: Path) -> None:
    """llama.cpp gets what is accepted: loads it, and decodes."""
    from cadcpp.chat.template import Template
    from cadcpp.native.model import Model

    model = Model(path, stub=True)
    try:
        tokens = model.tokenize("Once upon a time <s>")
        model.end_tokens(), model.detokenize(range(model.n_vocab), special=True)
        if model.chat_template:
            Template(model).render([{"role": "user", "content": "Hi"}])
        _decode(model, tokens[:8])
    finally:
        model.close()


def _load_draft(path: Path, good: Path) -> None:
    from cadcpp.native.model import Model

    model = Model(path, vocabulary=False, repacked=True)
    try:
        _decode(model, [1, 40, 50])
    finally:
        model.close()


def _decode(model: Any, tokens: list[int]) -> None:
    from cadcpp.native.context import Context
    from cadcpp.residency.context_shape import ContextShape

    shape = ContextShape(n_cells=256, n_batch=16, n_outputs=2, n_seq=2)
    with contextlib.closing(Context(model, shape, 1)) as context:
        for position, token in enumerate(tokens):
            context.batch.add([token], position, 0, 1, True)
            context.decode()
            context.batch.clear()


DOORS: dict[str, Callable[[Path, Path], None]] = {
    "header": _header,
    "pair": _pair,
    "inspect": _command("models", "inspect", "{path}"),
    "plan": _command("plan", "-m", "{path}", "-d", "{good}", "--disk-speed", "1GB"),
    "plan for a draft": _command("plan", "-m", "{good}", "-d", "{path}", "--disk-speed", "1GB"),
    "check": _command("models", "check", "{good}", "{path}"),
    "tools": _tools,
    "quantize": _quantize,
    "load": _load,
    "load a draft": _load_draft,
}


def _limit_memory() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _try(open_file: Callable[[Path, Path], None], path: Path, good: Path) -> Iterator[tuple[str, Any]]:
    from cadcpp.errors import CadError, NativeError

    try:
        open_file(path, good)
        yield "accepted", ""
    except CadError as error:
        text = str(error)
        by_llama = isinstance(error, NativeError) or "llama.cpp cannot load" in text
        one_line = len(text.splitlines()) == 1 and len(text) < 2000
        yield ("refused-later" if by_llama else "refused", "") if one_line else ("failed", f"{text[:300]!r}")
    except Exception as error:
        import traceback

        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}, {where.name}"
        yield "failed", f"{error!r} in {place}".replace("\n", " ")[:500]


def main() -> None:
    door, source, scratch = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    good, path = source.read_bytes(), scratch / "damaged.gguf"
    with contextlib.suppress(Exception):
        DOORS[door](source, source)  # whatever is loaded at the first use
    _limit_memory()
    before = _peak()
    for seed in json.loads(sys.stdin.read()):
        path.write_bytes(mutate(good, seed))
        faulthandler.dump_traceback_later(TIME_S, exit=True)
        ((kind, what),) = _try(DOORS[door], path, source)
        print(kind, seed, what if kind == "failed" else _peak() - before, flush=True)
    faulthandler.cancel_dump_traceback_later()
    shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
