"""How many recurrent states of a model are worth their memory."""

from collections.abc import Iterator
from dataclasses import dataclass

from cadcpp.gguf.blocks import state_bytes
from cadcpp.gguf.header import Header

_MOST_SNAPSHOTS, _MOST_MARKS, _MOST_CHAINS = 16, 8, 8
_LEAST_SNAPSHOTS = 3  # with fewer chains would be too short, and evaluating text again is better
_OF_KEPT, _OF_STREAMED = 8, 64  # snapshots take this part of the weights at most, by where these are
_OF_MEMORY = 64  # ... and marks this part of all memory, but one mark there is


@dataclass(frozen=True, slots=True, kw_only=True)
class States:
    """What a context keeps of states, which cannot be taken back without."""

    n_chains: int = 1  # sequences, of which each has a state of its own
    n_snapshots: int = 0  # states before the last tokens of each sequence, inside llama.cpp
    n_marks: int = 0  # states at which earlier texts ended, to take up a text again
    elsewhere: int = 0  # bytes of a sequence's states that workers have; copies of them are here all the same

    @property
    def n_copies(self) -> int:
        """States outside of llama.cpp: the marks, and the trunk's own before a pass."""
        return self.n_marks + 1

    @property
    def verdict(self) -> str:
        """What a pass can check at once."""
        chains = "a chain" if self.n_chains == 1 else f"up to {self.n_chains} chains"
        if self.n_snapshots:
            return f"{chains} of drafts, of which up to {self.n_snapshots} wrong tokens are taken back"
        return f"{chains} of drafts; after a wrong one text is evaluated again"


def draft_states(header: Header) -> States | None:
    """For a draft; it reads an earlier text anew. None for models that have no state."""
    return States() if state_bytes(header) else None


def verifier_states(header: Header, ram: int, *, snapshots: bool, streamed: bool) -> Iterator[States | None]:
    """For a verifier, what is best first; ``snapshots``: whether llama.cpp can keep any."""
    each = state_bytes(header)
    if not each:
        yield None
        return
    room = header.n_bytes // (_OF_STREAMED if streamed else _OF_KEPT)
    n, n_marks = min(room // each, _MOST_SNAPSHOTS) if snapshots else 0, min(ram // _OF_MEMORY // each, _MOST_MARKS)
    n_chains = max(min(room // (each * (n + 1)), _MOST_CHAINS), 1)  # several only of the longest
    while n >= _LEAST_SNAPSHOTS:
        yield States(n_chains=n_chains, n_snapshots=n, n_marks=max(n_marks, 1))
        n, n_chains = (n, n_chains // 2) if n_chains > 1 else (n // 2, 1)
    yield States(n_marks=max(n_marks, 1))
