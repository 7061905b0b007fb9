"""Finds out that a mapped model's files were cut, changed or cannot be read, before that makes a wrong token."""

import ctypes
import functools
import itertools
import os
import signal
import weakref
from collections.abc import Iterable

from cadcpp.errors import ModelError
from cadcpp.gguf.header import Part
from cadcpp.system.mapping import Segment, blank

_Handler = ctypes.CFUNCTYPE(None, ctypes.c_int)
_MOST = 1000  # faults that lost files can cause: one for each thread that reads them just then
_libc = ctypes.CDLL(None)
_previous = ctypes.create_string_buffer(512)  # a struct sigaction, which nobody looks into
_guards: "weakref.WeakSet[Guard]" = weakref.WeakSet()
_n_faults = itertools.count(1)


class Guard:
    """Holds a model's files open and knows what they were when it was loaded.

    A file that was deleted or replaced by another stays what it was as long as it is mapped. One that was
    written to, or cut, is not the model any more. A pass that touches what is gone gets SIGBUS; it goes on
    with zeros then, and `check` says afterwards that nothing of it counts.
    """

    def __init__(self, parts: Iterable[Part]) -> None:
        self._files = {os.open(part.path, os.O_RDONLY): part for part in parts}
        self._states = {fd: _state(os.fstat(fd)) for fd in self._files}
        self._segments: list[Segment] = []
        self._lost = False

    def watch(self, segments: list[Segment]) -> None:
        """The files are mapped now. Raises ModelError if they are others than at the beginning."""
        for fd, part in self._files.items():
            if part.n_bytes != os.fstat(fd).st_size or _state(os.stat(part.path)) != self._states[fd]:
                raise ModelError(f"{part.path} was changed while it was loaded: start again")
        self._segments = segments
        if segments:
            _catch_faults()
            _guards.add(self)

    def check(self) -> None:
        """Raises ModelError if the files are no longer what was loaded."""
        changed = self._changed()
        if changed is not None:
            raise ModelError(f"{changed.path} was cut or changed while it was in use: put it back and start again")
        if self._lost:
            raise ModelError(f"{self._first.path} could not be read: check its disk and start again")

    def close(self) -> None:
        """Let go of the files; before they are unmapped. May be called twice."""
        _guards.discard(self)
        while self._files:
            os.close(self._files.popitem()[0])

    def lose(self) -> None:
        """Zeros in the place of all weights: there is no way back."""
        self._lost = True
        blank(self._segments)

    def suspect(self) -> bool:
        """Whether a fault is likelier to be of these files than of others."""
        return self._changed() is not None

    @property
    def _first(self) -> Part:
        return next(iter(self._files.values()))

    def _changed(self) -> Part | None:
        for fd, part in self._files.items():
            try:
                same = _state(os.fstat(fd)) == self._states[fd]
            except OSError:  # a network file system that forgot it
                same = False
            if not same:
                return part
        return None


def _state(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


@functools.cache  # once
def _catch_faults() -> None:
    """From now on a page that cannot be read ends a pass and not the process.

    Python in a handler is safe here: such a fault is no surprise to the thread that has it, which is reading
    weights in a kernel of ggml, holds no lock and not the interpreter's either.
    """
    _libc.sigaction(signal.SIGBUS, None, _previous)
    _libc.signal(signal.SIGBUS, _on_fault)


def _answer(number: int) -> None:
    guards = list(_guards)
    for guard in [guard for guard in guards if guard.suspect()] or guards:
        guard.lose()
    if not guards or next(_n_faults) > _MOST:  # somebody else's fault: let it take its course
        _libc.sigaction(number, _previous, None)


_on_fault = _Handler(_answer)
