"""Products of a router's matrix row by row, as llama.cpp computes a single row's.

From two rows on llama.cpp has other kernels for matrices of floats, which routers are, and these round in another way.
Then a pass would have to have two rows always, and the second one has experts of its own, so that plain decoding of a
mixture would take nearly twice as long. With the rows in a dimension of their own, that of a batch of matrices, the
kernels for a single row are used for each.
"""

import ctypes
import math
from collections.abc import Iterator
from dataclasses import dataclass

from cadcpp.errors import NativeError
from cadcpp.gguf.blocks import ahead_blocks
from cadcpp.native.eval_callback import Listener
from cadcpp.native.model import Model
from cadcpp.native.tensor import TensorStruct, is_laid_out, is_product

# By the matrix that is multiplied with: llama.cpp's name of the product, or several for as many architectures.
_PRODUCTS = {
    "ffn_gate_inp": ("ffn_moe_logits-{}",),
    "ffn_gate_inp_shexp": ("shared_expert_gate-{}", "ffn_shexp_gate_inp-{}"),
}


class RowProducts:
    """Makes the products of all routers that this machine computes be computed row by row."""

    def __init__(self, model: Model) -> None:
        """Raises NativeError where llama.cpp's library is built in another way than its header says."""
        if not is_laid_out():
            raise NativeError("this llama.cpp has tensors of another layout, so that routers are not computed by rows")
        names = {t.name for t in model.header.tensors}
        layers = [layer for layer in range(model.n_here) if layer not in ahead_blocks(model.header)]
        self._products = [
            _Product(tuple(name.format(layer) for name in products))
            for layer in layers
            for part, products in _PRODUCTS.items()
            if f"blk.{layer}.{part}.weight" in names
        ]

    def listeners(self) -> Iterator[tuple[bytes, Listener]]:
        """By the names of nodes."""
        return ((name.encode(), product) for product in self._products for name in product.names)

    def end_pass(self) -> list[str]:
        """A pass is over. Gives the names of products that it had not, although their matrices are there."""
        return [product.names[0] for product in self._products if not product.end_pass()]


@dataclass(eq=False)
class _Product(Listener):
    least_rows = 2
    names: tuple[str, ...]
    _seen: bool = False  # in this pass
    _changed: tuple[TensorStruct, TensorStruct] | None = None  # the node, and a copy of it as it was
    _rows: TensorStruct | None = None

    def begins(self, tensor: int) -> bool:
        """Of several rows make a batch of single ones; what follows must see them as they were, and so has to wait."""
        if not is_product(tensor):
            return False
        self._seen = True
        node = TensorStruct.from_address(tensor)
        if _n_rows(node) < 2:
            return False
        self._changed = node, TensorStruct.from_buffer_copy(node)
        self._rows = _batched(TensorStruct.from_address(node.sources[1]))
        node.sources[1] = ctypes.addressof(self._rows)
        batched = _batched(node)
        node.shape, node.strides = batched.shape, batched.strides
        return True

    def done(self, _tensor: int) -> None:
        self._restore()

    def end_pass(self) -> bool:
        """Whether the pass had it."""
        self._restore()
        seen, self._seen = self._seen, False
        return seen

    def _restore(self) -> None:
        """What was changed is as before; llama.cpp may use a graph again."""
        if self._changed is not None:
            node, before = self._changed
            node.shape, node.strides, node.sources = before.shape, before.strides, before.sources
            self._changed = None


def _batched(rows: TensorStruct) -> TensorStruct:
    """A tensor with the same numbers, of which each row is a matrix of its own."""
    batched, n = TensorStruct.from_buffer_copy(rows), _n_rows(rows)
    size, stride = rows.strides[:2]
    batched.shape = (rows.shape[0], 1, n, 1)
    batched.strides = (size, stride, stride, n * stride)
    return batched


def _n_rows(tensor: TensorStruct) -> int:
    return math.prod(tensor.shape[1:])
