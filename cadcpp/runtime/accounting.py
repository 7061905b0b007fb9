"""The accountant of one generation: the only writer of its statistics and of its rounds' trace."""

from collections.abc import Callable

from cadcpp.link.traffic import Traffic
from cadcpp.residency.kernel_mode import KernelMode
from cadcpp.residency.pager import Pager
from cadcpp.runtime.round import RoundRecord
from cadcpp.system.memory_limits import peak_bytes, read_bytes
from cadcpp.telemetry.stats import Stats
from cadcpp.telemetry.trace import Trace


class Accounting:
    """Counts rounds into ``stats``, from when it is made."""

    def __init__(
        self,
        stats: Stats,
        pager: Pager,
        trace: Trace | None = None,
        *,
        n_decodes: int = 0,
        load_seconds: float = 0.0,
        kernels: KernelMode = KernelMode(),  # noqa: B008 - frozen
        streaming_limited: str = "",
        traffic: Callable[[], Traffic] = Traffic,
    ) -> None:
        """``n_decodes`` are those of the draft model before; ``traffic`` is that with workers so far."""
        self.stats, self._pager, self._trace, self._n_decodes = stats, pager, trace, n_decodes
        self._before, self._read = pager.state(), read_bytes()
        self._last = self._before  # when the round before was over
        self._traffic, self._traffic_before = traffic, traffic()
        stats.load_seconds = load_seconds
        stats.exact, stats.inexact_because = kernels.exact, kernels.reason
        stats.streaming_limited = streaming_limited

    def count(self, record: RoundRecord, policy: Callable[[], dict[str, float]]) -> None:
        """A round is over; ``policy`` tells, for a trace, what its policy went by."""
        self._count_round(record)
        self._count_paging()
        self._count_traffic()
        if self._trace is not None:
            self._write_trace(self._trace, record, self._experts() | policy())

    def _count_round(self, record: RoundRecord) -> None:
        stats, draft = self.stats, record.draft
        stats.passes += 1
        stats.drafted += len(draft.drafted.tree) - 1
        stats.accepted += len(record.accepted.rows) - 1
        stats.emitted += record.n_emitted
        stats.draft_decodes += draft.n_decodes - self._n_decodes
        self._n_decodes = draft.n_decodes
        stats.draft_seconds += draft.stop - draft.start
        stats.verify_seconds += record.verify.seconds

    def _count_paging(self) -> None:
        stats, now, before = self.stats, self._pager.state(), self._before
        stats.pinned_bytes, stats.layers_reported = now.pinned_bytes, now.layers_reported
        stats.stall_seconds = now.stall_seconds - before.stall_seconds
        stats.expert_read_bytes = now.expert_bytes - before.expert_bytes
        stats.expert_stall_seconds = now.expert_seconds - before.expert_seconds
        if used := now.experts_used - before.experts_used:
            stats.expert_hit_rate = round(1 - (now.experts_read - before.experts_read) / used, 4)
        routed = stats.expert_read_bytes // max(now.passes - before.passes, 1)
        stats.streamed_bytes_per_pass = now.pass_bytes + routed
        stats.read_bytes = read_bytes() - self._read
        if stats.passes == 1:
            stats.prompt_read_bytes = stats.read_bytes
        stats.read_bytes_per_token = stats.read_bytes // max(stats.emitted, 1)
        stats.peak_rss_bytes = peak_bytes()

    def _experts(self) -> dict[str, float]:
        """What this round's passes used of experts, had to read and guessed, for a trace; nothing for a dense model."""
        now, last = self._pager.state(), self._last
        self._last = now
        names = [f"experts_{what}" for what in ("used", "read", "ahead", "wrong")]
        counts = {name: getattr(now, name) - getattr(last, name) for name in names}
        return counts if counts["experts_used"] else {}

    def _count_traffic(self) -> None:
        stats, now, before = self.stats, self._traffic(), self._traffic_before
        stats.link_bytes = now.n_bytes - before.n_bytes
        stats.link_round_trips = now.round_trips - before.round_trips
        stats.link_seconds = now.waiting_seconds - before.waiting_seconds

    def _write_trace(self, trace: Trace, record: RoundRecord, more: dict[str, float]) -> None:
        draft, drafted, verify = record.draft, record.draft.drafted, record.verify
        counts = {"rows": len(drafted.tree), "evaluated": drafted.n_evaluated, "kept": drafted.n_kept}
        trace.span("draft", "draft", draft.start, draft.stop, **counts)
        counts = {"rows": draft.n_rows, "tail": draft.n_uncached, "accepted": len(record.accepted.rows) - 1}
        trace.span("verify", "pass", verify.start, verify.stop, **counts, **more)
