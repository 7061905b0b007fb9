"""Which experts a model's rows are routed to."""

import numpy as np
from numpy.typing import NDArray


class Routes:
    """Writes down which experts each layer's rows are routed to."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.chosen: dict[int, NDArray[np.int32]] = {}
        self.n_own: dict[int, int] = {}

    def experts_chosen(self, layer: int, chosen: NDArray[np.int32], n_own: int) -> None:
        self.chosen[layer], self.n_own[layer] = chosen, n_own

    def start_pass(self, tokens: NDArray[np.int32]) -> None:
        self.tokens = tokens.tolist()

    def layer_done(self, layer: int) -> None: ...

    def end_pass(self, whole: bool) -> None: ...
