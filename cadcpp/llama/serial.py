"""One call at a time, and none after the end."""

import atexit
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from functools import wraps
from sys import is_finalizing
from typing import Any, TypeVar, cast

from cadcpp.native.context import Stopped
from cadcpp.runtime.stages import let_go
from cadcpp.runtime.turns import Place, Turns
from cadcpp.util.lifetime import Lifetime

R = TypeVar("R")
_F = TypeVar("_F", bound=Callable[..., Any])

_AGAIN_S = 0.05


class Serial:
    """An object whose calls wait for each other, whichever threads make them, in the order in which they come.

    A stream waits for its turn before each of its items, so that other calls may come in between, and an abandoned one
    is in nobody's way. After `close`, and in a forked child, every call is a ClosedError.
    """

    def __init__(self, what: str) -> None:
        self._life, self._turns = Lifetime(what), Turns()
        self._caller = 0  # the thread whose turn it is
        self._freed = False
        _made.add(self)

    def stop(self) -> None:
        """End the call that is under way, from any thread."""
        raise NotImplementedError

    def free(self) -> None:
        """Free everything. Nobody uses it any more."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise ClosedError if it cannot be used any more."""
        self._life.check()

    @property
    def _is_mine(self) -> bool:
        """Whether this call is part of another one, of the same thread."""
        return self._caller == threading.get_ident()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Inside, no other thread is. Raises ClosedError, also if it is closed meanwhile."""
        self._life.check()
        if self._is_mine:
            yield
            return
        place = Place()  # a signal may come at any time, and none must leave it in the line
        try:
            self._turns.queue(place)
            place.result()
            self._caller = threading.get_ident()
            self._life.check()
            yield
        except Stopped:
            self._life.check()
            raise
        finally:
            self._end_turn()
            self._turns.leave(place)

    def _end_turn(self) -> None:
        if not self._is_mine:  # it never began
            return
        if self._life.ended:  # by the call itself, which was not to lose what it uses
            self._free_once()
        self._caller = 0

    @contextmanager
    def turn_now(self) -> Iterator[bool]:
        """Inside, no other thread is, unless it is False: for what can be left to the next call. Never waits."""
        if self._life.over or self._is_mine:
            yield not self._life.over
            return
        place = Place()
        if not self._turns.queue_now(place):
            yield False
            return
        try:
            self._caller = threading.get_ident()
            yield True
        finally:
            self._end_turn()
            self._turns.leave(place)

    def in_turns(self, items: Generator[R, Any, None]) -> Generator[R, Any, None]:
        """The same items, each made in a turn of its own."""
        sent = None
        try:
            while True:
                with self.turn():
                    try:
                        item = items.send(sent)
                    except StopIteration:
                        return
                sent = yield item
        finally:
            items.close()

    def close(self) -> None:
        """End the call that is under way, and free everything. May be called twice; frees nothing in a forked child."""
        if not self._life.end():
            return
        if self._is_mine:
            self.stop()
            return
        place = Place()
        try:
            self._turns.queue(place)
            while not place.done():
                self.stop()  # again and again, since a call may be between two decodes
                wait((place,), _AGAIN_S)
            self._free_once()
        finally:
            self._turns.leave(place)

    def __del__(self) -> None:
        """Nobody uses it, but this may be any thread at any moment: so nothing is waited for."""
        if not (getattr(self, "_freed", True) or self._life.inherited or is_finalizing()):
            self._life.end()
            let_go(self._free_once)

    def close_now(self) -> None:
        """Close it, unless a call is under way."""
        with self.turn_now() as now:
            if now:
                self._life.end()

    def _free_once(self) -> None:
        if not self._freed:
            self._freed = True
            self.free()


_made = weakref.WeakSet[Serial]()


@atexit.register
def _close_all() -> None:
    """While there still is an interpreter: what it takes apart at its end can no longer close anything."""
    for each in list(_made):
        each.close_now()


def in_turn(method: _F) -> _F:
    """A method that is a call."""

    @wraps(method)
    def call(self: Serial, *args: Any, **kwargs: Any) -> Any:
        with self.turn():
            return method(self, *args, **kwargs)

    return cast(_F, call)
