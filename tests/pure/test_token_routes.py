"""What tokens will read of experts, as foretold by what they used last."""

import numpy as np
import pytest
from numpy.typing import NDArray

from cadcpp.residency.token_routes import TokenRoutes

N_LAYERS, N_EXPERTS, N_USED = 9, 32, 4


class Text:
    """Tokens, of which each has experts that it uses in each layer, or that its layers draw anew each time."""

    def __init__(self, seed: int = 0, *, drawn: bool = False) -> None:
        self.rng, self.drawn, self.routes = np.random.default_rng(seed), drawn, TokenRoutes()
        self.missing = self.rng.random((N_LAYERS, N_EXPERTS)) < np.linspace(0, 1, N_EXPERTS)  # of the last ones most
        self.own: dict[int, NDArray[np.int64]] = {}

    def route(self, token: int) -> NDArray[np.int64]:
        """Its experts, [n_layers, n_used]: of small tokens the first ones."""
        if self.drawn or token not in self.own:
            first = self.rng.integers(N_EXPERTS - N_USED) if self.drawn else token % (N_EXPERTS - N_USED)
            self.own[token] = np.tile(np.arange(first, first + N_USED), (N_LAYERS, 1))
        return self.own[token]

    def evaluate(self, *tokens: int, n_layers: int = N_LAYERS) -> None:
        self.routes.begin(np.array(tokens, np.int32), self.missing)
        chosen = np.stack([self.route(token) for token in tokens], axis=1)  # [n_layers, n, n_used]
        for layer in range(n_layers):
            self.routes.note(chosen[layer])
        self.routes.end(learn=True)

    def read(self, *tokens: int) -> NDArray[np.float64]:
        """Experts that tokens are expected to read, where an average one reads 16."""
        return 16.0 * self.routes.expected(np.array(tokens), self.missing, 16.0)


def test_nothing_is_foreseen_before_the_first_pass() -> None:
    assert Text().read(1, 2, 3).tolist() == [16.0, 16.0, 16.0]
    assert Text().routes.expected(np.array([1]), Text().missing, 0.0).tolist() == [1.0]


def test_tokens_that_stood_in_the_text_read_what_is_missing_of_what_they_used() -> None:
    text = Text()
    for _ in range(4):
        for token in range(24):
            text.evaluate(token)
    wanted = [text.missing[np.arange(N_LAYERS - 1)[:, None], text.route(n)[:-1]].sum() for n in range(24)]
    assert np.corrcoef(wanted, text.read(*range(24)))[0, 1] > 0.99
    np.testing.assert_allclose(text.read(*range(24)), wanted, atol=3)


def test_it_goes_by_what_is_missing_now() -> None:
    text = Text()
    for token in [*range(24)] * 4:
        text.evaluate(token)
    before = text.read(5, 20)
    text.missing[:, 20:24] = False
    assert text.read(5)[0] == before[0] and text.read(20)[0] < before[1] - 8


def test_tokens_that_are_new_read_as_much_as_new_ones_did() -> None:
    text = Text()
    for token in range(100, 100 + 2 * (N_EXPERTS - N_USED)):
        text.evaluate(token)
    for token in [3] * 60:  # needs little
        text.evaluate(token)
    new, known = text.read(999, 3)
    assert new > 12 and known < 5


def test_control_where_experts_have_nothing_to_do_with_tokens_all_are_alike() -> None:
    text = Text(drawn=True)
    for token in [*range(24)] * 8:
        text.evaluate(token)
    assert np.ptp(text.read(*range(24))) < 6.0


@pytest.mark.parametrize("n_layers", [0, 3, N_LAYERS - 1])
def test_a_pass_that_was_cut_short_tells_nothing(n_layers: int) -> None:
    text = Text()
    text.evaluate(1, 2, n_layers=n_layers)
    assert text.read(1, 2).tolist() == [16.0, 16.0]


def test_the_last_layer_may_have_fewer_rows() -> None:
    """Those alone that ask for logits."""
    text = Text()
    routes = text.routes
    for _ in range(2):
        routes.begin(np.array([1, 30], np.int32), text.missing)
        for layer in range(N_LAYERS):
            routes.note(np.stack([text.route(token)[layer] for token in (1, 30)])[: 1 if layer == N_LAYERS - 1 else 2])
        routes.end(learn=True)
    assert text.read(1, 30).max() < 16.0


def test_only_so_many_tokens_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The latest."""
    monkeypatch.setattr("cadcpp.residency.token_routes._MOST", 3)
    text = Text()
    for token in (1, 20, 1, 21, 22):
        text.evaluate(token)
    known, forgotten = text.routes._is_known(np.array([1, 21, 22])), text.routes._is_known(np.array([20]))
    assert known.all() and not forgotten.any()
