"""What the server has done, for Prometheus."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cadcpp.telemetry.stats import Stats


@dataclass(slots=True)
class Metrics:
    """Sums over all requests, and how many there are now."""

    requests: int = 0
    prompt_tokens: int = 0
    tokens: int = 0
    passes: int = 0
    drafted: int = 0
    accepted: int = 0
    read_bytes: int = 0
    draft_seconds: float = 0.0
    verify_seconds: float = 0.0
    stall_seconds: float = 0.0
    n_open: int = 0  # requests that wait or are answered
    n_working: int = 0  # of them, those that are answered: one at most

    @property
    def n_waiting(self) -> int:
        return max(self.n_open - self.n_working, 0)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        self.n_open += 1
        try:
            yield
        finally:
            self.n_open -= 1

    @contextmanager
    def working(self) -> Iterator[None]:
        self.n_working += 1
        try:
            yield
        finally:
            self.n_working -= 1

    def add(self, stats: Stats, usage: dict[str, int]) -> None:
        """Count a text."""
        self.requests += 1
        self.prompt_tokens += usage["prompt_tokens"]
        self.tokens += usage["completion_tokens"]
        for name in ("passes", "drafted", "accepted", "read_bytes", "draft_seconds", "verify_seconds", "stall_seconds"):
            setattr(self, name, getattr(self, name) + getattr(stats, name))

    def text(self) -> str:
        """In Prometheus' text format; llama-server's names beside our own where it has the same figure."""
        totals = {
            "cadcpp_requests_total": (self.requests, "texts written"),
            "cadcpp_prompt_tokens_total": (self.prompt_tokens, "tokens of prompts"),
            "cadcpp_tokens_total": (self.tokens, "tokens written"),
            "cadcpp_passes_total": (self.passes, "passes of the verifier"),
            "cadcpp_drafted_tokens_total": (self.drafted, "drafted tokens that passes checked"),
            "cadcpp_accepted_tokens_total": (self.accepted, "drafted tokens that became text"),
            "cadcpp_read_bytes_total": (self.read_bytes, "bytes read from storage"),
            "cadcpp_draft_seconds_total": (self.draft_seconds, "seconds of drafting"),
            "cadcpp_verify_seconds_total": (self.verify_seconds, "seconds of passes"),
            "cadcpp_stall_seconds_total": (self.stall_seconds, "seconds of passes that waited for storage"),
            "llamacpp:prompt_tokens_total": (self.prompt_tokens, "tokens of prompts"),
            "llamacpp:tokens_predicted_total": (self.tokens, "tokens written"),
        }
        now = {
            "cadcpp_acceptance_ratio": (self.accepted / max(self.drafted, 1), "share of drafted tokens accepted"),
            "cadcpp_tokens_per_pass": ((self.accepted + self.passes) / max(self.passes, 1), "tokens a pass"),
            "cadcpp_queue_length": (self.n_waiting, "requests that wait"),
            "llamacpp:requests_processing": (self.n_working, "requests that are answered"),
            "llamacpp:requests_deferred": (self.n_waiting, "requests that wait"),
        }
        lines = [*_lines(totals, "counter"), *_lines(now, "gauge")]
        return "\n".join(lines) + "\n"


def _lines(figures: dict[str, tuple[float, str]], kind: str) -> Iterator[str]:
    for name, (value, what) in figures.items():
        yield f"# HELP {name} {what}"
        yield f"# TYPE {name} {kind}"
        yield f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
