"""Text that a model writes by itself, kept on disk as it grows."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cadcpp.errors import ConfigError, ToolError
from cadcpp.models.parallel_sampler import N_SEQ, Opening, ParallelSampler, opening
from cadcpp.native.context import Context
from cadcpp.native.model import Model
from cadcpp.residency.context_shape import ContextShape
from cadcpp.residency.footprint import whole_cells
from cadcpp.system.cpu import choose_threads
from cadcpp.util.files import reported

_STEPS = 128  # tokens of a wave's text at most; what costs the time is rows, and attention little
_KEY_BYTES = 32

Count = Callable[[int, int], None]  # tokens written, and tokens wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleConfig:
    """How much a model writes, and how."""

    n_tokens: int
    temperature: float = 0.8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_tokens < 1:
            raise ConfigError(f"tokens to sample must be at least 1, got {self.n_tokens}")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ConfigError(f"temperature must be a number above 0 to sample, got {self.temperature}")
        if self.seed < 0:
            raise ConfigError(f"seed must be at least 0, got {self.seed}")


def sample(path: Path, vocabulary: Model, config: SampleConfig, part: Path, progress: Count) -> list[NDArray[np.int32]]:
    """Texts of ``config.n_tokens`` tokens or more, up to a whole wave, which the model in ``path`` writes.

    ``part`` keeps every wave, so that the same call goes on where another one was ended. The same seed
    gives the same texts, interrupted or not.
    """
    start = opening(vocabulary)
    n_steps = min(_STEPS, vocabulary.n_ctx_train - len(start.prompt))
    if n_steps < 1:
        raise ToolError(f"{path} was trained for {vocabulary.n_ctx_train} tokens, which its chat template alone takes")
    n_waves = -(-config.n_tokens // (N_SEQ * n_steps))
    with reported(part):
        part.parent.mkdir(parents=True, exist_ok=True)
        done = _whole_waves(part, _key(path, start, config), 4 * N_SEQ * n_steps)
        if done < n_waves:
            with part.open("ab") as file, _context(path, len(start.prompt), n_steps) as context:
                for number in range(done, n_waves):
                    rng = np.random.default_rng([config.seed, number])
                    wave = ParallelSampler(context, start, vocabulary.end_tokens(), config.temperature, rng)
                    file.write(_gathered(wave.columns(n_steps), number * n_steps, n_waves * n_steps, progress))
                    file.flush()
        tokens = np.fromfile(part, "<i4", n_waves * N_SEQ * n_steps, offset=_KEY_BYTES)
    return np.split(np.where(tokens < 0, ~tokens, tokens), np.flatnonzero(tokens < 0)[1:])


def _gathered(columns: Iterable[NDArray[np.int32]], n_before: int, n_steps: int, progress: Count) -> bytes:
    """A wave, sequence by sequence; ``progress`` is told of the ``n_steps`` of all waves."""
    wave = []
    for column in columns:
        wave.append(column)
        progress(N_SEQ * (n_before + len(wave)), N_SEQ * n_steps)
    return np.stack(wave, axis=1).astype("<i4").tobytes()


def _key(path: Path, start: Opening, config: SampleConfig) -> bytes:
    """What a file of waves begins with, so that none is continued with another model or other settings."""
    file = path.stat()
    what = (path.name, file.st_size, file.st_mtime_ns, start, config.temperature, config.seed, N_SEQ, _STEPS)
    return sha256(repr(what).encode()).digest()


def _whole_waves(part: Path, key: bytes, wave_bytes: int) -> int:
    """How many waves ``part`` has; what follows the last is cut off, and a file with another key begun anew."""
    with part.open("a+b") as file:
        n_bytes = file.tell() - len(key)
        file.seek(0)
        n = n_bytes // wave_bytes if file.read(len(key)) == key else -1
        file.truncate(len(key) + n * wave_bytes if n >= 0 else 0)
        if n < 0:
            file.write(key)
    return max(n, 0)


@contextmanager
def _context(path: Path, n_prompt: int, n_steps: int) -> Iterator[Context]:
    """A context in which every text, and the prompt that they share, has cells of its own."""
    n_each = whole_cells(n_prompt + n_steps)
    shape = ContextShape(
        n_cells=(N_SEQ + 1) * n_each, n_batch=max(N_SEQ, n_prompt), n_outputs=N_SEQ, n_seq=N_SEQ + 1, shared=False
    )
    with (
        closing(Model(path, vocabulary=False, repacked=True)) as model,
        closing(Context(model, shape, choose_threads().n)) as context,
    ):
        yield context
