"""`cadcpp worker`: lend this machine's memory and processor to another one."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cadcpp.cli.terminal import note
from cadcpp.errors import ConfigError
from cadcpp.link.address import Address

if TYPE_CHECKING:
    from cadcpp.link.front import Front

_PORT = 50052


@click.command("worker")
@click.option(
    "--listen",
    default=f"127.0.0.1:{_PORT}",
    show_default=True,
    metavar="HOST:PORT",
    help="Where to listen; port 0: any that is free.",
)
@click.option(
    "--ram",
    metavar="SIZE",
    help="Memory to lend in all, such as 900MiB or 4GB. [default: what the system has available at the start]",
)
@click.option("--threads", type=int, metavar="N", help="Compute threads. [default: one per core that is fast and idle]")
@click.option(
    "--no-cache",
    is_flag=True,
    help="Do not keep weights that were sent in ~/.cache/cadcpp/worker. With that cache large ones are sent only once.",
)
@click.option(
    "--i-trust-this-network",
    "trusted",
    is_flag=True,
    help="Listen at an address that other machines reach. Whoever reaches it can use this machine, and may break in.",
)
def command(listen: str, ram: str | None, threads: int | None, no_cache: bool, trusted: bool) -> None:
    """Compute layers of a model for another machine, until Ctrl-C.

    On the other machine give this one's address to chat, generate, serve or plan: --workers HOST:PORT. Layers go into
    this machine's memory before the other one streams them from its disk. Both need the same version of cadcpp and of
    llama-cpp-python.
    """
    address = Address.parse(listen, least_port=0)
    if not address.is_loopback and not trusted:
        raise ConfigError(
            f"--listen {address} is reached from other machines, and the protocol has no authentication: listen at "
            "127.0.0.1 behind a tunnel (docs/machines.md), or add --i-trust-this-network"
        )
    front = _front(address, ram, threads, None if no_cache else _cache())
    try:
        front.serve()
    finally:
        front.close()


def _front(address: Address, ram: str | None, threads: int | None, cache: Path | None) -> "Front":
    from cadcpp.config import SessionConfig
    from cadcpp.link.front import Front, Ledger
    from cadcpp.link.server_process import ServerProcess
    from cadcpp.link.weight_cache import WeightCache
    from cadcpp.native.rpc import check_rpc
    from cadcpp.system.memory_limits import available_bytes, resident_bytes
    from cadcpp.util.byte_size import format_size, parse_size

    check_rpc()
    n_threads = SessionConfig(n_threads=threads).threads()
    n_bytes = parse_size(ram) if ram is not None else available_bytes()
    ledger = Ledger(n_bytes - resident_bytes())
    kept = WeightCache(cache) if cache else None
    front = _listening(address, lambda: Front(address, ledger, lambda: ServerProcess(cache, n_threads), note, kept))
    note(f"lends {format_size(n_bytes)} and {n_threads} threads at {Address(address.host, front.port)}; Ctrl-C ends it")
    note("The protocol has no authentication: whoever reaches this address can use this machine, and may break in.")
    return front


def _listening(address: Address, start: "Callable[[], Front]") -> "Front":
    try:
        return start()
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else error
        raise ConfigError(f"cannot listen at {address}: {why}; choose another --listen") from None


def _cache() -> Path | None:
    """Where weights are kept that clients sent; None where there is no place."""
    from cadcpp.system.user_dirs import cache_dir

    base = cache_dir()
    if base is None:
        return None
    folder = base / "worker"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        note(f"cadcpp: weights are not kept: {folder}: {error.strerror}; they are sent at every start")
        return None
    return folder
