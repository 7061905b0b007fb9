"""`cadcpp trace`: what a recorded trace says, in a few lines."""

from pathlib import Path

import click


@click.command("trace")
@click.argument("file", type=Path)
def command(file: Path) -> None:
    """Summarise a trace that --trace FILE recorded; Perfetto (ui.perfetto.dev) draws it."""
    from cadcpp.trace import summarize

    found = summarize(file)
    click.echo(f"{found.whole:.2f} s, {found.n_rounds} passes", nl=False)
    if found.n_rounds:
        rows, accepted = found.n_rows / found.n_rounds, found.n_accepted / found.n_rounds
        click.echo(f" of {rows:.1f} rows, {accepted:.2f} drafted tokens accepted in each", nl=False)
    click.echo("")
    for lane, busy in found.busy.items():
        click.echo(f"{lane:8}{busy / found.whole:6.1%} of the time, {busy:.2f} s")
    if found.busy["draft"]:
        click.echo(f"hidden  {found.hidden_draft / found.busy['draft']:6.1%} of drafting, by reading at the same time")
    for cause, seconds in sorted(found.stalls.items(), key=lambda item: -item[1]):
        click.echo(f"stalled {seconds:.2f} s for {cause}")
