"""What goes over links to workers."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


@dataclass(slots=True)
class Traffic:
    """Counters of one link, or of several."""

    sent_bytes: int = 0
    received_bytes: int = 0
    round_trips: int = 0  # requests whose reply was waited for
    waiting_seconds: float = 0.0

    @property
    def n_bytes(self) -> int:
        """In both directions."""
        return self.sent_bytes + self.received_bytes

    @classmethod
    def sum(cls, parts: "Iterable[Traffic]") -> "Traffic":
        """Of several links."""
        whole = cls()
        for part in parts:
            whole.sent_bytes += part.sent_bytes
            whole.received_bytes += part.received_bytes
            whole.round_trips += part.round_trips
            whole.waiting_seconds += part.waiting_seconds
        return whole


class Workers(Protocol):
    """Machines that compute a part of each pass."""

    def traffic(self) -> Traffic:
        """With all of them so far."""
        ...

    def compute(self) -> bool:
        """Whether a pass waits for one of them now."""
        ...

    def check(self) -> None:
        """Raises WorkerError if one is lost."""
        ...


class NoWorkers:
    """This machine computes everything."""

    def traffic(self) -> Traffic:
        return Traffic()

    def compute(self) -> bool:
        return False

    def check(self) -> None:
        """There is none to be lost."""
