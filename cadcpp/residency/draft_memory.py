"""A draft's memory, which a mixture's experts have while nothing is drafted."""

from cadcpp.residency.pager import Pager
from cadcpp.system.mapping import Mapping

_RESTS = 2  # rounds without the draft after which its memory is lent: a single one may be chance


class DraftMemory:
    """Drops a draft's mapped weights when it rests, and reads them again before it is used."""

    def __init__(self, mapping: Mapping, pager: Pager, n_bytes: int) -> None:
        self._mapping, self._pager, self._n_bytes = mapping, pager, n_bytes
        self._lent, self._rests = False, 0

    def use(self) -> None:
        """The draft is about to evaluate something. Raises ModelError if it cannot be read."""
        self._rests = 0
        if self._lent:
            self._lent = False
            self._pager.lend(0)
            self._mapping.populate_all()

    def rest(self) -> None:
        """A round goes without it."""
        self._rests += 1
        if self._rests >= _RESTS and not self._lent:
            self._lent = True
            self._mapping.drop_all()
            self._pager.lend(self._n_bytes)
