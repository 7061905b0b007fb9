"""A reply that a signal ends at one line of the runtime, then at the next one, and so on to its last."""

import signal
import sys
import time
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Any

import cadcpp.runtime
from cadcpp import SamplingConfig, Session, SessionConfig
from cadcpp.kv.cache import Cache
from cadcpp.native.context import Context

FILES = str(Path(cadcpp.runtime.__file__).parent)
_rollback, _close = Cache.rollback, Context.close
_n_busy, _faults = 0, list[str]()


class _Signals:
    """SIGTERM in front of line ``at`` of the main thread's lines in the runtime."""

    def __init__(self, at: int) -> None:
        self.at, self.n = at, 0

    def trace(self, frame: FrameType, event: str, _argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(FILES):
            return None
        if event == "line":
            self.n += 1
            if self.n == self.at:
                sys.settrace(None)
                signal.raise_signal(signal.SIGTERM)
        return self.trace


def _slow_rollback(cache: Cache) -> None:
    global _n_busy
    _n_busy += 1
    time.sleep(0.002)
    _rollback(cache)
    _n_busy -= 1


def _watched_close(context: Context) -> None:
    if _n_busy:
        _faults.append("a context was freed while it was in use")
    _close(context)


def _reply(path: Path, signals: _Signals) -> None:
    with Session(path, None, SessionConfig(n_ctx=64, n_threads=1, speculative="off")) as session:
        sys.settrace(signals.trace)
        with closing(session.stream([1, 2, 3], SamplingConfig(temperature=0.0), 1)) as stream:
            for _ in stream:
                pass


def sweep(path: Path) -> int:
    """How many lines there were."""
    at = 0
    while True:
        at += 1
        signals = _Signals(at)
        try:
            _reply(path, signals)
        except SystemExit:
            continue
        finally:
            sys.settrace(None)
        return signals.n


if __name__ == "__main__":  # `python -m tests.support.sweep MODEL`
    setattr(Cache, "rollback", _slow_rollback)  # noqa: B010
    setattr(Context, "close", _watched_close)  # noqa: B010
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    print(sweep(Path(sys.argv[1])), *sorted(set(_faults)))
