"""Make a mixture of experts of a dense model without changing what it computes.

Every expert is a copy of the layer's feed-forward network, and the weights of those that a token is routed to add up
to one, so whatever the router decides the sum is what the dense layer gives, up to the last bits. Bytes, reads and work
are those of a mixture. Weights are copied as they are stored, so nothing is rounded again.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cadcpp.errors import ConfigError, ToolError
from cadcpp.models.edit.rewrite import Kind, NewTensor, Progress, open_gguf, rewrite, stored_shape
from cadcpp.util.files import new_file

_COPIED = {f"ffn_{part}.weight": f"ffn_{part}_exps.weight" for part in ("gate", "up", "down")}
_ROUTED = "ffn_norm.weight"  # beside which a router is written: both are in F32
_ROUTER = "ffn_gate_inp.weight"


def copy_experts(
    src: Path,
    dst: Path,
    routers: Sequence[NDArray[Any]],
    n_used: int,
    *,
    progress: Progress = lambda fraction: None,
) -> None:
    """Write ``src`` to ``dst`` as a mixture in which each token uses ``n_used`` experts of every layer.

    ``routers`` are float32 [n_experts, n_embd], one a layer. ``dst`` appears whole or not at all. Raises ToolError for
    what is no dense model of the llama architecture, ConfigError for routers that do not fit it.
    """
    reader = open_gguf(src)
    _check(reader, src, routers, n_used)
    n_experts = len(routers[0])
    tensors = [new for tensor in reader.tensors for new in _tensors(tensor, routers, n_experts)]
    name = reader.get_field("general.name")
    title = f"{name.contents() if name else 'model'}, its feed-forward copied to {n_experts} experts (same function)"
    kind = Kind("llama", {"expert_count": n_experts, "expert_used_count": n_used})
    with new_file(dst) as part:
        rewrite(reader, part, {"general.name": title}, tensors, progress, kind)


def _check(reader: Any, src: Path, routers: Sequence[NDArray[Any]], n_used: int) -> None:
    shapes = {tensor.name: tensor.shape.tolist() for tensor in reader.tensors}
    networks = [_shape(shapes, i) for i in range(len(routers))]
    n_layers = sum(name.endswith(_ROUTED) for name in shapes)
    architecture = reader.get_field("general.architecture").contents()
    if architecture != "llama" or not n_layers or any(network is None for network in networks):
        raise ToolError(f"{src} has no gated feed-forward layers to copy; take a dense model of the llama architecture")
    n_experts = len(routers[0])
    if n_layers != len(routers) or any(
        router.shape != (n_experts, n) for router, n in zip(routers, networks, strict=True)
    ):
        raise ConfigError(f"{src} needs {n_layers} routers of equally many rows, each as long as its embeddings")
    if not 1 <= n_used <= n_experts:
        raise ConfigError(f"experts used must be from 1 to {n_experts}, got {n_used}")


def _shape(shapes: dict[str, list[int]], layer: int) -> int | None:
    """Length of what a layer's feed-forward network is given; None for a layer that has no such network."""
    parts = [shapes.get(f"blk.{layer}.{name}") for name in _COPIED]
    return parts[0][0] if parts[0] and all(parts) else None


def _tensors(tensor: Any, routers: Sequence[NDArray[Any]], n_experts: int) -> list[NewTensor]:
    """What is written in the place of one tensor."""
    block, _, kind = tensor.name.rpartition(".ffn_")
    kind, shape = f"ffn_{kind}", stored_shape(tensor)
    if block and kind in _COPIED:
        name = f"{block}.{_COPIED[kind]}"
        return [NewTensor(tensor, name, (n_experts, *shape), partial(_copies, tensor, n_experts))]
    same = NewTensor(tensor, tensor.name, shape, lambda: tensor.data)
    if not block or kind != _ROUTED:
        return [same]
    router = routers[int(block.removeprefix("blk."))]
    return [same, NewTensor(tensor, f"{block}.{_ROUTER}", router.shape, lambda: router)]


def _copies(tensor: Any, n_experts: int) -> Any:
    import numpy as np

    return np.broadcast_to(tensor.data, (n_experts, *tensor.data.shape)).copy()
