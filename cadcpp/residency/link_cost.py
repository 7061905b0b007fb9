"""What a pass costs between machines: numbers in, bytes and seconds out."""

from dataclasses import dataclass

from cadcpp.gguf.blocks import block_state_bytes, state_blocks
from cadcpp.gguf.header import Header
from cadcpp.residency.footprint import whole_cells
from cadcpp.residency.placement import Share
from cadcpp.residency.states import States

_GRAPH, _GRAPH_BLOCK = 18 << 10, 12800  # bytes that describe a pass: of a share, and of each of its blocks; measured
_ROW = 64  # ... and of each row: its position, its cells
_F32, _F16 = 4, 2


@dataclass(frozen=True, slots=True)
class LinkCost:
    """Of one pass, with one worker; it is asked more where a number of rows is new."""

    sent_bytes: int
    received_bytes: int
    round_trips: int

    def seconds(self, round_trip_s: float, byte_s: float) -> float:
        """At a link's speed, without what the worker computes."""
        return self.round_trips * round_trip_s + (self.sent_bytes + self.received_bytes) * byte_s


def link_cost(header: Header, share: Share, n_rows: int, n_cells: int, states: States | None = None) -> LinkCost:
    """Of a pass of ``n_rows`` over a text of ``n_cells``: hidden states, twice at most, and a mask go there.

    It is waited for once, and for each tensor of recurrent states that is copied here before drafts are checked, since
    llama.cpp keeps no snapshots of it.
    """
    hidden = n_rows * header.number("embedding_length") * _F32
    rows = n_rows * (whole_cells(n_cells) * _F16 + _ROW)
    copied = states is not None and not states.n_snapshots and n_rows > 1
    n_states = len(state_blocks(header) & {*range(share.first, share.stop)}) if copied else 0
    received = hidden + n_states * sum(block_state_bytes(header))
    return LinkCost(_GRAPH + _GRAPH_BLOCK * share.n_blocks + 2 * hidden + rows, received, 1 + 2 * n_states)
