"""One verifier model with one context, and any drafter, tree or verifier class tried on it."""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from cadcpp.config import SamplingConfig, SessionConfig
from cadcpp.draft.base import Drafter, NoDrafter
from cadcpp.draft.model_drafter import ModelDrafter
from cadcpp.gguf.blocks import state_bytes
from cadcpp.native.context import Context
from cadcpp.native.model import Model
from cadcpp.native.sampler import Sampler
from cadcpp.residency.context_shape import ContextShape
from cadcpp.residency.states import States
from cadcpp.runtime.engine import Engine
from cadcpp.runtime.kernel_choice import kernel_modes
from cadcpp.telemetry.stats import Stats
from cadcpp.tree.granularity import Granularity
from cadcpp.tree.limits import GrowthOptions, TreeLimits
from cadcpp.verify.verifier import Verifier


class Rig:
    """Keeps what is slow to make between runs, and starts every run with an empty cache."""

    def __init__(
        self,
        path: Path,
        *,
        n_ctx: int = 1024,
        max_rows: int = 192,
        n_batch: int = 512,
        n_threads: int = 1,
        n_snapshots: int = 0,
        n_chains: int = 1,
        n_drafted: int = 1,
    ) -> None:
        """``n_snapshots`` are of states, and of ``n_chains`` sequences, as far as the model has any.

        Drafts that have any have ``n_drafted`` states.
        """
        self.n_ctx, self._n_snapshots, self._n_chains, self._n_drafted = n_ctx, n_snapshots, n_chains, n_drafted
        self._max_rows, self._n_batch, self._n_threads = max_rows, n_batch, n_threads
        self._stack = ExitStack()
        self.model = Model(path)
        modes = kernel_modes(SessionConfig(n_threads=n_threads), self.model.header)
        self._granularity = modes.streamed.granularity
        self._stack.callback(self.model.close)
        self.context = self._context(self.model, max_rows)

    def _context(self, model: Model, n_outputs: int) -> Context:
        n_batch, stateful = self._n_batch + self._max_rows, bool(state_bytes(model.header))
        own = model is self.model
        shape = ContextShape(
            n_cells=self.n_ctx,
            n_batch=n_batch,
            n_outputs=n_outputs,
            n_seq=(self._n_chains if own else self._n_drafted) if stateful else self._max_rows,
            states=States(n_snapshots=self._n_snapshots if own else 0, n_marks=2 * own) if stateful else None,
            granularity=self._granularity if own else Granularity(),
        )
        context = Context(model, shape, self._n_threads)
        self._stack.callback(context.close)
        return context

    def close(self) -> None:
        self._stack.close()

    def model_drafter(self, path: Path) -> ModelDrafter:
        """A drafter with a model of its own, freed with the rig."""
        model = Model(path, vocabulary=False, repacked=True)
        self._stack.callback(model.close)
        return ModelDrafter(self._context(model, max(GrowthOptions().width, self._n_drafted)), self.model.end_tokens())

    def engine(self, drafter: Drafter | None = None, rows: int = 1, verifier: type[Verifier] = Verifier) -> Engine:
        self.context.clear()
        return Engine(verifier(self.context), drafter or NoDrafter(), self.n_ctx, TreeLimits(max_size=rows))

    def generate(
        self,
        prompt: Sequence[int],
        n: int,
        sampling: SamplingConfig,
        drafter: Drafter | None = None,
        rows: int = 1,
        *,
        verifier: type[Verifier] = Verifier,
        stats: Stats | None = None,
    ) -> list[int]:
        """The token ids of one generation."""
        with closing(self.sampler(prompt, sampling)) as sampler:
            rounds = self.engine(drafter, rows, verifier).rounds(prompt, sampler, n, stats=stats)
            return [token for result in rounds for token in result.tokens]

    def sampler(self, prompt: Sequence[int], sampling: SamplingConfig) -> Sampler:
        """A sampler that knows the prompt, as a session makes it."""
        return Sampler(self.model.n_vocab, sampling, prompt)
