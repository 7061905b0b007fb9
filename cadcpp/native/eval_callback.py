"""ggml's callback between the nodes of a graph: who is told of which."""

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Mapping

from cadcpp.native.lib import api, declared
from cadcpp.native.tensor import tensor_name

# llama.cpp's C API has a callback for all passes of a context, and each pass asks it of all its nodes: two thousand of
# a mixture's, a fortieth of the time of a single row. What computes its graphs can be given another one for each pass.
_SCHEDULER = "_ZNK13llama_context9get_schedEv"  # llama_context::get_sched() const
try:
    _library = declared(
        {
            _SCHEDULER: (ctypes.c_void_p, (ctypes.c_void_p,)),
            "ggml_backend_sched_set_eval_callback": (None, (ctypes.c_void_p,) * 3),
        }
    )
except AttributeError:  # a library that shows its C functions alone
    _library = None


class Listener(ABC):
    """Is told of one node of a graph, in every pass that has it."""

    least_rows = 1  # of a pass that it has to be told of; of others it may be

    def begins(self, _tensor: int) -> bool:
        """It is about to be computed, with others before it; whether to be told when it is done, which takes time."""
        return True

    @abstractmethod
    def done(self, tensor: int) -> None: ...


class EvalCallback:
    """Calls listeners by the names of nodes.

    ctypes would print an exception of a callback and go on. Here it ends the pass, Ctrl-C too, and is
    raised again when the decode has returned.
    """

    def __init__(self, listeners: Mapping[bytes, Listener]) -> None:
        self.listeners = dict(listeners)
        self._least_rows = min((listener.least_rows for listener in self.listeners.values()), default=0)
        self._error: BaseException | None = None
        self.address = api.ggml_backend_sched_eval_callback(self._on_node)

    def begin_pass(self, context: int, n_rows: int) -> bool:
        """Whether the context's next pass asks of its nodes for certain; one of so few rows need not."""
        if _library is None or not self.listeners:
            return True
        asks = n_rows >= self._least_rows
        address = self.address if asks else None
        _library.ggml_backend_sched_set_eval_callback(getattr(_library, _SCHEDULER)(context), address, None)
        return asks

    @property
    def failed(self) -> bool:
        """Whether a listener raised something during the last decode."""
        return self._error is not None

    def raise_error(self) -> None:
        """Raise what a listener raised during the last decode."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _on_node(self, tensor: int, ask: bool, _user_data: int | None) -> bool:
        try:
            if self._error is None:
                listener = self.listeners.get(tensor_name(tensor))
                if ask:
                    return listener is not None and listener.begins(tensor)
                if listener is not None:
                    listener.done(tensor)
        except BaseException as error:
            self._error = error
        return ask or self._error is None  # after an error asks for this node, and stops when it is done
