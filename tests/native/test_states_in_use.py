"""Models with recurrent state as users have them: chat, class, server; whatever was drafted, taken back or given up."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cadcpp.cli import main
from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.errors import NativeError
from cadcpp.gguf.header import Header
from cadcpp.llama.async_llama import AsyncLlama
from cadcpp.llama.llama import Llama
from cadcpp.modes import Speculative
from cadcpp.native.context import Context
from cadcpp.native.layer_reports import OnLayer
from cadcpp.residency.context_shape import ContextShape, wide_shape
from cadcpp.residency.kernel_mode import KernelModes
from cadcpp.residency.layout import lay_out
from cadcpp.residency.memory_plan import Plan
from cadcpp.residency.tree_buffers import TreeBuffers, plan_session
from cadcpp.runtime import kernel_choice
from cadcpp.runtime.assembly import Parts
from cadcpp.runtime.round import Round
from cadcpp.runtime.session import Session
from cadcpp.tree.limits import limit_tree
from cadcpp.tree.prices import TEXT_ROWS
from tests.support.vocab import random_text

SNAPSHOTS = ("lfm2", "lfm2moe", "qwen35", "qwen35moe", "nemotron_h")
NO_SNAPSHOTS = ("granitehybrid", "falcon_h1", "mamba2", "mamba")
USED = ("lfm2", "qwen35", "granitehybrid", "mamba2")  # with snapshots and without, with attention and without
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
GREEDY, DRAWN = SamplingConfig(temperature=0.0), SamplingConfig(seed=7)
N_CTX = 512
SIZES: dict[str, Any] = {"n_ctx": N_CTX, "n_threads": 1, "max_tree_size": 8, "fallback": "none", "verbose": False}


@pytest.fixture(scope="module", autouse=True)
def drafting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Drafts are made whatever rows cost here; what was found exact is kept for all tests of this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("kernels")))
        patch.setattr(kernel_choice, "relative_cost", lambda *_, **__: 1.0)
        yield


@pytest.fixture(scope="module", params=USED)
def path(tiny: Callable[..., Path], request: pytest.FixtureRequest) -> Path:
    return tiny(request.param, chat_template=TEMPLATE)


@pytest.fixture(scope="module")
def draft(path: Path, tiny: Callable[..., Path]) -> Path:
    """Agrees with its verifier most of the time."""
    return tiny(path.name.partition("-")[0], noise=0.03, chat_template=TEMPLATE)


# chat -------------------------------------------------------------------------------------------------

SCRIPT = """the cat and the dog
and the hen
/regen
/edit the sea and the sand
/undo
/edit the other thing
/system be of the sea
in the end
/undo
/undo
the very first
"""


@pytest.fixture
def chat(path: Path, draft: Path, state: Path) -> Callable[..., tuple[Result, list[Any]]]:
    """A chat in a pipe, and the transcript of the last one: messages with their token ids."""

    def run(lines: str, mode: str, *options: object) -> tuple[Result, list[Any]]:
        files = ["-m", path, *(["-d", draft] if mode == "draft" else [])]
        fixed = ["--ctx", N_CTX, "--threads", 1, "--max-tree-size", 8, "--fallback", "none", "-n", 20, "--seed", 3]
        command = [str(part) for part in ("chat", *files, *fixed, "--speculative", mode, *options)]
        result = CliRunner().invoke(main, command, input=lines, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        last = max((state / "cadcpp" / "chats").glob("*.jsonl"), key=lambda file: file.stat().st_mtime_ns)
        return result, [json.loads(line) for line in last.read_text("utf-8").splitlines()[1:]]

    return run


@pytest.mark.parametrize("temperature", [0, 0.8])
def test_a_chat_is_the_same_with_drafts_and_without(
    chat: Callable[..., tuple[Result, list[Any]]], temperature: float
) -> None:
    plain, messages = chat(SCRIPT, "off", "--temp", temperature)
    assert plain.stdout.count("\n") > 6 and len(messages) == 3
    for mode in ("draft", "ngram"):
        drafted, same = chat(SCRIPT, mode, "--temp", temperature)
        assert drafted.stdout == plain.stdout and same == messages, mode


@pytest.mark.parametrize("kept", [(), ("--save-kv-cache",), ("--keep-cache",)], ids=["", "saved", "former name"])
def test_a_chat_that_goes_on_is_the_chat_that_never_ended(
    chat: Callable[..., tuple[Result, list[Any]]], kept: Sequence[str]
) -> None:
    first, second = "the cat and the dog\nand the hen\n", "the sea\n/regen\n/undo\n/regen\nat the end\n"
    whole, messages = chat(first + second, "off")
    for mode in ("off", "draft"):
        begun, _ = chat(first, mode, *kept)
        gone_on, same = chat(second, mode, "--continue")
        assert begun.stdout + gone_on.stdout == whole.stdout and same == messages, mode


# the class --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(path: Path) -> Iterator[Llama]:
    with Llama(str(path), speculative="off", **SIZES) as llama:
        yield llama


@pytest.fixture(scope="module", params=["draft", "ngram"])
def llama(path: Path, draft: Path, request: pytest.FixtureRequest) -> Iterator[Llama]:
    drafts: dict[str, Any] = {"draft": {"draft_model_path": draft}, "ngram": {"speculative": "ngram"}}
    with Llama(str(path), **SIZES, **drafts[request.param]) as llama:
        yield llama


def ids(llama: Llama, prompt: list[int], n: int, **options: Any) -> list[int]:
    llama.set_seed(5)
    return list(islice(llama.generate(prompt, **options), n))


@pytest.mark.parametrize("options", [{"temp": 0.0}, {"temp": 0.9}, {"temp": 0.8, "repeat_penalty": 1.2}])
def test_the_class_writes_the_same_ids(llama: Llama, plain: Llama, options: dict[str, Any]) -> None:
    prompt = random_text(1, 60)
    for text in (prompt, prompt[:30], [*prompt[:30], 99, *prompt], prompt, [7]):
        assert ids(llama, text, 24, **options) == ids(plain, text, 24, **options)


def test_chats_of_the_class(llama: Llama, plain: Llama) -> None:
    def talk(llama: Llama) -> list[str]:
        messages, replies = [], []
        for question in ("the cat", "the dog", "the hen and the sea"):
            messages.append({"role": "user", "content": question})
            answer: Any = llama.create_chat_completion(messages, max_tokens=24, temperature=0.0)
            replies.append(answer["choices"][0]["message"]["content"])
            messages.append({"role": "assistant", "content": replies[-1]})
        return replies

    assert talk(llama) == talk(plain)


def test_a_state_of_the_class_goes_on(llama: Llama, plain: Llama) -> None:
    prompt = random_text(2, 50)
    whole = ids(plain, prompt, 40, temp=0.0)
    tokens = llama.generate(prompt, temp=0.0)
    first = list(islice(tokens, 7))
    kept = llama.save_state()
    assert list(islice(tokens, 33)) == whole[7:]
    ids(llama, random_text(3, 20), 5)
    llama.load_state(kept)
    assert ids(llama, [*prompt, *first], 33, temp=0.0) == whole[7:]


# what is given up -------------------------------------------------------------------------------------


class Broken:
    """A decode of a given number fails, or somebody presses Ctrl-C in one of its layers."""

    def __init__(self, at: int, error: BaseException, halfway: bool) -> None:
        self._left, self._error, self._halfway, self._decode = at, error, halfway, Context.decode

    def __call__(self, context: Context, on_layer: OnLayer | None = None) -> None:
        self._left -= 1
        if self._left != 0:
            return self._decode(context, on_layer)
        if self._halfway:
            self._decode(context, on_layer)
        raise self._error


def disturb(llama: Llama, seed: int, prompt: list[int]) -> None:
    """A request that comes to nothing, in one of the ways in which users end one."""
    rng = np.random.default_rng(seed)
    text = [*prompt[: int(rng.integers(1, len(prompt)))], *random_text(seed, int(rng.integers(1, 30)))]
    n = int(rng.integers(1, 12))
    match int(rng.integers(4)):
        case 0:  # a stream that nobody reads to its end
            stream = llama.create_completion(text, max_tokens=40, temperature=0.0, stream=True)
            list(islice(stream, n))
            stream.close()
        case 1:
            broken = Broken(n, NativeError("llama_decode", -3), bool(rng.integers(2)))
            with pytest.MonkeyPatch.context() as patch, pytest.raises(NativeError):
                patch.setattr(Context, "decode", lambda context, on_layer=None: broken(context, on_layer))
                ids(llama, text, 40, temp=0.0)
        case 2:
            pressed = Broken(n, KeyboardInterrupt(), bool(rng.integers(2)))
            with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr(Context, "decode", lambda context, on_layer=None: pressed(context, on_layer))
                ids(llama, text, 40, temp=0.0)
        case _:  # a task that is cancelled
            asyncio.run(cancel(llama, text, n))


def release(semaphore: asyncio.Semaphore, n: int) -> None:
    for _ in range(n):
        semaphore.release()


async def cancel(llama: Llama, text: list[int], n: int) -> None:
    """Ends a call after a few of its rounds."""
    seen, loop = asyncio.Semaphore(0), asyncio.get_running_loop()
    llama.on_round = lambda _round: loop.call_soon_threadsafe(seen.release)  # type: ignore[assignment]
    task = asyncio.ensure_future(AsyncLlama(llama).call(ids, llama, text, 60, temp=0.0))
    task.add_done_callback(lambda _: release(seen, n))  # it may end before
    for _ in range(n):
        await seen.acquire()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    llama.on_round = None


def give_up(llama: Llama, plain: Llama, seeds: Sequence[int]) -> None:
    prompt = random_text(4, 60)
    expected = ids(plain, prompt, 24, temp=0.0)
    for seed in seeds:
        disturb(llama, seed, prompt)
        assert ids(llama, prompt, 24, temp=0.0) == expected, seed


def test_what_is_given_up_changes_no_later_text(llama: Llama, plain: Llama) -> None:
    give_up(llama, plain, range(12))


@pytest.mark.slow
def test_two_hundred_that_are_given_up(llama: Llama, plain: Llama) -> None:
    give_up(llama, plain, range(200))


# the server -------------------------------------------------------------------------------------------


def test_the_server_answers_the_same_after_those_who_left(llama: Llama, plain: Llama) -> None:
    pytest.importorskip("starlette", reason="the extra `server` is not installed")
    from cadcpp.server.app import make_app
    from tests.support.asgi import Client

    app, reference = make_app(llama, "tiny"), make_app(plain, "tiny")
    long: dict[str, Any] = {"prompt": "the cat and the dog", "max_tokens": 400, "min_tokens": 400, "stream": True}

    async def leave_after(n: int) -> None:
        seen, loop = asyncio.Semaphore(0), asyncio.get_running_loop()

        def count(_round: Round) -> None:
            loop.call_soon_threadsafe(seen.release)

        llama.on_round = count
        client = Client(app, **long)
        client.done.add_done_callback(lambda _: release(seen, n))  # a text may end before
        for _ in range(n):
            await seen.acquire()
        client.leave()
        await client.done
        llama.on_round = None

    async def main() -> None:
        for n, temperature in enumerate((0.0, 0.0, 0.9, 0.9), 1):
            await leave_after(2 * n)
            request: dict[str, Any] = {
                "prompt": "the sea and the sand",
                "max_tokens": 24,
                "temperature": temperature,
                "seed": 3,
            }
            mine, other = await Client(app, **request).answer(), await Client(reference, **request).answer()
            assert mine["choices"] == other["choices"] and mine["usage"] == other["usage"]

    asyncio.run(main())


# all of them ------------------------------------------------------------------------------------------


def streamed(
    config: SessionConfig, verifier: Header, draft: Header | None, kernels: KernelModes
) -> tuple[Plan, TreeBuffers]:
    """A plan that streams all that can be: these models are too small for a real limit."""
    plan, tree_buffers = plan_session(config, verifier, draft, kernels)
    shape = replace(plan.verifier_shape, n_batch=TEXT_ROWS)
    layout = lay_out(verifier, 0)
    return replace(plan, layout=layout, window=8 << 20, kernels=kernels.streamed, verifier_shape=shape), tree_buffers


def with_room(plan: Plan, header: Header, n_rows: int, n_cells: int, rows: int) -> ContextShape | None:
    """... but has memory for a wide context."""
    return wide_shape(plan.verifier_shape, header, n_rows, n_cells, rows, 1 << 30)


def texts(
    path: Path, draft: Path | None, mode: Speculative, prompts: Sequence[list[int]], n: int, *, limited: bool
) -> list[list[int]]:
    config = SessionConfig(n_ctx=N_CTX, n_threads=1, speculative=mode, fallback="none", tree=limit_tree(8))
    parts = Parts(plan=streamed) if limited else Parts()
    with Session(path, draft, config, parts=parts) as session:
        assert session.plan.streams == limited
        found = [
            [token for chunk in session.stream(prompt, sampling, n) for token in chunk.tokens]
            for prompt in prompts
            for sampling in (GREEDY, DRAWN)
        ]
        assert not limited or session.pager.state().streamed_bytes > 0
    return found


@pytest.mark.parametrize("architecture", SNAPSHOTS + NO_SNAPSHOTS)
def test_neither_streamed_weights_nor_drafts_change_a_text(tiny: Callable[..., Path], architecture: str) -> None:
    """Drafts that are always right, most of the time, and seldom."""
    large = {"type_name": "F32"}  # so large that there is something to stream
    path, prompts = tiny(architecture, **large), [random_text(1, 30), random_text(2, 100)]
    expected = texts(path, None, "off", prompts, 24, limited=False)
    assert texts(path, None, "off", prompts, 24, limited=True) == expected
    for limited, noises in ((True, (0.0, 0.02, 0.1)), (False, (0.0, 0.1))):
        for noise in noises:
            draft = tiny(architecture, noise=noise)
            assert texts(path, draft, "draft", prompts, 24, limited=limited) == expected, (noise, limited)


@pytest.mark.parametrize("has_room", [False, True], ids=["no room", "room"])
@pytest.mark.parametrize("architecture", ["llama", *USED])
def test_a_long_text_is_read_in_wide_passes_if_there_is_room_for_them(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, architecture: str, has_room: bool
) -> None:
    """... and in no narrower ones than others if there is none."""
    path, text = tiny(architecture, type_name="F32"), random_text(1, 4 * TEXT_ROWS)
    expected = texts(path, None, "off", [text], 12, limited=False)
    if has_room:
        monkeypatch.setattr(Plan, "wide_shape", with_room)
    config = SessionConfig(n_ctx=N_CTX, n_threads=1, speculative="off")
    with Session(path, None, config, parts=Parts(plan=streamed)) as session:
        next(iter(session.stream(text, GREEDY, 4)))
        assert session.pager.state().passes == (1 if has_room else 4)
    for mode, draft in (("ngram", None), ("draft", tiny(architecture, noise=0.02))):
        assert texts(path, draft, mode, [text], 12, limited=True) == expected, mode  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("limited", [False, True], ids=["in memory", "streamed"])
@pytest.mark.parametrize("architecture", SNAPSHOTS + NO_SNAPSHOTS)
def test_six_prompts_of_two_hundred_tokens(tiny: Callable[..., Path], architecture: str, limited: bool) -> None:
    path, prompts = tiny(architecture, type_name="F32"), [random_text(seed, 20 + 40 * seed) for seed in range(6)]
    expected = texts(path, None, "off", prompts, 200, limited=limited)
    for noise in (0.0, 0.01, 0.02, 0.05, 0.1):
        draft = tiny(architecture, noise=noise, type_name="F32")
        assert texts(path, draft, "draft", prompts, 200, limited=limited) == expected, noise
    assert texts(path, None, "ngram", prompts, 200, limited=limited) == expected
