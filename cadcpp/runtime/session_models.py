"""The models of a session: how its plan has them loaded."""

from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from cadcpp.gguf.header import Header, read_header
from cadcpp.gguf.validate import check_generative
from cadcpp.native.model import Model
from cadcpp.native.rpc import Spread
from cadcpp.residency.memory_plan import Plan
from cadcpp.runtime.stages import BACKGROUND
from cadcpp.system.mapping import is_shareable


def usable(path: str | Path) -> Header:
    """The header of a model that writes text. Raises ModelError for another file."""
    header = read_header(Path(path))
    check_generative(header)
    return header


class SessionModels:
    """Loads models, which ``stack`` closes."""

    def __init__(self, plan: Plan, stack: ExitStack) -> None:
        self._plan, self._stack = plan, stack

    def verifier(self, header: Header, spread: Spread | None, *, pager: bool) -> Model:
        """A model whose weights are read only where that cannot be helped; a part of it goes to workers."""
        plan = self._plan
        # Where only a stub can be mapped over, it is needed without a pager too.
        stub = plan.streams and (pager or not all(is_shareable(part.path) for part in header.parts))
        stub = stub or bool(plan.workers) and not plan.kernels.repacked  # else all would be read at once
        return self._load(header, stub=stub, repacked=plan.kernels.repacked, spread=spread)

    def draft(self, header: Header) -> Callable[[], Model]:
        """What gives the draft model; it is loaded beside the verifier, unless both would read from disk at once."""
        if self._plan.streams:
            return partial(self._load, header, vocabulary=False, repacked=True)
        loading = BACKGROUND.submit(Model, header.path, header=header, vocabulary=False, repacked=True)
        self._stack.callback(_close_loaded, loading)
        return loading.result

    def _load(self, header: Header, **how: Any) -> Model:
        model = Model(header.path, header=header, **how)
        self._stack.callback(model.close)
        return model


def _close_loaded(loading: Future[Model]) -> None:
    """Close a model as soon as it is loaded, if it ever is."""
    wait((loading,))
    if not loading.exception():
        loading.result().close()
