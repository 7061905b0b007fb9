"""How much memory the KV caches have taken by now: cells need none before a text reaches them."""

from dataclasses import dataclass

from cadcpp.residency.footprint import whole_cells


@dataclass(slots=True)
class CacheFill:
    """What a text has not reached yet weights have, up to ``unfilled`` bytes. What it has reached stays taken."""

    unfilled: int = 0
    cell_bytes: float = 0.0  # of a cell in all caches
    n_cells: int = 0
    reached: int = 0

    def reach(self, n_cells: int) -> None:
        """A pass comes that leaves so many cells in use."""
        self.reached = max(self.reached, min(whole_cells(n_cells), self.n_cells))

    def fill(self) -> None:
        """The caches take all of their memory at once."""
        self.reached = self.n_cells

    @property
    def taken(self) -> int:
        """Bytes that weights have to give back."""
        return max(int(self.unfilled - self.cell_bytes * (self.n_cells - self.reached)), 0)
