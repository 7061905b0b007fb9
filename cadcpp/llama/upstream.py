"""llama-cpp-python's own class, and how its constructor is made to use a model and a context that are cadcpp's."""

from collections.abc import Callable
from contextlib import ExitStack
from types import FunctionType, SimpleNamespace
from typing import Any

from cadcpp.native.lib import quiet
from cadcpp.runtime.session import Session

import llama_cpp  # isort: skip  after cadcpp.native.lib, which sets what has to be set before the library loads
from llama_cpp import _internals as internals  # isort: skip

Upstream: Any = llama_cpp.Llama
State: Any = llama_cpp.LlamaState
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


def own_parts() -> SimpleNamespace:
    """Upstream's parts, to do everything as upstream does."""
    return SimpleNamespace(**{**vars(internals), "LlamaModel": _OwnModel})


def session_parts(start: Callable[[], Session]) -> SimpleNamespace:
    """Parts that stand for those of a session, which is started in the place of loading a model."""
    return SimpleNamespace(
        LlamaModel=lambda **_: SessionModel(start()),
        LlamaContext=lambda model, **_: SessionContext(model),
        LlamaBatch=lambda **_: ExitStack(),  # upstream's `eval` alone would fill it
        LlamaTokenDataArray=lambda **_: None,  # nothing of upstream's uses it any more
    )


class _OwnModel(internals.LlamaModel):  # type: ignore[misc]
    """Upstream's model, which dies where the processor announces AMX without having it."""

    def __init__(self, *, params: Any, **options: Any) -> None:
        params.use_extra_bufts = params.use_extra_bufts and not HAS_AMX
        super().__init__(params=params, **options)


class SessionModel(internals.LlamaModel):  # type: ignore[misc]
    """A session's verifier, with the methods of upstream's model; closing it closes the session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.path_model, self.verbose = str(session.model.path), False
        self.model, self.vocab = session.model.handle, session.model.vocab
        self.sampler, self.custom_samplers = None, list[Any]()  # close() looks at them
        self._exit_stack = ExitStack()
        self._exit_stack.callback(session.close)


class SessionContext(internals.LlamaContext):  # type: ignore[misc]
    """The context of a session's verifier, with the methods of upstream's; the session frees it."""

    def __init__(self, model: SessionModel) -> None:
        context = model.session.engine.verifier.context
        self.model, self.verbose, self.sampler = model, False, None
        self.ctx, self.memory = context.handle, context.memory
        self._exit_stack = ExitStack()
