"""The thread that reads ahead of compute, and drops behind it."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cadcpp.errors import ModelError
from cadcpp.residency.layout import Extent, joined
from cadcpp.residency.read_queue import ReadQueue, Step
from cadcpp.residency.read_speed import ReadSpeed
from cadcpp.system.mapping import Mapping
from cadcpp.telemetry.trace import Trace

logger = logging.getLogger(__name__)


Keep = Callable[[int, int, int], bool]  # the bytes from ... to ... of a part; whether it could


class Prefetcher:
    """Does what a `ReadQueue` decides, one chunk after the other, in a thread of its own.

    The thread that decodes tells where it is and waits for what it needs, so that no page fault ever reads around
    itself. ``on_stay`` is told of each chunk that is to stay, under the ``lock``, and whether ``keep`` could take it
    from the kernel. The queue's order is asked for under the lock as well.
    """

    def __init__(
        self,
        mapping: Mapping,
        queue: ReadQueue,
        on_stay: Callable[[Extent, bool], None],
        trace: Trace | None = None,
        *,
        keep: Keep | None = None,
        huge: bool = False,  # then asking ahead would bring small pages
    ) -> None:
        self._mapping, self._queue, self._on_stay, self._trace = mapping, queue, on_stay, trace
        self._keep, self._huge = keep, huge
        self.lock = threading.Condition()
        self._running, self._speed = True, ReadSpeed()
        self.streamed_bytes, self.stall_seconds = 0, 0.0
        self._waits_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="cadcpp-pager", daemon=True)
        self._thread.start()

    # the decoding thread --------------------------------------------------------------------------

    def start_pass(self) -> None:
        with self.lock:
            self._queue.start_pass()

    def layer_done(self, layer: int) -> None:
        with self.lock:
            self._queue.layer_done(layer)

    def end_pass(self) -> None:
        with self.lock:
            self._queue.end_pass()
            self.lock.notify_all()

    def wait_for(self, layer: int) -> tuple[float, float]:
        """Wait until what a layer needs is in memory; from when to when, by time.perf_counter.

        Raises the ModelError of what cannot be read.
        """
        with self.lock:
            self._queue.want(layer)
            start = time.perf_counter()
            self._waits_since = None if self._queue.ready else start
            if self._waits_since or not self._queue.idle:  # the other thread would take a core from those that compute
                self.lock.notify_all()
            while self._running and not self._queue.error and not self._queue.ready:
                self.lock.wait()
            self._waits_since, stop = None, time.perf_counter()
            self.stall_seconds += stop - start
            if self._queue.error and not self._queue.ready:
                raise self._queue.error
        return start, stop

    @contextmanager
    def standing_still(self) -> Iterator[ReadQueue]:
        """Hold the thread still, with the lock, while its order or its room changes; it plans anew afterwards."""
        with self.lock:
            self._queue.paused = True
            while self._queue.asked and self._running:
                self.lock.wait()
            yield self._queue
            self._queue.resume()
            self.lock.notify_all()

    def close(self) -> None:
        """Stop reading. May be called twice."""
        with self.lock:
            self._running = False
            self.lock.notify_all()
        self._thread.join()

    # whoever asks ---------------------------------------------------------------------------------

    def wait_for_stall(self, seconds: float) -> bool:
        """Whether compute waits now, or begins to within ``seconds``."""
        with self.lock:
            return self.lock.wait_for(lambda: self._waits_since is not None, seconds)

    @property
    def n_passes(self) -> int:
        """Begun so far."""
        return self._queue.at[0]

    @property
    def at_layer(self) -> int:
        """The last layer of the pass that is computed."""
        return self._queue.at[1]

    @property
    def waiting_seconds(self) -> float:
        """For how long compute has been waiting by now."""
        return 0.0 if (since := self._waits_since) is None else time.perf_counter() - since

    @property
    def byte_seconds(self) -> float:
        """Of reading one byte, as measured."""
        return self._speed.byte_seconds

    # the reading thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        steps = {"drop": self._drop, "ask": self._ask, "take": self._take}
        try:
            while (step := self._next_step()) is not None:
                steps[step]()
        except Exception:  # paging is advice: without it pages are read when they are touched
            logger.exception("the pager stopped; the kernel pages on its own")
        finally:
            with self.lock:
                self._running = False
                self.lock.notify_all()

    def _next_step(self) -> Step | None:
        """What to do next, chosen under the lock and done outside it; None at the end."""
        with self.lock:
            while self._running:
                planned, step = self._queue.planned, self._queue.next_step()
                if self._queue.planned != planned:  # what compute waits for may not be among it
                    self.lock.notify_all()
                if step != "wait":
                    return step
                self.lock.wait()
            return None

    def _ask(self) -> None:
        with self.lock:
            if not self._queue.asked:
                self._speed.start(time.perf_counter())
            chunk = self._queue.ask()
        if not self._huge:
            self._mapping.will_need(chunk.part, chunk.start, chunk.stop)

    def _take(self) -> None:
        read = self._queue.asked[0]
        chunk, start = read.chunk, time.perf_counter()
        try:
            self._mapping.populate(chunk.part, chunk.start, chunk.stop)
        except ModelError as error:
            with self.lock:
                self._queue.give_up(error)
                self.lock.notify_all()
            return
        if self._trace is not None:
            args = {"bytes": len(chunk), "layer": chunk.layer, "pass": read.number}
            self._trace.span("disk", "keep" if read.stays else "stream", start, time.perf_counter(), **args)
        self._taken(chunk, read.stays, read.stays and self._is_kept(chunk))

    def _taken(self, chunk: Extent, stays: bool, locked: bool) -> None:
        with self.lock:
            self._queue.take()
            self._speed.finish(time.perf_counter(), len(chunk))
            if stays:
                self._on_stay(chunk, locked)
            else:
                self.streamed_bytes += len(chunk)
            self.lock.notify_all()

    def _is_kept(self, chunk: Extent) -> bool:
        """Whether the kernel must not take a chunk that is to stay; what fails once is not tried again."""
        if self._keep is not None and self._keep(chunk.part, chunk.start, chunk.stop):
            return True
        self._keep = None
        return False

    def _drop(self) -> None:
        with self.lock:
            passed = self._queue.pop_passed()
        for extent in joined(passed):
            self._mapping.drop(extent.part, extent.start, extent.stop)
        with self.lock:
            self._queue.free(passed)
