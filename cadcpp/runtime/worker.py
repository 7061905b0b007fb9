"""A thread that does one work after the other."""

import atexit
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

from cadcpp.errors import ClosedError

T = TypeVar("T")
P = ParamSpec("P")
_Work = tuple["Future[Any]", Callable[[], Any]]
_Works = SimpleQueue["_Work | None"]  # None ends the thread


class Worker:
    """A thread of its own, started when there is work; in a forked child, which has no threads, another one.

    Destructors run anywhere, even inside of `submit`, and may submit: so nothing there waits for a lock once the thread
    has started. `concurrent.futures` has locks, and threads that a child lacks.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.start_anew()
        _workers.add(self)

    def start_anew(self) -> None:
        """Forget the thread, whatever it was doing."""
        self._works: _Works = SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def __del__(self) -> None:
        self._works.put(None)

    def submit(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """What ``work`` will return. Raises ClosedError when the interpreter is ending."""
        if _ending:
            raise ClosedError("the program is ending: nothing more is computed")
        future = Future[T]()
        if self._thread is None:
            self._start()
        self._works.put((future, lambda: work(*args, **kwargs)))
        return future

    @property
    def is_current(self) -> bool:
        """Whether this is its thread."""
        return self._thread is not None and self._thread.ident == threading.get_ident()

    def finish(self) -> None:
        """Do what there is to do, and end the thread."""
        if self._thread is not None:
            self._works.put(None)
            self._thread.join()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                thread = threading.Thread(target=_work, args=(self._works,), name=self._name, daemon=True)
                thread.start()
                self._thread = thread


def _work(works: _Works) -> None:
    while (todo := works.get()) is not None:
        future, work = todo
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)
                del error
        del todo, future, work  # what it worked on must not live until there is more to do


_workers = weakref.WeakSet[Worker]()
_ending = False


def _end() -> None:
    """A decode must not run into the end of the libraries that it is in."""
    global _ending
    _ending = True
    for worker in list(_workers):
        worker.finish()


def _start_all_anew() -> None:
    for worker in list(_workers):
        worker.start_anew()


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_all_anew)
