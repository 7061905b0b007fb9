"""When each token of a baseline came, and what was read and computed after the first one."""

import time
from typing import Any

from cadcpp.system.memory_limits import read_bytes


class TokenTimes:
    """What a baseline prints; counts from when it is made, right before the model is loaded."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._load_s = 0.0
        self._times: list[float] = []
        self._read, self._cpu_s = 0, 0.0  # up to the first token

    def loaded(self) -> None:
        self._load_s = time.perf_counter() - self._start

    def add(self) -> None:
        """A token came, or the end of the text."""
        self._times.append(time.perf_counter())
        if len(self._times) == 1:
            self._read, self._cpu_s = read_bytes(), time.process_time()

    def record(self, tokens: list[int], prompt_tokens: int) -> dict[str, Any]:
        """Times in seconds; figures a token leave out the first one, which came with the prompt."""
        n_later = max(len(self._times) - 1, 1)
        return {
            "tokens": tokens,
            "load_seconds": self._load_s,
            "first_seconds": self._times[0] - self._start,
            "seconds_per_token": (self._times[-1] - self._times[0]) / n_later,
            "cpu_seconds_per_token": (time.process_time() - self._cpu_s) / n_later,
            "read_bytes_per_token": (read_bytes() - self._read) // n_later,
            "prompt_tokens": prompt_tokens,
        }
