"""What a trace says, in a few figures."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cadcpp.errors import ConfigError
from cadcpp.telemetry.trace import LANES
from cadcpp.util.intervals import outside, union

_Interval = tuple[float, float]


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
    experts_used: int  # by passes of a mixture that does not fit; 0 for other models
    experts_read: int  # ... of them, that were not in memory
    experts_ahead: int  # read before it was known whether they are used
    experts_wrong: int  # ... of them, that were not
    expert_bytes: int


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
    disk = union(lanes["disk"])
    return Summary(
        max(stop for _, stop in ends) - min(start for start, _ in ends),
        {name: _length(union(found)) for name, found in lanes.items()},
        _length(union(lanes["draft"])) - _length(outside(union(lanes["draft"]), disk)),
        stalls,
        len(rounds),
        sum(args["rows"] for args in rounds),
        sum(args["accepted"] for args in rounds),
        sum(args.get("experts_used", 0) for args in rounds),
        sum(args.get("experts_read", 0) for args in rounds),
        sum(args.get("experts_ahead", 0) for args in rounds),
        sum(args.get("experts_wrong", 0) for args in rounds),
        sum(e["args"]["bytes"] for e in spans if e["tid"] == LANES.index("disk") and e["name"] == "experts"),
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
