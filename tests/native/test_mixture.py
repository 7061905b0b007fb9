"""A mixture of experts in less memory than it has: the text of plain decoding, and no reads but the routed ones."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.gguf.header import read_header
from cadcpp.residency.memory_plan import Plan, make_plan
from cadcpp.runtime.session import Session
from cadcpp.system.memory_limits import read_bytes
from cadcpp.tree.limits import TreeLimits

N_CTX, ROWS = 256, 16
GREEDY = SamplingConfig(temperature=0.0)
PROMPT = list(range(20, 60))


@pytest.fixture(scope="module")
def mixture(tiny: Callable[..., Path]) -> Path:
    return tiny("mixture", n_layer=4, n_embd=256, n_ff=512, n_experts=16, n_used=2)


def planned(path: Path, draft: Path | None, ram: int) -> Plan:
    header = read_header(path)
    return make_plan(header, read_header(draft) if draft else None, ram=ram, n_ctx=N_CTX, rows=ROWS)


def session(path: Path, draft: Path | None, share: float) -> Session:
    """In memory for the dense weights and a ``share`` of the experts."""
    whole = planned(path, draft, 1 << 40)
    ram = whole.fixed + whole.layout.pinned_bytes + int(share * whole.layout.expert_bytes) + (1 << 20)
    return Session(path, draft, SessionConfig(n_ctx=N_CTX, n_threads=1, ram=ram, tree=TreeLimits(max_size=ROWS)))


def write(running: Session, n: int, prompt: list[int] = PROMPT) -> list[int]:
    return [t for chunk in running.stream(prompt, GREEDY, n) for t in chunk.tokens]


@pytest.fixture(scope="module")
def plain(mixture: Path) -> Iterator[list[int]]:
    with session(mixture, None, 2.0) as running:
        assert not running.plan.streams
        yield write(running, 48)


@pytest.mark.parametrize("share", [0.3, 0.6])
@pytest.mark.parametrize("drafted", [False, True])
def test_the_text_is_the_same(mixture: Path, plain: list[int], share: float, drafted: bool) -> None:
    with session(mixture, mixture if drafted else None, share) as behind:
        assert behind.plan.streams and behind.plan.layout.streamed == ()
        assert write(behind, 48) == plain
        assert behind.pager.state().expert_bytes > 0


def test_only_routed_experts_are_read(mixture: Path) -> None:
    """By the pager's account and by the kernel's, a token at a time."""
    with session(mixture, None, 0.5) as behind:
        write(behind, 24)
        _forget(mixture, behind)
        before, counted = behind.pager.state(), read_bytes()
        write(behind, 24, PROMPT[:4])
        after, counted = behind.pager.state(), read_bytes() - counted
    n_passes, read = after.passes - before.passes, after.expert_bytes - before.expert_bytes
    layout = behind.plan.layout
    assert 0 < read <= n_passes * behind.plan.routed * 2  # the prompt's pass routes a few rows at once
    assert read < n_passes * layout.expert_bytes / 4
    if counted:  # a memory file system has nothing to count
        assert counted <= 1.25 * read + (4 << 20)


def _forget(path: Path, behind: Session) -> None:
    """Take what nobody has mapped out of the page cache, so that a read is a read."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    assert behind.model.mapping is not None
