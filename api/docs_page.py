"""``/docs``: the OpenAPI document as a page, by Swagger UI.

It is a page of our own origin, next to the panel: what it loads is one release, whose files the browser checks by their
digests, and its policy lets nothing else run.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

router = APIRouter()

#: Digests of the files of npm's swagger-ui-dist, which jsDelivr serves as they are.
_AT: Final = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5.35.0/"
_SCRIPT: Final = "sha384-gjRm0bEPMeTmMh5jT2cHccIwCUZSTd8YC+j0d0sXw0MdGEfScduGpSyF3ZSSLkX9"
_STYLE: Final = "sha384-WlYgdmXYOOBWL5apwjDEZwN+U3HmXSSu5R6V5aGxEcf7z+KuRNwBhoxKVN1i3D5I"
_START: Final = 'SwaggerUIBundle({url: "/openapi.json", dom_id: "#docs", deepLinking: true});'
_PAGE: Final = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Quarterdeck: the API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{_AT}swagger-ui.css" integrity="{_STYLE}" crossorigin="anonymous">
</head>
<body>
<div id="docs"></div>
<script src="{_AT}swagger-ui-bundle.js" integrity="{_SCRIPT}" crossorigin="anonymous"></script>
<script>{_START}</script>
</body>
</html>
"""
_OURS: Final = base64.b64encode(hashlib.sha256(_START.encode()).digest()).decode()
_POLICY: Final = (
    "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; connect-src 'self'; "
    f"script-src {_AT} 'sha256-{_OURS}'; style-src {_AT} 'unsafe-inline'; img-src 'self' data:"
)


@router.get("/docs", include_in_schema=False)
async def docs() -> HTMLResponse:
    """The page."""
    return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY})
