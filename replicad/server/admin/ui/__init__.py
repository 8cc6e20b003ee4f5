"""The page at /ui/: static, read only, made of three files without any framework. It shows nothing by itself: it asks the API with the token that the person gives it (in the fragment of its
address, which never reaches a server or a log, or pasted), and keeps that for the browser tab only.
"""

from __future__ import annotations

from importlib import resources

from aiohttp import web

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_FILES = {"/ui/": ("index.html", "text/html"), "/ui/style.css": ("style.css", "text/css"), "/ui/app.js": ("app.js", "text/javascript")}


def routes() -> list[web.RouteDef]:
    """The page and its two parts, kept in memory."""
    return [_route(path, name, kind) for path, (name, kind) in _FILES.items()]


def _route(path: str, name: str, kind: str) -> web.RouteDef:
    body = resources.files(__name__).joinpath(name).read_bytes()

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type=kind, charset="utf-8", headers=HEADERS)

    return web.get(path, answer)
