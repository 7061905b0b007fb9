"""The pipeline's workers, and how to run stages on them, with asyncio or without.

Work is written once, as a generator of steps: it yields a future where it has to wait and a result where
it has one. `run` drives such a generator for a caller that blocks, `aio.run` for one that awaits.
"""

import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import CancelledError, Future, wait
from contextlib import contextmanager, suppress
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from cadcpp.errors import ClosedError
from cadcpp.runtime.worker import Worker

T = TypeVar("T")
P = ParamSpec("P")
C = TypeVar("C", bound="Closable")
Steps = Generator[Future[Any] | T, None, None]
Step = Generator[Future[Any], None, T]

# One thread computes, for all sessions of the process. OpenMP keeps a team for each thread that computes, and with
# more threads than cores their members sleep between operations instead of spinning: a draft then takes three times
# as long. So what runs beside it must compute on a single thread, without a team.
COMPUTE, BACKGROUND = Worker("cadcpp-compute"), Worker("cadcpp-beside")

_AGAIN_S = 0.05


class Closable(Protocol):
    def close(self) -> None: ...


def stage(stop: Callable[[], None], work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Step[T]:
    """``work`` on the computing thread. Closed meanwhile, it is ended by ``stop`` and waited for."""
    return stage_on(COMPUTE, stop, work, *args, **kwargs)


def stage_on(
    thread: Worker, stop: Callable[[], None], work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> Step[T]:
    """`stage` on a thread of the caller's."""
    future = None
    try:
        future = thread.submit(work, *args, **kwargs)
        yield future
    except BaseException:  # of a signal's handler it may come before the future is known
        _wait_for(future or thread.submit(lambda: None), stop)
        raise
    return future.result()


def apart(work: Callable[[], C], meanwhile: Callable[["Future[C]"], object] = lambda _future: None) -> C:
    """What ``work`` makes, made on the computing thread, since a signal that hits a native callback is lost there.

    Interrupted, what is made nevertheless is closed. ``meanwhile`` is done on the caller's thread.
    """
    future = COMPUTE.submit(work)
    try:
        meanwhile(future)
        wait((future,))
    except BaseException:
        future.add_done_callback(lambda done: done.exception() or done.result().close())
        raise
    return future.result()


def finish(work: Callable[[], T]) -> T:
    """``work`` on the computing thread, after whatever runs there; it runs to its end whatever a signal raises."""
    if COMPUTE.is_current:
        return work()
    try:
        future = COMPUTE.submit(work)
    except ClosedError:  # the interpreter is ending, and has waited for that thread
        return work()
    _wait_for(future, lambda: None)
    return future.result()


def until_done(future: "Future[Any]") -> None:
    """Wait, whatever comes of it; `wait` for one future, once a token, takes a tenth of a millisecond."""
    with suppress(CancelledError):
        future.exception()


def let_go(work: Callable[[], object]) -> None:
    """``work`` on the computing thread as soon as it can be; nobody waits, so that destructors may ask for it."""
    try:
        COMPUTE.submit(work)
    except ClosedError:  # the interpreter is ending
        work()


def _wait_for(future: "Future[Any]", stop: Callable[[], None]) -> None:
    """Wait for the end of a work that ``stop`` makes shorter, then raise what a signal's handler raised meanwhile."""
    interrupted: BaseException | None = None
    while not future.done():
        try:
            stop()  # again and again, since a stage may be between two decodes
            wait((future,), _AGAIN_S)
        except BaseException as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted


@contextmanager
def in_background(
    work: Callable[Concatenate[Callable[[], bool], P], None], *args: P.args, **kwargs: P.kwargs
) -> Iterator[None]:
    """Inside, ``work`` runs on the other thread; its first argument tells, when asked, whether it is time to end."""
    over = threading.Event()
    future = BACKGROUND.submit(work, over.is_set, *args, **kwargs)
    try:
        yield
    finally:
        over.set()
        wait((future,))
    future.result()


def run(steps: Steps[T]) -> Generator[T, None, None]:
    """The results of ``steps``, for a caller that blocks meanwhile."""
    try:
        for step in steps:
            if isinstance(step, Future):
                until_done(step)
            else:
                yield step
    finally:
        steps.close()
