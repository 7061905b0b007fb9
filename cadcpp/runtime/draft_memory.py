"""A draft model's memory beside a mixture's experts, which have it where the draft is worth less."""

import logging
from collections.abc import Callable

from cadcpp.config import SessionConfig
from cadcpp.draft.switch import Switch
from cadcpp.gguf.header import Header
from cadcpp.policy.drafter_choice import DrafterChoice
from cadcpp.residency.memory_plan import Plan
from cadcpp.residency.streaming_pager import StreamingPager
from cadcpp.runtime.session_policy import learned_costs
from cadcpp.system.heap import trim_heap
from cadcpp.util.byte_size import format_size

logger = logging.getLogger(__name__)

_FEW = 1 / 3  # of the experts: with a quarter in memory drafts lost on all disks, with half they won


class DraftMemory:
    """Gives it to the experts as soon as the policy gives the draft up. The text does not depend on it."""

    def __init__(
        self, policy: DrafterChoice, drafter: Switch, pager: StreamingPager, n_bytes: int, free: Callable[[], None]
    ) -> None:
        """``free`` frees the weights, ``n_bytes`` together with the draft's context."""
        self._policy, self._drafter, self._pager = policy, drafter, pager
        self._n_bytes, self._free = n_bytes, free

    def look(self) -> None:
        """A round is over."""
        if self._policy.given_up or not self._policy.judge(self._pager.spared_by(self._n_bytes)):
            return
        self._drafter.drop_model()
        self._free()
        trim_heap()
        self._pager.give(self._n_bytes)
        logger.info("cadcpp: the draft is given up: experts have its %s from now on", format_size(self._n_bytes))


def is_wanted(config: SessionConfig, plan: Plan) -> bool:
    """Whether experts want a draft's memory, and nobody asked for that draft in particular."""
    measured = config.speculative == "auto" and config.fallback == "cost" and config.pager
    return measured and plan.pages_experts


def why_left_out(config: SessionConfig, plan: Plan, verifier: Header, draft: Header) -> str | None:
    """Why a draft that a plan has room for is not worth it, in a few words; None: it is, or nobody knows."""
    if not is_wanted(config, plan):
        return None
    policy = DrafterChoice()
    learned_costs(config, plan, verifier, draft).recall(policy)
    are_few = plan.kept_experts < _FEW * plan.layout.expert_bytes
    loaded = policy.wants_model if policy.verify.known else not are_few
    if loaded:
        return None
    was_tried = bool(policy.model.tokens.any())
    return "as was measured" if was_tried else "as a rule with so few of them in memory; later it is tried"
