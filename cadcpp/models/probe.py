"""A model of a few kilobytes, to see whether llama.cpp reports what streaming rests on."""

import math
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cadcpp.gguf.writer import Weights, write_model
from cadcpp.native.context import Context
from cadcpp.native.model import Model
from cadcpp.residency.context_shape import ContextShape
from cadcpp.system.scratch_file import scratch_file

_N, _N_EXPERTS, _F32 = 32, 4, 0  # all sides of its matrices; a q8_0 cache needs 32
_SETTINGS = {
    "block_count": 1,
    "context_length": 256,
    "embedding_length": _N,
    "feed_forward_length": _N,
    "attention.head_count": 1,
    "attention.head_count_kv": 1,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "rope.dimension_count": _N,
    "expert_count": _N_EXPERTS,
    "expert_used_count": 2,
    "vocab_size": _N,
}
_SHAPES: dict[str, tuple[int, ...]] = {
    "token_embd": (_N, _N),
    **{f"blk.0.{name}_norm": (_N,) for name in ("attn", "ffn")},
    **{f"blk.0.attn_{name}": (_N, _N) for name in ("q", "k", "v", "output")},
    "blk.0.ffn_gate_inp": (_N, _N_EXPERTS),
    **{f"blk.0.ffn_{name}_exps": (_N, _N, _N_EXPERTS) for name in ("gate", "up", "down")},
    "output_norm": (_N,),
    "output": (_N, _N),
}


class _Diary:
    """Counts what it is told of a pass."""

    def __init__(self) -> None:
        self.n_layers = self.n_routers = 0

    def start_pass(self, tokens: NDArray[np.int32]) -> None:
        pass

    def experts_chosen(self, layer: int, chosen: NDArray[np.int32], n_own: int) -> None:
        self.n_routers += 1

    def layer_done(self, layer: int) -> None:
        self.n_layers += 1

    def end_pass(self, whole: bool) -> None:
        pass


def unreported() -> list[str]:
    """Which of "layers" and "routers" llama.cpp does not report in a pass through a mixture of one layer."""
    diary, shape = _Diary(), ContextShape(n_cells=256, n_batch=1, n_outputs=1, n_seq=1)
    with closing(scratch_file()) as file:
        write_probe(file.path)
        with (
            closing(Model(file.path, vocabulary=False, repacked=True)) as model,
            closing(Context(model, shape, 1, diary)) as context,
        ):
            context.batch.add([0], 0, 0, 1, True)
            context.decode()
    return [name for name, n in (("layers", diary.n_layers), ("routers", diary.n_routers)) if n == 0]


def write_probe(path: Path) -> None:
    """Write the model: a mixture of the llama architecture, of which all weights are 0."""
    zeros = {name: Weights(_F32, shape, bytes(4 * math.prod(shape))) for name, shape in _SHAPES.items()}
    write_model(path, "llama", _SETTINGS, {f"{name}.weight": weights for name, weights in zeros.items()})
