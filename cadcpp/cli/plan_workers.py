"""What `cadcpp plan` says of workers: what goes where, over what links, and whether that pays."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cadcpp.config import SessionConfig
    from cadcpp.residency.memory_plan import Plan


def with_workers(
    plan: "Plan", alone: "Plan", config: "SessionConfig", model: Path, n_rows: int, disk_bytes_per_s: int
) -> dict[str, Any]:
    """What --json has besides: links are measured, and passes with the workers compared with those of one machine.

    Passes are those of a tree of ``n_rows``. What is computed takes the same time wherever it is, as far as is known.
    """
    links = _links(plan, config, model, n_rows)
    link_s = sum(link["seconds_per_pass"] for link in links)
    here, before = (made.read_bytes / max(disk_bytes_per_s, 1) for made in (plan, alone))
    return {
        "workers": links,
        "workers_unused": [str(a) for a in config.workers if str(a) not in {link["address"] for link in links}],
        "link_rows": n_rows,
        "link_seconds_per_pass": round(link_s, 5),
        "read_bytes_per_pass_alone": alone.read_bytes,
        "seconds_per_pass_alone": round(before, 4),
        "seconds_per_pass_with_workers": round(here + link_s, 4),
        "workers_pay": here + link_s < before,
    }


def _links(plan: "Plan", config: "SessionConfig", model: Path, n_rows: int) -> list[dict[str, Any]]:
    from cadcpp.gguf.header import read_header
    from cadcpp.link.speed import measure_speed
    from cadcpp.residency.link_cost import link_cost

    header, addresses = read_header(model), {str(address): address for address in config.workers}
    links = []
    for share in plan.workers:
        speed = measure_speed(addresses[share.address])
        cost = link_cost(header, share, n_rows, config.n_ctx, plan.verifier_shape.states)
        links.append(
            share.to_dict()
            | {
                "round_trip_seconds": round(speed.round_trip_s, 6),
                "link_bytes_per_second": round(1 / speed.byte_s),
                "sent_bytes_per_pass": cost.sent_bytes,
                "received_bytes_per_pass": cost.received_bytes,
                "round_trips_per_pass": cost.round_trips,
                "seconds_per_pass": round(cost.seconds(speed.round_trip_s, speed.byte_s), 5),
            }
        )
    return links


def remarks_on_workers(values: dict[str, Any]) -> Iterator[str]:
    """Sentences, of what `with_workers` gives."""
    from cadcpp.util.byte_size import format_size as size

    for link in values["workers"]:
        taken, n_trips = link["weights"] + link["cache"] + link["compute"], link["round_trips_per_pass"]
        yield (
            f"Worker {link['address']} computes layers {link['first']} to {link['stop'] - 1}: {size(link['weights'])} "
            f"of weights, {size(taken)} of the {size(link['offered'])} that it lends."
        )
        yield (
            f"  Its link takes {link['round_trip_seconds'] * 1000:.2f} ms for a round trip and "
            f"{size(link['link_bytes_per_second'])}/s. A pass of {values['link_rows']} nodes sends "
            f"{size(link['sent_bytes_per_pass'])} and receives {size(link['received_bytes_per_pass'])} in "
            f"{n_trips} round trip{'s' if n_trips > 1 else ''}: {link['seconds_per_pass'] * 1000:.1f} ms."
        )
    for address in values["workers_unused"]:
        yield f"Worker {address} is not needed: the others have memory for all layers."
    yield _verdict(values, size(values["read_bytes_per_pass_alone"]))


def _verdict(values: dict[str, Any], read_alone: str) -> str:
    before, now = values["seconds_per_pass_alone"], values["seconds_per_pass_with_workers"]
    if not values["read_bytes_per_pass_alone"]:
        return "It does not pay: everything fits into this machine's memory, and a link only adds to that."
    verdict = "It pays" if values["workers_pay"] else "It does not pay"
    return (
        f"{verdict}: without workers a pass waits {before:.2f} s for {read_alone} of the disk, with them "
        f"{now:.2f} s for disk and links."
    )
