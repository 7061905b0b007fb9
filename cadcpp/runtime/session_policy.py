"""The policy of a session, as its settings ask for it, and what it learned in sessions before."""

import math

from cadcpp.config import SessionConfig
from cadcpp.gguf.header import Header
from cadcpp.policy.base import FixedSize, Policy
from cadcpp.policy.cost_model import CostModel
from cadcpp.policy.drafter_choice import DrafterChoice
from cadcpp.policy.llmcad import AdaptiveFallback
from cadcpp.policy.pass_cost import PassCost
from cadcpp.residency.memory_plan import Plan
from cadcpp.runtime.learned_costs import LearnedCosts

_STEPS = 8  # sizes of memory that are told apart, from one to its double


def make_policy(config: SessionConfig, plan: Plan) -> Policy:
    """A policy that has learned nothing yet."""
    if config.fallback == "llmcad":
        return AdaptiveFallback()
    if config.fallback == "none":
        return FixedSize()
    # What fills up a pass on a mixture is routed as its first row, and reads and multiplies no other experts.
    cost = PassCost() if plan.layout.experts else PassCost(granularity=plan.kernels.granularity)
    return DrafterChoice(verify=cost) if config.speculative == "auto" else CostModel(verify=cost)


def learned_costs(config: SessionConfig, plan: Plan, header: Header, draft: Header | None) -> LearnedCosts:
    """Those of sessions like this one; whether a draft is worth its memory depends on how much there is in all."""
    settings = config.speculative, config.n_threads, config.pipeline, plan.kernels.name
    elsewhere = [(share.address, share.n_blocks) for share in plan.workers]
    memory = [round(_STEPS * math.log2(plan.ram))] if plan.streams else []
    return LearnedCosts(header, draft, *settings, *elsewhere, *memory)
