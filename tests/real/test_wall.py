"""Behind the wall: SmolLM2 in less memory than it has, with the text that it writes when all of it fits."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.errors import ConfigError
from cadcpp.gguf.header import read_header
from cadcpp.models.demo import DemoPair
from cadcpp.native.context import Context, ContextConfig
from cadcpp.native.model import Model
from cadcpp.residency.layout import HUGE
from cadcpp.residency.memory_plan import make_plan
from cadcpp.runtime.session import Session
from cadcpp.system.memory_limits import read_bytes
from cadcpp.tree.limits import TreeConfig, limit_tree
from cadcpp.tree.prices import FIRST_ROWS
from tests.support.prompts import prompt

pytestmark = pytest.mark.real

N_CTX, ROWS = 1024, 32
GREEDY = SamplingConfig(temperature=0.0)
DRAWN = SamplingConfig(temperature=0.8, repeat_penalty=1.1, seed=5)


def short_of_memory(verifier: Path, draft: Path | None, share: float) -> int:
    """A budget in which ``share`` of the verifier's bytes find room."""
    header = read_header(verifier)
    plan = make_plan(header, read_header(draft) if draft else None, ram=1 << 40, n_ctx=N_CTX, rows=ROWS)
    return plan.fixed + int(share * header.n_bytes)


def session(verifier: Path, draft: Path | None, ram: int | None, **options: Any) -> Session:
    config: dict[str, Any] = {"n_ctx": N_CTX, "n_threads": 1, "ram": ram, "tree": TreeConfig(max_size=ROWS)} | options
    return Session(verifier, draft, SessionConfig(**config))


def write(running: Session, name: str, sampling: SamplingConfig, n: int) -> list[int]:
    return [t for chunk in running.stream(prompt(running.model, name), sampling, n) for t in chunk.tokens]


@pytest.fixture(scope="module")
def verifier(smollm2: Callable[[str], Path]) -> Path:
    return smollm2("Q8_0")


@pytest.fixture(scope="module")
def in_memory(verifier: Path) -> Iterator[Session]:
    with session(verifier, None, None) as running:
        assert not running.plan.streams
        yield running


@pytest.mark.parametrize("share", [0.6, 0.9])
def test_the_text_is_the_same(in_memory: Session, verifier: Path, demo: DemoPair, share: float) -> None:
    with session(verifier, demo.draft, short_of_memory(verifier, demo.draft, share)) as behind:
        assert behind.plan.streams and behind.model.mapping is not None
        for name, sampling in (("sky", GREEDY), ("code", DRAWN)):
            assert write(behind, name, sampling, 40) == write(in_memory, name, sampling, 40)


def test_a_long_prompt_is_read_in_one_wide_pass(in_memory: Session, verifier: Path) -> None:
    with session(verifier, None, short_of_memory(verifier, None, 0.9)) as behind:
        ids = prompt(behind.model, "summary")[:400]
        first = next(iter(behind.stream(ids, GREEDY, 8)))
        assert behind.pager.state().passes == 1
        texts = [[t for c in s.stream(ids, GREEDY, 24) for t in c.tokens] for s in (behind, in_memory)]
        assert texts[0] == texts[1] and texts[0][: len(first.tokens)] == first.tokens


def test_a_pass_reads_what_is_not_pinned_and_no_more(verifier: Path) -> None:
    with session(verifier, None, short_of_memory(verifier, None, 0.6)) as behind:
        write(behind, "sky", GREEDY, 2)
        before = behind.pager.state()
        write(behind, "sky", GREEDY, 12)
        after = behind.pager.state()
        n_passes = after.passes - before.passes
        assert before.pinned_bytes == behind.plan.layout.pinned_bytes
        read, expected = after.streamed_bytes - before.streamed_bytes, n_passes * behind.plan.layout.streamed_bytes
        assert abs(read - expected) <= behind.plan.window


def test_memory_for_wide_trees_comes_out_of_what_is_kept(in_memory: Session, verifier: Path, demo: DemoPair) -> None:
    with session(
        verifier, demo.draft, short_of_memory(verifier, demo.draft, 0.6), tree=TreeConfig(max_size=96)
    ) as behind:
        engine, planned = behind.engine, behind.plan.layout
        write(behind, "sky", GREEDY, 2)
        assert engine.tree.max_size == 96 and behind.pager.state().pinned_bytes >= planned.pinned_bytes - (8 << 20)
        engine.policy = None  # trees of all rows, though the disk is fast
        texts = [write(s, "story", GREEDY, 32) for s in (behind, in_memory)]
        state, taken = behind.pager.state(), engine.tree_buffers.take(0)
        assert texts[0] == texts[1] and engine.tree_buffers.rows >= 96 and taken > 10 << 20
        assert state.pinned_bytes <= planned.pinned_bytes - taken
        assert state.pass_bytes >= planned.streamed_bytes + taken


@pytest.mark.parametrize(("n", "sampling"), [(50, GREEDY), (75, DRAWN), (100, GREEDY), (300, GREEDY)])
def test_on_a_slow_disk_the_first_tree_is_wide(
    in_memory: Session,
    verifier: Path,
    demo: DemoPair,
    n: int,
    sampling: SamplingConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beside a text that fits into the planned pass, into a larger one, just not with a tree, and into none."""
    monkeypatch.setattr("cadcpp.tree.prices._ROW_BYTE_S", 1e-15)  # any disk is slow for so fast a processor
    ram, ids = short_of_memory(verifier, demo.draft, 0.6), prompt(in_memory.model, "summary")[:n]
    with session(verifier, demo.draft, ram, tree=limit_tree(None)) as behind:
        chunks = list(behind.stream(ids, sampling, 24))
        plain = [t for chunk in in_memory.stream(ids, sampling, 24) for t in chunk.tokens]
        assert [t for chunk in chunks for t in chunk.tokens] == plain
        assert chunks[0].round is not None and len(chunks[0].round.tree) > FIRST_ROWS


def test_without_the_pager_the_text_is_the_same(in_memory: Session, verifier: Path) -> None:
    with session(verifier, None, short_of_memory(verifier, None, 0.6), pager=False) as behind:
        assert behind.model.mapping is None
        assert write(behind, "sky", GREEDY, 16) == write(in_memory, "sky", GREEDY, 16)


def test_a_stopped_reply_leaves_the_session_right(in_memory: Session, verifier: Path, demo: DemoPair) -> None:
    with session(verifier, demo.draft, short_of_memory(verifier, demo.draft, 0.6)) as behind:
        chunks = behind.stream(prompt(behind.model, "story"), GREEDY, 60)
        next(chunks)
        chunks.close()
        assert write(behind, "sky", GREEDY, 24) == write(in_memory, "sky", GREEDY, 24)


def test_progress_is_told_after_every_layer(verifier: Path) -> None:
    with session(verifier, None, short_of_memory(verifier, None, 0.6)) as behind:
        told: list[tuple[int, int]] = []
        ids = prompt(behind.model, "sky")
        next(iter(behind.stream(ids, GREEDY, 8, progress=lambda done, total: told.append((done, total)))))
        assert len(told) == behind.model.n_layer and told == sorted(told)
        assert told[-1] == (len(ids), len(ids))


def test_the_demo_pair_is_read_in_huge_pages(demo: DemoPair) -> None:
    """What the kernel counts is what does not stay, and no pages of a dropped range are left behind."""
    with session(demo.verifier, demo.draft, 900 << 20, fallback="none") as behind:
        layout = behind.plan.layout
        assert layout.align == HUGE and layout.streamed_bytes > 0
        first = write(behind, "sky", GREEDY, 4)
        passes, counted = behind.pager.state().passes, read_bytes()
        assert write(behind, "sky", GREEDY, 20)[:4] == first
        passes, counted = behind.pager.state().passes - passes, read_bytes() - counted
        if counted:  # where nobody else keeps the file in memory, and somebody counts
            assert counted <= 1.03 * passes * layout.streamed_bytes + behind.plan.window
    with session(demo.verifier, None, None, pager=False) as plain:
        assert write(plain, "sky", GREEDY, 4) == first


class Cancelled(Exception):
    pass


@pytest.mark.parametrize("seed", range(3))
def test_a_reply_stopped_in_mid_pass_leaves_the_session_right(
    in_memory: Session, verifier: Path, demo: DemoPair, seed: int
) -> None:
    """At a random layer of a random pass, and twice in a row."""
    rng = np.random.default_rng(seed)
    with session(verifier, demo.draft, short_of_memory(verifier, demo.draft, 0.6)) as behind:
        for name in ("story", "code"):
            left = iter(range(int(rng.integers(1, 120)), -1, -1))

            def stop(done: int, total: int, left: Iterator[int] = left) -> None:
                if not next(left):
                    raise Cancelled

            with pytest.raises(Cancelled):
                list(behind.stream(prompt(behind.model, name), GREEDY, 200, progress=stop))
        assert write(behind, "story", DRAWN, 24) == write(in_memory, "story", DRAWN, 24)


def test_loading_without_reading_gives_the_same_logits(verifier: Path) -> None:
    logits = []
    for stub in (True, False):
        model = Model(verifier, stub=stub)
        assert (model.mapping is not None) == stub
        context = Context(model, ContextConfig(n_cells=256, n_batch=8, n_ubatch=8, n_outputs=8, n_seq=1, n_threads=1))
        context.batch.add(list(range(100, 108)), 0, 0, 1, True)
        context.decode()
        logits.append(context.logits(8).copy())
        context.close()
        model.close()
    np.testing.assert_array_equal(logits[0], logits[1])


def split(source: Path, folder: Path, n_tensors: int) -> Path:
    """A copy of a model in parts of ``n_tensors``, as large models are shipped; returns the first part."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(folder / "part.gguf", "llama", split_max_tensors=n_tensors)
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            kind = field.types[0]
            writer.add_key_value(field.name, field.contents(), kind, sub_type=field.types[-1])
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return min(folder.glob("part-*.gguf"))


def test_a_split_model_streams_like_a_whole_one(in_memory: Session, verifier: Path, tmp_path: Path) -> None:
    first = split(verifier, tmp_path, 60)
    assert len(list(tmp_path.iterdir())) > 3
    with session(first, None, short_of_memory(first, None, 0.6)) as behind, session(first, None, None) as plain:
        assert behind.plan.streams and behind.model.mapping is not None
        texts = [write(running, "sky", GREEDY, 24) for running in (behind, plain, in_memory)]
        assert texts[0] == texts[1] == texts[2]


def test_too_little_memory_is_refused_with_what_would_do(verifier: Path) -> None:
    with pytest.raises(ConfigError, match=r"allow \d+ MiB with --ram"), ExitStack() as stack:
        stack.enter_context(session(verifier, None, 64 << 20))
