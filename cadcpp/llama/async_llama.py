"""`AsyncLlama`: the calls of `Llama` for asyncio."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from typing import Any

from cadcpp.llama.llama import Llama
from cadcpp.runtime.aio import run
from cadcpp.runtime.stages import Steps, stage_on

_END = object()


class AsyncLlama:
    """A `Llama` whose calls are awaited, or read with ``async for`` where ``stream=True``; one at a time, in order.

    They are the same calls, made on a thread of their own. Cancelling one, or closing its stream, ends the pass
    that is under way within a layer and leaves the object ready for the next.
    """

    def __init__(self, llama: Llama) -> None:
        self.llama = llama
        self._turn = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, "cadcpp-llama")

    async def __aenter__(self) -> "AsyncLlama":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the object as well. May be called twice."""
        self._thread.shutdown()
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
        async with self._turn, aclosing(run(steps)) as results:
            async for result in results:
                yield result

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
