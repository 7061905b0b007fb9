"""`Llama`: the class of llama-cpp-python, on cadcpp's engine."""

import functools
import inspect
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from itertools import groupby
from random import SystemRandom
from typing import Any, TypeVar

import numpy as np

from cadcpp.chat.tool_calls import MARKS
from cadcpp.errors import ConfigError, RecurrentError, WorkerError
from cadcpp.link.address import Address
from cadcpp.link.connection import look_for
from cadcpp.llama.chat import chat_completion, chat_prompt
from cadcpp.llama.context_owner import ContextOwner
from cadcpp.llama.draft_adapter import DraftAdapter
from cadcpp.llama.logprobs import echoed_logprobs
from cadcpp.llama.options import (
    Settings,
    coupling,
    n_ctx_of,
    say_once,
    signature,
    sort_out,
    tell_unused,
    with_own_rope,
)
from cadcpp.llama.reply import Reply
from cadcpp.llama.serial import in_turn
from cadcpp.llama.upstream import RANDOM_SEED, Upstream, construct, own_parts, session_parts
from cadcpp.modes import Draws
from cadcpp.native.context import Context, Stopped
from cadcpp.native.lib import api
from cadcpp.native.sampler import Draw, check_grammar, draws, fixed_seed
from cadcpp.residency.memory_plan import Plan
from cadcpp.runtime.assembly import Parts
from cadcpp.runtime.engine import Generation
from cadcpp.runtime.round import Round
from cadcpp.runtime.session import Session
from cadcpp.runtime.stages import finish
from cadcpp.runtime.token_writer import TokenWriter, complete
from cadcpp.sampling.coupling import Coupling
from cadcpp.telemetry.stats import Stats
from cadcpp.verify.text_state import TextState

_GENERATE = inspect.signature(Upstream.generate)
_COMPLETE = inspect.signature(Upstream.create_completion)
_CHAT = inspect.signature(Upstream.create_chat_completion)
_F = TypeVar("_F", bound=Callable[..., Any])


def _as(theirs: Callable[..., Any]) -> Callable[[_F], _F]:
    """`functools.wraps` that leaves a method one to a type checker: it shows upstream's signature and docstring."""

    def shown(method: _F) -> _F:
        functools.update_wrapper(method, theirs)
        return method

    return shown


class Llama(ContextOwner):
    """`llama_cpp.Llama` with speculative decoding, for models that may be larger than memory.

    Every argument and method of upstream's class is there and gives what upstream gives when it is made with
    ``flash_attn=True, type_k=8, type_v=8`` (q8_0) and the kernels of `plan`: exact verification rests on these
    three, so they are always so here, but for ``cache_values``, and ``flash_attn`` is not looked at. Neither is what
    only decides where weights lie and how they are computed with: ``n_gpu_layers``, ``split_mode``, ``main_gpu``,
    ``tensor_split``, ``offload_kqv``, ``op_offload``, ``use_mmap``, ``use_mlock``, ``n_ubatch``, ``n_threads_batch``,
    ``swa_full``, ``no_perf``. A pass has at most 160 rows, or ``n_batch``.

    Of its own it has

    - ``draft_model_path``: a small GGUF of the same vocabulary. Without one the text itself is drafted from;
    - ``ram``: memory to use in all, in bytes or as in "900MiB"; what does not fit is streamed;
    - ``speculative`` ("auto", "off", "draft", "ngram", "staged"), ``ngram``, ``max_tree_size``, ``fallback``,
      ``exact``, ``cache_values``, ``pipeline``, ``pager``, ``pin`` and ``trace``: as the options of ``cadcpp
      generate``;
    - ``sampler``: "llama" for upstream's draws, "coupled" for draws that drafts know beforehand, which are as random
      and others; mirostat draws as ever;
    - ``on_round``: called with a `cadcpp.Round` after each pass of the model;
    - ``last_stats``: the `cadcpp.Stats` of the last call;
    - ``workers``: addresses of machines that compute its last layers. Where one is lost a call is a WorkerError, `lost`
      says which it is, and `reconnect` goes on with those that answer.

    Some settings the engine cannot serve: ``embedding``, ``vocab_only``, ``lora_path``, ``kv_overrides``, rope scaling
    types, yarn, pooling and attention settings, a ``type_k`` or ``type_v`` other than q8_0, an ``n_ctx`` beyond what
    the model was trained for, and models with a kind of recurrent state that it does not know. Such an object does
    everything as upstream does, with neither speculation nor paging; ``speculates`` tells, and a warning does if
    settings of its own have no effect.

    Threads may share an object: their calls wait for each other, and are served in the order in which they come. A
    stream lets other calls in between two of its chunks, and goes on after them as if there had been none. `close` ends
    the call that is under way; every use after it, and in a forked child of the process, is a ClosedError.

    Raises TypeError for an unknown keyword argument, ConfigError (a ValueError) for a value that cannot work and
    ModelError (a ValueError) for a file that cannot be used.
    """

    __signature__ = signature()

    def __init__(self, model_path: str, *, on_round: Callable[[Round], None] | None = None, **options: Any) -> None:
        self._stack = ExitStack()  # upstream's __del__ closes it, whatever happens here
        super().__init__()
        self._reply = Reply()  # of the last call
        self._begun = self._reply  # the one that upstream writes
        self._stopped = False
        self._marks: frozenset[int] = frozenset()  # control tokens that are shown
        self._draws: Draws = "llama"
        self._options, self.on_round = options, on_round
        settings, upstream = sort_out(options)
        draft_model = upstream.pop("draft_model")
        upstream = with_own_rope(model_path, upstream)
        n_ctx = n_ctx_of(model_path, upstream)
        if isinstance(n_ctx, str):
            self._leave(n_ctx, model_path, settings, upstream, draft_model)
            return
        try:
            self._start(model_path, settings, upstream, n_ctx, draft_model)
        except RecurrentError:
            self._leave("a model with recurrent state", model_path, settings, upstream, draft_model)

    def _leave(self, why: str, model_path: str, settings: Settings, upstream: dict[str, Any], draft_model: Any) -> None:
        """Leave everything to upstream."""
        construct(self, own_parts(self._life), model_path, draft_model=draft_model, **upstream)
        tell_unused(settings, why)

    def _start(
        self, model_path: str, settings: Settings, upstream: dict[str, Any], n_ctx: int, draft_model: Any
    ) -> None:
        for name, why in settings.unused().items():
            say_once(f"{name} has no effect: {why}")
        if draft_model is not None and settings.draft_model_path is not None:
            say_once("draft_model has no effect: draft_model_path drafts")
        finish(lambda: None)  # objects that nobody has any more are freed before memory is counted
        config = settings.session(upstream, n_ctx)
        adapts = draft_model is not None and settings.draft_model_path is None

        def start(workers: tuple[Address, ...]) -> Session:
            parts = Parts(drafter=DraftAdapter(draft_model) if adapts else None)
            return Session(model_path, settings.draft_model_path, replace(config, workers=workers), parts=parts)

        self._workers, self._start_with, self._n_batch = config.workers, start, upstream["n_batch"]
        parts = session_parts(self._life, functools.partial(start, config.workers))
        construct(self, parts, model_path, **upstream)
        self._draws = settings.sampler
        self.draft_model = draft_model
        self._adopt(self._model.session)

    def _adopt(self, session: Session) -> None:
        """Write with a session, which has evaluated nothing yet."""
        self._session, self._writer, self._n_logits, self.n_tokens = session, None, 0, 0
        cells = session.engine.verifier.context.shape
        self.n_batch: int = min(self._n_batch, cells.n_batch)
        self.input_ids = np.zeros(cells.n_cells + 1, np.intc)
        self.scores = np.zeros((cells.n_cells if self._logits_all else 1, self._n_vocab), np.single)

    @property
    def lost(self) -> str:
        """Which worker is lost, and why, in one line; empty if all are there."""
        try:
            if self._session is not None:
                self._session.engine.workers.check()
        except WorkerError as error:
            return str(error)
        return ""

    @in_turn
    def reconnect(self) -> tuple[str, ...]:
        """Load the models again, with the workers that answer now; a line for each that does not, with the reason.

        The next call evaluates its text from the start. A stream that is half read ends with a ClosedError.
        """
        if self._session is None:
            raise ConfigError("there is nothing to connect again: everything is upstream's, without workers")
        there, absences = look_for(self._workers)
        if self._writer is not None:
            self._writer.end_round()
        self._writer = None
        self._session.close()
        self._model.session = self._start_with(there)
        self._adopt(self._model.session)
        return absences

    @property
    def speculates(self) -> bool:
        """Whether the engine does the work; if not, everything is upstream's."""
        return self._session is not None

    @property
    def plan(self) -> Plan | None:
        """Where the memory goes; None if everything is upstream's."""
        return self._session.plan if self._session is not None else None

    def __enter__(self) -> "Llama":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        now = {"seed": self._seed, "chat_format": self.chat_format, "chat_handler": self.chat_handler}
        return {**self._options, **now, "model_path": self.model_path, "on_round": self.on_round}

    def stop(self) -> None:
        """End the call that is under way, from another thread, within a layer: it raises `cadcpp.Stopped`."""
        self._stopped = True
        if self._session is not None:
            self._session.engine.stop()

    create_embedding = in_turn(Upstream.create_embedding)
    embed = in_turn(Upstream.embed)

    @_as(Upstream.set_seed)
    def set_seed(self, seed: int) -> None:
        self._seed = fixed_seed(seed)

    @_as(Upstream.tokenizer)
    def tokenizer(self) -> Any:
        self.check()
        return super().tokenizer()

    @_as(Upstream.detokenize)
    def detokenize(self, tokens: Sequence[int], *args: Any, **kwargs: Any) -> bytes:
        self._check_tokens(tokens)  # llama.cpp would end the process
        marks = self._marks if self._is_mine else frozenset()
        if marks.isdisjoint(tokens):
            return bytes(super().detokenize(tokens, *args, **kwargs))
        parts = ([*group] for _, group in groupby(tokens, lambda token: token in marks))
        return b"".join(bytes(super(Llama, self).detokenize(part, special=part[0] in marks)) for part in parts)

    @contextmanager
    def showing_marks(self) -> Iterator[None]:
        """Inside, texts have the control tokens that tool calls are made up of; no other thread is there meanwhile."""
        with self.turn():
            self._marks = self._control_marks
            try:
                yield
            finally:
                self._marks = frozenset()

    @functools.cached_property
    def _control_marks(self) -> frozenset[int]:
        """Marks of tool calls that are one token each, and one that is not shown."""
        found = (self.tokenize(mark.encode(), add_bos=False, special=True) for mark in MARKS)
        single = {ids[0] for ids in found if len(ids) == 1}
        return frozenset(token for token in single if not super(Llama, self).detokenize([token]))

    def _check_tokens(self, tokens: Iterable[int]) -> None:
        for token in tokens:
            if not 0 <= token < self._n_vocab:
                raise ConfigError(f"there is no token {token}: they go from 0 to {self._n_vocab - 1}")

    @_as(Upstream.create_completion)
    def create_completion(self, *args: Any, **kwargs: Any) -> Any:
        call = _COMPLETE.bind(self, *args, **kwargs)
        call.apply_defaults()
        chunks = self._complete(call.arguments, args, kwargs)
        if call.arguments["stream"]:
            self.check()
            return self.in_turns(chunks)
        with self.turn(), closing(chunks):
            return next(chunks)

    def _complete(
        self, wanted: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Generator[Any, None, None]:
        """Upstream's chunks, or its one answer; nothing is done before the first of them is asked for."""
        self._check_tokens(map(int, wanted["logit_bias"] or ()))  # upstream would print an error for each token
        self._reply = Reply(n_wanted=max(wanted["max_tokens"] or 0, 0))
        if wanted["stream"]:
            for chunk in super().create_completion(*args, **kwargs):
                reply = self._reply
                yield chunk
                self._regain(reply)
        elif wanted["echo"]:
            yield self._echoed(wanted)
        else:
            yield super().create_completion(*args, **kwargs)

    def _echoed(self, wanted: dict[str, Any]) -> Any:
        """A completion with its prompt, whose logprobs upstream takes from the wrong rows where there is no BOS."""
        given = {name: value for name, value in wanted.items() if name != "self"}
        found = super().create_completion(**given | {"echo": False})
        choice, n = found["choices"][0], found["usage"]["completion_tokens"]
        prompt = given["prompt"]
        shown = prompt if isinstance(prompt, str) else self.spelled(prompt)
        choice["text"] = shown + choice["text"]
        if given["logprobs"] is not None:
            reply = self._reply
            n_hidden = int(isinstance(prompt, str) and reply.prompt[:1] == [self.token_bos()])
            ids = [*reply.prompt, *reply.drawn[:n]]
            choice["logprobs"] = echoed_logprobs(self, ids, n_hidden, int(given["logprobs"]), shown)
        return found

    def spelled(self, tokens: Sequence[int]) -> str:
        """The text of tokens, control tokens included."""
        return self.detokenize(tokens, special=True).decode("utf-8", "ignore")

    @property
    def last_stats(self) -> Stats:
        """Figures of the last call; of a stream, those so far."""
        return self._reply.stats

    @property
    def last_tokens(self) -> list[int]:
        """Tokens that the last call has written, without the one that ended the text."""
        return self._text_of(self._reply.drawn)

    @property
    def ended(self) -> bool:
        """Whether the model itself ended the text of the last call."""
        return self._ends(self._reply.drawn)

    def _ends(self, drawn: list[int]) -> bool:
        return bool(drawn) and bool(api.llama_vocab_is_eog(self._model.vocab, drawn[-1]))

    def _text_of(self, drawn: list[int]) -> list[int]:
        return drawn[: len(drawn) - self._ends(drawn)]

    @property
    def model_bytes(self) -> int:
        """Size of the model, all of its files."""
        return int(api.llama_model_size(self._model.model))

    def chat_prompt(self, messages: Any, tools: Any = None) -> str:
        """The text that `create_chat_completion` continues for these messages."""
        given = {"messages": messages, "tools": tools}
        call = _CHAT.bind_partial(self, **given)
        call.apply_defaults()
        return chat_prompt(self, dict(call.arguments))

    @property
    def last_usage(self) -> dict[str, int]:
        """Tokens of the last call, as OpenAI's API counts them; of a stream, those so far."""
        reply = self._reply
        n_prompt, n = len(reply.prompt), len(self._text_of(reply.drawn))
        return {"prompt_tokens": n_prompt, "completion_tokens": n, "total_tokens": n_prompt + n}

    @in_turn
    @_as(Upstream.create_chat_completion)
    def create_chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        parallel = bool(kwargs.pop("parallel_tool_calls", True))
        template_options = kwargs.pop("chat_template_kwargs", None) or {}
        call = _CHAT.bind(self, *args, **kwargs)
        call.apply_defaults()
        wanted = {name: value for name, value in call.arguments.items() if name != "self"}
        return chat_completion(self, wanted | {"chat_template_kwargs": template_options}, parallel)

    @_as(Upstream.generate)
    def generate(self, *args: Any, **kwargs: Any) -> Generator[int, Sequence[int] | None, None]:
        self.check()
        call = _GENERATE.bind(self, *args, **kwargs)
        call.apply_defaults()
        options = {name: value for name, value in call.arguments.items() if name != "self"}
        n_wanted = self._reply.n_wanted if self._is_mine else 0  # a part of a completion, or a call of its own
        reply = Reply([*map(int, options.pop("tokens"))], n_wanted=n_wanted)
        if self._session is None:
            return self.in_turns(self._generate_plainly(reply, super().generate(*args, **kwargs)))
        return self.in_turns(self._generate(self._session, reply, **options))

    def _generate(
        self, session: Session, reply: Reply, reset: bool, stopping_criteria: Any, **sampling: Any
    ) -> Generator[int, Sequence[int] | None, None]:
        self._reply = reply
        if sampling["grammar"] is not None:
            check_grammar(session.model, sampling["grammar"]._grammar, sampling["grammar"]._root)
        self._sampler = sampler = self._init_sampler(**sampling)
        reply.before = [] if reset else self._input_ids.tolist()
        writer = self._begin(reply, sampler, self._coupling(**sampling))
        try:
            while True:
                token = complete(writer.next())
                if stopping_criteria is not None and stopping_criteria(self._input_ids, self._scores[0, :]):
                    return
                reply.drawn.append(token)
                yield token  # tokens that are sent in return are guesses to upstream, and change no text
                session.check()  # `reconnect` may have closed it meanwhile
                self._regain(reply)
                self._extend([token])
        finally:
            reply.writer = None
            self._give_up(writer)

    def _give_up(self, writer: TokenWriter) -> None:
        """End a text's last round. If another call is under way it has done that, or will."""
        with self.turn_now() as now:
            if now:
                writer.end_round()
                self._writer = None if self._writer is writer else self._writer

    def _generate_plainly(
        self, reply: Reply, tokens: Generator[int, Sequence[int] | None, None]
    ) -> Generator[int, Sequence[int] | None, None]:
        """Upstream's tokens, between which it can be stopped. It writes one text at a time and says nothing of it."""
        self._reply = self._begun = reply
        self._stopped, sent = False, None
        with closing(tokens):
            while not self._stopped:
                if self._begun is not reply:
                    raise ConfigError("another text was begun meanwhile, which this model cannot do: make two objects")
                try:
                    token = tokens.send(sent)
                except StopIteration:
                    return
                reply.drawn.append(token)
                sent = yield token
        raise Stopped

    def _begin(self, reply: Reply, sampler: Any, coupling: Coupling | None) -> TokenWriter:
        """Start to write after a text."""
        text = reply.counted
        if not text:
            raise ConfigError("there is nothing to continue: give at least one token")
        session = self._put(text, scored=text[:-1])
        n_cells = len(self.input_ids) - 1
        limit = min(len(text) + (reply.n_wanted or n_cells), n_cells + 1)
        accounting = session.engine.accounting(reply.stats, session.load_seconds)
        draw = draws(sampler.sampler, self._n_vocab, coupling and coupling.after(text))
        draw = functools.partial(self._draw, sampler, draw)
        generation = Generation(TextState(text), draw, limit, accounting, coupling=coupling)
        self._writer = reply.writer = TokenWriter(session.engine, generation, self._tell)
        return self._writer

    def _regain(self, reply: Reply) -> None:
        """Go on with a text, whichever calls were made since its last token."""
        was_last, self._reply = self._reply is reply, reply
        if self._session is not None and not (was_last and self._writer is reply.writer):
            self._put(reply.counted, scored=reply.counted)
            self._writer = reply.writer

    def _put(self, text: list[int], scored: list[int]) -> Session:
        """Make a text that of the context, with the logits of ``scored`` where those of all tokens are kept."""
        session = self._take()
        self._replace(text)
        if self._logits_all and scored:
            complete(session.engine.read(scored, self._keep_logits))
        self._n_logits = 0
        return session

    def _draw(self, _sampler: Any, draw: Draw, context: Context, row: int) -> int:
        """Draw with a sampler that is not freed as long as it may be drawn with."""
        if self._logits_all:
            self.scores[self.n_tokens - 1] = context.logits_at(row)
        return draw(context, row)

    def _coupling(self, temp: float, mirostat_mode: int, **sampling: Any) -> Coupling | None:
        """What drafters may know of upstream's settings."""
        if self._draws == "llama" or temp == 0 or (temp > 0 and mirostat_mode):
            return None
        seed = SystemRandom().randrange(2**32) if self._seed == RANDOM_SEED else self._seed
        return coupling(seed % 2**32, temp, self.last_n_tokens_size, **sampling)

    def _tell(self, result: Round) -> None:
        if self.on_round is not None:
            self.on_round(result)
