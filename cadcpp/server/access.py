"""Who may ask, and how much at once."""

from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

_BYTES = 1 << 20  # of a body, whatever the context
_BYTES_PER_TOKEN = 64  # more than any text takes, in JSON's longest spelling


def largest_body(n_ctx: int) -> int:
    """Bytes beyond which no body can be a request that fits ``n_ctx`` tokens."""
    return _BYTES + _BYTES_PER_TOKEN * n_ctx


def check_sender(headers: Headers) -> None:
    """Only programs of this machine, and pages that came from this server, pass; for a server without a key.

    A page of another site sends its own origin, and one that had its name point here afterwards (DNS rebinding) that
    name as the host. Raises HTTPException.
    """
    host, origin = headers.get("host", ""), headers.get("origin")
    if not _is_here(host):
        raise HTTPException(421, "without an API key this server answers to localhost and 127.0.0.1 only")
    if origin is not None and urlsplit(origin).netloc != host:
        raise HTTPException(403, "without an API key this server does not answer web pages of other sites")


def _is_here(host: str) -> bool:
    """Whether a Host header can only mean this machine."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


def limited(receive: Receive, headers: Headers, n_bytes: int) -> Receive:
    """``receive`` for bodies of up to ``n_bytes``, announced or in chunks. It raises HTTPException beyond."""
    left = n_bytes - int(headers.get("content-length", 0))
    passed = 0

    async def next_message() -> Message:
        nonlocal passed
        message = await receive()
        passed += len(message.get("body", b""))
        if left < 0 or passed > n_bytes:
            raise HTTPException(413, f"the request has more than {n_bytes} bytes, the most that this server reads")
        return message

    return next_message
