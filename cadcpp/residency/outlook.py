"""What memory budgets would bring a mixture of experts: numbers in, numbers out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cadcpp.residency.expert_cache import kept_bytes
from cadcpp.residency.expert_demand import ExpertDemand
from cadcpp.residency.layout import ExpertLayer

SHARES = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """A memory budget, and what a token would read in it; bytes."""

    share: float  # of the experts that there is room for
    ram: int  # for everything
    read_bytes: int  # expected of one row


def outlooks(layers: Sequence[ExpertLayer], demand: ExpertDemand, beside: int) -> tuple[Outlook, ...]:
    """Budgets with room for SHARES of the experts, and ``beside`` for all else; what is read goes by ``demand``."""
    sizes = np.array([layer.expert_bytes for layer in layers], np.int64)
    whole, used = sum(layer.n_bytes for layer in layers), sum(layer.expert_bytes * layer.n_used for layer in layers)
    rooms = {share: int(share * whole) for share in SHARES}
    return tuple(
        Outlook(
            share=share,
            ram=beside + room,
            read_bytes=round(used * max(1 - demand.hit_rate(sizes, kept_bytes(layers, room)), 0.0)),
        )
        for share, room in rooms.items()
    )
