"""How far to believe a draft: a temperature for its probabilities, found while text is written."""

import math
from dataclasses import dataclass

_FORGET = 0.97  # weight of the past, per round
_STEP = 0.05  # of the way to where the sums would agree, per round
_LEAST, _MOST = 0.2, 1.5


@dataclass(slots=True)
class DraftTemperature:
    """Steers ``temperature`` to where trees bring as many accepted tokens as they promise.

    Trees of the likeliest nodes are the best ones only if the probabilities are right (SpecExec, arXiv
    2406.02532, section 4). A small draft is less sure than a large verifier, the more so under greedy
    decoding, and its trees come out too wide; below 1 the temperature makes them deeper.
    """

    temperature: float = 0.7
    accepted: float = 0.0
    expected: float = 0.0

    def observe(self, accepted: int, expected: float) -> None:
        """Learn from one tree: drafted tokens that were right, and the sum of its nodes' probabilities."""
        self.accepted = self.accepted * _FORGET + accepted
        self.expected = self.expected * _FORGET + expected
        error = math.log((self.accepted + 1) / (self.expected + 1))
        self.temperature = min(max(self.temperature * math.exp(-_STEP * error), _LEAST), _MOST)
