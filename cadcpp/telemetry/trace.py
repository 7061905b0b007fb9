"""Traces: what disk, draft and verifier did when, in Chrome's trace-event format (opens in Perfetto)."""

import json
import logging
import os
from pathlib import Path
from typing import Any

from cadcpp.errors import ConfigError

logger = logging.getLogger(__name__)

LANES = ("disk", "draft", "verify", "idle")  # idle: compute waits for the disk


class Trace:
    """Writes spans as they end, so that a trace is whole up to where a program was stopped.

    The file is a JSON array without its end, as the format allows; times are microseconds.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        except OSError as error:
            raise ConfigError(f"cannot write trace {path}: {error.strerror}; choose another --trace FILE") from None
        os.write(self._fd, b"[\n")
        for lane, name in enumerate(LANES):
            self._write({"ph": "M", "name": "thread_name", "pid": 1, "tid": lane, "args": {"name": name}})

    def span(self, lane: str, name: str, start: float, stop: float, **args: Any) -> None:
        """Something on a lane from ``start`` to ``stop``, seconds of time.perf_counter. May come from any thread."""
        times = {"ts": round(start * 1e6), "dur": round((stop - start) * 1e6)}
        self._write({"ph": "X", "name": name, "pid": 1, "tid": LANES.index(lane), **times, "args": args})

    def close(self) -> None:
        """May be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _write(self, event: dict[str, Any]) -> None:
        if self._fd >= 0:
            try:
                os.write(self._fd, json.dumps(event).encode() + b",\n")  # one call, so that threads do not mix
            except OSError as error:  # what is traced goes on
                logger.warning("cadcpp: the trace %s ends early: %s; make room there", self._path, error.strerror)
                self.close()
