"""Where a worker listens."""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from cadcpp.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a TCP port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, *, least_port: int = 1) -> "Address":
        """Of ``HOST:PORT``. Raises ConfigError for anything else."""
        host, _, port = text.strip().rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not host or not port.isascii() or not port.isdigit() or not least_port <= int(port) <= 65535:
            raise ConfigError(f"{text!r} is no address: write HOST:PORT, such as 192.168.1.20:50052")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it; a name other than localhost may be anything."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_addresses(text: str) -> tuple[Address, ...]:
    """Of ``HOST:PORT,HOST:PORT``. Raises ConfigError for a list that is none, or names a worker twice."""
    return check_addresses(Address.parse(part) for part in text.split(","))


def check_addresses(addresses: Iterable[Address]) -> tuple[Address, ...]:
    """All of them. Raises ConfigError if one is there twice."""
    found = tuple(addresses)
    twice = next((address for i, address in enumerate(found) if address in found[:i]), None)
    if twice is not None:
        raise ConfigError(f"worker {twice} is named twice: its memory counts once")
    return found
