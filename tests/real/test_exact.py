"""The text through trees is the text that the verifier alone writes: token ids are equal, to the last one.

The reference is a plain loop over llama.cpp's C API that shares no line with cadcpp. In the everyday suite a
synthetic drafter proposes the trees, so that every weight type, way of drawing, tree size and prompt takes its
turn in minutes; the slow tests do all combinations with the real draft.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cadcpp.config import SamplingConfig
from cadcpp.draft.model_drafter import ModelDrafter
from cadcpp.models.demo import DemoPair
from cadcpp.runtime import engine as engine_module
from cadcpp.tree.token_tree import TokenTree
from cadcpp.verify.accept import Accepted, accept
from cadcpp.verify.text_state import TextState
from cadcpp.verify.verifier import Verifier
from tests.support.plain import PlainLoop, Settings
from tests.support.prompts import LONG, PROMPTS, prompt
from tests.support.rig import Rig
from tests.support.synthetic import SyntheticDrafter

pytestmark = pytest.mark.real

TYPES = ("Q8_0", "Q4_0", "Q4_K_M")
ROWS = (1, 8, 64, 192)
TOKENS = {1: 40, 8: 40, 64: 40, 192: 24}  # fewer where a pass takes long
DRAWN: dict[str, Any] = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "seed": 11}
SAMPLINGS = {
    "greedy": (SamplingConfig(temperature=0.0), Settings()),
    "drawn": (SamplingConfig(**DRAWN, repeat_penalty=1.1, sampler="llama"), Settings(**DRAWN, penalty=1.1)),
    "coupled": (SamplingConfig(**DRAWN, repeat_penalty=1.1), Settings(**DRAWN, penalty=1.1, coupled=True)),
}
COVERED = (("Q8_0", "greedy"), ("Q8_0", "drawn"), ("Q4_K_M", "greedy"), ("Q4_K_M", "coupled"))
RARE = (("Q4_K_M", 1), ("Q4_K_M", 8), ("Q4_K_M", 192), ("Q8_0", 1))  # tested with the slow ones
# Row k of the square takes the prompts 5 k + 1, 5 k + 2, ... in turn, so sizes and prompts meet in ever new pairs, and
# the long ones, of which a token of Q4_K_M takes three times as long, meet the rare sizes there.
COVER = [
    pytest.param(
        type_name,
        sampling,
        rows,
        PROMPTS[(5 * i + j + 1) % len(PROMPTS)],
        id=f"{type_name}-{sampling}-{rows}",
        marks=pytest.mark.slow if (type_name, rows) in RARE else (),
    )
    for i, (type_name, sampling) in enumerate(COVERED)
    for j, rows in enumerate(ROWS)
]


class Bench:
    """The rig and the plain loop of one verifier, and the texts that the plain loop wrote."""

    def __init__(self, path: Path, *, n_ctx: int = 1024, n_threads: int = 1) -> None:
        self._stack = ExitStack()
        self.rig = self._stack.enter_context(closing(Rig(path, n_ctx=n_ctx, n_threads=n_threads)))
        self.plain = self._stack.enter_context(closing(PlainLoop(path, n_ctx, n_threads)))
        self._texts: dict[tuple[str, str, int], list[int]] = {}
        self._drafter: ModelDrafter | None = None

    def close(self) -> None:
        self._stack.close()

    def prompt(self, name: str) -> list[int]:
        return prompt(self.rig.model, name)

    def reference(self, name: str, sampling: str, n: int) -> list[int]:
        key = (name, sampling, n)
        if key not in self._texts:
            self._texts[key] = self.plain.generate(self.prompt(name), n, SAMPLINGS[sampling][1])
        return self._texts[key]

    def through_trees(
        self, name: str, sampling: str, n: int, rows: int, *, verifier: type[Verifier] = Verifier, side: float = 0.15
    ) -> list[int]:
        ids = self.prompt(name)
        drafter = SyntheticDrafter(ids + self.reference(name, sampling, n), seed=rows, side=side)
        return self.rig.generate(ids, n, SAMPLINGS[sampling][0], drafter, rows, verifier=verifier)

    def with_draft(self, name: str, sampling: str, n: int, rows: int, draft: Path) -> list[int]:
        if self._drafter is None:
            self._drafter = self.rig.model_drafter(draft)
        self._drafter.context.clear()
        drafter = ModelDrafter(self._drafter.context, self.rig.model.end_tokens())
        return self.rig.generate(self.prompt(name), n, SAMPLINGS[sampling][0], drafter, rows)


@pytest.fixture(scope="module")
def bench(smollm2: Callable[[str], Path]) -> Iterator[Callable[[str], Bench]]:
    with ExitStack() as stack:
        made: dict[str, Bench] = {}

        def make(type_name: str) -> Bench:
            if type_name not in made:
                made[type_name] = stack.enter_context(closing(Bench(smollm2(type_name))))
            return made[type_name]

        yield make


def test_every_prompt_takes_its_turn() -> None:
    assert {case.values[3] for case in COVER} == set(PROMPTS)


def test_two_prompts_pass_512_tokens(bench: Callable[[str], Bench]) -> None:
    assert all(len(bench("Q8_0").prompt(name)) > 512 for name in LONG)


@pytest.mark.parametrize(("type_name", "sampling", "rows", "name"), COVER)
def test_the_text_is_the_same(
    bench: Callable[[str], Bench], type_name: str, sampling: str, rows: int, name: str
) -> None:
    case, n = bench(type_name), TOKENS[rows]
    reference = case.reference(name, sampling, n)
    assert len(reference) > n // 2
    if rows == 1:
        assert case.rig.generate(case.prompt(name), n, SAMPLINGS[sampling][0]) == reference
    else:
        assert case.through_trees(name, sampling, n, rows) == reference


@pytest.mark.parametrize(
    ("type_name", "sampling", "rows", "name"),
    [("Q8_0", "coupled", 64, "code"), ("Q4_0", "greedy", 192, "sky"), ("Q4_K_M", "drawn", 8, "sky")],
)
def test_the_text_is_the_same_with_the_draft(
    bench: Callable[[str], Bench], demo: DemoPair, type_name: str, sampling: str, rows: int, name: str
) -> None:
    case, n = bench(type_name), 40
    assert case.with_draft(name, sampling, n, rows, demo.draft) == case.reference(name, sampling, n)


def test_the_text_is_the_same_with_two_threads(smollm2: Callable[[str], Path]) -> None:
    """The other tests take one thread, since threads that spin for each other crawl on a machine with other work."""
    with closing(Bench(smollm2("Q8_0"), n_threads=2)) as case:
        assert case.through_trees("sky", "greedy", 40, 64) == case.reference("sky", "greedy", 40)


# Controls: what goes wrong on purpose must show. ------------------------------------------------------


class OutOfOrder(Verifier):
    """Keeps an accepted side branch's cells where they are, behind the gap that the rest of the tree leaves."""

    def commit(self, text: TextState, tree: TokenTree, accepted: Accepted) -> None:
        self.cache.extend(text.uncached, self._n_seq)
        branch = int(tree.spans()[0][accepted.rows[-1]])
        self.cache.adopt(branch, tree.token[accepted.rows[1:]].tolist())
        self.cache.rollback()
        text.ids += accepted.tokens(tree)


class WholeWalk:
    """A walk that is made at once, by a function that gives its outcome."""

    def __init__(self, walk: Callable[..., Accepted], tree: TokenTree, choose: Callable[[int], int]) -> None:
        self._make, self._made = partial(walk, tree, choose), list[Accepted]()

    @property
    def over(self) -> bool:
        return bool(self._made)

    def step(self) -> int:
        self._made.append(self._make())
        return self._made[0].bonus

    def accepted(self) -> Accepted:
        return self._made[0]


def unchecked(tree: TokenTree, choose: Callable[[int], int]) -> Accepted:
    """Believes the draft's likeliest first token."""
    below = tree.children()[0]
    if not below:
        return accept(tree, choose)
    return accept(tree, lambda row: choose(row) if row else int(tree.token[below[0]]))


def parents_logits(tree: TokenTree, choose: Callable[[int], int]) -> Accepted:
    """Draws once per token, but one row too high."""
    return accept(tree, lambda row: choose(max(int(tree.parent[row]), 0)))


def extra_draw(tree: TokenTree, choose: Callable[[int], int]) -> Accepted:
    """Draws a token too many per pass, so a seeded sampler falls out of step."""
    choose(0)
    return accept(tree, choose)


@pytest.mark.parametrize("type_name", [TYPES[0], *(pytest.param(t, marks=pytest.mark.slow) for t in TYPES[1:])])
def test_control_cells_out_of_order(bench: Callable[[str], Bench], type_name: str) -> None:
    """Logits differ in the last bits, which over a few texts must tip some token."""
    case, n = bench(type_name), 120
    assert any(
        case.through_trees(name, sampling, n, 24, verifier=OutOfOrder, side=0.5) != case.reference(name, sampling, n)
        for sampling in SAMPLINGS
        for name in ("tips", "story", "sky")  # the first is the quickest to tip
    )


@pytest.mark.parametrize(
    ("walk", "sampling"),
    [(unchecked, "greedy"), (parents_logits, "greedy"), (unchecked, "drawn"), (extra_draw, "coupled")],
)
def test_control_wrong_walk(
    bench: Callable[[str], Bench], monkeypatch: pytest.MonkeyPatch, walk: Callable[..., Accepted], sampling: str
) -> None:
    monkeypatch.setattr(engine_module, "Walk", partial(WholeWalk, walk))
    case = bench("Q8_0")
    assert case.through_trees("story", sampling, 60, 8, side=0.5) != case.reference("story", sampling, 60)


# All combinations -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", PROMPTS)
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("type_name", TYPES)
def test_all_combinations_with_the_draft(
    bench: Callable[[str], Bench], demo: DemoPair, type_name: str, sampling: str, name: str
) -> None:
    case, n = bench(type_name), 300
    reference = case.reference(name, sampling, n)
    texts = {rows: case.with_draft(name, sampling, n, rows, demo.draft) for rows in ROWS}
    assert [rows for rows in ROWS if texts[rows] != reference] == []


@pytest.mark.slow
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_the_demo_pair(demo: DemoPair, sampling: str) -> None:
    with closing(Bench(demo.verifier, n_threads=2)) as case:
        reference = case.reference("story", sampling, 60)
        texts = {rows: case.with_draft("story", sampling, 60, rows, demo.draft) for rows in ROWS}
        assert [rows for rows in ROWS if texts[rows] != reference] == []
