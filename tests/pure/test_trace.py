"""Traces that are written, and what is read out of them."""

import json
from contextlib import closing
from pathlib import Path

import pytest

from cadcpp.errors import ConfigError
from cadcpp.telemetry.trace import Trace
from cadcpp.telemetry.trace_summary import summarize


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    path = tmp_path / "t.json"
    with closing(Trace(path)) as trace:
        trace.span("draft", "draft", 0.0, 1.0, rows=8)
        trace.span("disk", "stream", 0.5, 2.0, bytes=4096, layer=1)
        trace.span("disk", "stream", 1.5, 3.0, bytes=4096, layer=2)
        trace.span("idle", "weights", 1.2, 1.7, layer=1)
        trace.span("verify", "pass", 1.0, 4.0, rows=8, accepted=3)
        trace.span("draft", "draft", 4.0, 5.0, rows=8)
        trace.span("verify", "pass", 5.0, 8.0, rows=4, accepted=1)
    return path


def test_shares_of_a_trace(recorded: Path) -> None:
    found = summarize(recorded)
    assert found.whole == pytest.approx(8.0)
    assert found.busy == pytest.approx({"disk": 2.5, "draft": 2.0, "verify": 6.0, "idle": 0.5})
    assert found.hidden_draft == pytest.approx(0.5)
    assert found.stalls == pytest.approx({"weights": 0.5})
    assert (found.n_rounds, found.n_rows, found.n_accepted) == (2, 12, 4)
    assert found.experts_used == 0


def test_experts_of_a_mixture_are_summed_up(tmp_path: Path) -> None:
    """Passes tell how many they used and read; reads are on the disk's lane, and what waits for them is a stall."""
    path = tmp_path / "t.json"
    with closing(Trace(path)) as trace:
        for start, n_read in ((0.0, 6), (2.0, 2)):
            for lane in ("disk", "idle"):
                trace.span(lane, "experts", start, start + 0.5, bytes=100 * n_read, layer=0)
            used = {"experts_used": 10, "experts_read": n_read, "experts_ahead": 4, "experts_wrong": 1}
            trace.span("verify", "pass", start, start + 1.0, rows=1, accepted=0, **used)
    found = summarize(path)
    assert (found.experts_used, found.experts_read, found.expert_bytes) == (20, 8, 800)
    assert (found.experts_ahead, found.experts_wrong) == (8, 2)
    assert found.busy["disk"] == found.stalls["experts"] == pytest.approx(1.0)


def test_the_format_is_chromes(recorded: Path) -> None:
    events = json.loads(recorded.read_text().rstrip().rstrip(",") + "]")
    names = {event["args"]["name"] for event in events if event["ph"] == "M"}
    assert names == {"disk", "draft", "verify", "idle"}
    spans = [event for event in events if event["ph"] == "X"]
    assert len(spans) == 7 and all({"name", "ts", "dur", "pid", "tid", "args"} <= set(event) for event in spans)


def test_a_trace_that_was_cut_off_is_read_as_far_as_it_goes(recorded: Path) -> None:
    lines = recorded.read_text().splitlines(keepends=True)
    recorded.write_text("".join(lines[:-1]))
    assert summarize(recorded).n_rounds == 1


@pytest.mark.parametrize("text", ["", "nonsense", "[\n", "{}"])
def test_a_file_that_is_no_trace(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=str(path)):
        summarize(path)


def test_a_trace_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--trace"):
        Trace(tmp_path / "nowhere" / "t.json")
