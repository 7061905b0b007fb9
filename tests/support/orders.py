"""Random orders of what can be done with the class: `python -m tests.support.orders MODEL DRAFT FIRST N`.

Prints the number of orders that went well. Any error but the documented ones, a text that differs from what an
undisturbed object writes, and a call that does not come back end the process with a traceback.
"""

import asyncio
import faulthandler
import gc
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from cadcpp import AsyncLlama, CadError, Llama, SamplingConfig, Session, SessionConfig, Stopped

DOCUMENTED = (CadError, Stopped)
N_STEPS = 14
KINDS: dict[str, dict[str, Any]] = {  # of objects
    "draft": {"draft_model_path": True, "max_tree_size": 8, "fallback": "none"},
    "ngram": {"speculative": "ngram", "max_tree_size": 8},
    "off": {"speculative": "off"},
    "upstream": {"type_k": 1, "type_v": 1},  # which the engine cannot do
}
_HANG_S = 900  # other processes may stop this one


class Order:
    """Objects, streams and threads, and what happens to them."""

    def __init__(self, model: str, draft: str, seed: int, texts: dict[int, str]) -> None:
        self._model, self._draft, self._texts = model, draft, texts
        self._rng = random.Random(seed)
        self._objects: list[tuple[str, Llama]] = []
        self._streams: list[Iterator[Any]] = []
        self._threads: list[threading.Thread] = []
        self._failed: list[BaseException] = []
        self._steps: list[Callable[[], None]] = [
            *(self.create, self.create, self.call, self.call, self.stream, self.read, self.read, self.read),
            *(self.close, self.use, self.evaluate, self.state, self.fork, self.thread, self.thread, self.collect),
            *(self.forget, self.drop_stream, self.awaited, self.session, self.stop, self.close_in_call),
        ]

    def run(self) -> None:
        self.create()
        for _ in range(N_STEPS):
            with suppress(*DOCUMENTED):
                self._rng.choice(self._steps)()
        for thread in self._threads:
            thread.join()
        if self._failed:
            raise self._failed[0]
        for _, llama in self._objects[: self._rng.randrange(3)]:
            llama.close()

    def create(self) -> None:
        kind = self._rng.choice([*KINDS])
        self._objects.append((kind, make(kind, self._model, self._draft)))

    def _pick(self) -> tuple[str, Llama]:
        if not self._objects:
            self.create()
        return self._rng.choice(self._objects)

    def call(self) -> None:
        self._check(*self._pick(), self._rng.randrange(len(self._texts)))

    def _check(self, kind: str, llama: Llama, seed: int) -> None:
        text = write(llama, seed)
        if kind != "upstream" and text != self._texts[seed]:  # whose batches round differently
            raise AssertionError(f"{kind} wrote {text!r} and not {self._texts[seed]!r}")

    def stream(self) -> None:
        _, llama = self._pick()
        if self._rng.random() < 0.5:
            self._streams.append(llama.generate([5, 6, 7]))
        else:
            self._streams.append(llama("abc", max_tokens=30, stream=True))

    def read(self) -> None:
        if self._streams:
            next(self._rng.choice(self._streams), None)

    def drop_stream(self) -> None:
        if self._streams:
            self._streams.pop(self._rng.randrange(len(self._streams)))

    def close(self) -> None:
        self._pick()[1].close()

    def forget(self) -> None:
        if self._objects:
            self._objects.pop(self._rng.randrange(len(self._objects)))

    def collect(self) -> None:
        gc.collect()

    def use(self) -> None:
        _, llama = self._pick()
        tokens = llama.tokenizer().encode("the sea")
        self._rng.choice([llama.n_vocab, llama.token_eos, llama.n_ctx, lambda: llama.detokenize(tokens)])()

    def evaluate(self) -> None:
        _, llama = self._pick()
        llama.reset()
        llama.eval([5, 6, 7])
        llama.sample(temp=0.0)

    def state(self) -> None:
        _, llama = self._pick()
        llama.load_state(llama.save_state())

    def stop(self) -> None:
        self._pick()[1].stop()

    def thread(self) -> None:
        kind, llama = self._pick()
        seed = self._rng.randrange(len(self._texts))
        self._start(lambda: self._check(kind, llama, seed))

    def close_in_call(self) -> None:
        _, llama = self._pick()
        self._start(lambda: write(llama, 0))
        self._start(llama.close)

    def _start(self, work: Callable[[], Any]) -> None:
        def guarded() -> None:
            try:
                work()
            except DOCUMENTED:
                pass
            except BaseException as error:
                self._failed.append(error)

        self._threads.append(threading.Thread(target=guarded))
        self._threads[-1].start()

    def awaited(self) -> None:
        _, llama = self._pick()
        twin = AsyncLlama(llama)
        for _ in range(2):  # loops
            asyncio.run(twin.create_completion("abc", max_tokens=4, seed=1))

    def session(self) -> None:
        with Session(self._model, self._draft, SessionConfig(n_ctx=256, n_threads=1)) as session:
            for _ in zip(range(2), session.stream([5, 6], SamplingConfig(), 20), strict=False):
                pass

    def fork(self) -> None:
        """A child that uses what it has inherited, makes an object of its own, and ends in one way or the other."""
        child = os.fork()
        if child:
            _, status = os.waitpid(child, 0)
            if status:
                raise AssertionError(f"the child ended with {os.waitstatus_to_exitcode(status)}")
            return
        status = 1
        try:
            signal.alarm(_HANG_S // 2)
            self._in_child()
            status = 0
        finally:
            os._exit(status)

    def _in_child(self) -> None:
        for _, llama in self._objects:
            with suppress(*DOCUMENTED):
                write(llama, 0)
                raise AssertionError("a forked child used what it had inherited")
            llama.close()
        for stream in self._streams:
            with suppress(*DOCUMENTED):
                next(stream, None)
        self._streams.clear()
        self._objects.clear()
        gc.collect()
        self._check("off", make("off", self._model, self._draft), 0)


def make(kind: str, model: str, draft: str) -> Llama:
    options = dict(KINDS[kind])
    if options.pop("draft_model_path", False):
        options["draft_model_path"] = draft
    return Llama(model, n_ctx=256, n_batch=64, n_threads=1, verbose=False, **options)


def write(llama: Llama, seed: int) -> str:
    answer = llama.create_completion("abc" * (1 + seed % 3), max_tokens=8, seed=seed, logit_bias={2: -100.0})
    return str(answer["choices"][0]["text"])


def main(model: str, draft: str, first: int, n: int) -> None:
    with make("off", model, draft) as llama:
        texts = {seed: write(llama, seed) for seed in range(4)}
    for number in range(first, first + n):
        faulthandler.dump_traceback_later(_HANG_S, exit=True)
        try:
            Order(model, draft, number, texts).run()
        except BaseException:
            print(f"order {number}", file=sys.stderr)
            raise
    print(n)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
