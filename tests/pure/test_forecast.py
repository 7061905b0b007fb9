"""The simulator: what follows from a device's figures, and in which direction."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench.predict.devices import ARCHITECTURES, DEVICES, Device
from bench.predict.forecast import ALONE, Forecast, Workers, chain, forecast, header_of, tokens_by_rows, tree
from bench.predict.published import HYBRIDS
from cadcpp.errors import ConfigError
from cadcpp.models.catalog import pairs
from cadcpp.residency.context_shape import verifier_shape
from cadcpp.residency.layout import lay_out
from cadcpp.residency.states import States

SD = DEVICES[0]


WIFI = (2e-3, 8 / 300e6)  # seconds there and back, and of a byte


def cast(device: Device = SD, agreement: float = 0.7, name: str = "qwen3-14b", workers: Workers = ALONE) -> Forecast:
    pair = pairs()[name]
    verifier, draft = (header_of(entry, ARCHITECTURES[entry.name]) for entry in pair.models[::-1])
    return forecast(verifier, draft, device, agreement, 4096, workers=workers)


@pytest.mark.parametrize("name", [name for name in pairs() if name in ARCHITECTURES])
def test_a_header_has_the_files_size(name: str) -> None:
    entry = pairs()[name].verifier
    header = header_of(entry, ARCHITECTURES[name])
    assert sum(tensor.n_bytes for tensor in header.tensors) == pytest.approx(entry.n_bytes, rel=1e-4)
    assert header.n_vocab == ARCHITECTURES[name].vocabulary
    assert lay_out(header, 0).n_layers == ARCHITECTURES[name].layers + 1
    bits = 8 * entry.n_bytes / sum(np.prod(tensor.shape) for tensor in header.tensors)
    assert 4.5 < bits < 5.7  # as Q4_K_M has; wrong numbers of an architecture would show here


@pytest.mark.parametrize("name", sorted({p.draft.name for p in pairs().values() if p.draft} - HYBRIDS.keys()))
def test_every_draft_is_known(name: str) -> None:
    assert name in ARCHITECTURES


def test_a_tree_holds_the_likeliest_nodes_first() -> None:
    nodes, more = tree(0.7, 200), tree(0.7)
    assert len(more) == 256 and np.exp(more.logp[:3]).tolist() == pytest.approx([1, 0.7, 0.49])
    assert sorted(nodes.logp) == sorted(more.logp)[-200:]


def test_a_chain_has_no_branches() -> None:
    four = chain(0.5, 4)
    assert four.depth.tolist() == [0, 1, 2, 3] and np.exp(four.logp).tolist() == pytest.approx([1, 0.5, 0.25, 0.125])
    assert np.exp(four.logp).sum() < np.exp(tree(0.5, 4).logp).sum()


@pytest.mark.parametrize("n_chains", [1, 3])
def test_tokens_are_those_of_what_the_verifier_checks(n_chains: int) -> None:
    """One chain as deep as snapshots reach, several where rows are left for them; a tree brings no less."""
    shape = verifier_shape(512, 64, states=States(n_chains=n_chains, n_snapshots=8))
    dense = tokens_by_rows(tree(0.7, 64), verifier_shape(512, 64))
    found, one = tokens_by_rows(tree(0.7, 64), shape), tokens_by_rows(chain(0.7, 64), shape)
    assert np.all(np.diff(found) >= 0) and np.all(found <= dense + 1e-6)
    assert one[63] == pytest.approx(sum(0.7**i for i in range(9)), rel=1e-6)
    assert (found[63] > one[63]) == (n_chains > 1)


def test_tokens_a_pass_are_about_those_measured() -> None:
    """Means of bench/measured/sweep.jsonl for fixed trees, which the shape of the guesses was fixed with."""
    tokens = tokens_by_rows(tree(0.7), verifier_shape(512, 64))
    measured = {2: 1.67, 4: 2.56, 8: 3.14, 16: 4.1, 32: 4.6, 64: 4.8, 128: 5.8, 256: 6.0}
    for rows, n in measured.items():
        assert tokens[rows - 1] == pytest.approx(n, rel=0.1), rows


@pytest.mark.parametrize(
    "better",
    [
        pytest.param({"ram": SD.ram + (1 << 30)}, id="memory"),
        pytest.param({"disk_bytes_per_s": 2 * SD.disk_bytes_per_s}, id="disk"),
        pytest.param({"latency_s": 0.0}, id="latency"),
    ],
)
def test_behind_the_wall_more_is_faster(better: dict[str, Any]) -> None:
    slow, fast = cast(), cast(replace(SD, **better))
    assert slow.plan.streams and fast.drafted_s < slow.drafted_s and fast.plain_s < slow.plain_s


@pytest.mark.parametrize("better", [{"memory_bytes_per_s": 20e9}, {"flops": 200e9}], ids=["memory", "processor"])
def test_in_memory_a_faster_machine_is_faster(better: dict[str, Any]) -> None:
    slow, fast = (cast(device, 0.8, "qwen3-8b") for device in (SD, replace(SD, **better)))
    assert not slow.plan.streams and fast.drafted_s < slow.drafted_s


def test_agreement_is_speed() -> None:
    seconds = [cast(agreement=share).drafted_s for share in (0.3, 0.6, 0.8, 0.95)]
    assert seconds == sorted(seconds, reverse=True) and seconds[0] > seconds[-1]
    assert cast(agreement=0.6).drafted_s < cast().plain_s < cast().mapped_s


def test_a_pass_behind_the_wall_takes_what_reading_takes() -> None:
    device = replace(SD, latency_s=0.0)
    alone = cast(device).plan.read_bytes / device.disk_bytes_per_s
    assert cast(device).given(8, 4.0) == pytest.approx(alone / 4, rel=0.05)


def test_workers_pay_until_nothing_is_streamed_any_more() -> None:
    casts = [cast(workers=Workers(n, *WIFI), name="qwen3-32b") for n in range(5)]
    reads, seconds = [c.plan.read_bytes for c in casts], [c.drafted_s for c in casts]
    enough = next(n for n, one in enumerate(casts) if not one.plan.streams)
    assert enough == 2 and reads[:3] == sorted(reads[:3], reverse=True)
    assert seconds[: enough + 1] == sorted(seconds[: enough + 1], reverse=True)
    assert seconds[enough + 1] > seconds[enough]  # machines take turns: one more adds a link and nothing else


def test_a_link_costs_its_round_trips_and_its_bytes() -> None:
    free, near, far = (cast(workers=Workers(2, *link)) for link in ((0.0, 0.0), (0.3e-3, 8e-9), WIFI))
    assert free.plain_s < near.plain_s < far.plain_s
    assert near.plain_s - free.plain_s > 2 * 0.3e-3


def test_too_little_memory_is_said() -> None:
    with pytest.raises(ConfigError):
        cast(replace(SD, ram=1 << 30))
