"""The page at ``/``: files that need no key, since nothing in them is anybody's."""

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_FILES = {
    "": ("index.html", "text/html"),
    "page.js": ("page.js", "text/javascript"),
    "page.css": ("page.css", "text/css"),
}
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def routes() -> list[Route]:
    """One for each file."""
    return [_route(f"/{path}", *file) for path, file in _FILES.items()]


def _route(path: str, name: str, kind: str) -> Route:
    content = files("cadcpp.server").joinpath("static", name).read_bytes()

    async def handler(_request: Request) -> Response:
        return Response(content, media_type=f"{kind}; charset=utf-8", headers=_HEADERS)

    return Route(path, handler, methods=["GET", "HEAD"])
