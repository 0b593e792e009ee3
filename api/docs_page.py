"""``/docs``: the OpenAPI document as a page, by Swagger UI.

It is a page of our own origin, next to the panel: Swagger UI is one pinned release that is built in with the panel, and
the page's policy lets nothing else run.  Where the panel was left out the page lists the routes without it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from html import escape
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from api.panel_files import BUNDLE

router = APIRouter()

#: Where the panel's build leaves Swagger UI, in the bundle and below our own origin alike.
_AT: Final = "swagger-ui"
# The validator would be asked at another host.
_START: Final = 'SwaggerUIBundle({url: "/openapi.json", dom_id: "#docs", deepLinking: true, validatorUrl: null});'
_HEAD: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Quarterdeck: the API</title>
<link rel="icon" href="data:,">"""
_PAGE: Final = f"""{_HEAD}
<link rel="stylesheet" href="/{_AT}/swagger-ui.css">
</head>
<body>
<div id="docs"></div>
<script src="/{_AT}/swagger-ui-bundle.js"></script>
<script>{_START}</script>
</body>
</html>
"""
_CLOSED: Final = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; img-src data:"
_OURS: Final = base64.b64encode(hashlib.sha256(_START.encode()).digest()).decode()
_POLICY: Final = (
    f"{_CLOSED} 'self'; connect-src 'self'; script-src 'self' 'sha256-{_OURS}'; style-src 'self' 'unsafe-inline'"
)
_METHODS: Final = ("get", "post", "put", "patch", "delete")


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """The page."""
    if await asyncio.to_thread((BUNDLE / _AT / "swagger-ui-bundle.js").is_file):
        return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY})
    return HTMLResponse(_plain(request.app.openapi()), headers={"Content-Security-Policy": _CLOSED})


def _plain(document: dict[str, Any]) -> str:
    """The routes of an OpenAPI document as a table."""
    rows = "\n".join(
        f"<tr><td>{method.upper()}<td><code>{escape(path)}</code><td>{escape(operation.get('description', ''))}"
        for path, operations in document["paths"].items()
        for method in _METHODS
        if (operation := operations.get(method)) is not None
    )
    return f"""{_HEAD}
</head>
<body>
<h1>The API</h1>
<p>This Quarterdeck was installed without its web panel, and so without Swagger UI, which shows each route with its
fields and examples. All of that is in the OpenAPI document, which any viewer of such documents takes:
<a href="/openapi.json">/openapi.json</a>. These are its routes:</p>
<table>
<thead><tr><th>Method<th>Path<th>What it does</thead>
<tbody>
{rows}
</tbody>
</table>
</body>
</html>
"""
