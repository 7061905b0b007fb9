"""Turns: who comes first is served first."""

import threading
from collections import deque
from concurrent.futures import Future

Place = Future[None]  # is done when its turn has come


class Turns:
    """A line for threads, which wait for a place's result, and for coroutines of any loop, which await it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._line = deque[Place]()

    def queue(self, place: Place) -> None:
        """Put a new place at the end. Whatever becomes of it, it has to be left again."""
        with self._lock:
            self._line.append(place)
            self._serve()

    def queue_now(self, place: Place) -> bool:
        """Only if nobody else has one. Never waits, so that destructors may ask."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if not self._line:
                self._line.append(place)
                self._serve()
            return place.done()
        finally:
            self._lock.release()

    def leave(self, place: Place) -> None:
        """The turn is over, or not wanted any more."""
        with self._lock:
            if place in self._line:
                self._line.remove(place)
            self._serve()

    def _serve(self) -> None:
        first = self._line[0] if self._line else None
        if first is not None and not first.done() and first.set_running_or_notify_cancel():
            first.set_result(None)
