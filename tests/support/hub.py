"""A stand-in for a model hub, on this machine: one repository, `someone/some-GGUF`."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

REPOSITORY = "someone/some-GGUF"


class Hub(ThreadingHTTPServer):
    """Serves ``files``; while ``breaks`` it cuts the first transfer in the middle and refuses further ones."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.claims: dict[str, int] = {}  # sizes told that are not the files' own
        self.breaks = False
        self.ranges: list[str | None] = []  # of every transfer that was asked for

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        if self.server.breaks and len(self.server.ranges) > 1:
            self.send_error(404)
        else:
            self._answer(with_body=True, start=int(re.findall(r"\d+", wanted)[0]) if wanted else 0)

    def _answer(self, *, with_body: bool, start: int = 0) -> None:
        name = self.path.removeprefix(f"/{REPOSITORY}/resolve/main/")
        data = self.server.files.get(name)
        if data is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hash(data) & 0xFFFFFFFF:08x}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Accept-Ranges", "bytes")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(self.server.claims.get(name, len(data) - start)))
        self.end_headers()
        if with_body:
            self.wfile.write(data[start : len(data) // 2] if self.server.breaks else data[start:])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve(files: dict[str, bytes]) -> Iterator[Hub]:
    """A hub that runs as long as the block."""
    hub = Hub(files)
    thread = Thread(target=hub.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()
