"""The cost model: how much to draft, from what drafting and verifying were measured to cost."""

from dataclasses import dataclass, field, replace
from typing import Protocol

from cadcpp.config import TreeConfig

_FORGET = 0.8  # weight of the past in every running mean
_PROBE = 16  # rounds of plain decoding after which drafting is tried again
_TRIALS = 4  # rounds of drafting that it takes to judge it


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What one round cost; seconds."""

    n_rows: int  # of the verify pass, the text's tail included
    n_tail: int = 1  # ... and of these the tail, the tree's root included
    n_evaluated: int  # nodes that the draft evaluated
    n_tokens: int  # of text that came of it
    n_accepted: int = 0  # drafted tokens that were right
    n_branch: int = 0  # ... of how many on the branch that matched best
    expected: float  # accepted tokens that the draft expected: the sum of its cumulative probabilities
    draft_s: float
    compute_s: float  # of the verify pass, waiting for the disk not included
    stream_s: float = 0.0  # least time of a pass: streamed bytes over disk speed
    ahead_s: float = 0.0  # drafting time for which the disk has work all the same


class Policy(Protocol):
    """Decides before each round how much to draft, and learns from what came of it."""

    def limits(self, config: TreeConfig, n_tail: int) -> TreeConfig: ...

    def pays(self) -> bool: ...

    def observe(self, seen: Observation) -> None: ...


@dataclass(slots=True)
class _Line:
    """Running least squares of y = a + b x, forgetting slowly."""

    n: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0

    def add(self, x: float, y: float) -> None:
        for name, value in (("n", 1.0), ("x", x), ("y", y), ("xx", x * x), ("xy", x * y)):
            setattr(self, name, getattr(self, name) * 0.95 + value)

    def fit(self) -> tuple[float, float]:
        """(a, b), both at least 0. While all x were about alike a tenth of the cost is taken to be per pass."""
        if self.n == 0:
            return 0.0, 0.0
        x, y = self.x / self.n, self.y / self.n
        spread = self.xx / self.n - x * x
        slope = (self.xy / self.n - x * y) / spread if spread > 0.02 * x * x else 0.9 * y / max(x, 1.0)
        slope = min(max(slope, 0.0), y / max(x, 1.0))
        return y - slope * x, slope


@dataclass(slots=True)
class CostModel:
    """Prices tree nodes in accepted tokens, so that a tree has the best ratio of tokens to time.

    The best ratio R = tokens / seconds solves a fractional programme (Dinkelbach 1967): a node belongs to
    the tree if the tokens it is expected to add, its cumulative probability, exceed R times the seconds it
    adds. R is the rate that was reached lately. Rows cost nothing while the pass waits for the disk anyway,
    and evaluating nodes costs nothing while the disk reads ahead for the next pass.
    """

    verify: _Line = field(default_factory=_Line)
    node_s: float = 0.0
    stream_s: float = 0.0
    ahead_s: float = 0.0
    tokens: float = 0.0
    seconds: float = 0.0
    accepted: float = 1.0
    expected: float = 1.0
    trials: int = _TRIALS  # rounds that are drafted whatever it seems to bring
    plain_rounds: int = 0

    def limits(self, config: TreeConfig, n_tail: int) -> TreeConfig:
        """The prices for the next round, within the given settings; ``n_tail`` rows go along anyway."""
        if self.seconds == 0.0:
            return replace(config, rows=min(config.rows, 16))  # the first round measures
        rate = self.tokens / self.seconds
        base_s, row_s = self.verify.fit()
        free_rows = int((self.stream_s - base_s) / row_s) - n_tail + 1 if row_s > 0 else config.rows
        # A draft that promises too much or too little is read with that in mind.
        trust = min(max(self.accepted / max(self.expected, 1e-6), 0.25), 4.0)
        row_price = rate * row_s / trust
        return replace(
            config,
            free_rows=min(max(free_rows, 1), 256),
            row_price=row_price,
            free_nodes=int(self.ahead_s / self.node_s) if self.node_s > 0 else 0,
            node_price=rate * self.node_s / trust,
        )

    def pays(self) -> bool:
        """Whether to draft at all; after some rounds without, a few more to see."""
        if self.plain_rounds >= _PROBE:
            self.trials, self.plain_rounds = _TRIALS // 2, 0
        if self.trials > 0 or self.seconds == 0.0:
            return True
        base_s, row_s = self.verify.fit()
        plain = 1.0 / max(self.stream_s, base_s + row_s, 1e-9)
        return self.tokens / self.seconds >= 0.98 * plain

    def observe(self, seen: Observation) -> None:
        """Learn from one round."""
        self.verify.add(seen.n_rows, seen.compute_s)
        self.stream_s, self.ahead_s = seen.stream_s, seen.ahead_s
        if seen.n_evaluated == 0:
            self.plain_rounds += 1
            return
        self.plain_rounds, self.trials = 0, self.trials - 1
        self.node_s = _mean(self.node_s, seen.draft_s / seen.n_evaluated)
        self.tokens = self.tokens * _FORGET + seen.n_tokens
        # A long tail, such as the prompt, would be paid for without a draft as well.
        pass_s = max(seen.stream_s, seen.compute_s - (seen.n_tail - 1) * self.verify.fit()[1])
        self.seconds = self.seconds * _FORGET + pass_s + max(seen.draft_s - seen.ahead_s, 0.0)
        self.accepted = self.accepted * _FORGET + seen.n_tokens - 1
        self.expected = self.expected * _FORGET + seen.expected


def _mean(old: float, new: float) -> float:
    return new if old == 0.0 else _FORGET * old + (1 - _FORGET) * new
