"""Whether speculation keeps the text of one model on this machine."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cadcpp.cli.diagnose import Finding
from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.gguf.header import read_header
from cadcpp.gguf.validate import check_generative
from cadcpp.modes import CacheValues
from cadcpp.residency.kernel_mode import KernelMode
from cadcpp.runtime.kernel_choice import foreseen_modes
from cadcpp.runtime.session import Session
from cadcpp.runtime.stages import apart
from cadcpp.telemetry.stats import Stats
from cadcpp.tree.limits import TreeLimits

_PROMPT = "The quick brown fox jumps over the lazy dog. " * 4  # so that the text itself gives drafts
_N, _N_CTX, _ROWS = 64, 512, 16


def try_model(path: Path, cache_values: CacheValues) -> Iterator[Finding]:
    """The kernels as they were tried on a small model like it, then the model itself."""
    header = read_header(path)
    check_generative(header)
    limits = TreeLimits(max_size=_ROWS)
    config = SessionConfig(n_ctx=_N_CTX, fallback="none", tree=limits, cache_values=cache_values).with_threads()
    modes = foreseen_modes(config, header)
    yield _kernels("in memory", modes.kept)
    yield _kernels("streamed", modes.streamed)
    plain = _write(path, replace(config, speculative="off"))
    drafted = _write(path, replace(config, speculative="ngram"))
    same = plain[0] == drafted[0]
    yield Finding(
        "ok" if same else "wrong",
        f"{len(plain[0])} tokens in {plain[1]} passes without drafts, in {drafted[1]} with: "
        + ("the same text" if same else "another text"),
        "" if same else "use other weights, or build llama.cpp anew",
    )


def _kernels(where: str, mode: KernelMode) -> Finding:
    remedy = "" if mode.exact else "use other weights: Q8_0, Q4_0 and K-quants are exact on most machines"
    return Finding("ok" if mode.exact else "note", f"{where}: {mode.verdict}", remedy)


def _write(path: Path, config: SessionConfig) -> tuple[list[int], int]:
    """Token ids, and the passes that they took."""
    with apart(lambda: Session(path, None, config)) as session:
        stats = Stats()
        prompt = session.model.tokenize(_PROMPT)
        chunks = session.stream(prompt, SamplingConfig(temperature=0.0), _N, stats=stats)
        return [token for chunk in chunks for token in chunk.tokens], stats.passes
