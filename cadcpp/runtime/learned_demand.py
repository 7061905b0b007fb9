"""Which experts of a mixture were used most often in earlier sessions: the next one starts from it."""

import sys
from contextlib import suppress
from dataclasses import replace

from cadcpp.gguf.header import Header
from cadcpp.residency.expert_cache import ExpertCache
from cadcpp.residency.expert_demand import ExpertDemand
from cadcpp.residency.memory_plan import Plan
from cadcpp.residency.outlook import Outlook, outlooks
from cadcpp.runtime.machine_file import MachineFile
from cadcpp.system.user_dirs import state_dir

_NONSENSE = (KeyError, TypeError, ValueError)
_ENOUGH = 16  # rows without which nothing is worth keeping


class LearnedDemand:
    """Rates of use by model, some kilobytes each. What stays in memory changes the speed, never the text."""

    def __init__(self, verifier: Header) -> None:
        self._facts, self._file = (
            ("experts", verifier.path.name, verifier.n_bytes),
            MachineFile(state_dir(), "experts.json"),
        )

    def recall(self, demand: ExpertDemand) -> bool:
        """Let a new session start from them; whether there were any."""
        found, known = self._file.find(self._facts)
        with suppress(*_NONSENSE):
            if found:
                demand.recall(known)
                return True
        return False

    def keep(self, demand: ExpertDemand) -> None:
        """For the next session. At the interpreter's end it is too late: nothing can be imported any more."""
        if not sys.is_finalizing() and demand.n_rows >= _ENOUGH:
            self._file.keep(self._facts, demand.learned())


def told_experts(plan: Plan, header: Header) -> Plan:
    """A plan that says how many experts are expected in memory, if that was learned."""
    if not plan.pages_experts:
        return plan
    cache = ExpertCache(plan.layout.experts, plan.kept_experts)
    return replace(plan, hit_rate=cache.hit_rate) if LearnedDemand(header).recall(cache.demand) else plan


def outlook_of(plan: Plan, header: Header) -> tuple[Outlook, ...]:
    """What other budgets would bring a mixture that does not fit; nothing for other models."""
    if not plan.pages_experts:
        return ()
    layout, cache = plan.layout, ExpertCache(plan.layout.experts, plan.kept_experts)
    LearnedDemand(header).recall(cache.demand)
    return outlooks(layout.experts, cache.demand, plan.fixed + layout.pinned_bytes + layout.streamed_bytes)
