"""llama-cpp-python's own class, and how its constructor is made to use a model and a context that are cadcpp's."""

import inspect
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial, wraps
from types import FunctionType, SimpleNamespace
from typing import Any, TypeVar

from cadcpp.native.lib import api, quiet
from cadcpp.runtime.session import Session
from cadcpp.runtime.stages import finish
from cadcpp.util.lifetime import Lifetime

import llama_cpp  # isort: skip  after cadcpp.native.lib, which sets what has to be set before the library loads
from llama_cpp import _internals as internals  # isort: skip

_T = TypeVar("_T")

Upstream: Any = llama_cpp.Llama
State: Any = llama_cpp.LlamaState
RANDOM_SEED = int(llama_cpp.LLAMA_DEFAULT_SEED)  # stands for one that nobody knows
Q8_0 = int(llama_cpp.GGML_TYPE_Q8_0)
# Some virtual machines announce these units without having them, which ends the process at their first use.
HAS_AMX = b"AMX_INT8 = 1" in llama_cpp.llama_print_system_info()
quiet()  # importing llama_cpp took llama.cpp's log for itself


def construct(llama: Any, parts: SimpleNamespace, model_path: str, **options: Any) -> None:
    """Run upstream's constructor on ``llama``, with ``parts`` where it looks for its own `_internals`."""
    init = Upstream.__init__
    room = {**init.__globals__, "internals": parts}
    mine = FunctionType(init.__code__, room, init.__name__, init.__defaults__, init.__closure__)
    mine.__kwdefaults__ = init.__kwdefaults__
    mine(llama, model_path, **options)


def own_parts(life: Lifetime) -> SimpleNamespace:
    """Upstream's parts, to do everything as upstream does."""
    model, context = partial(OwnModel, life), partial(OwnContext, life)
    return SimpleNamespace(**{**vars(internals), "LlamaModel": model, "LlamaContext": context})


def session_parts(life: Lifetime, start: Callable[[], Session]) -> SimpleNamespace:
    """Parts that stand for those of a session, which is started in the place of loading a model."""
    return SimpleNamespace(
        LlamaModel=lambda **_: SessionModel(life, start()),
        LlamaContext=lambda model, **_: SessionContext(life, model),
        LlamaBatch=lambda **_: ExitStack(),  # upstream's `eval` alone would fill it
        LlamaTokenDataArray=lambda **_: None,  # nothing of upstream's uses it any more
    )


def _guarded(part: type[_T]) -> type[_T]:
    """A part of upstream's that refuses to be used after its end, and is not freed by another thread while it is used.

    Decodes need no guard: a call makes them, and who closes an object waits for its call.
    """
    for name, method in inspect.getmembers(part, inspect.isfunction):
        if not name.startswith("_") and name not in ("close", "decode", "encode", "default_params"):
            setattr(part, name, _guard(method))
    return part


def _guard(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def guarded(part: Any, *args: Any, **kwargs: Any) -> Any:
        part.life.check()
        with part.in_use:
            return method(part, *args, **kwargs)

    return guarded


class _Address:
    """An address of llama.cpp's, which upstream sets to None when it frees what is there."""

    def __set_name__(self, _owner: type, name: str) -> None:
        self._name = f"_address_of_{name}"

    def __set__(self, part: Any, address: Any) -> None:
        setattr(part, self._name, address)

    def __get__(self, part: Any, _owner: type) -> Any:
        """Raises ClosedError when it is freed, and in a forked child."""
        if part is None:
            return self
        address = getattr(part, self._name)
        if address is None:
            part.life.end()
        if part.life.inherited or address is None:
            part.life.check()
        return address


@_guarded
class OwnModel(internals.LlamaModel):  # type: ignore[misc]
    """Upstream's model, which does not end the process.

    Upstream's own does where the processor announces AMX without having it, and when it is used after it was freed.
    """

    model = _Address()

    def __init__(self, life: Lifetime, *, params: Any, **options: Any) -> None:
        self.life, self.in_use = life, threading.RLock()
        params.use_extra_bufts = params.use_extra_bufts and not HAS_AMX
        super().__init__(params=params, **options)

    def close(self) -> None:
        if not self.life.inherited:
            with self.in_use:
                super().close()

    @property
    def vocab(self) -> Any:
        return api.llama_model_get_vocab(self.model)

    @vocab.setter
    def vocab(self, _address: Any) -> None:
        """It goes with the model."""


@_guarded
class OwnContext(internals.LlamaContext):  # type: ignore[misc]
    """Upstream's context, which does not end the process when it is used after it was freed.

    It computes on the thread that all compute on: a forked child of a thread that has computed hangs when it does.
    """

    ctx = _Address()

    def __init__(self, life: Lifetime, **options: Any) -> None:
        self.life, self.in_use = life, threading.RLock()
        super().__init__(**options)

    def close(self) -> None:
        if not self.life.inherited:
            with self.in_use:
                super().close()

    def decode(self, batch: Any) -> None:
        finish(lambda: internals.LlamaContext.decode(self, batch))

    def encode(self, batch: Any) -> None:
        finish(lambda: internals.LlamaContext.encode(self, batch))

    @property
    def memory(self) -> Any:
        return api.llama_get_memory(self.ctx)

    @memory.setter
    def memory(self, _address: Any) -> None:
        """It goes with the context."""


@_guarded
class SessionModel(internals.LlamaModel):  # type: ignore[misc]
    """A session's verifier, with the methods of upstream's model; closing it closes the session.

    The session may be replaced by another one on the same model.
    """

    def __init__(self, life: Lifetime, session: Session) -> None:
        self.life, self.session = life, session
        self.path_model, self.verbose = str(session.model.path), False
        self.sampler, self.custom_samplers = None, list[Any]()  # close() looks at them
        self._exit_stack = ExitStack()
        self._exit_stack.callback(lambda: self.session.close())

    def __del__(self) -> None:
        """The object that it is a part of frees it; from here it would have to be waited for."""

    @property
    def in_use(self) -> threading.RLock:
        return self.session.model.in_use

    @property
    def model(self) -> int:
        return self.session.model.handle

    @property
    def vocab(self) -> Any:
        return self.session.model.vocab


@_guarded
class SessionContext(internals.LlamaContext):  # type: ignore[misc]
    """The context of a session's verifier, with the methods of upstream's; the session frees it."""

    def __init__(self, life: Lifetime, model: SessionModel) -> None:
        self.life = life
        self.model, self.verbose, self.sampler = model, False, None
        self._exit_stack = ExitStack()

    @property
    def in_use(self) -> threading.RLock:
        return self.model.in_use

    @property
    def ctx(self) -> int:
        return self.model.session.engine.verifier.context.handle

    @property
    def memory(self) -> int:
        return self.model.session.engine.verifier.context.memory
