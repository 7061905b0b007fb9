"""What a session is assembled from: models, contexts, drafter, verifier, policy, pager."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from cadcpp.config import SessionConfig
from cadcpp.draft.base import Drafter, NoDrafter
from cadcpp.draft.switch import Switch
from cadcpp.errors import ConfigError
from cadcpp.gguf.header import Header, rope_of
from cadcpp.gguf.validate import check_context
from cadcpp.gguf.vocabulary import check_pair
from cadcpp.link.traffic import NoWorkers
from cadcpp.modes import Pin
from cadcpp.native.context import Context
from cadcpp.native.layer_reports import Watcher
from cadcpp.native.model import Model
from cadcpp.policy.base import NoDrafting, Policy
from cadcpp.policy.cost_model import CostModel
from cadcpp.policy.drafter_choice import DrafterChoice
from cadcpp.residency.cache_fill import CacheFill
from cadcpp.residency.context_shape import ContextShape, wide_bytes
from cadcpp.residency.memory_plan import Plan
from cadcpp.residency.pager import NullPager, Pager
from cadcpp.residency.streaming_pager import StreamingPager
from cadcpp.residency.tree_buffers import plan_session
from cadcpp.runtime.compute_threads import ComputeThreads, thread_counts
from cadcpp.runtime.crew import crew_of
from cadcpp.runtime.draft_memory import DraftMemory, is_wanted
from cadcpp.runtime.engine import Engine
from cadcpp.runtime.kernel_choice import same_with_all
from cadcpp.runtime.learned_costs import LearnedCosts
from cadcpp.runtime.learned_demand import LearnedDemand
from cadcpp.runtime.session_drafter import make_drafter
from cadcpp.runtime.session_models import SessionModels, usable
from cadcpp.runtime.session_plan import MakePlan, plan_with
from cadcpp.runtime.session_policy import learned_costs, make_policy
from cadcpp.system.cpu import most_threads
from cadcpp.system.mapping import Mapping
from cadcpp.telemetry.trace import Trace
from cadcpp.tree.limits import GrowthOptions
from cadcpp.verify.verifier import Verifier

logger = logging.getLogger(__name__)


class StartPager(Protocol):
    """Starts a pager for a mapped verifier."""

    def __call__(self, mapping: Mapping, plan: Plan, trace: Trace | None, *, ahead: bool, pin: Pin) -> Pager: ...


def stream(mapping: Mapping, plan: Plan, trace: Trace | None, *, ahead: bool, pin: Pin) -> Pager:
    """Keep what the plan keeps, and stream the rest."""
    return StreamingPager(mapping, plan.layout, plan.window, plan.experts, trace, ahead=ahead, pin=pin)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What may be replaced in a session, by whoever measures or adapts it."""

    plan: MakePlan = plan_session
    pager: StartPager = stream
    growth: GrowthOptions = field(default_factory=GrowthOptions)
    drafter: Drafter | None = None  # in place of what the settings ask for


class Assembly:
    """The machine of one session; whatever it makes is closed by ``stack``."""

    def __init__(
        self,
        verifier: str | Path,
        draft: str | Path | None,
        config: SessionConfig,
        parts: Parts,
        stack: ExitStack,
        planned: Callable[[Plan], None] | None,
    ) -> None:
        """Raises CadError for what cannot work, as far as it can be told before anything is loaded."""
        self.config, self._parts, self._stack = config, parts, stack
        self._trace = self._start_trace()
        self._drafts_in: Context | None = None
        header, draft_header = usable(verifier), usable(draft) if draft else None
        check_context(config.n_ctx, header)
        if draft_header is not None:
            check_pair(header, draft_header)
        self.crew = stack.enter_context(crew_of(config.workers))
        self.plan, self.tree_buffers = plan_with(self.crew, config, header, draft_header, parts.plan)
        self._threads = self._compute_threads(header)
        self._check_exact()
        if planned is not None:
            planned(self.plan)
        models = SessionModels(self.plan, stack)
        draft_model = self._draft_model(models, draft_header)
        self.model = self._load_verifier(models, header)
        self.model.rope = config.rope
        drafter = parts.drafter or self._drafter(draft_model)
        self.pager = self._start_pager()
        policy, checker = self._policy(drafter, draft_header), self._verifier()
        self.engine = Engine(
            checker,
            drafter,
            config.n_ctx,
            config.tree.up_to(self.tree_buffers.most),
            self.pager,
            policy,
            self._trace,
            self.tree_buffers,
            self._cache_fill(checker.context, self._drafts_in),
            ahead=config.pipeline and (isinstance(self.pager, StreamingPager) or bool(self.plan.workers)),
            threads=self._threads,
            kernels=self.plan.kernels,
            streaming_limited=self.plan.limited,
            workers=self.crew or NoWorkers(),
            after_round=self._after_round(drafter, policy),
        )
        self._tell_inexact()
        self._tell_undrafted(draft is not None)
        self._tell_left_out()

    def _draft_model(self, models: SessionModels, header: Header | None) -> Callable[[], Model] | None:
        if header is None or self._parts.drafter is not None or self.plan.draft_shape is None:
            return None
        return models.draft(header)

    def _compute_threads(self, header: Header) -> ComputeThreads:
        """As many as were asked for, else as many as others leave, as far as the text does not see them change."""
        n = self.config.threads()
        counts = thread_counts(n, most_threads().n) if self.config.threads_because else ()
        return ComputeThreads(n, counts if same_with_all(header, self.plan.kernels, counts) else ())

    def _load_verifier(self, models: SessionModels, header: Header) -> Model:
        spread = self.crew.spread(self.plan.workers) if self.crew else None
        model = models.verifier(header, spread, pager=self.config.pager)
        if model.limited != self.plan.limited:  # what could not be foreseen
            self.plan = replace(self.plan, limited=model.limited)
        if self.plan.limited:
            logger.warning("cadcpp: %s", self.plan.limited)
        return model

    def _check_exact(self) -> None:
        kernels = self.plan.kernels
        if self.config.exact == "strict" and not kernels.exact:
            raise ConfigError(f"exact strict: {kernels.reason}; use other weights, or exact auto to go on all the same")

    def _tell_inexact(self) -> None:
        kernels = self.plan.kernels
        if self.config.exact == "auto" and not kernels.exact and self.config.speculative != "off":
            logger.warning("cadcpp: %s", kernels.promise)

    def _tell_undrafted(self, has_draft: bool) -> None:
        asked = self.config.speculative != "off" and (has_draft or self.config.ngram is not None)
        if asked and not self.plan.kernels.drafts:
            logger.warning(
                "cadcpp: nothing is drafted: %s, so one row at a time is faster; exact off drafts all the same",
                self.plan.kernels.alone_because,
            )

    def _tell_left_out(self) -> None:
        if self.plan.left_out:
            logger.warning(
                "cadcpp: the draft is not loaded: %s; speculative draft loads it all the same",
                self.plan.left_out_because,
            )

    def _context(self, model: Model, shape: ContextShape, watcher: Watcher | None = None) -> Context:
        context = Context(model, shape, self._threads.n, watcher)
        self._stack.callback(context.close)
        self._threads.contexts.append(context)
        return context

    def _drafter(self, draft_model: Callable[[], Model] | None) -> Drafter:
        if self.config.speculative == "off" or not self.plan.kernels.drafts:
            return NoDrafter()
        shape = self.plan.draft_shape
        self._drafts_in = self._draft_context(draft_model(), shape) if draft_model and shape else None
        return make_drafter(self.config, self._parts.growth, self.model, self._drafts_in)

    def _draft_context(self, model: Model, shape: ContextShape) -> Context:
        if rope_of(model.header) == rope_of(self.model.header):  # it knows positions as its verifier does
            model.rope = self.config.rope
        return self._context(model, shape)

    def _verifier(self) -> Verifier:
        watcher = self.pager if self._is_paged else None
        context = self._context(self.model, self.plan.verifier_shape, watcher)
        return Verifier(context, self._widen if isinstance(self.pager, StreamingPager) else None)

    def _cache_fill(self, *contexts: Context | None) -> CacheFill:
        plan = self.plan
        fill = CacheFill(plan.unfilled, plan.cell_bytes, plan.verifier_shape.cells)
        if not all(context.fills for context in contexts if context):
            fill.fill()
        return fill

    @contextmanager
    def _widen(self, n_rows: int, n_cells: int, rows: int) -> Iterator[Context | None]:
        """A short-lived context for long prompts and a tree of ``rows``, if the pager has memory for it."""
        shape = self.plan.wide_shape(self.model.header, n_rows, n_cells, rows)
        if shape is None:
            yield None
            return
        with self.pager.borrow(wide_bytes(shape, self.model.header)):
            with closing(Context(self.model, shape, self._threads.n, self.pager)) as context:
                yield context

    @property
    def _is_paged(self) -> bool:
        return self.model.mapping is not None and self.config.pager

    def _policy(self, drafter: Drafter, draft: Header | None) -> Policy:
        if isinstance(drafter, NoDrafter):
            return NoDrafting()
        policy = make_policy(self.config, self.plan)
        # In memory, and where experts are read, rows are dear: a short reply would pay for what was tried before.
        known = not self.plan.streams or is_wanted(self.config, self.plan)
        if isinstance(policy, CostModel | DrafterChoice) and known:
            costs = learned_costs(self.config, self.plan, self.model.header, draft)
            costs.recall(policy)
            self._stack.callback(self._keep_costs, costs, policy)
        if isinstance(policy, DrafterChoice):
            policy.go_on(with_model=not self.plan.left_out)
        return policy

    def _keep_costs(self, costs: LearnedCosts, policy: CostModel | DrafterChoice) -> None:
        if not self._threads.changed:  # they would be those of no number of threads
            costs.keep(policy)

    def _after_round(self, drafter: Drafter, policy: Policy) -> Callable[[], None]:
        """Where a draft and experts want the same memory: to see who has more use for it."""
        pager = self.pager
        if isinstance(policy, DrafterChoice) and isinstance(drafter, Switch) and isinstance(pager, StreamingPager):
            if is_wanted(self.config, self.plan):
                return DraftMemory(policy, drafter, pager, self.plan.drafting, self._free_draft).look
        return lambda: None

    def _free_draft(self) -> None:
        context, self._drafts_in = self._drafts_in, None
        if context is not None:
            self._threads.contexts.remove(context)
            context.close()
            context.model.close()

    def _start_trace(self) -> Trace | None:
        if self.config.trace is None:
            return None
        trace = Trace(self.config.trace)
        self._stack.callback(trace.close)
        return trace

    def _start_pager(self) -> Pager:
        if not self._is_paged or self.model.mapping is None:
            return NullPager()
        pager = self._parts.pager(
            self.model.mapping, self.plan, self._trace, ahead=self.config.pipeline, pin=self.config.pin
        )
        self._stack.callback(pager.close)
        if isinstance(pager, StreamingPager) and self.plan.layout.experts:
            learned = LearnedDemand(self.model.header)
            learned.recall(pager.demand)
            self._stack.callback(learned.keep, pager.demand)
        return pager
