"""`AsyncLlama`: the calls of `Llama` for asyncio."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any

from cadcpp.llama.llama import Llama
from cadcpp.runtime.aio import run
from cadcpp.runtime.stages import Steps, stage_on
from cadcpp.runtime.turns import Place, Turns
from cadcpp.runtime.worker import Worker

_END = object()


class AsyncLlama:
    """A `Llama` whose calls are awaited, or read with ``async for`` where ``stream=True``; one at a time, in order.

    They are the same calls, made on a thread of their own. Cancelling one, or closing its stream, ends the pass
    that is under way within a layer and leaves the object ready for the next. It may be used by several event loops,
    one after the other or at the same time.
    """

    def __init__(self, llama: Llama) -> None:
        self.llama = llama
        self._turns = Turns()
        self._thread = Worker("cadcpp-llama")

    async def __aenter__(self) -> "AsyncLlama":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the object. May be called twice."""
        self.llama.close()

    def create_completion(self, *args: Any, **kwargs: Any) -> Any:
        """`Llama.create_completion`."""
        return self._call(self.llama.create_completion, *args, **kwargs)

    def create_chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        """`Llama.create_chat_completion`."""
        return self._call(self.llama.create_chat_completion, *args, **kwargs)

    def create_embedding(self, *args: Any, **kwargs: Any) -> Any:
        """`Llama.create_embedding`."""
        return self._call(self.llama.create_embedding, *args, **kwargs)

    __call__ = create_completion

    async def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What ``function``, which works with `llama`, returns."""
        async with aclosing(self._run(self._once(partial(function, *args, **kwargs)))) as results:
            return await anext(results)

    def read(self, chunks: Iterator[Any]) -> AsyncGenerator[Any, None]:
        """The chunks of a stream of `llama`."""
        return self._run(self._chunks(lambda: chunks))

    def _call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not kwargs.get("stream"):
            return self.call(method, *args, **kwargs)
        return self._run(self._chunks(partial(method, *args, **kwargs)))

    async def _run(self, steps: Steps[Any]) -> AsyncGenerator[Any, None]:
        async with self._turn(), aclosing(run(steps)) as results:
            async for result in results:
                yield result

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        self.llama.check()
        place = Place()
        try:
            self._turns.queue(place)
            await asyncio.wrap_future(place)
            yield
        finally:
            self._turns.leave(place)

    def _once(self, call: Callable[[], Any]) -> Steps[Any]:
        yield (yield from stage_on(self._thread, self.llama.stop, call))

    def _chunks(self, call: Callable[[], Any]) -> Steps[Any]:
        chunks = None
        try:
            chunks = yield from stage_on(self._thread, self.llama.stop, call)
            while (chunk := (yield from stage_on(self._thread, self.llama.stop, next, chunks, _END))) is not _END:
                yield chunk
        finally:
            if chunks is not None:
                chunks.close()
