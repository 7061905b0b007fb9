"""Which kernels a verifier is computed with on this machine: tried once, then remembered."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, replace
from typing import Any

from cadcpp.config import SessionConfig
from cadcpp.errors import CadError
from cadcpp.gguf.blocks import state_blocks, state_bytes
from cadcpp.gguf.header import Header
from cadcpp.gguf.sketch import Sketch, sketch
from cadcpp.gguf.state_sketch import StateSketch, state_sketch
from cadcpp.native.exactness import CANDIDATES, agrees_with_threads, find_granularity
from cadcpp.native.repacking import repackable
from cadcpp.native.row_cost import relative_cost
from cadcpp.native.snapshots import keeps_snapshots
from cadcpp.residency.kernel_mode import KernelMode, KernelModes
from cadcpp.runtime.machine_file import MachineFile
from cadcpp.runtime.stages import finish
from cadcpp.system.memory_limits import available_bytes
from cadcpp.system.user_dirs import cache_dir
from cadcpp.tree.granularity import Granularity

_NEITHER = "no number of rows was found with which this machine rounds every row alike"
_UNCHECKED = "it was not asked for"
_STATES = "operations on recurrent states"  # of which no small model can be made
_REVISION = 6  # of what is tried
_MOST = 512  # a model has one for each number of threads, kind of kernels and question
_CHEAP = 1.5  # times one row's seconds, that a filled up pass may take; drafts seldom bring back more


def kernel_modes(config: SessionConfig, header: Header, n_bytes: int | None = None) -> KernelModes:
    """The modes for a verifier: exact ones, if there are any. This machine computes ``n_bytes`` of it, if not all."""
    n_bytes = header.n_bytes if n_bytes is None else n_bytes
    fits = n_bytes <= (config.ram or available_bytes())  # else nothing needs memory to be tried in
    repacks, snapshots = fits and bool(repackable(header)), has_snapshots(header)
    f16 = config.cache_values == "f16"
    if config.exact == "off":
        unchecked = KernelMode(exact=False, reason=_UNCHECKED, f16_values=f16)
        return KernelModes(kept=replace(unchecked, repacked=repacks), streamed=unchecked, snapshots=snapshots)
    n_threads = config.threads()
    streamed = _streamed(header, n_threads, f16_values=f16)
    kept = _kept(header, n_threads, streamed) if repacks else streamed
    return KernelModes(kept=kept, streamed=streamed, snapshots=snapshots)


def foreseen_modes(config: SessionConfig, header: Header) -> KernelModes:
    """The modes of sessions in which all weights stay in memory with room to spare, and of those that stream some."""
    config = config.with_threads()  # once, since it depends on what else runs
    modes = kernel_modes(config, header)
    if config.cache_values == "auto" and same_with_f16_values(config, header, modes.kept):
        return replace(modes, kept=replace(modes.kept, f16_values=True))
    return modes


def same_with_f16_values(config: SessionConfig, header: Header, kept: KernelMode) -> bool:
    """Whether a mode for weights that stay in memory is the one to take with cached values in f16, too."""
    return kernel_modes(replace(config, cache_values="f16"), header).kept == replace(kept, f16_values=True)


def has_snapshots(header: Header) -> bool:
    """Whether llama.cpp can keep recurrent states of a verifier before its last tokens."""
    return bool(state_bytes(header)) and finish(lambda: keeps_snapshots(header))


def _kept(header: Header, n_threads: int, plain: KernelMode) -> KernelMode:
    """The mode for weights that all stay in memory: repacked, unless they are exact in no other way than as they come.

    Where repacked passes have to be filled up, and that makes plain decoding dear, drafts would have to bring more than
    they do. There nothing is drafted, and rows are computed one at a time.
    """
    usual = KernelMode(repacked=True, f16_values=plain.f16_values, routers_by_row=plain.routers_by_row)
    repacked = _both(_tried(header, n_threads, usual), plain)
    n_rows = repacked.granularity.whole(1)
    # Of a model with a state, text is evaluated again in passes of several rows after whatever is interrupted.
    if not repacked.exact or n_rows == 1 or state_blocks(header):
        return min(repacked, plain, key=_rank)
    cost = _cost(sketch(header), n_rows, n_threads)
    if cost <= _CHEAP:
        return repacked
    because = f"with these weights an exact pass has {n_rows} rows, which take {cost:.1f} times as long as one here"
    return KernelMode(repacked=True, f16_values=plain.f16_values, alone_because=because)


def _both(repacked: KernelMode, plain: KernelMode) -> KernelMode:
    """The mode of a model of which some matrices are repacked and others, such as embeddings at its end, never are."""
    if not (repacked.exact and plain.exact):
        return replace(plain if repacked.exact else repacked, repacked=True)
    return replace(repacked, granularity=_common([repacked.granularity, plain.granularity]))


def _common(found: Sequence[Granularity]) -> Granularity:
    """The least candidate whose numbers of rows are all of these'."""
    return next(c for c in CANDIDATES if all(c.suits(each) for each in found))


def _rank(mode: KernelMode) -> tuple[bool, int]:
    return not mode.exact, mode.granularity.whole(1)


def _streamed(header: Header, n_threads: int, *, f16_values: bool) -> KernelMode:
    """The mode for weights as they come.

    A mixture's routers are computed by row only where passes then take fewer rows, since each has to be waited for.
    """
    plain = _tried(header, n_threads, KernelMode(f16_values=f16_values))
    if not header.number("expert_count") or (plain.exact and plain.granularity.whole(1) == 1):
        return plain
    return min(plain, _tried(header, n_threads, KernelMode(f16_values=f16_values, routers_by_row=True)), key=_rank)


def _tried(header: Header, n_threads: int, mode: KernelMode) -> KernelMode:
    """A mode as this machine is found to compute it."""
    untried = ""
    try:
        found = [_granularity(sketch(header), n_threads, mode)]
    except (CadError, OSError) as error:  # a shape that a small model cannot have, or no room for it
        return replace(mode, exact=False, reason=f"it could not be tried: {error}")
    try:
        found += [_granularity(state_sketch(header), n_threads, mode)] if state_bytes(header) else []
    except (CadError, OSError) as error:
        untried = f"{_STATES} ({error})"
    if None in found:
        return replace(mode, exact=False, reason=_NEITHER)
    return replace(mode, granularity=_common([g for g in found if g]), untried=untried)


def _granularity(made: Sketch | StateSketch, n_threads: int, mode: KernelMode) -> Granularity | None:
    def find() -> list[int] | None:
        found = find_granularity(made, mode, n_threads=n_threads)
        return list(astuple(found)) if found else None

    candidates = [asdict(candidate) for candidate in CANDIDATES]
    facts = "rows", _REVISION, candidates, made.to_dict(), n_threads, mode.repacked, *_unusual(mode)
    numbers = _remembered(facts, find)
    return Granularity(*numbers) if numbers else None


def same_with_all(header: Header, mode: KernelMode, counts: Sequence[int]) -> bool:
    """Whether a verifier's rows are the same with any of these numbers of threads; False too where it is not known."""
    if len(counts) < 2 or not mode.exact or mode.untried:
        return False
    try:
        small: list[Sketch | StateSketch] = [sketch(header)]
        if state_bytes(header):
            small.append(state_sketch(header))
        return all(_same_with_all(made, mode, counts) for made in small)
    except (CadError, OSError):
        return False


def _same_with_all(made: Sketch | StateSketch, mode: KernelMode, counts: Sequence[int]) -> bool:
    facts = "any threads", _REVISION, made.to_dict(), list(counts), mode.repacked, astuple(mode.granularity)

    return bool(_remembered((*facts, *_unusual(mode)), lambda: agrees_with_threads(made, mode, counts=counts)))


def _unusual(mode: KernelMode) -> tuple[str, ...]:
    """What is remembered of a mode that has not the usual cache, or routers as they come."""
    return ("values in f16",) * mode.f16_values + ("routers by row",) * mode.routers_by_row


def _cost(made: Sketch, n_rows: int, n_threads: int) -> float:
    """Remembered too, since the text depends on it: a second opinion on a busy machine would be another text."""
    facts = "cost", _REVISION, made.to_dict(), n_threads, n_rows
    return float(_remembered(facts, lambda: relative_cost(made, n_rows, n_threads=n_threads)))


def _remembered(facts: object, find: Callable[[], Any]) -> Any:
    """What was found before on the same machine with the same library, else what ``find`` finds now."""
    file = MachineFile(cache_dir(), "kernels.json", _MOST)
    known, found = file.find(facts)
    if not known:
        # On the thread that computes: a second team of OpenMP's would slow the first one.
        found = finish(find)
        file.keep(facts, found)
    return found
