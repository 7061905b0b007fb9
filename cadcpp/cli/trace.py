"""`cadcpp trace`: what a recorded trace says, in a few lines."""

from pathlib import Path

import click

from cadcpp.cli.terminal import say


@click.command("trace")
@click.argument("file", type=Path, metavar="FILE")
def command(file: Path) -> None:
    """Summarise a trace that --trace FILE recorded.

    Says how long disk, draft and verifier were busy and what they waited for. Perfetto (ui.perfetto.dev) draws the
    same file.
    """
    from cadcpp.telemetry.trace_summary import summarize
    from cadcpp.util.byte_size import format_size

    found = summarize(file)
    rounds = f"{found.n_rounds} passes"
    if found.n_rounds:
        rows, accepted = found.n_rows / found.n_rounds, found.n_accepted / found.n_rounds
        rounds += f" of {rows:.1f} rows, {accepted:.2f} drafted tokens accepted in each"
    say(f"{found.whole:.2f} s, {rounds}")
    for lane, busy in found.busy.items():
        say(f"{lane:8}{busy / found.whole:6.1%} of the time, {busy:.2f} s")
    if found.busy["draft"]:
        say(f"hidden  {found.hidden_draft / found.busy['draft']:6.1%} of drafting, by reading at the same time")
    if found.experts_used:
        hits = 1 - found.experts_read / found.experts_used
        say(f"experts {hits:6.1%} found in memory, {format_size(found.expert_bytes)} read for the others")
    if found.experts_ahead:
        right = 1 - found.experts_wrong / found.experts_ahead
        say(f"guessed {right:6.1%} of {found.experts_ahead} experts right, which were read while a layer was computed")
    for cause, seconds in sorted(found.stalls.items(), key=lambda item: -item[1]):
        say(f"stalled {seconds:.2f} s for {cause}")
