"""ggml's callback between the nodes of a graph: who is told of which."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from cadcpp.native.lib import api
from cadcpp.native.tensor import tensor_name


class Listener(ABC):
    """Is told of one node of a graph, in every pass that has it."""

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
        self._error: BaseException | None = None
        self.address = api.ggml_backend_sched_eval_callback(self._on_node)

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
                if ask:  # of every node there is: two thousand in a pass of a mixture
                    return listener is not None and listener.begins(tensor)
                if listener is not None:
                    listener.done(tensor)
        except BaseException as error:
            self._error = error
        return ask or self._error is None  # after an error asks for this node, and stops when it is done
