"""Layers on other machines: the same text, whatever is where, and no end of the process where a worker ends."""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cadcpp import Llama
from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.errors import ConfigError, WorkerError
from cadcpp.gguf.header import read_header
from cadcpp.link.address import Address
from cadcpp.modes import Speculative
from cadcpp.native.context import Context
from cadcpp.native.model import Model
from cadcpp.native.rpc import Device, Spread
from cadcpp.residency.context_shape import ContextShape
from cadcpp.residency.link_cost import link_cost
from cadcpp.residency.memory_plan import make_plan
from cadcpp.residency.placement import without_blocks
from cadcpp.runtime.crew import crew_of
from cadcpp.runtime.session import Session
from cadcpp.telemetry.trace import LANES
from cadcpp.tree.granularity import Granularity
from tests.support.meddler import Meddler
from tests.support.workers import LIMITS, Worker, enough_for, needs_rpc, worker

pytestmark = needs_rpc
N_CTX, N_LAYER = 256, 6
TEXT = [1, *range(40, 80)]
HYBRIDS = ("lfm2", "qwen35moe", "nemotron_h", "granitehybrid", "falcon_h1", "mamba2")


@pytest.fixture
def path(tiny: Callable[..., Path]) -> Path:
    return tiny("llama", n_layer=N_LAYER, n_embd=128, n_head=4, n_head_kv=2, n_ff=256, type_name="Q8_0", seed=3)


@pytest.fixture
def draft(tiny: Callable[..., Path]) -> Path:
    sizes = {"n_layer": N_LAYER, "n_embd": 128, "n_head": 4, "n_head_kv": 2, "n_ff": 256}
    return tiny("llama", **sizes, type_name="Q8_0", seed=3, noise=0.02)


def config(workers: Sequence[Worker] = (), speculative: Speculative = "draft", ram: int | None = None) -> SessionConfig:
    return SessionConfig(
        n_ctx=N_CTX,
        n_threads=1,
        ram=ram,
        fallback="none",
        speculative=speculative,
        tree=LIMITS,
        workers=tuple(worker.address for worker in workers),
    )


def write(session: Session, n: int = 48, temperature: float = 0.8) -> list[int]:
    sampling = SamplingConfig(temperature=temperature, seed=7)
    return [token for chunk in session.stream(TEXT, sampling, n) for token in chunk.tokens]


def alone(path: Path, draft: Path | None, speculative: Speculative = "draft") -> list[int]:
    with Session(path, draft if speculative != "off" else None, config(speculative=speculative)) as session:
        return write(session)


@pytest.mark.parametrize("n_blocks", [1, 3, N_LAYER])
def test_the_text_is_that_of_one_machine(path: Path, draft: Path, n_blocks: int) -> None:
    with worker(enough_for(path, n_blocks, N_CTX)) as there, Session(path, draft, config([there])) as session:
        (share,) = session.plan.workers
        assert (share.first, share.stop) == (N_LAYER - n_blocks, N_LAYER)
        assert session.plan.kernels.exact
        assert write(session) == alone(path, draft)


def test_the_text_is_that_without_speculation(path: Path, draft: Path) -> None:
    with worker(enough_for(path, 3, N_CTX)) as there:
        with Session(path, None, config([there], "off")) as session:
            assert write(session) == alone(path, draft, "off") == alone(path, draft)


def test_the_text_is_the_same_where_this_machine_streams(tiny: Callable[..., Path]) -> None:
    """What is sent is read from the file before it is streamed from there; the stub that is loaded has only zeros."""
    path = tiny("llama", type_name="Q8_0", n_layer=N_LAYER, n_embd=128, n_head=4, n_head_kv=2, n_ff=16384)
    here = without_blocks(read_header(path), N_LAYER - 2)
    plan = make_plan(here, None, ram=1 << 40, n_ctx=N_CTX, rows=LIMITS.max_size)
    ram = plan.fixed + plan.layout.pinned_bytes * 9 // 10
    with worker(enough_for(path, 2, N_CTX)) as there:
        with Session(path, None, config([there], "ngram", ram)) as session:
            assert session.plan.streams and session.plan.workers[0].n_blocks == 2
            text, pager = write(session), session.pager.state()
            assert pager.streamed_bytes > 0 and pager.layers_reported
    assert text == alone(path, None, "ngram")


def test_the_disk_and_the_draft_go_on_while_a_worker_computes(tiny: Callable[..., Path], tmp_path: Path) -> None:
    """Before its reply comes, chunks are read for the next pass, whose first layers are here, and nodes are drafted."""
    sizes = {"n_layer": N_LAYER, "n_embd": 128, "n_head": 4, "n_head_kv": 2, "n_ff": 16384}
    path, draft = tiny("llama", type_name="Q8_0", **sizes), tiny("llama", n_layer=1)
    here, trace = without_blocks(read_header(path), N_LAYER - 2), tmp_path / "trace"
    plan = make_plan(here, read_header(draft), ram=1 << 40, n_ctx=N_CTX, rows=LIMITS.max_size)
    ram = plan.fixed + plan.layout.pinned_bytes * 9 // 10

    def events(lane: str, name: str) -> list[dict[str, Any]]:
        lines = trace.read_text("ascii").splitlines()[1:]
        found = [json.loads(line.rstrip(",")) for line in lines if line.endswith(",")]
        return [event for event in found if event["tid"] == LANES.index(lane) and event["name"] == name]

    def both_went_on() -> bool:
        read = [event["args"]["pass"] for event in events("disk", "stream")]
        return max(read, default=0) > session.pager.state().passes and bool(events("draft", "ahead"))

    held = []

    def hold() -> None:
        for _ in range(300):  # as long as a worker may be silent; what never happens must not hang
            if both_went_on():
                break
            time.sleep(0.05)
        held.append(both_went_on())

    with worker(enough_for(path, 2, N_CTX)) as there, closing(Meddler(there.address)) as meddler:
        made = replace(config([there], "draft", ram), workers=(meddler.address,), trace=trace, exact="off")
        with Session(path, draft, made) as session:
            assert session.plan.streams and session.plan.workers[0].n_blocks == 2
            stream = session.stream(TEXT, SamplingConfig(temperature=0), 24)
            next(stream)
            meddler.after(1, hold)
            assert list(stream)
    assert held == [True]


def test_experts_of_a_mixture_are_where_their_layer_is(tiny: Callable[..., Path]) -> None:
    path = tiny("mixture", n_layer=N_LAYER)
    with worker(enough_for(path, 3, N_CTX)) as there, Session(path, None, config([there], "ngram")) as session:
        assert session.plan.workers[0].n_blocks == 3 and len(session.plan.layout.experts) == N_LAYER - 3
        assert write(session) == alone(path, None, "ngram")


@pytest.mark.parametrize(
    ("architecture", "n_blocks"), [*((name, 2) for name in HYBRIDS), ("lfm2", 4), ("granitehybrid", 4)]
)
def test_states_are_where_their_layer_is(tiny: Callable[..., Path], architecture: str, n_blocks: int) -> None:
    """What is rejected of a chain is taken back on both machines; with all blocks there, no state is here."""
    path, draft = tiny(architecture), tiny(architecture, noise=0.02)
    with worker(enough_for(path, n_blocks, N_CTX)) as there, Session(path, draft, config([there])) as session:
        assert session.plan.workers[0].n_blocks == n_blocks and session.plan.kernels.exact
        first = write(session)
        assert first == write(session) == alone(path, draft) == alone(path, None, "off")
        assert session.engine.workers.traffic().round_trips > 0


def test_a_state_that_a_lost_worker_had_is_not_taken_for_one(tiny: Callable[..., Path]) -> None:
    path = tiny("lfm2")
    with worker(enough_for(path, 2, N_CTX)) as there, Session(path, None, config([there], "ngram")) as session:
        stream = session.stream(TEXT, SamplingConfig(temperature=0), 100)
        next(stream)
        there.kill()
        with pytest.raises(WorkerError):
            list(stream)
        with pytest.raises(WorkerError):
            session.engine.verifier.context.save_state()


def test_two_workers_take_neighbouring_blocks(path: Path, draft: Path) -> None:
    n_bytes = enough_for(path, 2, N_CTX)
    with worker(n_bytes) as one, worker(n_bytes) as two, Session(path, draft, config([one, two])) as session:
        shares = [(share.address, share.first, share.stop) for share in session.plan.workers]
        assert shares == [(str(one.address), 2, 4), (str(two.address), 4, 6)]
        assert write(session) == alone(path, draft)


def test_a_worker_that_is_not_needed_gets_nothing(path: Path, draft: Path) -> None:
    n_bytes = enough_for(path, N_LAYER, N_CTX)
    with worker(n_bytes) as one, worker(n_bytes) as two, Session(path, draft, config([one, two])) as session:
        assert [share.address for share in session.plan.workers] == [str(two.address)]
        assert write(session) == alone(path, draft)


def test_what_a_pass_takes_back_is_taken_back_there_too(path: Path, draft: Path) -> None:
    """A second text that shares its beginning with the first, and a cache that is saved and restored."""
    with worker(enough_for(path, 3, N_CTX)) as there, Session(path, draft, config([there])) as session:
        first = write(session)
        assert write(session) == first
        context = session.engine.verifier.cache.context
        saved = context.save()
        context.clear()
        context.restore(saved)
        assert bytes(context.save()) == bytes(saved)


def test_large_weights_are_sent_once(tiny: Callable[..., Path], tmp_path: Path) -> None:
    """llama.cpp asks whether a worker has a tensor if it has more than 10 MiB."""
    path = tiny("llama", type_name="Q8_0", n_layer=1, n_embd=128, n_head=4, n_head_kv=2, n_ff=90_000)
    sent, texts = [], []
    for _ in range(2):
        with worker(1 << 30, tmp_path) as there, Session(path, None, config([there], "ngram")) as session:
            sent.append(session.engine.workers.traffic().sent_bytes)
            texts.append(write(session, 8))
    assert sent[0] > 3 * (10 << 20) > 20 * sent[1]
    assert texts[0] == texts[1] == alone(path, None, "ngram")[:8]


@pytest.mark.parametrize("n_rows", [1, 8, 64])
def test_a_pass_sends_and_receives_what_is_foreseen(path: Path, n_rows: int) -> None:
    """At most, since a second pass of as many rows need not describe itself again."""
    header = read_header(path)
    with worker(enough_for(path, 3, N_CTX)) as there, crew_of([there.address]) as crew:
        assert crew is not None
        (share,) = shares = crew.place(header, N_CTX, LIMITS.max_size, None)
        spread = crew.spread(shares)
        shape = ContextShape(n_cells=N_CTX, n_batch=64, n_outputs=64, n_seq=1)
        with closing(Model(path, stub=True, spread=spread)) as model, closing(Context(model, shape, 1)) as context:
            before = replace(crew.traffic())
            context.batch.clear()
            context.batch.add(np.arange(5, 5 + n_rows, dtype=np.int32), 0, 0, 1, True)
            context.decode()
            now = crew.traffic()
        foreseen = link_cost(header, share, n_rows, N_CTX)
        asked = 10 << 10  # of a number of rows that is new: sizes of a few results
        sent, received = now.sent_bytes - before.sent_bytes, now.received_bytes - before.received_bytes
        assert 0.6 * foreseen.sent_bytes < sent < foreseen.sent_bytes + 5 * asked
        assert foreseen.received_bytes <= received < foreseen.received_bytes + 100
        assert foreseen.round_trips <= now.round_trips - before.round_trips <= foreseen.round_trips + 5


def test_passes_have_a_number_of_rows_that_every_machine_is_exact_with(
    path: Path, draft: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second worker's verdict is among those that suit the first one's, and this machine's."""
    devices: list[Device] = []

    def find(
        _made: object, _kernels: object, *, spread: Spread, candidates: Sequence[Granularity], **_: object
    ) -> Granularity:
        """The first worker wants 2 rows, the second 4."""
        devices.append(spread.devices[0])
        wanted = Granularity(2 << [*dict.fromkeys(devices)].index(spread.devices[0]))
        return next(candidate for candidate in candidates if candidate.suits(wanted))

    monkeypatch.setattr("cadcpp.runtime.crew.find_granularity", find)
    n_bytes = enough_for(path, 2, N_CTX)
    with worker(n_bytes) as one, worker(n_bytes) as two, Session(path, draft, config([one, two])) as session:
        kernels, shape = session.plan.kernels, session.engine.verifier.context.shape
        assert len({*devices}) == 2 and kernels.exact and kernels.granularity == shape.granularity
        assert all(kernels.granularity.suits(Granularity(n)) for n in (2, 4))
        assert write(session) == alone(path, draft)


def test_a_worker_with_which_nothing_is_exact_is_told_of_in_one_line(
    path: Path, draft: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("cadcpp.runtime.crew.find_granularity", lambda *_, **__: None)
    with worker(enough_for(path, 3, N_CTX)) as there:
        with Session(path, draft, config([there])) as session:
            told = session.plan.to_dict()
            assert told["exact"] is False and f"with which worker {there.address} rounds" in told["inexact_because"]
            assert len(write(session)) == 48
        (line,) = (told for told in caplog.messages if told.startswith("cadcpp: "))
        assert "may differ" in line and str(there.address) in line and "\n" not in line
        there.settle()
        with pytest.raises(ConfigError, match=f"exact strict: .*{there.address}"):
            Session(path, draft, replace(config([there]), exact="strict"))


def test_memory_is_given_back_when_the_session_ends(path: Path, draft: Path) -> None:
    n_bytes = enough_for(path, 3, N_CTX)
    with worker(n_bytes) as there:
        with Session(path, draft, config([there])):
            assert there.ledger.free() < n_bytes
        there.settle()
        assert there.ledger.free() == n_bytes


def test_what_does_not_fit_even_a_layer_is_refused(path: Path, draft: Path) -> None:
    with worker(enough_for(path, 1, N_CTX) - 1) as there:
        with pytest.raises(ConfigError, match="start it with a larger --ram"):
            Session(path, draft, config([there]))


def test_a_worker_that_dies_ends_the_reply_and_nothing_else(path: Path, draft: Path) -> None:
    with worker(enough_for(path, 3, N_CTX)) as there, Session(path, draft, config([there])) as session:
        stream = session.stream(TEXT, SamplingConfig(temperature=0), 100)
        shown = list(next(stream).tokens)
        there.kill()
        with pytest.raises(WorkerError, match=rf"{there.address} is lost"):
            for chunk in stream:
                shown += chunk.tokens
        with pytest.raises(WorkerError):
            write(session)
        with pytest.raises(WorkerError):
            session.engine.verifier.cache.context.save()
    assert shown
    with worker(enough_for(path, 3, N_CTX)) as other, Session(path, draft, config([other])) as session:
        assert write(session, 100, 0.0)[: len(shown)] == shown


def test_the_class_takes_workers(path: Path) -> None:
    def text(workers: str | list[str]) -> tuple[str, int]:
        options: dict[str, Any] = {
            "n_ctx": N_CTX,
            "n_threads": 1,
            "fallback": "none",
            "max_tree_size": 8,
            "verbose": False,
        }
        with Llama(str(path), workers=workers, **options) as llama:
            assert llama.plan is not None
            done = llama("abc", max_tokens=24, temperature=0)
            return done["choices"][0]["text"], sum(share.n_blocks for share in llama.plan.workers)

    with worker(enough_for(path, 4, N_CTX)) as there:
        (with_one, n_there), (alone, n_alone) = text(str(there.address)), text([])
    assert with_one == alone and (n_there, n_alone) == (4, 0)


def test_a_worker_that_is_not_there_is_an_error_in_one_line(path: Path) -> None:
    with worker(1 << 20) as there:
        address = there.address
    with pytest.raises(WorkerError, match=f"no worker at {address}"):
        Session(path, None, SessionConfig(workers=(address,), n_threads=1, n_ctx=N_CTX))


def test_an_address_counts_once() -> None:
    address = Address("127.0.0.1", 5)
    with pytest.raises(ConfigError, match="named twice"):
        SessionConfig(workers=(address, address))
