"""A draft's memory, lent and taken back."""

from typing import Any, cast

from cadcpp.residency.draft_memory import DraftMemory
from cadcpp.residency.pager import NullPager


class Both(NullPager):
    """A mapping and a pager that write down what they are told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def lend(self, n_bytes: int) -> None:
        self.told.append(n_bytes)

    def drop_all(self) -> None:
        self.told.append("drop")

    def populate_all(self) -> None:
        self.told.append("read")


def test_memory_is_lent_after_two_rounds_and_never_twice() -> None:
    """Weights go before experts have their room, and experts before weights are read again."""
    both = Both()
    memory = DraftMemory(cast(Any, both), both, 88)
    memory.use()
    memory.rest()
    memory.use()
    assert both.told == []
    for _ in range(3):
        memory.rest()
    assert both.told == ["drop", 88]
    memory.use()
    memory.use()
    assert both.told == ["drop", 88, 0, "read"]
