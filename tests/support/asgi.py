"""Clients of an ASGI application in this process."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any


class Client:
    """One request, and what comes back; it may go away. The body is sent in ``chunks``, if given."""

    def __init__(
        self,
        app: Any,
        path: str = "/v1/completions",
        method: str = "POST",
        headers: dict[str, str] | None = None,
        chunks: Sequence[bytes] = (),
        **body: Any,
    ) -> None:
        chunks = chunks or [json.dumps({"prompt": "abc", "temperature": 0, **body}).encode()]
        self._inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for i, chunk in enumerate(chunks, 1):
            self._inbox.put_nowait({"type": "http.request", "body": chunk, "more_body": i < len(chunks)})
        self.sent: list[dict[str, Any]] = []
        given = {"content-type": "application/json", "host": "127.0.0.1:8000", **(headers or {})}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
            "scheme": "http",
            "http_version": "1.1",
        }
        self.done = asyncio.ensure_future(app(scope, self._inbox.get, self._keep))

    async def _keep(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    def leave(self) -> None:
        self._inbox.put_nowait({"type": "http.disconnect"})

    async def answer(self) -> Any:
        await self.done
        assert self.status == 200, self.sent
        return json.loads(self.body)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])


def ask(app: Any, **request: Any) -> Client:
    """A request with its answer."""

    async def main() -> Client:
        client = Client(app, **request)
        await client.done
        return client

    return asyncio.run(main())
