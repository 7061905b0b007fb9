"""What a pair of models was measured to cost on this machine: the next session starts from it."""

import sys
from contextlib import suppress
from typing import Any

from cadcpp.gguf.header import Header
from cadcpp.policy.cost_model import CostModel
from cadcpp.policy.drafter_choice import DrafterChoice
from cadcpp.runtime.machine_file import MachineFile
from cadcpp.system.user_dirs import state_dir

_NONSENSE = (KeyError, TypeError, ValueError, IndexError)
_SEEN = 2.0  # passes without which nothing is worth keeping


class LearnedCosts:
    """Costs and acceptance by models, kernels and threads. What drafts cost changes the speed, never the text."""

    def __init__(self, verifier: Header, draft: Header | None, *settings: object) -> None:
        models = [(header.path.name, header.n_bytes) for header in (verifier, draft) if header]
        self._facts, self._file = ("costs", models, settings), MachineFile(state_dir(), "costs.json")

    def recall(self, policy: CostModel | DrafterChoice) -> None:
        """Let a new policy start from them, if there are any."""
        _, known = self._file.find(self._facts)
        with suppress(*_NONSENSE):
            for name, part in _parts(policy).items():
                part.recall(known[name])

    def keep(self, policy: CostModel | DrafterChoice) -> None:
        """For the next session. At the interpreter's end it is too late: nothing can be imported any more."""
        if not sys.is_finalizing() and float(policy.verify.count.sum()) > _SEEN:
            self._file.keep(self._facts, {name: part.learned() for name, part in _parts(policy).items()})


def _parts(policy: CostModel | DrafterChoice) -> dict[str, Any]:
    """What learns, by name."""
    if isinstance(policy, DrafterChoice):
        return {"verify": policy.verify, "model": policy.model, "text": policy.text, "choice": policy}
    return {"verify": policy.verify, "model": policy}
