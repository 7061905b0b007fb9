"""One measurement: a place, a workload, a system; a record out of a fresh process that starts cold.

    python -m bench.repeat ID        repeat a cell of the report and print its record

A place is a memory budget and a disk speed. Its walls need root; in memory no rights are needed, and without them
nothing counts what is read.
"""

import resource
import subprocess
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench.baselines import llama_speculative
from bench.matrix import models
from bench.matrix.systems import CHAIN, Task, command, is_steady, models_of, name_of, parse
from bench.matrix.workloads import CASES, COPIES, in_template, long_prompt
from bench.measure import record
from bench.measure.energy import Meter
from bench.measure.machine_speed import machine_speed
from bench.measure.memory_wall import Limits, why_not
from bench.measure.neighbours import beside

MIB = 1 << 20
_TIMEOUT_S = 1200.0  # 8192 tokens of context take more than 400 s to read
_PREFILL_TOKENS_S = 32  # that a slow computer reads of a long prompt, a second
_ANSWER = 96  # tokens of a full context that are left for the template and the answer
_HIDDEN = 400  # characters of a prompt that a record does not repeat


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Memory for everything in MiB, and the disk's speed in MiB/s; None is no limit."""

    ram: int | None = None
    disk: int | None = None

    @property
    def key(self) -> str:
        return (f"{self.ram}MiB" if self.ram else "memory") + (f"@{self.disk}" if self.disk else "")

    @property
    def limits(self) -> Limits:
        return Limits(self.ram * MIB if self.ram else None, self.disk * MIB if self.disk else None)

    @property
    def disk_name(self) -> str:
        return f"{self.disk} MiB/s" if self.disk else "as is"

    def __str__(self) -> str:
        if self.ram is None:
            return "in memory"
        return f"{self.ram} MiB, disk {'at ' if self.disk else ''}{self.disk_name}"


MEMORY = Place()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What is measured. Two cells of one id are the same."""

    place: Place
    workload: str  # a case, or "context-N"
    kind: str  # of bench.matrix.systems
    n: int  # tokens at most
    draft: str = models.USUAL_DRAFT
    size: str = models.USUAL_SIZE  # of the verifier, or its weight type
    sampling: str = "greedy"
    beside: str = ""  # what else runs, of bench.measure.neighbours
    repeats: int = 1

    @property
    def id(self) -> str:
        usual = {self.draft: models.USUAL_DRAFT, self.size: models.USUAL_SIZE, self.sampling: "greedy", self.beside: ""}
        return "/".join([self.place.key, self.workload, self.kind, *(k for k, v in usual.items() if k != v)])

    @property
    def name(self) -> str:
        return name_of(self.kind) + "".join(f", {x}" for x in self.id.split("/")[3:])

    @property
    def steady(self) -> bool:
        return is_steady(self.kind, self.place == MEMORY)

    @property
    def n_context(self) -> int:
        """Tokens of a full context; 0 for other workloads."""
        return int(self.workload.partition("-")[2] or 0) if self.workload.startswith("context-") else 0

    @property
    def least_s(self) -> float:
        """Seconds without which it need not be begun."""
        return self.n_context / _PREFILL_TOKENS_S

    @property
    def task(self) -> Task:
        return Task(
            prompt=long_prompt(self.n_context - _ANSWER) if self.n_context else prompt(self.workload),
            n=self.n,
            ctx=self.n_context or 2048,
            ram=self.place.ram,
            draft=models.draft(self.draft),
            verifier=models.verifier(self.size),
            sampling=self.sampling,
        )

    @property
    def files(self) -> list[Path]:
        return models_of(self.kind, self.task)

    def why_not(self) -> str | None:
        """Why this cannot be measured here, or None."""
        if self.kind == CHAIN and not llama_speculative.BINARY.exists():
            return "llama.cpp's own speculation is not built: make bench-chain"
        if self.place != MEMORY and (reason := why_not()):
            return f"no memory limit here: {reason}"
        return None

    def run(self) -> dict[str, Any]:
        """A record: what the run says of itself, and what the kernel counted; or an error."""
        for path in self.files:
            models.make(path)
        sizes = dict(zip(("verifier_bytes", "draft_bytes"), (f.stat().st_size for f in self.files), strict=True))
        argv, speed = command(self.kind, self.task), machine_speed()
        with beside(self.beside, command(self.kind, replace(self.task, ram=None))):
            found = measure(self.place.limits, argv, self.files[0])
        return self.record(argv, sizes | found | {"machine": speed})

    def record(self, argv: list[str], found: dict[str, Any]) -> dict[str, Any]:
        settings = {"id": self.id, **asdict(self), "place": self.place.key, "steady": self.steady}
        folder, python = str(record.models()), Path(argv[0]).name
        shown = [a.replace(folder, "models") if len(a) < _HIDDEN else f"<{len(a)} characters>" for a in argv[1:]]
        return {**settings, "command": [python, *shown], **found}


def measure(limits: Limits, argv: list[str], disk: Path) -> dict[str, Any]:
    """One run of a command: what it says of itself, and what the kernel counted; or an error."""
    before = _cpu_seconds()
    try:
        with Meter() as meter:
            done, usage = limits.run(argv, disk, _TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {_TIMEOUT_S:.0f} s"}
    counted = {**asdict(usage), "cpu_s": _cpu_seconds() - before, "joules": meter.joules}
    try:
        return counted | parse(done)
    except (ValueError, KeyError):
        return counted | {"error": _last_line(done)}


def prompt(workload: str) -> str:
    if workload == "long":  # 510 tokens: one wide pass
        return " ".join(CASES[name] for name in (*CASES, "summary", "translation", "story", "code", "chat"))
    return in_template(workload) if workload in CASES | COPIES else ""


def _cpu_seconds() -> float:
    """Of all children that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return lines[-1][-300:] if lines else f"ended with code {done.returncode}"
