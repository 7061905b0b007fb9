"""Which kernels a verifier is computed with on this machine: tried once, then remembered."""

import hashlib
import json
import os
import platform
from contextlib import suppress
from dataclasses import asdict, astuple, replace
from pathlib import Path
from typing import Any

from cadcpp.config import SessionConfig
from cadcpp.errors import CadError, ToolError
from cadcpp.gguf.header import Header
from cadcpp.gguf.sketch import Sketch, sketch
from cadcpp.native.exactness import CANDIDATES, find_granularity
from cadcpp.native.lib import api, library_files
from cadcpp.native.repacking import repackable
from cadcpp.residency.kernel_mode import KernelMode, KernelModes
from cadcpp.runtime.stages import finish
from cadcpp.system.user_dirs import cache_dir
from cadcpp.tree.granularity import Granularity
from cadcpp.util.files import new_file

_NEITHER = "no number of rows was found with which this machine rounds every row alike"
_UNCHECKED = "it was not asked for"
_REVISION = 4  # of what is tried
_TELLING = ("flags", "features", "model name", "cpu part")  # lines that tell one kind of processor from another


def kernel_modes(config: SessionConfig, header: Header) -> KernelModes:
    """The modes for a verifier: exact ones, if there are any, and of these the one that fills passes up the least.

    Which one is faster is not measured, since a text must not depend on what else the machine does.
    """
    repacks = bool(repackable(header))
    if config.exact == "off":
        unchecked = KernelMode(exact=False, reason=_UNCHECKED)
        return KernelModes(kept=KernelMode(repacked=repacks, exact=False, reason=_UNCHECKED), streamed=unchecked)
    n_threads = config.with_threads().n_threads or 1
    streamed = _mode(header, n_threads, repacked=False)
    kept = _both(_mode(header, n_threads, repacked=True), streamed) if repacks else streamed
    return KernelModes(kept=min(kept, streamed, key=_rank), streamed=streamed)


def _both(repacked: KernelMode, plain: KernelMode) -> KernelMode:
    """The mode of a model of which some matrices are repacked and others, such as embeddings at its end, never are."""
    if not (repacked.exact and plain.exact):
        return replace(plain if repacked.exact else repacked, repacked=True)
    common = (c for c in CANDIDATES if c.suits(repacked.granularity) and c.suits(plain.granularity))
    return replace(repacked, granularity=next(common))


def _rank(mode: KernelMode) -> tuple[bool, int]:
    return not mode.exact, mode.granularity.whole(1)


def _mode(header: Header, n_threads: int, *, repacked: bool) -> KernelMode:
    try:
        granularity = _remembered(sketch(header), n_threads, repacked)
    except (CadError, OSError) as error:  # a shape that a small model cannot have, or no room for it
        return KernelMode(repacked=repacked, exact=False, reason=f"it could not be tried: {error}")
    if granularity is None:
        return KernelMode(repacked=repacked, exact=False, reason=_NEITHER)
    return KernelMode(repacked=repacked, granularity=granularity)


def _remembered(made: Sketch, n_threads: int, repacked: bool) -> Granularity | None:
    """What was found before on the same machine with the same library, else what is found now."""
    path, key = _memory(), _key(made, n_threads, repacked)
    known = _read(path) if path else {}
    with suppress(KeyError, TypeError, ValueError):
        return Granularity(*known[key]) if known[key] else None
    # On the thread that computes: a second team of OpenMP's would slow the first one.
    found = finish(lambda: find_granularity(made, repacked=repacked, n_threads=n_threads))
    if path is None:
        return found
    with suppress(ToolError), new_file(path) as new:  # a disk that takes no more costs a second at the next start
        new.write_text(json.dumps(_read(path) | {key: list(astuple(found)) if found else None}))
    return found


def _memory() -> Path | None:
    """Where verdicts are kept; None for a user without a home."""
    folder = cache_dir()
    return folder / "kernels.json" if folder else None


def _read(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _key(made: Sketch, n_threads: int, repacked: bool) -> str:
    """All that a verdict rests on."""
    files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in library_files()]
    machine = platform.machine(), _processor(), api.llama_print_system_info().decode()
    settings = {name: value for name, value in os.environ.items() if name.startswith(("GGML_CPU_", "OMP_"))}
    candidates = [asdict(candidate) for candidate in CANDIDATES]
    facts = _REVISION, files, machine, settings, candidates, made.to_dict(), n_threads, repacked
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _processor() -> list[str]:
    """What the kernel says of the processors, but for how fast they are just now."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        return sorted({line for line in lines if line.lower().startswith(_TELLING)})
    return [platform.processor()]
