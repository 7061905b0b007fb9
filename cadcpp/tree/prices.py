"""What a token tree costs, in tokens that the same time would bring otherwise."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

MAX_ROWS = 256
FIRST_ROWS = 16  # of a tree as long as nothing is known of what it costs
TEXT_ROWS = 64  # of a text that passes at least take at once
SIZES = 2 * MAX_ROWS + 1  # of passes that costs are kept for: 0, 1, 2, ... rows
Floats = NDArray[np.float64]
RowReads = Callable[[NDArray[np.integer]], Floats]  # tokens, [n] -> experts that their rows read, in an average row's
_ROW_BYTE_S = 4e-11  # that a row computes with a byte of weights, at 50 to 100 GFLOPS as phones and boards have them


def alike(tokens: NDArray[np.integer]) -> Floats:
    """`RowReads` of tokens of which nothing is known."""
    return np.ones(len(tokens))


def hidden_rows(byte_s: float) -> int:
    """Rows that a slow processor computes while the disk reads the same weights, a byte in ``byte_s`` seconds."""
    return int(byte_s / _ROW_BYTE_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Prices for one round; by default nothing costs anything."""

    rows: Floats = field(default_factory=lambda: np.zeros(MAX_ROWS))  # [n]: of i + 1 rows, beyond the root alone
    node: float = 0.0  # of evaluating a node with the draft, after ...
    free_nodes: int = MAX_ROWS  # ... so many that cost nothing
    acceptance: Floats = field(
        default_factory=lambda: np.ones(1)
    )  # factors for probabilities, by depth; the last goes on
    experts: float = 0.0  # of the price of a row, what an average token's experts are read for, and ...
    row_reads: RowReads = alike  # ... how much others read

    def gains(self, logp: NDArray[np.float32], depth: NDArray[np.integer], surcharge: Floats | float = 0.0) -> Floats:
        """Tokens that nodes are expected to add, less what those cost more than others that do not become text, [n].

        What becomes text reads its experts in any case, now or in a pass of its own. The root, which is text already,
        adds nothing.
        """
        gains = np.exp(logp.astype(np.float64)) * self.acceptance[np.minimum(depth, len(self.acceptance) - 1)]
        gains -= surcharge * np.maximum(1.0 - gains, 0.0)
        gains[depth == 0] = 0.0
        return np.asarray(gains)

    def surcharge(self, tokens: NDArray[np.integer]) -> Floats:
        """What rows of these tokens cost more than an average one, for the experts that they read, [n]."""
        return self.experts * (self.row_reads(tokens) - 1.0) if self.experts else np.zeros(len(tokens))

    def best_rows(self, gains: Floats) -> int:
        """Rows of the best tree, of nodes that bring ``gains``, [n], the root first."""
        n = min(len(gains), len(self.rows))
        return int(np.argmax(np.cumsum(gains[:n]) - self.rows[:n])) + 1

    def next_row(self, n: int) -> float:
        """The least that a row beyond ``n`` can cost on average. Costs may come in steps, so it looks far ahead."""
        beyond = self.rows[n:] - self.rows[n - 1]
        return max(float(np.min(beyond / np.arange(1, len(beyond) + 1))), 0.0) if len(beyond) else 0.0
