"""The model that is served: its turns, its name, and what it has done so far."""

import logging
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from typing import Any, TypeVar

from cadcpp.errors import ConfigError, WorkerError
from cadcpp.llama.async_llama import AsyncLlama
from cadcpp.llama.llama import Llama
from cadcpp.server.errors import UnknownModel
from cadcpp.server.fields import Fields
from cadcpp.server.metrics import Metrics

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Served:
    """One `Llama` under one name. What works with it waits its turn."""

    def __init__(self, llama: Llama, name: str) -> None:
        self.llama, self.name, self.created = llama, name, int(time.time())
        self.metrics = Metrics()
        self._turns = AsyncLlama(llama)

    def check_name(self, fields: Fields) -> None:
        """Raises UnknownModel for a request to another model."""
        model = fields.text("model")
        if model and model not in (self.name, f"{self.name}:latest"):
            raise UnknownModel(f"the model {model!r} does not exist; this server has {self.name}")

    async def call(self, work: Callable[[], T]) -> T:
        """What ``work`` returns, in turn."""
        with self.metrics.waiting():
            result: T = await self._turns.call(self._counted(work))
        return result

    async def read(self, chunks: Iterator[T]) -> AsyncGenerator[T, None]:
        """The chunks of ``chunks``, in turn."""
        with self.metrics.waiting():
            async for chunk in self._turns.read(self._connected(chunks)):
                yield chunk

    def _counted(self, work: Callable[[], T]) -> Callable[[], T]:
        def run() -> T:
            with self.metrics.working():
                self._reconnect()
                return work()

        return run

    def _connected(self, chunks: Iterator[T]) -> Generator[T, None, None]:
        self._reconnect()
        yield from chunks

    def _reconnect(self) -> None:
        """Where a worker was lost in an earlier request, this one goes on with those that answer."""
        if lost := self.llama.lost:
            try:
                absences = self.llama.reconnect()
            except ConfigError as error:
                raise WorkerError(f"{lost}; and without it: {error}") from None
            for absence in absences:
                logger.warning("%s; this server goes on without it", absence)

    def count(self, made: Any) -> Any:
        """An answer of the class's, or its chunks; what it took is counted when it is over."""
        if not isinstance(made, Iterator):
            self.metrics.add(self.llama.last_stats, self.llama.last_usage)
            return made
        return self._chunks(made)

    def _chunks(self, made: Any) -> Generator[Any, None, None]:
        try:
            with self.metrics.working():
                yield from made
        finally:
            made.close()
            self.metrics.add(self.llama.last_stats, self.llama.last_usage)
