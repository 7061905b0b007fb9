"""What a pass tells of itself while it is computed: layers that are done, and experts that are about to be used."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cadcpp.native.eval_callback import Listener
from cadcpp.native.model import Model
from cadcpp.native.tensor import read_tensor

# llama.cpp's names of what is left when a layer is done, and of a mixture's experts in the order of their use.
_LAYER, _ROUTER = "l_out-{}", "ffn_moe_argsort-{}"
_OTHER_LAYER = {  # where it is another name, by the start of an architecture's
    "nemotron_h": "nemotron_h_block_out-{}",
    "plamo2": "ffn_residual-{}",
    "plamo3": "ffn_residual-{}",
}
OnLayer = Callable[[float], None]  # share of a pass that is done


class Watcher(Protocol):
    """Is told, from within a decode, how far it is; it may make the decode wait."""

    def start_pass(self, tokens: NDArray[np.int32]) -> None:
        """A pass begins; ``tokens``, [n], are its rows', without those that fill it up; [0] where none are known."""
        ...

    def experts_chosen(self, layer: int, chosen: NDArray[np.int32], n_own: int) -> None:
        """The rows of a layer are routed to experts, [n, n_used]; those after the first ``n_own`` fill the pass up."""
        ...

    def layer_done(self, layer: int) -> None: ...

    def end_pass(self, whole: bool) -> None:
        """A pass is over; ``whole`` if it ran to its end."""
        ...


@dataclass(eq=False)
class LayerReports:
    """Tells a watcher of each finished layer, and of the experts that a mixture's layer is about to use."""

    watcher: Watcher
    model: Model
    on_layer: OnLayer | None = None
    own: tuple[int, int] = 0, 0  # rows of the batch, and of those that ask for logits, without what fills them up

    def listeners(self) -> Iterator[tuple[bytes, Listener]]:
        """By the names of nodes. What workers compute is not here, and to ask for it would cost a round trip."""
        architecture = self.model.header.architecture
        name = next((_OTHER_LAYER[start] for start in _OTHER_LAYER if architecture.startswith(start)), _LAYER)
        n_experts, n_used = (self.model.header.number(f"expert_{s}") for s in ("count", "used_count"))
        for layer in range(self.model.n_here):
            yield name.format(layer).encode(), _Layer(self, layer)
            if n_experts:
                yield _ROUTER.format(layer).encode(), _Router(self, layer, n_experts, n_used)


@dataclass(frozen=True, slots=True)
class _Layer(Listener):
    reports: LayerReports
    layer: int

    def done(self, _tensor: int) -> None:
        reports = self.reports
        reports.model.check()
        reports.watcher.layer_done(self.layer)
        if reports.on_layer is not None:
            reports.on_layer((self.layer + 1) / reports.model.n_layer)


@dataclass(frozen=True, slots=True)
class _Router(Listener):
    reports: LayerReports
    layer: int
    n_experts: int
    n_used: int

    def done(self, tensor: int) -> None:
        reports, (n_rows, n_asked) = self.reports, self.reports.own
        order = read_tensor(tensor).reshape(-1, self.n_experts)  # a row's experts, the best first
        n_own = n_asked if self.layer == reports.model.n_layer - 1 else n_rows  # the last layer has no others
        reports.watcher.experts_chosen(self.layer, order[:, : self.n_used], min(n_own, len(order)))
