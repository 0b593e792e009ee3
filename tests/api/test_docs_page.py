"""The page that shows the API: everything from our own origin, and a plain one where the panel was left out."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from api import docs_page, panel_files
from api.app import create_app
from cluster.settings import DeckSettings

PANEL = Path(panel_files.__file__).parent / "panel"


@pytest.fixture
async def http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """The application without its services, with an empty bundle of the panel in ``tmp_path``."""
    monkeypatch.setattr(docs_page, "BUNDLE", tmp_path)
    nowhere = DeckSettings(database_url="postgresql://nowhere", redis_url="redis://nowhere")
    app = create_app(nowhere, connect=False)
    # Before the application's own, which serves what was built here, if anything was.
    app.router.routes.pop()
    panel_files.install(app, tmp_path)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://deck") as client:
        yield client


async def test_all_that_it_loads_is_of_our_own_origin(http: httpx.AsyncClient, tmp_path: Path) -> None:
    (tmp_path / "swagger-ui").mkdir()
    for name in ("swagger-ui-bundle.js", "swagger-ui.css"):
        (tmp_path / "swagger-ui" / name).write_text(f"/* {name} */")
    docs = await http.get("/docs")
    assert docs.status_code == 200
    policy = docs.headers["content-security-policy"]
    assert "//" not in policy
    assert "//" not in docs.text
    (inline,) = re.findall(r"<script>(.*?)</script>", docs.text)
    digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
    assert f"script-src 'self' 'sha256-{digest}';" in policy
    loaded = re.findall(r"<(?:script src|link rel=\"stylesheet\" href)=\"(.*?)\"", docs.text)
    assert len(loaded) == 2
    for path in loaded:
        file = await http.get(path)
        assert (file.status_code, file.text) == (200, f"/* {path.rpartition('/')[2]} */")


async def test_without_the_panel_it_lists_the_routes(http: httpx.AsyncClient) -> None:
    docs = await http.get("/docs")
    assert (docs.status_code, docs.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "script" not in docs.headers["content-security-policy"]
    assert "<script" not in docs.text
    assert 'href="/openapi.json"' in docs.text
    document = (await http.get("/openapi.json")).json()
    routes = sum(method in operations for operations in document["paths"].values() for method in docs_page._METHODS)
    assert docs.text.count("<tr><td>") == routes > 100
    assert "<tr><td>POST<td><code>/v1/algos/{id}/stop</code><td>Stop it" in docs.text


def test_the_release_is_pinned() -> None:
    wanted = json.loads((PANEL / "package.json").read_text())["devDependencies"]["swagger-ui-dist"]
    locked = json.loads((PANEL / "package-lock.json").read_text())["packages"]["node_modules/swagger-ui-dist"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", wanted)
    assert locked["version"] == wanted
