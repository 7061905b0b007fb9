"""Objects that are closed, shared by threads and event loops, or inherited by a forked child."""

import asyncio
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import pytest

from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.errors import ClosedError, ConfigError
from cadcpp.llama.async_llama import AsyncLlama
from cadcpp.llama.llama import Llama
from cadcpp.llama.upstream import OwnContext, OwnModel, SessionContext, SessionModel
from cadcpp.runtime.session import Session
from tests.support.oracle import whole

ROOT = Path(__file__).parents[2]
CHAT = [{"role": "user", "content": "abc"}]
KINDS: dict[str, dict[str, Any]] = {"session": {"max_tree_size": 8}, "upstream": {"type_k": 1, "type_v": 1}}
USES: dict[str, Callable[[Llama], Any]] = {
    "call": lambda llama: llama("abc"),
    "stream": lambda llama: llama("abc", stream=True),
    "chat": lambda llama: llama.create_chat_completion(CHAT),
    "generate": lambda llama: llama.generate([5]),
    "tokenize": lambda llama: llama.tokenize(b"abc"),
    "detokenize": lambda llama: llama.detokenize([5]),
    "tokenizer": lambda llama: llama.tokenizer(),
    "n_vocab": lambda llama: llama.n_vocab(),
    "n_ctx": lambda llama: llama.n_ctx(),
    "n_embd": lambda llama: llama.n_embd(),
    "token_eos": lambda llama: llama.token_eos(),
    "token_bos": lambda llama: llama.token_bos(),
    "token_nl": lambda llama: llama.token_nl(),
    "pooling_type": lambda llama: llama.pooling_type(),
    "eval": lambda llama: llama.eval([5]),
    "sample": lambda llama: llama.sample(),
    "reset": lambda llama: llama.reset(),
    "save_state": lambda llama: llama.save_state(),
    "embed": lambda llama: llama.embed("abc"),
    "create_embedding": lambda llama: llama.create_embedding("abc"),
    "ctx": lambda llama: llama.ctx,
    "model": lambda llama: llama.model,
    "metadata": lambda llama: llama._model.metadata(),
    "kv_cache_clear": lambda llama: llama._ctx.kv_cache_clear(),
}


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest, tiny: Callable[..., Path]) -> Callable[[], Llama]:
    path = str(tiny("llama", type_name="Q8_0"))
    return lambda: Llama(path, n_ctx=256, n_threads=1, verbose=False, **KINDS[str(request.param)])


@pytest.fixture
def llama(make: Callable[[], Llama]) -> Iterator[Llama]:
    with make() as llama:
        yield llama


@pytest.fixture
def session(tiny: Callable[..., Path]) -> Iterator[Session]:
    with Session(tiny("llama", type_name="Q8_0"), None, SessionConfig(n_ctx=256, n_threads=1)) as session:
        yield session


def write(llama: Llama, seed: int) -> Any:
    return whole(llama("abc" * seed, max_tokens=12, seed=seed, logit_bias={2: -100.0}))


# closing ----------------------------------------------------------------------------------------------


def test_every_use_of_a_closed_object_is_a_clear_error(llama: Llama) -> None:
    write(llama, 1)
    llama.close()
    for name, use in USES.items():
        with pytest.raises(ClosedError, match="is closed: make another one"):
            print(name, use(llama))


def test_what_an_object_gave_away_refuses_once_it_is_closed(llama: Llama) -> None:
    tokenizer, tokens, chunks = llama.tokenizer(), llama.generate([5, 6, 7]), llama("abc", max_tokens=40, stream=True)
    assert tokenizer.decode(tokenizer.encode("the sea")).strip()
    next(tokens), next(chunks)
    llama.close()
    for use in (
        lambda: tokenizer.encode("abc"),
        lambda: tokenizer.decode([5]),
        lambda: next(tokens),
        lambda: next(chunks),
    ):
        with pytest.raises(ClosedError, match="closed"):
            use()


@pytest.mark.parametrize("part", [OwnModel, OwnContext, SessionModel, SessionContext])
def test_no_method_of_a_part_reaches_llama_cpp_unguarded(part: type) -> None:
    """A method that another version of llama-cpp-python adds is guarded as well."""
    names = [name for name in dir(part) if not name.startswith("_") and callable(getattr(part, name))]
    unguarded = {name for name in names if not hasattr(getattr(part, name), "__wrapped__")}
    assert unguarded - {"life", "in_use"} <= {"close", "decode", "encode", "default_params"}


def test_an_object_closed_in_mid_call_ends_the_call(llama: Llama) -> None:
    ended = list[BaseException]()
    begun = threading.Event()

    def watch(_ids: Any, scores: Any) -> Any:
        begun.set()
        scores[2] = -100.0
        return scores

    def call() -> None:
        try:
            llama("abc", max_tokens=10_000, logits_processor=[watch])
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    begun.wait()
    llama.close()
    thread.join()
    assert [type(error) for error in ended] in ([ClosedError], [])  # it may just have come to its end
    with pytest.raises(ClosedError):
        llama("abc")


def test_a_call_may_close_its_own_object(llama: Llama) -> None:
    def close(ids: Any, scores: Any) -> Any:
        llama.close()
        return scores

    with pytest.raises(ClosedError, match="closed"):
        llama("abc", max_tokens=20, logits_processor=[close])
    assert llama._freed


def test_a_stream_holds_its_object_alive(make: Callable[[], Llama]) -> None:
    expected = write(make(), 2)["choices"][0]["text"]
    chunks = make()("abc" * 2, max_tokens=12, seed=2, logit_bias={2: -100.0}, stream=True)
    text = next(chunks)["choices"][0]["text"]
    gc.collect()
    assert text + "".join(chunk["choices"][0]["text"] for chunk in chunks) == expected


def test_an_object_that_nobody_has_is_freed(make: Callable[[], Llama]) -> None:
    llama = make()
    write(llama, 1)
    tokenizer, gone = llama.tokenizer(), weakref.ref(llama)
    next(llama("abc", max_tokens=5, stream=True))
    del llama
    gc.collect()
    with pytest.raises(ClosedError):
        for _ in range(10_000):  # it is freed on another thread
            tokenizer.encode("abc")
    assert gone() is None or gone()._life.ended  # type: ignore[union-attr]


def test_a_closed_session_refuses_everything(session: Session) -> None:
    stream = session.stream([5, 6], SamplingConfig(), 20)
    next(stream)
    model = session.model
    session.close()
    uses: list[Callable[[], Any]] = [
        lambda: next(stream),
        lambda: next(session.stream([5], SamplingConfig(), 2)),
        lambda: model.tokenize("abc"),
        lambda: model.piece(5),
        lambda: model.bos,
        lambda: model.chat_template,
        lambda: model.is_end(5),
    ]
    for use in uses:
        with pytest.raises(ClosedError, match="closed"):
            use()


# threads ----------------------------------------------------------------------------------------------


def test_calls_of_threads_wait_for_each_other(llama: Llama) -> None:
    expected = [write(llama, seed) for seed in range(1, 9)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda seed: write(llama, seed), range(1, 9))) == expected
    assert [write(llama, seed) for seed in range(1, 9)] == expected


def test_a_stream_goes_on_after_the_calls_of_other_threads(tiny: Callable[..., Path]) -> None:
    with Llama(str(tiny("llama", type_name="Q8_0")), n_ctx=256, n_threads=1, verbose=False) as llama:
        llama.set_seed(5)
        expected = list(islice(llama.generate([5, 6, 7], temp=0.0), 20))
        tokens, found = llama.generate([5, 6, 7], temp=0.0), list[int]()
        with ThreadPoolExecutor(2) as pool:
            for seed in range(1, 11):
                found += islice(tokens, 2)
                pool.submit(write, llama, seed).result()
        assert found == expected


def test_streams_that_take_turns_have_each_their_own_figures(tiny: Callable[..., Path]) -> None:
    """One of them holds tokens back, which may be the beginning of a stop, and shows them after the other's turn."""
    options: dict[str, Any] = {"max_tokens": 12, "logprobs": 2, "stream": True, "temperature": 0.0}
    with Llama(str(tiny("llama", type_name="Q8_0")), n_ctx=256, logits_all=True, n_threads=1, verbose=False) as llama:

        def stream(prompt: str, stop: list[str]) -> Iterator[Any]:
            for chunk in llama(prompt, stop=stop, logit_bias={2: -100.0}, **options):
                yield chunk["choices"], llama.last_usage

        text = "".join(choices[0]["text"] for choices, _ in stream("abc" * 9, []))
        wanted = [("abc" * 9, [text[2:4] + "\0"]), ("xy", [])]
        expected = [list(stream(*each)) for each in wanted]
        assert list(zip_longest(*(stream(*each) for each in wanted))) == list(zip_longest(*expected))


def test_what_a_call_shows_of_its_own_is_hidden_from_other_threads(tiny: Callable[..., Path]) -> None:
    with Llama(str(tiny("llama", type_name="Q8_0")), n_ctx=256, n_threads=1, verbose=False) as llama:
        llama._control_marks = frozenset({llama.token_eos()})
        with ThreadPoolExecutor(1) as pool, llama.showing_marks():
            assert llama.detokenize([llama.token_eos()]) == b"</s>"
            assert pool.submit(llama.detokenize, [llama.token_eos()]).result() == b""


def test_a_call_that_is_refused_has_figures_of_its_own(llama: Llama) -> None:
    write(llama, 1)
    with pytest.raises(ValueError, match="exceed"):
        llama("abc" * 999, max_tokens=3)
    assert llama.last_usage["total_tokens"] == 0 and not llama.last_stats.passes


def test_a_text_that_upstream_cannot_go_on_with_is_refused(tiny: Callable[..., Path]) -> None:
    with Llama(str(tiny("llama")), n_ctx=256, n_threads=1, verbose=False, **KINDS["upstream"]) as llama:
        tokens = llama.generate([5, 6, 7])
        next(tokens)
        write(llama, 1)
        with pytest.raises(ConfigError, match="another text"):
            next(tokens)


def test_a_session_writes_one_text_at_a_time(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread is refused in the middle of a round, which goes on; between two rounds it is welcome."""
    evaluate, intruders = session.engine.verifier.evaluate, list[threading.Thread]()
    refused = list[str]()

    def write() -> list[int]:
        return [token for chunk in session.stream([5, 6], SamplingConfig(), 8) for token in chunk.tokens]

    def intrude() -> None:
        with pytest.raises(ConfigError, match="another text") as error:
            write()
        refused.append(str(error.value))

    def slowly(*args: Any) -> Any:
        intruders.append(threading.Thread(target=intrude))
        intruders[-1].start()
        intruders[-1].join()
        return evaluate(*args)

    expected = write()
    monkeypatch.setattr(session.engine.verifier, "evaluate", slowly)
    assert write() == expected
    assert len(refused) == len(intruders) > 1


# event loops ------------------------------------------------------------------------------------------


def test_an_asynchronous_object_outlives_its_event_loop(llama: Llama) -> None:
    twin, expected = AsyncLlama(llama), write(llama, 1)

    async def calls() -> list[Any]:
        options = {"max_tokens": 12, "seed": 1, "logit_bias": {2: -100.0}}
        return await asyncio.gather(*(twin("abc", **options) for _ in range(3)))

    for _ in range(3):
        assert whole(asyncio.run(calls())) == [expected] * 3


def test_a_closed_asynchronous_object_refuses(llama: Llama) -> None:
    twin = AsyncLlama(llama)

    async def calls() -> None:
        chunks = twin("abc", max_tokens=40, stream=True)
        await anext(chunks)
        twin.close()
        twin.close()
        with pytest.raises(ClosedError):
            await anext(chunks)
        with pytest.raises(ClosedError):
            await twin("abc")

    asyncio.run(calls())


# processes --------------------------------------------------------------------------------------------

FORK = """
import os, signal, sys
from cadcpp import CadError, Llama, SamplingConfig, Session, SessionConfig
path, options = sys.argv[1], eval(sys.argv[2])
make = lambda: Llama(path, n_ctx=256, n_threads=2, verbose=False, **options)
write = lambda llama: llama("abc", max_tokens=8, seed=1)["choices"][0]["text"]
llama, session = make(), Session(path, None, SessionConfig(n_ctx=256, n_threads=2))
text, stream = write(llama), llama("abc", max_tokens=30, stream=True)
next(stream), next(session.stream([5, 6], SamplingConfig(), 4))
child = os.fork()
if child:
    status = os.waitpid(child, 0)[1]
    print("parent", status, write(llama) == text)
    sys.exit()
signal.alarm(500)
for use in (lambda: write(llama), llama.n_vocab, lambda: llama.tokenize(b"a"), lambda: next(stream),
            lambda: next(session.stream([5], SamplingConfig(), 2)), lambda: session.model.tokenize("a")):
    try:
        print("used", use())
    except CadError as error:
        print(error)
llama.close(), session.close(), stream.close()
print("child", write(make()) == text)
"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_forked_child_makes_its_own_object_and_refuses_an_inherited_one(tiny: Callable[..., Path], kind: str) -> None:
    command = [sys.executable, "-c", FORK, str(tiny("llama", type_name="Q8_0")), repr(KINDS[kind])]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    *refusals, child, parent = done.stdout.splitlines()
    assert (child, parent) == ("child True", "parent 0 True"), done.stderr
    assert len(refusals) == 6
    assert all(line.endswith("before this process was forked: make another one in this process") for line in refusals)
    assert not done.stderr


LEFT = """
import sys, threading
from contextlib import suppress
from cadcpp import CadError, Llama
llama = Llama(sys.argv[1], n_ctx=256, n_threads=1, verbose=False, **eval(sys.argv[2]))
stream, begun = llama("abc", max_tokens=30, stream=True), threading.Event()
next(stream)
def work():
    with suppress(CadError):
        while True:
            begun.set()
            llama("abc", max_tokens=200)
if "call" in sys.argv:
    threading.Thread(target=work, daemon=True).start()
    begun.wait()
"""


@pytest.mark.parametrize("how", ["", "call"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_object_that_is_left_to_the_end_of_the_program_ends_with_it(
    tiny: Callable[..., Path], kind: str, how: str, tmp_path: Path
) -> None:
    options = KINDS[kind] | ({"trace": str(tmp_path / "trace")} if kind == "session" else {})
    command = [sys.executable, "-c", LEFT, str(tiny("llama", type_name="Q8_0")), repr(options), how]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# in any order -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "n"),
    [
        pytest.param(0, 12, id="a few"),
        *(pytest.param(i, 100, id=f"{i}", marks=pytest.mark.slow) for i in range(0, 2000, 100)),
    ],
)
def test_any_order_of_uses_ends_in_texts_or_documented_errors(tiny: Callable[..., Path], first: int, n: int) -> None:
    paths = [str(tiny("llama", type_name="Q8_0")), str(tiny("llama", type_name="Q8_0", noise=0.02))]
    command = [sys.executable, "-m", "tests.support.orders", *paths, str(first), str(n)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, f"{n}\n"), done.stderr[-3000:]
    assert not done.stderr
