"""The web panel's files, on the API's own port: its page at every address of its own, its assets below ``/assets``.

The page may run only the scripts that were built with it and talk only to this deck; styles that its components make
as they run bear a nonce that is new with each answer.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import logging
import mimetypes
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Match, Route
from starlette.types import Scope

log = logging.getLogger("quarterdeck")

#: Where the build leaves the bundle, in a checkout and in an installed wheel alike.
BUNDLE: Final = Path(__file__).parent / "panel" / "dist"
#: First parts of paths that are the API's own: what is not there is a problem, not a page.
_API: Final = frozenset({"v1", "docs", "redoc", "openapi.json", "healthz", "readyz", "metrics"})
NONCE: Final = b"__CSP_NONCE__"
#: Their names bear their contents' digest.
_FOR_EVER: Final = "public, max-age=31536000, immutable"
_PACKED: Final = frozenset({".js", ".css", ".svg", ".json", ".map", ".txt", ".webmanifest"})
_LEAST_PACKED: Final = 1_000
_ABSENT: Final = """<!doctype html><html lang="en"><title>Quarterdeck</title>
<h1>The panel is not installed</h1>
<p>This Quarterdeck was installed without its web panel (QUARTERDECK_NO_PANEL=1, or a source tree that was never
installed). Its API is here all the same: <a href="/docs">/docs</a>. To have the panel: <code>pip install -e .</code>
in the checkout, or install the wheel.</p></html>"""


class _File(NamedTuple):
    body: bytes
    packed: bytes | None
    etag: str
    media_type: str


class PanelFiles:
    """The bundle's files, read when they are first asked for and again when they change."""

    def __init__(self, bundle: Path = BUNDLE) -> None:
        self._bundle = bundle.resolve()
        self._read: dict[Path, tuple[tuple[int, int], _File]] = {}

    async def answer(self, request: Request) -> Response:
        """The file at the request's path, or the page, which draws what the path means."""
        inside = request.path_params["path"]
        asset = inside.startswith("assets/")
        if asset or "." in inside.rpartition("/")[2]:
            found = await asyncio.to_thread(self._file, inside)
            if found is not None:
                return self._send(request, found, _FOR_EVER if asset else "no-cache")
            # The name of an instrument may have a dot, too: then a browser goes there, and asks for a page.
            if asset or "text/html" not in request.headers.get("accept", ""):
                raise HTTPException(404)
        page = await asyncio.to_thread(self._file, "index.html")
        if page is None:
            return HTMLResponse(_ABSENT, 503, {"Content-Security-Policy": "default-src 'none'", **_GUARDS})
        nonce = secrets.token_urlsafe(16)
        return HTMLResponse(
            page.body.replace(NONCE, nonce.encode()),
            headers={"Content-Security-Policy": policy(nonce), "Cache-Control": "no-store", **_GUARDS},
        )

    def _file(self, inside: str) -> _File | None:
        try:
            path = (self._bundle / inside).resolve()
            # Dots in the path, or a link, must not lead out of the bundle; names that begin with one are the build's.
            if not path.is_relative_to(self._bundle) or path.name.startswith("."):
                return None
            told = path.stat()
            state = (told.st_mtime_ns, told.st_size)
            known = self._read.get(path)
            if known is not None and known[0] == state:
                return known[1]
            body = path.read_bytes()
        except (OSError, ValueError):
            return None
        packed = None
        if path.suffix in _PACKED and len(body) >= _LEAST_PACKED:
            packed = gzip.compress(body, 6, mtime=0)
        file = _File(
            body=body,
            packed=packed,
            etag=f'"{hashlib.sha256(body).hexdigest()[:24]}"',
            media_type=mimetypes.guess_type(path.name)[0] or "application/octet-stream",
        )
        self._read[path] = (state, file)
        return file

    @staticmethod
    def _send(request: Request, file: _File, keep: str) -> Response:
        headers = {"ETag": file.etag, "Cache-Control": keep, "Vary": "Accept-Encoding", **_GUARDS}
        if request.headers.get("if-none-match") == file.etag:
            return Response(status_code=304, headers=headers)
        takes = {each.partition(";")[0].strip() for each in request.headers.get("accept-encoding", "").split(",")}
        if file.packed is not None and "gzip" in takes:
            return Response(file.packed, media_type=file.media_type, headers=headers | {"Content-Encoding": "gzip"})
        return Response(file.body, media_type=file.media_type, headers=headers)


_GUARDS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def policy(nonce: str) -> str:
    """The page's content security policy.

    Style *attributes* cannot bear a nonce; they can neither run code nor, with every other source closed, send
    anything away.
    """
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            f"style-src 'self' 'nonce-{nonce}'",
            "style-src-attr 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self'",
            "connect-src 'self'",
            "manifest-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        )
    )


class _PanelRoute(Route):
    """Every GET that is not the API's: so an unknown route of the API, or a wrong method, stays a problem."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            return Match.NONE, {}
        if scope["path"].lstrip("/").partition("/")[0] in _API:
            return Match.NONE, {}
        return super().matches(scope)


def install(app: FastAPI, bundle: Path = BUNDLE) -> None:
    """Serve the panel with ``app``: after all its own routes."""
    serve: Callable[[Request], object] = PanelFiles(bundle).answer
    app.router.routes.append(_PanelRoute("/{path:path}", serve, methods=["GET"], include_in_schema=False))
