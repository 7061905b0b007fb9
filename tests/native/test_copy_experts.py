"""A mixture made of a dense model, on tiny ones: what it computes, and what its routers decide."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from cadcpp.errors import ConfigError, ToolError
from cadcpp.gguf.header import read_header
from cadcpp.models.edit.copy_experts import copy_experts
from cadcpp.models.routers import Routing, choices, describe, fit_router
from cadcpp.native.activations import feed_forward_inputs
from cadcpp.native.context import Context
from cadcpp.native.model import Model
from cadcpp.residency.context_shape import ContextShape
from tests.native.test_tinygguf import context, loaded, logits, tokenize
from tests.support.routes import Routes

TEXT = "The same function, whoever computes it."
N_EXPERTS, N_USED, N_LAYER, N_EMBD = 16, 3, 2, 64
ROUTERS = [np.random.default_rng(i).standard_normal((N_EXPERTS, N_EMBD)).astype(np.float32) for i in range(N_LAYER)]


@pytest.fixture
def mixture(tiny: Callable[..., Path], tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "mixture.gguf"
    copy_experts(tiny(), path, ROUTERS, N_USED)
    yield path


def answers(path: Path) -> NDArray[np.float32]:
    with loaded(path) as model, context(model) as ctx:
        return logits(ctx, tokenize(model, TEXT))


@pytest.mark.parametrize("type_name", ["F32", "F16", "Q8_0", "Q4_0"])
def test_a_mixture_computes_what_the_dense_model_does(
    tiny: Callable[..., Path], tmp_path: Path, type_name: str
) -> None:
    plain, made = tiny(type_name=type_name), tmp_path / "made.gguf"
    copy_experts(plain, made, ROUTERS, N_USED)
    difference = np.abs(answers(plain) - answers(made)).max()
    assert difference < 3e-3, f"largest logit difference {difference}"
    assert read_header(made).number("expert_count") == N_EXPERTS


def test_the_test_above_would_notice_another_network(tiny: Callable[..., Path]) -> None:
    assert np.abs(answers(tiny()) - answers(tiny(noise=0.01))).max() > 1e-2


def test_routers_decide_what_is_used(tiny: Callable[..., Path], mixture: Path) -> None:
    """As was foretold from what the dense model's layers are given."""
    with closing(Model(tiny())) as model:
        text = np.array(model.tokenize(TEXT, add_special=True, parse_special=False), np.int32)
        inputs = feed_forward_inputs(model, [text[:5], text[5:]], 1)
        alone = feed_forward_inputs(model, [text], 1)
    np.testing.assert_array_equal(inputs[:, :5], alone[:, :5])
    assert not np.array_equal(inputs[:, 5:], alone[:, 5:])  # each text begins anew
    routes, shape = Routes(), ContextShape(n_cells=256, n_batch=64, n_outputs=64, n_seq=1)
    with closing(Model(mixture)) as model, closing(Context(model, shape, 1, routes)) as made:
        made.batch.add(text, 0, 0, 1, True)
        made.decode()
    for layer in range(N_LAYER):
        expected = choices(alone[layer], ROUTERS[layer], N_USED)
        assert np.mean(np.sort(routes.chosen[layer]) == np.sort(expected)) > 0.97  # near ties may go the other way


def test_the_file_says_what_it_is(mixture: Path) -> None:
    reader = gguf.GGUFReader(mixture)
    assert "copied to 16 experts (same function)" in reader.get_field("general.name").contents()
    shapes = {t.name: t.shape.tolist() for t in reader.tensors}
    assert shapes["blk.1.ffn_gate_inp.weight"] == [N_EMBD, N_EXPERTS]
    assert shapes["blk.0.ffn_down_exps.weight"] == [128, N_EMBD, N_EXPERTS]
    assert not any(name.endswith("ffn_up.weight") for name in shapes)


@pytest.mark.parametrize(
    ("routers", "n_used", "message"),
    [
        (ROUTERS[:1], 2, "needs 2 routers of equally many rows"),
        ([ROUTERS[0], ROUTERS[1][:4]], 2, "needs 2 routers of equally many rows"),
        ([ROUTERS[0], ROUTERS[1][:, :4]], 2, "needs 2 routers of equally many rows"),
        (ROUTERS, 17, "experts used must be from 1 to 16, got 17"),
        (ROUTERS, 0, "experts used must be from 1 to 16, got 0"),
    ],
)
def test_routers_that_do_not_fit_are_refused(
    tiny: Callable[..., Path], tmp_path: Path, routers: list[NDArray[np.float32]], n_used: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        copy_experts(tiny(), tmp_path / "made.gguf", routers, n_used)
    assert list(tmp_path.glob("*")) == []


def test_a_mixture_is_not_copied_again(mixture: Path, tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="take a dense model of the llama architecture"):
        copy_experts(mixture, tmp_path / "again.gguf", ROUTERS, N_USED)


def text_like(n: int, n_embd: int = 48) -> NDArray[np.float32]:
    """Numbers with a mean, a few directions that change slowly, and others that do not."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((n, n_embd))
    for i in range(1, n):
        x[i, :8] = 0.95 * x[i - 1, :8] + 0.3 * x[i, :8]
    return (x @ rng.standard_normal((n_embd, n_embd)) + 3.0).astype(np.float32)


def figures(routing: Routing) -> dict[str, float]:
    inputs, lengths = text_like(1024), [128] * 8
    router = fit_router(inputs, lengths, 128, routing, np.random.default_rng(0))
    found = [describe(choices(part, router, 6), 128) for part in np.split(inputs, 8)]
    return {key: float(np.mean([each[key] for each in found])) for key in found[0]}


def test_a_fitted_router_is_as_skewed_as_it_is_asked_to_be() -> None:
    flat, skewed = figures(Routing(skew=0.0, alike=0.0)), figures(Routing(skew=3.0, alike=0.0))
    assert flat["used"] > 120 and flat["hottest 8"] < 0.2 and flat["lag 1"] < 0.1
    assert skewed["used"] < 90 and skewed["hottest 8"] > 0.3


def test_neighbours_are_as_alike_as_they_are_asked_to_be() -> None:
    apart, alike = (figures(Routing(skew=3.0, alike=share, n_alike=8)) for share in (0.0, 0.8))
    assert abs(apart["lag 1"] - apart["lag 8"]) < 0.03
    assert alike["lag 1"] > alike["lag 8"] + 0.1 > apart["lag 8"]
