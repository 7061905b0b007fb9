"""A mixture of experts that writes what SmolLM2 writes, in the shape of those that people run.

As in Qwen3-30B-A3B a token uses 8 of 128 experts in every layer. Each of them is a copy of the layer's own feed-forward
network, so text and acceptance are SmolLM2's whatever is routed, and the routers choose as that model's do (see
`routers`): reads and what is in memory are those of a real one.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cadcpp.gguf.header import read_header
from cadcpp.models.demo import Progress, smollm2_as
from cadcpp.models.edit.copy_experts import copy_experts
from cadcpp.models.edit.rewrite import require_gguf
from cadcpp.models.routers import fit_router, like_qwen3
from cadcpp.util.files import reported, require_space, scratch_directory

_N_TOKENS = 4096  # of text that routers are fitted to
_SEED = 21


def mixture_name(n_experts: int, n_used: int, type_name: str) -> str:
    """The file name of a mixture."""
    return f"smollm2-135m-mixture-{n_used}of{n_experts}-{type_name}.gguf"


def demo_mixture(
    directory: Path,
    *,
    n_experts: int = 128,
    n_used: int = 8,
    type_name: str = "Q4_0",
    progress: Progress = lambda what, fraction: None,
) -> Path:
    """The mixture in ``directory``, made if it is not there yet; 5.8 GB with the defaults."""
    plain = smollm2_as(type_name, directory, progress=progress)
    path = directory / mixture_name(n_experts, n_used, type_name)
    with reported(directory):
        if not path.is_file():
            require_gguf()
            networks = sum(t.n_bytes for t in read_header(plain).tensors if ".ffn_" in t.name)
            require_space(directory, plain.stat().st_size + n_experts * networks)
            routers = make_routers(plain, n_experts, directory, progress)
            copy_experts(plain, path, routers, n_used, progress=lambda fraction: progress(path.name, fraction))
    return path


def make_routers(
    plain: Path, n_experts: int, directory: Path, progress: Progress = lambda what, fraction: None
) -> list[NDArray[np.float32]]:
    """A router for every layer of a dense model, fitted to what it writes by itself; [n_experts, n_embd] each."""
    # Here, because a mixture that is there must load nothing.
    from contextlib import closing

    from cadcpp.models.self_sampling import SampleConfig, sample
    from cadcpp.native.activations import feed_forward_inputs
    from cadcpp.native.model import Model
    from cadcpp.system.cpu import choose_threads

    progress("routers", 0.0)
    with scratch_directory(directory) as scratch, closing(Model(plain)) as model:
        config = SampleConfig(n_tokens=_N_TOKENS, seed=_SEED)
        texts = sample(plain, model, config, scratch / "samples", lambda done, all_: progress("routers", done / all_))
        texts = _first(texts, _N_TOKENS)
        inputs = feed_forward_inputs(model, texts, choose_threads().n)
    lengths = list(map(len, texts))
    return [
        fit_router(given, lengths, n_experts, like_qwen3(layer), np.random.default_rng([_SEED, layer]))
        for layer, given in enumerate(inputs)
    ]


def _first(texts: list[NDArray[np.int32]], n_tokens: int) -> list[NDArray[np.int32]]:
    """As many texts as have ``n_tokens`` together, or a few more."""
    before = np.cumsum([0, *map(len, texts)])[:-1]
    return [text for text, start in zip(texts, before, strict=True) if start < n_tokens]
