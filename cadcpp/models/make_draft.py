"""A draft made from the verifier itself: smaller weights, fewer layers; measured, and the fastest kept."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

from cadcpp.config import SessionConfig
from cadcpp.errors import ConfigError, ToolError
from cadcpp.gguf.blocks import ahead_blocks, block_of, state_bytes
from cadcpp.gguf.header import Header, read_header
from cadcpp.models.draft_quality import Drafting, Text, agreement, measure, write_texts
from cadcpp.models.edit.drop_layers import drop_layers, silenced
from cadcpp.models.edit.narrow_ffn import narrow
from cadcpp.models.edit.quantize import requantize
from cadcpp.models.edit.rewrite import require_gguf
from cadcpp.native.model import Model
from cadcpp.policy.cost_model import CostModel
from cadcpp.policy.pass_cost import PassCost
from cadcpp.residency.memory_plan import Plan
from cadcpp.residency.tree_buffers import TreeBuffers, expected, plan_session
from cadcpp.system.cpu import choose_threads
from cadcpp.system.disk_speed import disk_bytes_per_s
from cadcpp.system.memory_limits import available_bytes
from cadcpp.tree.limits import TreeLimits, limit_tree
from cadcpp.util.byte_size import format_size
from cadcpp.util.files import reported, require_space, scratch_directory

_TYPES = {"Q2_K": 3.0, "Q3_K_M": 3.9, "Q4_K_M": 4.9, "Q8_0": 8.5}  # with about the bits of a weight
_SHARES = (0.03, 0.1, 0.2)  # of the layers to leave out

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the pair is to run."""

    ram: int  # bytes in all
    disk_bytes_per_s: float
    n_ctx: int

    @property
    def byte_s(self) -> float:
        """Seconds of reading a byte."""
        return 1 / self.disk_bytes_per_s


@dataclass(frozen=True, slots=True)
class Variant:
    """One draft and what it is worth in its place."""

    name: str
    path: Path
    n_bytes: int
    drafting: Drafting
    tokens_per_s: float  # expected


def place_of(verifier: Path, ram: int | None, disk: int | None, n_ctx: int) -> Place:
    """The place that is asked for; what is not given is measured here."""
    return Place(ram=ram or available_bytes(), disk_bytes_per_s=disk or disk_bytes_per_s(verifier), n_ctx=n_ctx)


def make_draft(
    verifier: Path,
    target: Path,
    place: Place,
    on_variant: Callable[[Variant], None],
    progress: Progress = lambda what, fraction: None,
) -> Variant:
    """Try variants, tell of each, and leave the one with the best expected speed in ``target``.

    Raises ToolError if none fits into memory, or if plain decoding is expected to be as fast.
    """
    require_gguf()
    Model(verifier, stub=True).close()  # one that cannot be a verifier is refused before anything is made of it
    with scratch_directory(target.parent) as scratch, reported(target):
        workshop = _Workshop(verifier, scratch, place, progress)
        variants = []
        for variant in workshop.variants():
            on_variant(variant)
            variants.append(variant)
        best = max(variants, key=lambda variant: variant.tokens_per_s)
        if best.tokens_per_s <= workshop.plain_tokens_per_s:
            raise ToolError(
                f"plain decoding is expected to write {workshop.plain_tokens_per_s:.2f} tokens a second, and the best "
                f"draft, {best.name}, {best.tokens_per_s:.2f}: take a small model of the same family instead"
            )
        os.replace(best.path, target)
    return best


class _Workshop:
    """Makes variants in a scratch directory and measures them."""

    def __init__(self, verifier: Path, scratch: Path, place: Place, progress: Progress) -> None:
        self._verifier, self._header = verifier, read_header(verifier)
        self._scratch, self._place, self._progress = scratch, place, progress
        self._n_threads = choose_threads().n
        self._texts: list[Text] = []
        self._costs = PassCost()

    @property
    def plain_tokens_per_s(self) -> float:
        """Expected without a draft."""
        disk = expected(*self._plan(None), self._place.byte_s)
        return 1 / max(float(self._costs.estimate()[1]), disk.stream_s, 1e-9)

    def variants(self) -> Iterator[Variant]:
        """Re-quantised ones, then the best of them without some of its layers."""
        found = []
        paths = self._requantized()
        self._texts, self._costs = self._write(min(paths, key=lambda path: path.stat().st_size))
        for path in paths:
            found.append(self._variant(path.stem, path))
            yield found[-1]
        best = max(found, key=lambda variant: variant.tokens_per_s)
        ranking = self._ranked_layers(best)
        for n in sorted({max(round(share * len(ranking)), 1) for share in _SHARES} & set(range(len(ranking)))):
            name = f"{best.name} less {n} layer{'s' * (n > 1)}"
            path = self._scratch / f"{best.path.stem}-without-{n}.gguf"
            drop_layers(best.path, path, ranking[:n])
            yield self._variant(name, path)

    def _requantized(self) -> list[Path]:
        """The verifier in smaller types, as far as they are smaller and leave it some memory."""
        source = self._scratch / "narrow.gguf"
        self._progress("a source without idle neurons", 0.0)
        if len(self._header.parts) > 1 or not narrow(self._verifier, source):
            source = self._verifier
        n_weights = source.stat().st_size / self._verifier.stat().st_size * _n_weights(self._header)
        sizes = {name: int(n_weights * bits / 8) for name, bits in _TYPES.items()}
        wanted = [name for name in _TYPES if sizes[name] < min(0.9 * self._header.n_bytes, self._place.ram)]
        n_bytes = [sizes[name] for name in wanted]
        require_space(self._scratch, sum(n_bytes) + len(_SHARES) * max(n_bytes, default=0))
        paths = []
        for name in wanted:
            self._progress(f"weights as {name}", 0.0)
            paths.append(self._scratch / f"{name}.gguf")
            requantize(source, paths[-1], name)
        paths = [path for path in paths if self._fits(path)]
        if not paths:
            raise ToolError(
                f"no variant of {self._verifier} fits beside it into {format_size(self._place.ram)}: take a small "
                "model of the same family as the draft, or none (the text then drafts for itself)"
            )
        return paths

    def _fits(self, path: Path) -> bool:
        try:
            self._plan(read_header(path))
        except ConfigError:
            return False
        return True

    def _plan(self, draft: Header | None) -> tuple[Plan, TreeBuffers]:
        tree = limit_tree(None) if draft else TreeLimits(max_size=1)
        return plan_session(SessionConfig(ram=self._place.ram, n_ctx=self._place.n_ctx, tree=tree), self._header, draft)

    def _write(self, draft: Path) -> tuple[list[Text], PassCost]:
        self._progress("text to guess", 0.0)
        return write_texts(self._verifier, draft, n_ctx=self._place.n_ctx, ram=self._place.ram)

    def _variant(self, name: str, path: Path) -> Variant:
        self._progress(f"measurements of {name}", 0.0)
        header, drafting = read_header(path), measure(path, self._texts, self._n_threads)
        model = CostModel(
            verify=self._costs,
            node_s=drafting.node_s,
            nodes=drafting.nodes,
            tokens=drafting.tokens,
            disk=expected(*self._plan(header), self._place.byte_s),
        )
        return Variant(name, path, header.n_bytes, drafting, model.describe()["rate"])

    def _ranked_layers(self, variant: Variant) -> list[int]:
        """All layers, those first without which the draft agrees most often."""
        header, texts, without = read_header(variant.path), self._texts[: len(self._texts) // 2], {}
        layers = sorted({*range(header.number("block_count"))} - ahead_blocks(header))
        for layer in layers:
            self._progress(f"measurements of {variant.name} without a layer", layer / len(layers))
            with silenced(header, layer):
                without[layer] = agreement(variant.path, texts, self._n_threads)
        return list(_without_last_attention(header, sorted(without, key=lambda layer: -without[layer])))


def _without_last_attention(header: Header, layers: list[int]) -> Iterator[int]:
    """Of layers those that may all be left out: with no attention in a hybrid llama.cpp ends the process."""
    attention = {block_of(tensor) for tensor in header.tensors if "attn_output" in tensor.name}
    kept = [layer for layer in layers if layer in attention][-1:] if state_bytes(header) else []
    return (layer for layer in layers if layer not in kept)


def _n_weights(header: Header) -> int:
    return sum(prod(tensor.shape) for tensor in header.tensors)
