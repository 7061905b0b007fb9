"""Who may ask, and how much at once."""

import hmac
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

_BYTES = 1 << 20  # of a body, whatever the context
_BYTES_PER_TOKEN = 64  # more than any text takes, in JSON's longest spelling
_DAY_S = 86400


def largest_body(n_ctx: int) -> int:
    """Bytes beyond which no body can be a request that fits ``n_ctx`` tokens."""
    return _BYTES + _BYTES_PER_TOKEN * n_ctx


@dataclass(frozen=True)
class Access:
    """Who is answered: whoever has the key, or, where there is none, this machine."""

    key: str | None
    origins: tuple[str, ...] = ()  # whose pages may use the server, with the key; "*": all

    def check_key(self, headers: Headers) -> None:
        """Raises HTTPException for a request without the key. It takes equally long however much of it is right."""
        if self.key is None:
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self.key.encode()):
            raise HTTPException(
                401,
                "the API key is missing or wrong: give the one that the server was started with",
                {"WWW-Authenticate": "Bearer"},
            )

    def check_sender(self, headers: Headers) -> None:
        """Without a key only programs of this machine pass, and pages that came from this server.

        A page of another site sends its own origin, and one that had its name point here afterwards (DNS rebinding)
        that name as the host. Raises HTTPException.
        """
        if self.key is not None:
            return
        host, origin = headers.get("host", ""), headers.get("origin")
        if not _is_here(host):
            raise HTTPException(421, "without an API key this server answers to localhost and 127.0.0.1 only")
        if origin is not None and urlsplit(origin).netloc != host:
            raise HTTPException(403, "without an API key this server does not answer web pages of other sites")

    def allowed(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        """Headers that tell a browser that the page may read the answer; none if it may not."""
        origin = headers.get("origin")
        if self.key is None or origin is None or not {origin, "*"} & set(self.origins):
            return []
        return [(b"access-control-allow-origin", origin.encode()), (b"vary", b"origin")]

    def preflight(self, headers: Headers) -> list[tuple[bytes, bytes]] | None:
        """Headers of the answer to a browser that asks what a page may send; None if it may send nothing."""
        allowed = self.allowed(headers)
        if not allowed or "access-control-request-method" not in headers:
            return None
        asked = headers.get("access-control-request-headers", "authorization, content-type")
        return [
            *allowed,
            (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
            (b"access-control-allow-headers", asked.encode("latin-1")),
            (b"access-control-max-age", str(_DAY_S).encode()),
        ]


def _is_here(host: str) -> bool:
    """Whether a Host header can only mean this machine."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


def limited(receive: Receive, headers: Headers, n_bytes: int) -> Receive:
    """``receive`` for bodies of up to ``n_bytes``, announced or in chunks. It raises HTTPException beyond."""
    announced = headers.get("content-length", "0")
    left = n_bytes - (int(announced) if announced.isdecimal() else 0)
    passed = 0

    async def next_message() -> Message:
        nonlocal passed
        message = await receive()
        passed += len(message.get("body", b""))
        if left < 0 or passed > n_bytes:
            raise HTTPException(413, f"the request has more than {n_bytes} bytes, the most that this server reads")
        return message

    return next_message
