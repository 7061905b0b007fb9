"""Which numbers of rows are exact on this machine, by type of weights and kernels; prints a table.

python -m bench.studies.exactness [--small] [TYPE ...]          all types take a minute

"any": a row has the same logits whatever number of rows a pass has. "2+": two at least. "x2": an even number. "x2/16":
even, and beyond 16 a multiple of 16.
"never": no number that was tried; cadcpp says so then. "-": there are no such kernels here.
What is found is tried again on trees in another model. "WRONG": it did not hold there. The exit code is 1 then.
--small takes models and passes of a third, for processors that are emulated.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace

from bench.program import run_program
from bench.studies.replay import replays
from cadcpp.gguf.ggml_base import block_size, type_name
from cadcpp.gguf.sketch import Sketch
from cadcpp.native.exactness import find_granularity
from cadcpp.native.lib import api
from cadcpp.native.repacking import has_kernels
from cadcpp.residency.kernel_mode import KernelMode
from cadcpp.tree.granularity import Granularity

TYPES = "q8_0 q4_0 q4_1 q5_0 q5_1 q2_K q3_K q4_K q5_K q6_K iq4_nl iq4_xs mxfp4 f16 bf16 f32".split()
_DENSE = Sketch(
    n_embd=256,
    n_ff=256,
    head_size=64,
    value_size=64,
    n_head=4,
    n_head_kv=1,
    n_experts=0,
    n_used=0,
    inner=(0,),
    outer=(0,),
    expert_inner=(),
    expert_outer=(),
    router=0,
    output=0,
)
_THREADS = 2
_N_TEXT, _FEW = 300, 100  # tokens
_SHORT = 128  # weights of a row, if the model is small
_WRONG = "WRONG"
_PLAIN, _REPACKED, _BY_ROW = KernelMode(), KernelMode(repacked=True), KernelMode(routers_by_row=True)
_KINDS = (0, 1, 2, 3, 6, 7, 8, 10, 11, 12, 13, 14, 20, 23, 30, 39)  # as ggml numbers them


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.studies.exactness")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("types", nargs="*", default=TYPES, metavar="TYPE")
    options = parser.parse_args()
    print(api.llama_print_system_info().decode())
    columns = ("weights", "dense", "dense, repacked", "mixture", "mixture, repacked", "mixture, routers row by row")
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    lines = []
    for line in rows(options.types, small=options.small):
        print(line, flush=True)
        lines.append(line)
    sys.exit(any(_WRONG in line for line in lines))


def rows(names: Iterable[str], *, small: bool = False) -> Iterator[str]:
    """Lines of the table."""
    kinds = {type_name(kind): kind for kind in _KINDS}
    for name in names:
        dense, mixture = sketches(kinds[name], small=small)
        found = [_find(each, mode, small) for each in (dense, mixture) for mode in (_PLAIN, _REPACKED)]
        found.append(_find(mixture, _BY_ROW, small))
        yield f"| {name.upper()} | {' | '.join(found)} |"


def sketches(kind: int, *, small: bool = False) -> tuple[Sketch, Sketch]:
    """A dense model and a mixture with all weights of one type, but for the mixture's router.

    Rows of attention and of experts have two blocks of weights at least: kernels differ in how they add blocks up.
    """
    block = max(block_size(kind), _SHORT if small else _DENSE.n_embd // 2)
    width, n_ff = (2 * block, block) if small else (2 * block, _DENSE.n_ff)
    n_head = max(block // _DENSE.head_size, 1) if small else _DENSE.n_head
    dense = replace(_DENSE, n_embd=width, n_ff=n_ff, n_head=n_head, inner=(kind,), outer=(kind,), output=kind)
    mixture = replace(dense, n_experts=8, n_used=2, expert_inner=(kind,), expert_outer=(kind,))
    return dense, mixture


def _find(made: Sketch, kernels: KernelMode, small: bool) -> str:
    if kernels.repacked and not has_kernels(made.output, (made.n_embd, made.n_ff)):
        return "-"
    n_text = _FEW if small else _N_TEXT
    found = find_granularity(made, kernels, n_threads=_THREADS, n_text=n_text)
    holds = not found or replays(_other(made, small), replace(kernels, granularity=found), n_threads=_THREADS)
    return _words(found) + ("" if holds else f", {_WRONG}")


def _other(made: Sketch, small: bool) -> Sketch:
    """A model of other sizes, larger unless it has to be small."""
    if small:
        return replace(made, n_embd=made.n_ff, n_ff=made.n_embd, n_head_kv=2)
    return replace(made, n_embd=made.n_embd + 256, n_ff=2 * made.n_ff, n_head=8, n_head_kv=2)


def _words(found: Granularity | None) -> str:
    if found is None:
        return "never"
    if found.multiple > 1:
        return f"x{found.multiple}" + (f"/{found.large}" if found.large > found.multiple else "")
    return f"{found.least}+" if found.least > 1 else "any"


if __name__ == "__main__":
    run_program(main)
