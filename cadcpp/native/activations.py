"""What the layers of a model are given, for whoever makes another model of it."""

from collections.abc import Sequence
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from cadcpp.native.context import Context
from cadcpp.native.eval_callback import Listener
from cadcpp.native.model import Model
from cadcpp.native.tensor import read_tensor
from cadcpp.residency.context_shape import ContextShape

_INPUT = "ffn_norm-{}"  # llama.cpp's name of what a layer's feed-forward network is given


def feed_forward_inputs(model: Model, texts: Sequence[NDArray[np.int32]], n_threads: int) -> NDArray[np.float32]:
    """What the feed-forward network of every layer is given for each token, [n_layer, n, n_embd], text after text."""
    longest = max(map(len, texts))
    shape = ContextShape(n_cells=longest, n_batch=longest, n_outputs=longest, n_seq=1)
    with closing(_Tapped(model, shape, n_threads)) as context:
        return np.concatenate([context.inputs(text) for text in texts], axis=1)


class _Tapped(Context):
    """A context that keeps what its last pass gave to the feed-forward networks."""

    def _listeners(self) -> dict[bytes, Listener]:
        self._taps = [Tap() for _ in range(self.model.n_layer)]
        return {_INPUT.format(layer).encode(): tap for layer, tap in enumerate(self._taps)}

    def inputs(self, text: NDArray[np.int32]) -> NDArray[np.float32]:
        """Of one text, [n_layer, n, n_embd]."""
        self.clear()
        self.batch.clear()
        self.batch.add(text, 0, 0, 1, True)  # the last layer sees only rows that ask for logits
        self.decode()
        return np.stack([tap.values.reshape(len(text), -1) for tap in self._taps])


class Tap(Listener):
    """Keeps the numbers of a node of the last pass, which are floats."""

    values = np.zeros(0, np.float32)

    def done(self, tensor: int) -> None:
        self.values = read_tensor(tensor).view(np.float32)
