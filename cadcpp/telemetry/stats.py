"""Counters of one generation."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(slots=True, kw_only=True)
class Stats:
    """What one generation cost; times in seconds."""

    passes: int = 0  # verifier passes that produced tokens
    drafted: int = 0  # tree rows given to the verifier, roots not counted
    accepted: int = 0  # drafted tokens that became text
    emitted: int = 0  # tokens of the text, bonus tokens included
    draft_decodes: int = 0  # of the draft model
    draft_seconds: float = 0.0
    verify_seconds: float = 0.0
    stall_seconds: float = 0.0  # of verify_seconds, waiting for streamed weights
    read_bytes: int = 0  # fetched from storage, page faults included
    prompt_read_bytes: int = 0  # ... of them until the first text came: by all passes that the prompt took
    read_bytes_per_token: int = 0
    expert_hit_rate: float | None = None  # share of the experts that passes used which were in memory; None: no paging
    expert_read_bytes: int = 0  # of read_bytes
    expert_stall_seconds: float = 0.0  # of stall_seconds
    pinned_bytes: int = 0
    streamed_bytes_per_pass: int = 0
    layers_reported: bool | None = None  # by llama.cpp, without which streaming is slow; None: nothing is streamed
    link_bytes: int = 0  # sent to workers and received from them
    link_round_trips: int = 0  # replies of workers that were waited for
    link_seconds: float = 0.0  # ... and for how long, what they compute included
    peak_rss_bytes: int = 0
    load_seconds: float = 0.0
    exact: bool = True  # whether the text is that of plain decoding, as far as this machine was tried
    inexact_because: str = ""
    streaming_limited: str = ""  # what of streaming is not to be had on this system, and why

    @property
    def tokens_per_pass(self) -> float:
        return self.emitted / self.passes if self.passes else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, ``tokens_per_pass`` included."""
        values = asdict(self)
        del values["emitted"]
        return {"passes": values.pop("passes"), "tokens_per_pass": round(self.tokens_per_pass, 3), **values}
