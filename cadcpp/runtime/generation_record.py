"""The record of one generation that --json prints."""

import time
from typing import Any

from cadcpp.runtime.session import Chunk
from cadcpp.system.memory_limits import peak_bytes, read_bytes
from cadcpp.telemetry.stats import Stats


class GenerationRecord:
    """Collects the chunks of one generation; made right before it starts."""

    def __init__(self, prompt_tokens: int) -> None:
        self.stats = Stats()
        self.text, self.tokens, self.finish = "", list[int](), "length"
        self._prompt_tokens = prompt_tokens
        self._start = time.perf_counter()
        self._read = read_bytes()
        self._first_s, self._n_first, self._last_s = 0.0, 0, 0.0
        self._first_cpu_s = 0.0

    def add(self, chunk: Chunk) -> None:
        self._last_s = time.perf_counter() - self._start
        if not self.stats.passes or not self._first_s:
            self._first_s, self._n_first = self._last_s, len(chunk.tokens)
            self._first_cpu_s = time.process_time()
            self.stats.prompt_read_bytes = read_bytes() - self._read
        self.text += chunk.text
        self.tokens += chunk.tokens
        self.finish = chunk.finish or self.finish

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed: what came after the first pass, which also reads the prompt."""
        n, seconds = len(self.tokens) - self._n_first, self._last_s - self._first_s
        if n > 0 and seconds > 0:
            return n / seconds
        return len(self.tokens) / self._last_s if self._last_s else 0.0

    @property
    def cpu_seconds_per_token(self) -> float:
        """Of all threads, after the first pass."""
        return (time.process_time() - self._first_cpu_s) / max(len(self.tokens) - self._n_first, 1)

    def to_dict(self) -> dict[str, Any]:
        """The record as plain values; times in seconds, sizes in bytes."""
        n = len(self.tokens)
        self.stats.read_bytes = read_bytes() - self._read
        self.stats.read_bytes_per_token = self.stats.read_bytes // max(n, 1)
        self.stats.peak_rss_bytes = peak_bytes()
        return {
            "text": self.text,
            "tokens": self.tokens,
            "finish_reason": self.finish,
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": n,
            "seconds": round(self._last_s, 4),
            "prompt_seconds": round(self._first_s, 4),
            "tokens_per_second": round(self.tokens_per_second, 4),
            "cpu_seconds_per_token": round(self.cpu_seconds_per_token, 4),
            "stats": self.stats.to_dict(),
        }
