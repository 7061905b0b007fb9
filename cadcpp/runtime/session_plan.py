"""What a session will need, and where it goes: memory, the rows of trees, kernels, other machines."""

from collections.abc import Callable
from dataclasses import replace

from cadcpp.config import SessionConfig
from cadcpp.gguf.blocks import state_bytes
from cadcpp.gguf.header import Header
from cadcpp.residency.kernel_mode import KernelModes
from cadcpp.residency.memory_plan import Plan
from cadcpp.residency.placement import WIDEST, without_blocks
from cadcpp.residency.states import States, verifier_states
from cadcpp.residency.tree_buffers import TreeBuffers, plan_session
from cadcpp.runtime.crew import Crew
from cadcpp.runtime.draft_memory import why_left_out
from cadcpp.runtime.kernel_choice import has_snapshots, kernel_modes, same_with_f16_values
from cadcpp.runtime.learned_demand import told_experts
from cadcpp.system.memory_limits import available_bytes
from cadcpp.system.stub import foreseen_limits

_ROOMY = 7 / 8  # of the memory is taken at most, where some is spent on speed
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
    states = _fixed_states(config, header) if crew else None
    shares = crew.place(header, config.n_ctx, rows, states) if crew else ()
    here = without_blocks(header, shares[0].first) if shares else header
    modes = kernel_modes(config, header, here.n_bytes)
    if crew and config.exact != "off":
        modes = crew.agree(modes, header, shares, config.threads())
    if shares:
        config = replace(config, n_batch=min(config.n_batch, WIDEST))
        modes = replace(modes, states=states and replace(states, elsewhere=state_bytes(header) - state_bytes(here)))
    made, tree_buffers = plan(config, here, draft, modes)
    if draft is not None and (why := why_left_out(config, replace(made, workers=shares), header, draft)):
        alone, buffers_alone = plan(config, here, None, modes)
        if alone.streams:  # else other kernels, which may round otherwise, would compute the same text
            made, tree_buffers = replace(alone, left_out=draft.n_bytes, left_out_why=why), buffers_alone
    if config.cache_values == "auto" and not shares:
        made, tree_buffers = _with_f16_values(config, header, draft, modes, plan) or (made, tree_buffers)
    told = told_experts(_told_limits(made, header, pager=config.pager), header)
    return replace(told, workers=shares), tree_buffers


def _fixed_states(config: SessionConfig, header: Header) -> States | None:
    """What is kept of recurrent states: decided for all machines, before it is known which has what.

    Snapshots are where the states are; for a second chain, or without snapshots, copies would go over the links in
    every pass. So there are as many snapshots as where everything fits, and one chain.
    """
    ram = config.ram or available_bytes()
    states = next(verifier_states(header, ram, snapshots=has_snapshots(header), streamed=False))
    return states and replace(states, n_chains=1)


def _with_f16_values(
    config: SessionConfig, header: Header, draft: Header | None, modes: KernelModes, plan: MakePlan
) -> tuple[Plan, TreeBuffers] | None:
    """The plan with the cache's values in f16, which attention reads faster; None where they do not pay.

    They take memory, which is better spent on weights as long as these have to be streamed, and other kernels, which
    must not need more rows to be exact.
    """
    guess = replace(modes, kept=replace(modes.kept, f16_values=True))
    made, tree_buffers = plan(config, header, draft, guess)
    if made.streams or made.peak > _ROOMY * made.ram:
        return None
    return (made, tree_buffers) if same_with_f16_values(config, header, modes.kept) else None


def _told_limits(plan: Plan, header: Header, *, pager: bool) -> Plan:
    """A plan that says what of its streaming is not to be had here."""
    return replace(plan, limited=foreseen_limits(header)) if plan.streams and pager else plan
