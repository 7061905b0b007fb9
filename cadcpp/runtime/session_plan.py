"""What a session will need, and where it goes: memory, the rows of trees, kernels, other machines."""

from collections.abc import Callable
from dataclasses import replace

from cadcpp.config import SessionConfig
from cadcpp.gguf.header import Header
from cadcpp.residency.kernel_mode import KernelModes
from cadcpp.residency.memory_plan import Plan
from cadcpp.residency.placement import WIDEST, without_blocks
from cadcpp.residency.tree_buffers import TreeBuffers, plan_session
from cadcpp.runtime.crew import Crew
from cadcpp.runtime.kernel_choice import kernel_modes
from cadcpp.runtime.learned_demand import told_experts
from cadcpp.system.stub import foreseen_limits

MakePlan = Callable[[SessionConfig, Header, Header | None, KernelModes], tuple[Plan, TreeBuffers]]


def plan_with(
    crew: Crew | None,
    config: SessionConfig,
    header: Header,
    draft: Header | None,
    plan: MakePlan = plan_session,
) -> tuple[Plan, TreeBuffers]:
    """A plan for what workers leave to this machine, with what they compute."""
    rows = max(config.tree.max_size, config.tree.max_size_streamed)
    shares = crew.place(header, config.n_ctx, rows) if crew else ()
    here = without_blocks(header, shares[0].first) if shares else header
    modes = kernel_modes(config, header, here.n_bytes)
    if crew and config.exact != "off":
        modes = crew.agree(modes, header, shares, config.threads())
    if shares:
        config = replace(config, n_batch=min(config.n_batch, WIDEST))
    made, tree_buffers = plan(config, here, draft, modes)
    told = told_experts(_told_limits(made, header, pager=config.pager), header)
    return replace(told, workers=shares), tree_buffers


def _told_limits(plan: Plan, header: Header, *, pager: bool) -> Plan:
    """A plan that says what of its streaming is not to be had here."""
    return replace(plan, limited=foreseen_limits(header)) if plan.streams and pager else plan
