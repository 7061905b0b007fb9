"""Which bytes of a verifier stay in memory and which are streamed: numbers in, ranges out."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, partial

from cadcpp.gguf.blocks import ahead_blocks, block_of
from cadcpp.gguf.header import Header, Tensor
from cadcpp.system.mapping import PAGE

CHUNK = 4 << 20  # bytes asked of the disk at once
ALIGN = 64 << 10  # borders of streamed ranges: whole pages on every machine
HUGE = 2 << 20  # ... and whole huge pages, where layers are so large that it does not matter


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes [start, stop) of file ``part``, needed by ``layer``."""

    part: int
    start: int
    stop: int
    layer: int

    def __len__(self) -> int:
        return self.stop - self.start

    def chunks(self) -> Iterable["Extent"]:
        """The extent in pieces of at most CHUNK bytes, cut at multiples of it."""
        start = self.start
        while start < self.stop:
            stop = min(start // CHUNK * CHUNK + CHUNK, self.stop)
            yield Extent(self.part, start, stop, self.layer)
            start = stop


def joined(extents: Iterable[Extent]) -> list[Extent]:
    """The same bytes, but neighbours as one range: a folio across a border would survive two separate drops."""
    found: list[Extent] = []
    for extent in extents:
        if found and found[-1].part == extent.part and found[-1].stop == extent.start:
            found[-1] = Extent(extent.part, found[-1].start, extent.stop, extent.layer)
        else:
            found.append(extent)
    return found


@dataclass(frozen=True, slots=True)
class ExpertLayer:
    """One layer's experts in a mixture: each has a slice of every one of some tensors."""

    layer: int
    n_experts: int
    slices: tuple[tuple[int, int, int], ...]  # of each tensor: file part, offset of expert 0, bytes of one expert
    n_used: int = 1  # by a row

    @property
    def expert_bytes(self) -> int:
        """Of one expert."""
        return sum(size for _, _, size in self.slices)

    @property
    def n_bytes(self) -> int:
        """Of all experts."""
        return self.expert_bytes * self.n_experts

    @property
    def border_bytes(self) -> int:
        """Of pages that two experts share, which stay in memory when one of them goes."""
        return _border_bytes(self.slices, self.n_experts)

    def extents(self, expert: int) -> list[Extent]:
        """Where one expert lies."""
        return [
            Extent(part, start + expert * n, start + (expert + 1) * n, self.layer) for part, start, n in self.slices
        ]


@cache
def _border_bytes(slices: tuple[tuple[int, int, int], ...], n_experts: int) -> int:
    """Asked for by the plan, its outlook and the pager, and tens of thousands of borders in a large mixture."""
    borders = ((part, start + i * n) for part, start, n in slices for i in range(n_experts + 1))
    return PAGE * len({(part, offset // PAGE) for part, offset in borders if offset % PAGE})


@dataclass(frozen=True, slots=True)
class Layout:
    """The verifier's bytes in the order in which a pass needs them.

    ``pinned`` stays, ``streamed`` passes through a window on every pass, ``experts`` are read when a pass
    is routed to them, ``sparse`` (embeddings of which a pass reads a few rows) is left to page faults.
    """

    n_layers: int  # the output weights count as the last layer
    pinned: tuple[Extent, ...]
    streamed: tuple[Extent, ...]
    sparse: tuple[Extent, ...]
    experts: tuple[ExpertLayer, ...] = ()
    align: int = ALIGN  # of the streamed ranges' borders
    unused_bytes: int = 0  # of blocks that no pass computes, and nothing reads

    @property
    def pinned_bytes(self) -> int:
        return sum(map(len, self.pinned))

    @property
    def streamed_bytes(self) -> int:
        return sum(map(len, self.streamed))

    @property
    def sparse_bytes(self) -> int:
        return sum(map(len, self.sparse))

    @property
    def expert_bytes(self) -> int:
        return sum(layer.n_bytes for layer in self.experts)


def lay_out(header: Header, pin_bytes: int) -> Layout:
    """Divide a model: ``pin_bytes`` of its dense weights stay, the rest is streamed.

    Every layer streams the same share of its bytes, so that disk and compute take turns evenly and the
    window can be small; within a layer what stays is its head, since the file's order is not compute's.
    """
    unused = ahead_blocks(header)
    tensors = [t for t in header.tensors if block_of(t) not in unused]
    n_blocks = 1 + max((n for t in tensors if (n := block_of(t)) is not None), default=-1)
    is_sparse = partial(_is_sparse, untied=any(t.name == "output.weight" for t in tensors))
    layers = _by_layer([t for t in tensors if not is_sparse(t)], n_blocks)
    sparse = _merge([t for t in tensors if is_sparse(t)], 0)
    experts = _experts(tensors, n_blocks, header.number("expert_used_count"))
    # What is used by every pass and not by a block is small or hot: it stays first.
    pinned = layers.pop(-1, []) + layers.pop(n_blocks, [])
    dense = [extent for extents in layers.values() for extent in extents]
    total, left = sum(map(len, dense)), pin_bytes - sum(map(len, pinned))
    align = HUGE if total >= 8 * HUGE * n_blocks else ALIGN
    streamed: list[Extent] = []
    passed = kept = 0
    for extents in layers.values():
        passed += sum(map(len, extents))
        stay, go = _cut(extents, passed * max(left, 0) // max(total, 1) - kept, align)
        kept += sum(map(len, stay))
        pinned, streamed = pinned + stay, streamed + go
    stays = tuple(sorted(pinned, key=lambda e: e.layer))
    n_unused = sum(t.n_bytes for t in header.tensors if block_of(t) in unused)
    return Layout(n_blocks + 1, stays, tuple(streamed), tuple(sparse), experts, align, n_unused)


def _by_layer(tensors: Iterable[Tensor], n_blocks: int) -> dict[int, list[Extent]]:
    """Dense extents of each layer, blocks in order; -1 stands for what comes before them."""
    layers: dict[int, list[Tensor]] = {}
    for tensor in tensors:
        if not _is_expert(tensor):
            layers.setdefault(_layer(tensor, n_blocks), []).append(tensor)
    return {layer: _merge(layers[layer], layer) for layer in sorted(layers)}


def _layer(tensor: Tensor, n_blocks: int) -> int:
    block = block_of(tensor)
    if block is not None:
        return block
    return n_blocks if tensor.name.startswith("output") else -1


def _experts(tensors: Iterable[Tensor], n_blocks: int, n_used: int) -> tuple[ExpertLayer, ...]:
    layers: dict[int, list[Tensor]] = {}
    for tensor in filter(_is_expert, tensors):
        layers.setdefault(_layer(tensor, n_blocks), []).append(tensor)
    return tuple(
        ExpertLayer(layer, n := tensors[0].shape[2], tuple((t.part, t.offset, t.n_bytes // n) for t in tensors), n_used)
        for layer, tensors in sorted(layers.items())
    )


def _is_expert(tensor: Tensor) -> bool:
    """Weights of all experts of a layer, one after the other; their biases are small and count as dense."""
    return "_exps." in tensor.name and len(tensor.shape) > 2 and tensor.shape[2] > 1


def _is_sparse(tensor: Tensor, *, untied: bool) -> bool:
    """Untied embeddings: a pass reads some of their rows, which are not known before."""
    return "token_embd" in tensor.name and (untied or "per_layer" in tensor.name)


def _merge(tensors: list[Tensor], layer: int) -> list[Extent]:
    """Extents that cover tensors; neighbours are joined over the padding between them."""
    merged: list[Extent] = []
    for tensor in sorted(tensors, key=lambda t: (t.part, t.offset)):
        start = tensor.offset
        if merged and merged[-1].part == tensor.part and start - merged[-1].stop < ALIGN:
            start = merged.pop().start
        merged.append(Extent(tensor.part, start, tensor.offset + tensor.n_bytes, layer))
    return merged


def _cut(extents: list[Extent], n_bytes: int, align: int) -> tuple[list[Extent], list[Extent]]:
    """At most the first ``n_bytes`` of some extents, and the rest in whole units of ``align``.

    What does not fill a unit stays in any case: its pages are shared with a neighbour and must not be dropped.
    """
    stay: list[Extent] = []
    go: list[Extent] = []
    for part, start, stop, layer in ((e.part, e.start, e.stop, e.layer) for e in extents):
        first, last = -(-start // align) * align, stop // align * align
        if first >= last:
            stay.append(Extent(part, start, stop, layer))
            n_bytes -= stop - start
            continue
        n_bytes -= first - start + stop - last
        middle = min(first + max(n_bytes, 0) // align * align, last)
        n_bytes -= middle - first
        stay += [Extent(part, start, middle, layer), Extent(part, last, stop, layer)]
        if middle < last:
            go.append(Extent(part, middle, last, layer))
    return [e for e in stay if len(e)], go
