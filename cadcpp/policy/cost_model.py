"""The cost model: how much to draft, from what drafting and verifying were measured to cost."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cadcpp.policy.base import Disk, Observation, RoundState
from cadcpp.policy.pass_cost import AcceptanceByDepth, PassCost
from cadcpp.tree.limits import DraftBudget, TreeLimits
from cadcpp.tree.prices import FIRST_ROWS, MAX_ROWS, TEXT_ROWS, Floats, Prices, hidden_rows

_FORGET = 0.8  # weight of the past in running means
_PROBE = 16  # rounds of plain decoding after which drafting is tried again; three times as many after each vain try
MOST_PLAIN = 512
_MARGIN = 1.03  # by which drafting must seem faster, since a wrong guess costs more than a chance missed
_TRIALS = 4  # rounds of drafting that it takes to judge it
_FIRST_IN_MEMORY = 6  # nodes of a first tree where nothing is read meanwhile: kernels compute one row after the other
_TRIAL_SIZE = 4  # nodes of a tree that tries again whether drafting pays by now
_FEW = 8  # nodes of a tree that rows' experts are priced in
_CATCH_UP = 0.05  # of the time without drafts, that reading what was written may take before they are tried again
_FREE = 0.02  # of a pass of one row, that a node may take for a tree to be looked at in every round
_LEARNED = {
    "node_s": float,
    "draft_s": float,
    "nodes": float,
    "trials": int,
    "plain_rounds": int,
    "patience": int,
    "read_s": float,
}


@dataclass(slots=True)
class CostModel:
    """Prices tree nodes in accepted tokens, so that a tree has the best ratio of tokens to time.

    The best ratio R = tokens / seconds solves a fractional programme (Dinkelbach 1967): the best tree is the
    one that maximises its expected tokens, its nodes' cumulative probabilities, less R times the seconds that
    it takes. R is the best rate that trees like the last ones promise, cut to any size. Rows cost nothing while
    the pass waits for the disk anyway, and evaluating nodes costs nothing while the disk reads ahead for the next.
    """

    verify: PassCost = field(default_factory=PassCost)
    acceptance: AcceptanceByDepth = field(default_factory=AcceptanceByDepth)
    node_s: float = 0.0
    draft_s: float = 0.0
    disk: Disk = field(default_factory=Disk)
    read_s: float = 0.0  # of a token of text that the draft model reads, beside many others
    stall_s: float = 0.0
    elsewhere_s: float = 0.0  # of a pass, while which only workers compute
    tokens: Floats = field(default_factory=lambda: np.zeros(MAX_ROWS))  # [n]: expected of a tree cut to i + 1 rows
    nodes: float = 0.5  # evaluated for each row
    early_estimate: bool = True  # whether node_s, draft_s, nodes are of a first or cold round; the next replaces them
    cold_estimate: bool = False  # whether they are of a first, cold round, in which code itself was being read
    trials: int = _TRIALS  # rounds that are drafted whatever it seems to bring
    plain_rounds: int = 0
    patience: int = _PROBE

    def uses_model(self, n_behind: int, otherwise: float = 0.0) -> bool:
        """What `plan` would decide, as far as is known before its round."""
        return self._is_due(n_behind) or self.pays(otherwise)

    def look(self, disk: Disk) -> None:
        """Take into account what is known of the disk by now."""
        self.disk = disk

    def plan(self, state: RoundState, otherwise: float = 0.0) -> DraftBudget | None:
        """A budget at the prices of this round, or None where drafting does not pay.

        It does not if plain decoding, or whatever brings ``otherwise`` tokens a second, is faster. After some rounds
        without, a few are drafted all the same, to see.
        """
        self.look(state.disk)
        if self._is_due(state.n_behind):
            self.try_again()
        if not self.pays(otherwise):
            return None
        if not self.is_on_trial and self._is_faster(self._plain_rate()):
            self.patience = _PROBE
        n_ahead = self._n_ahead(state.limits)
        if not self.tokens.any() or not self.verify.known:
            return state.budget(self._first_size(state), n_ahead=n_ahead)
        size = self._size(state)
        return state.budget(size, prices=self._prices(state.n_uncached, size), n_ahead=n_ahead)

    def _is_due(self, n_behind: int) -> bool:
        return self.plain_rounds >= self.patience and self.may_catch_up(n_behind)

    def may_catch_up(self, n_behind: int) -> bool:
        """Whether to read so many tokens is little beside the rounds without drafts so far: a try may be in vain."""
        return n_behind * self.read_s * self._plain_rate() <= _CATCH_UP * self.plain_rounds

    def pays(self, otherwise: float = 0.0) -> bool:
        """Whether drafting seems faster than plain decoding and than ``otherwise`` tokens a second, or is on trial.

        Where it costs next to nothing to see what a round would bring, plain decoding is what is left of a tree that
        does not pay: a text that copies does so now and then, and its mean says little.
        """
        if self.is_on_trial:
            return not self.must_see_plain
        return self._is_faster(otherwise, 0.0 if self._sees_for_free() else self._plain_rate())

    def _is_faster(self, *rates: float) -> bool:
        return self.rate() >= _MARGIN * max(rates)

    def observe(self, seen: Observation) -> None:
        """Learn from one round."""
        if not seen.cold:
            self.verify.add(seen.n_rows, seen.compute_s)
        elif not self.verify.known:
            self.verify.guess(seen.n_rows, seen.compute_s)
        self._note_times(seen)
        is_plain = len(seen.logp) == 1  # whether or not the draft was asked
        self.plain_rounds = self.plain_rounds + 1 if is_plain else 0
        if seen.n_evaluated == 0:
            return
        self.trials -= 1
        if not is_plain:
            self._note_tree(seen)
        self._note_drafting(seen)
        self.expect(seen.logp, seen.depth, seen.rows_per_node)

    def _note_tree(self, seen: Observation) -> None:
        nodes = seen.n_evaluated / (seen.rows_per_node * (len(seen.logp) - 1))
        self.nodes = _mean(0.0 if self.early_estimate else self.nodes, nodes)
        promised = np.bincount(seen.depth, np.exp(seen.logp)).astype(np.float64)
        self.acceptance.observe(promised, seen.n_accepted)

    def _note_drafting(self, seen: Observation) -> None:
        first = self.draft_s == 0.0
        if self.early_estimate:
            self.node_s = self.draft_s = 0.0
        self.early_estimate, self.cold_estimate = seen.cold or first, seen.cold and first
        self.node_s = _mean(self.node_s, seen.draft_s / seen.n_evaluated)
        self.draft_s = _mean(self.draft_s, seen.draft_s)

    def miss(self, seen: Observation) -> None:
        """Learn from a round that another drafter's tree was used in."""
        self._note_times(seen)
        self.plain_rounds += 1

    def _note_times(self, seen: Observation) -> None:
        if seen.n_read:
            self.read_s = _mean(self.read_s, seen.read_s / seen.n_read)
        self.stall_s = _mean(self.stall_s, seen.stall_s)
        self.elsewhere_s = _mean(self.elsewhere_s, seen.elsewhere_s)

    def expect(self, logp: NDArray[np.float32], depth: NDArray[np.int32], rows_per_node: float = 1.0) -> None:
        """A tree, by its nodes' log probabilities and depth, [n]: others will promise about as much."""
        gains = Prices(acceptance=self.acceptance.by_depth()).gains(logp, depth)
        by_nodes = np.cumsum(np.append(1.0, np.sort(gains)[::-1]))[: len(gains)]
        n_nodes = (np.arange(MAX_ROWS) / rows_per_node).astype(np.int64)
        tokens = by_nodes[np.minimum(n_nodes, len(by_nodes) - 1)]
        self.tokens = _FORGET * self.tokens + (1 - _FORGET) * tokens if self.tokens.any() else tokens

    def learned(self) -> dict[str, Any]:
        """What another session may start from, in terms of JSON; the costs of passes are not its own."""
        numbers = {name: getattr(self, name) for name in _LEARNED}
        return {**numbers, "tokens": self.tokens.tolist(), "acceptance": self.acceptance.learned()}

    def recall(self, learned: dict[str, Any]) -> None:
        """Start from what was `learned` before. Raises KeyError, TypeError or ValueError for nonsense."""
        numbers = {name: kind(learned[name]) for name, kind in _LEARNED.items()}
        self.tokens[:] = learned["tokens"]
        self.acceptance.recall(learned["acceptance"])
        for name, number in numbers.items():
            setattr(self, name, number)
        self.early_estimate = self.draft_s == 0.0

    def describe(self) -> dict[str, float]:
        base_s, row_s = self.verify.line()
        return {"rate": round(self.rate(), 3), "pass_s": base_s, "row_s": row_s, "node_s": self.node_s}

    def try_again(self) -> None:
        """What drafting costs is measured anew: the last time may have been a busy hour of another session."""
        self.patience = min(3 * self.patience, MOST_PLAIN)
        self.trials, self.plain_rounds, self.early_estimate = _TRIALS // 2, 0, True
        self.acceptance.forget()

    def _size(self, state: RoundState) -> int:
        """Nodes that a tree may have; more than usual where so many rows would still wait for the disk."""
        limits = state.limits
        careful = self.trials > 0 and (self.patience > _PROBE or self.disk.routed_s.any())
        size = min(limits.max_size, _TRIAL_SIZE) if careful else limits.max_size
        wide_s = self.verify.estimate()[state.n_uncached - 1 + limits.max_size_streamed] + self.draft_s
        return limits.max_size_streamed if limits.max_size_streamed > size and wide_s < self.disk.stream_s else size

    def _first_size(self, state: RoundState) -> int:
        """Small trees until there are measurements, but where the disk is slow as many rows as a slow CPU manages.

        Where rows read experts of their own no row is hidden behind the disk. Beside a short text there are TEXT_ROWS
        without memory of weights; for more the disk has to be slow as well.
        """
        if self.disk.routed_s.any():
            return min(state.limits.max_size, _TRIAL_SIZE)
        hidden, limits = hidden_rows(self.disk.byte_s), state.limits
        first = FIRST_ROWS if self.disk.byte_s else _FIRST_IN_MEMORY
        size = min(max(limits.max_size, limits.max_size_streamed), max(hidden, first))
        if state.n_uncached > TEXT_ROWS or not self.disk.beyond_s.any():
            return size
        return min(size, max(hidden, TEXT_ROWS) - state.n_uncached + 1)

    def _prices(self, n_uncached: int, size: int) -> Prices:
        """Of trees of up to ``size`` nodes beside ``n_uncached`` rows that go along anyway."""
        rate, rows = max(self.rate(), self._plain_rate()), self._round_s()[n_uncached : n_uncached + size]
        node_s = 0.0 if self.cold_estimate else self.node_s
        free = int(min(self.disk.ahead_s, self.stall_s) / node_s) if node_s > 0 else 0
        return Prices(
            rows=rate * (rows - rows[0]),
            node=rate * node_s,
            free_nodes=free,
            acceptance=self.acceptance.by_depth(),
            experts=rate * self._row_experts_s(n_uncached, size),
            row_reads=self.disk.row_reads,
        )

    def _row_experts_s(self, n_uncached: int, size: int) -> float:
        """Seconds that a row waits for its experts, beside ``n_uncached`` and a few others, if it is like these."""
        n = min(size, _FEW) - 1
        return float(self.disk.routed_s[n_uncached + n] - self.disk.routed_s[n_uncached]) / max(n, 1)

    def _n_ahead(self, limits: TreeLimits) -> int:
        """As many as there is time for, if compute waits more than it works: else both would want the same cores.

        None where the disk reads ahead for as long as drafting takes, since nothing waits for the draft then. While
        workers compute, this machine's cores are free in any case.
        """
        is_hidden = 0 < self.draft_s <= self.disk.ahead_s
        stall_s = self.stall_s if self.stall_s > 0.5 * self.disk.stream_s > 0 and not is_hidden else 0.0
        return int(min((stall_s + self.elsewhere_s) / self.node_s, 2 * limits.max_size)) if self.node_s > 0 else 0

    def _round_s(self) -> Floats:
        """Seconds of rounds whose pass has 0, 1, 2, ... rows. Nothing is computed while experts are read."""
        streamed_s = self.disk.stream_s + self.disk.beyond_s
        return np.maximum(self.verify.estimate() + self.draft_s, streamed_s) + self.disk.routed_s

    def best_rate(self, disk: Disk) -> float:
        """Tokens a second with the best tree or with none, whichever is more, where passes wait for ``disk``."""
        return max(self.rate(disk), self._plain_rate(disk))

    def rate(self, disk: Disk | None = None) -> float:
        """Tokens a second of the best tree; 0 as long as there was none."""
        disk = disk or self.disk
        n, passes = np.arange(1, MAX_ROWS), slice(2, MAX_ROWS + 1)
        draft_s = np.maximum(self.nodes * n, 1) * self.node_s
        disk_s = disk.stream_s + disk.beyond_s[passes] + np.maximum(draft_s - disk.ahead_s, 0)
        compute_s = self.verify.estimate()[passes] + draft_s
        seconds = np.maximum(disk_s, compute_s) + disk.routed_s[passes]
        return float(np.max(self.tokens[1:] / np.maximum(seconds, 1e-9)))

    @property
    def is_on_trial(self) -> bool:
        """Whether too few trees were seen to judge drafting by them."""
        return self.trials > 0 or self.early_estimate or not self.tokens.any()

    def _sees_for_free(self) -> bool:
        return 0 < self.node_s < _FREE * float(self.verify.estimate()[1])

    @property
    def must_see_plain(self) -> bool:
        """Half through the trials, where a pass of one row might be faster than the disk and has not been seen."""
        halfway = self.trials == _TRIALS // 2 and bool(self.tokens.any())
        return halfway and self.verify.seen_plain < 0.1 and float(self.verify.estimate()[1]) > 1.5 * self.disk.stream_s

    def _plain_rate(self, disk: Disk | None = None) -> float:
        disk = disk or self.disk
        pass_s = max(disk.stream_s, float(self.verify.estimate()[1])) + float(disk.routed_s[1])
        return 1.0 / max(pass_s, 1e-9)


def _mean(old: float, new: float) -> float:
    return new if old == 0.0 else _FORGET * old + (1 - _FORGET) * new
