"""What the layers of a model are given, for whoever makes another model of it."""

from collections.abc import Sequence
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from cadcpp.native.context import Context
from cadcpp.native.lib import api, read_tensor, tensor_name
from cadcpp.native.model import Model
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

    def _params(self) -> api.llama_context_params:
        params = super()._params()
        self._names = {_INPUT.format(i).encode(): i for i in range(self.model.n_layer)}
        self._inputs: dict[int, NDArray[np.float32]] = {}
        self._callback = api.ggml_backend_sched_eval_callback(self._on_node)
        params.cb_eval = self._callback
        return params

    def inputs(self, text: NDArray[np.int32]) -> NDArray[np.float32]:
        """Of one text, [n_layer, n, n_embd]."""
        self.clear()
        self.batch.clear()
        self.batch.add(text, 0, 0, 1, True)  # the last layer sees only rows that ask for logits
        self.decode()
        return np.stack([self._inputs[i].reshape(len(text), -1) for i in range(self.model.n_layer)])

    def _on_node(self, tensor: int, ask: bool, _user_data: int | None) -> bool:
        layer = self._names.get(tensor_name(tensor))
        if layer is not None and not ask:
            self._inputs[layer] = read_tensor(tensor).view(np.float32)
        return layer is not None or not ask
