"""Traces: what disk, draft and verifier did when, in Chrome's trace-event format (opens in Perfetto)."""

import json
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cadcpp.errors import ConfigError

logger = logging.getLogger(__name__)

LANES = ("disk", "draft", "verify", "idle")  # idle: compute waits for the disk
_Interval = tuple[float, float]


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


@dataclass(frozen=True, slots=True)
class Summary:
    """Seconds, of all that a trace covers."""

    whole: float
    busy: dict[str, float]  # by lane
    hidden_draft: float  # drafting while the disk read
    stalls: dict[str, float]  # by what was waited for
    n_rounds: int
    n_rows: int
    n_accepted: int


_NO_TRACE = "{} is not a trace: record one with --trace FILE"


def summarize(path: Path) -> Summary:
    """Shares of a trace. Raises ConfigError for a file that is none."""
    events = _events(path)
    try:
        spans = [event for event in events if event.get("ph") == "X" and event["dur"] > 0]
        if not spans:
            raise ConfigError(f"{path} holds no spans: record one with --trace {path}")
        return _summary(spans)
    except (AttributeError, KeyError, TypeError, OverflowError):
        raise ConfigError(_NO_TRACE.format(path)) from None


def _summary(spans: list[dict[str, Any]]) -> Summary:
    lanes = {name: [_interval(e) for e in spans if e["tid"] == lane] for lane, name in enumerate(LANES)}
    stalls: dict[str, float] = {}
    for event in spans:
        if event["tid"] == LANES.index("idle"):
            stalls[event["name"]] = stalls.get(event["name"], 0.0) + event["dur"] / 1e6
    ends = [_interval(event) for event in spans]
    rounds = [event["args"] for event in spans if event["tid"] == LANES.index("verify")]
    disk = _union(lanes["disk"])
    return Summary(
        max(stop for _, stop in ends) - min(start for start, _ in ends),
        {name: _length(_union(found)) for name, found in lanes.items()},
        _length(_union(lanes["draft"])) - _length(_outside(_union(lanes["draft"]), disk)),
        stalls,
        len(rounds),
        sum(args["rows"] for args in rounds),
        sum(args["accepted"] for args in rounds),
    )


def _events(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text("utf-8").rstrip().rstrip(",")
        return list(json.loads(text if text.endswith("]") else text + "]"))
    except OSError as error:
        raise ConfigError(f"cannot read trace {path}: {error.strerror}") from None
    except (ValueError, TypeError, RecursionError):
        raise ConfigError(_NO_TRACE.format(path)) from None


def _interval(event: dict[str, Any]) -> _Interval:
    return event["ts"] / 1e6, (event["ts"] + event["dur"]) / 1e6


def _length(intervals: Iterable[_Interval]) -> float:
    return sum(stop - start for start, stop in intervals)


def _union(intervals: Iterable[_Interval]) -> list[_Interval]:
    merged: list[_Interval] = []
    for start, stop in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], stop))
        else:
            merged.append((start, stop))
    return merged


def _outside(intervals: list[_Interval], others: list[_Interval]) -> list[_Interval]:
    """What of some intervals no other one covers; both sorted and without overlaps."""
    left: list[_Interval] = []
    for start, stop in intervals:
        for low, high in others:
            if high <= start or low >= stop:
                continue
            if low > start:
                left.append((start, low))
            start = max(start, high)
        if start < stop:
            left.append((start, stop))
    return left
