"""A text that is being written."""

from dataclasses import dataclass


@dataclass(slots=True)
class TextState:
    """Token ids of a text, and how many of them the verifier's KV cache held when the round began."""

    ids: list[int]
    n_committed: int = 0

    @property
    def n_uncached(self) -> int:
        """Tokens that the next pass evaluates, the root of its tree included."""
        return len(self.ids) - self.n_committed

    @property
    def uncached(self) -> list[int]:
        return self.ids[self.n_committed :]
