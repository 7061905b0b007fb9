"""What a second text costs when it begins like the first, and where texts end."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cadcpp.chat.conversation import Conversation
from cadcpp.chat.template import Template
from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.draft.model_drafter import ModelDrafter
from cadcpp.errors import ContextFull
from cadcpp.models.demo import DemoPair
from cadcpp.native.context import Context
from cadcpp.native.layer_reports import OnLayer
from cadcpp.runtime.session import Chunk, Session
from cadcpp.system.heap import trim_heap
from cadcpp.tree.limits import TreeLimits

pytestmark = pytest.mark.real

GREEDY = SamplingConfig(temperature=0.0)
ROWS, N_CTX = 16, 512
STORY = "Tell a long story about a dragon and a baker. " * 8


@pytest.fixture(scope="module")
def session(smollm2: Callable[[str], Path], demo: DemoPair) -> Iterator[Session]:
    config = SessionConfig(n_ctx=N_CTX, n_batch=128, n_threads=1, tree=TreeLimits(max_size=ROWS), fallback="none")
    with Session(smollm2("Q8_0"), demo.draft, config) as session:
        yield session


@pytest.fixture
def prompt(session: Session) -> list[int]:
    """Ids of a text of 80 tokens and more, with both caches empty."""
    forget(session)
    return session.model.tokenize(STORY)


def forget(session: Session) -> None:
    """Let both caches hold one token of another text."""
    list(session.stream([5], GREEDY, 1))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> dict[Context, list[int]]:
    """Rows of each decode from here on, per context."""
    rows: dict[Context, list[int]] = {}
    decode = Context.decode

    def counting(context: Context, on_layer: OnLayer | None = None) -> None:
        rows.setdefault(context, []).append(context.batch.n)
        decode(context, on_layer)

    monkeypatch.setattr(Context, "decode", counting)
    return rows


def write(session: Session, ids: list[int], n: int = 24, **options: Any) -> list[Chunk]:
    return list(session.stream(ids, GREEDY, n, **options))


def tokens(chunks: list[Chunk]) -> list[int]:
    return [token for chunk in chunks for token in chunk.tokens]


def draft_context(session: Session) -> Context:
    assert isinstance(session.engine.drafter, ModelDrafter)
    return session.engine.drafter.context


# reuse ------------------------------------------------------------------------------------------------


def test_a_second_turn_evaluates_only_what_is_new(
    session: Session, prompt: list[int], decoded: dict[Context, list[int]]
) -> None:
    first = tokens(write(session, prompt))
    decoded.clear()
    new = session.model.tokenize(" And then the baker said:", add_special=False)
    chunks = write(session, prompt + first + new, 1)  # one pass, with nothing drafted
    assert len(chunks) == 1
    # At most the last round's accepted tokens and its bonus are evaluated again, since they may lie out of order.
    assert len(new) < sum(decoded[session.engine.verifier.context]) <= len(new) + ROWS
    assert draft_context(session) not in decoded


def test_a_second_turn_drafts_from_the_same_cache(
    session: Session, prompt: list[int], decoded: dict[Context, list[int]]
) -> None:
    first = tokens(write(session, prompt))
    decoded.clear()
    new = session.model.tokenize(" And then the baker said:", add_special=False)
    rounds = session.stream(prompt + first + new, GREEDY, 24)
    next(rounds)
    rounds.close()
    # Prompt and reply are 100 tokens and more; none of them comes again but the last round's.
    assert len(prompt + first) > 100
    assert decoded[draft_context(session)][0] <= len(new) + ROWS
    assert sum(decoded[session.engine.verifier.context]) <= len(new) + 2 * ROWS


def test_a_conversation_continues_its_own_ids(session: Session) -> None:
    conversation = Conversation(Template(session.model))
    ids = conversation.ask("Name three colours.")
    chunks = write(session, ids, 40)
    conversation.answer("".join(chunk.text for chunk in chunks), tokens(chunks))
    second = conversation.ask("And three more?")
    assert second[: len(ids) + len(tokens(chunks))] == ids + tokens(chunks)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda ids: [*ids[:40], 1234, *ids[41:]], id="differs in the middle"),
        pytest.param(lambda ids: ids[:30], id="shorter"),
        pytest.param(lambda ids: ids, id="the same again"),
        pytest.param(lambda ids: [1234, *ids[1:]], id="differs at once"),
    ],
)
def test_a_changed_prompt_gives_the_text_that_it_gives_afresh(
    session: Session, prompt: list[int], change: Callable[[list[int]], list[int]]
) -> None:
    afresh = tokens(write(session, change(prompt)))
    forget(session)
    write(session, prompt)
    assert tokens(write(session, change(prompt))) == afresh


def test_a_prompt_that_differs_in_the_middle_evaluates_the_rest(
    session: Session, prompt: list[int], decoded: dict[Context, list[int]]
) -> None:
    write(session, prompt)
    decoded.clear()
    write(session, [*prompt[:40], 1234, *prompt[41:]], 1)
    assert sum(decoded[session.engine.verifier.context]) == len(prompt) - 40


# ends -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 7, 20])
def test_n_is_kept_exactly(session: Session, prompt: list[int], n: int) -> None:
    chunks = write(session, prompt, n)
    assert (len(tokens(chunks)), chunks[-1].finish) == (n, "length")


@pytest.mark.parametrize("room", [1, 2, 5, 30])
def test_the_context_ends_the_text(session: Session, room: int) -> None:
    ids = (session.model.tokenize(STORY) * 6)[: N_CTX - room]
    chunks = write(session, ids, 1000)
    assert (len(tokens(chunks)), chunks[-1].finish) == (room, "length")


@pytest.mark.parametrize("extra", [0, 1, 100])
def test_a_prompt_without_room_for_a_token(session: Session, prompt: list[int], extra: int) -> None:
    with pytest.raises(ContextFull, match=f"{N_CTX + extra} tokens"):
        write(session, (prompt * 9)[: N_CTX + extra])
    assert len(tokens(write(session, prompt, 3))) == 3


def test_a_stop_string_is_not_shown_and_ends_the_text(session: Session, prompt: list[int]) -> None:
    whole = "".join(chunk.text for chunk in write(session, prompt, 60))
    stop = whole[len(whole) // 2 : len(whole) // 2 + 6]
    chunks = write(session, prompt, 60, stop=[stop])
    assert "".join(chunk.text for chunk in chunks) == whole[: whole.index(stop)]
    assert chunks[-1].finish == "stop"
    # Stopping inside a round leaves the caches as they must be.
    assert "".join(chunk.text for chunk in write(session, prompt, 60)) == whole


def test_a_stop_string_that_only_begins_is_shown_at_the_end(session: Session, prompt: list[int]) -> None:
    whole = "".join(chunk.text for chunk in write(session, prompt, 20))
    chunks = write(session, prompt, 20, stop=[whole[-3:] + "\0"])
    assert "".join(chunk.text for chunk in chunks) == whole


def test_a_closed_session_leaves_no_memory_behind(demo: DemoPair) -> None:
    """Not in the allocator either, which would keep the buffers that were freed for later."""
    process, held = psutil.Process(), []
    for n in (9, 130):
        with Session(demo.verifier, demo.draft, SessionConfig(n_ctx=N_CTX, n_threads=1)) as session:
            write(session, session.model.tokenize(STORY)[:n], 8)
        held.append(process.memory_info().rss)
        trim_heap()
        held.append(process.memory_info().rss)
    kept = [closed - trimmed for closed, trimmed in zip(held[::2], held[1::2], strict=True)]
    assert max(kept) < 4 << 20
