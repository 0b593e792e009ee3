"""The panel's files on the API's port: what is served, with which guards, and what is not."""

from __future__ import annotations

import gzip
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from api import panel_files, problems

PAGE = '<!doctype html><meta name="csp-nonce" content="__CSP_NONCE__"><div id="root"></div>'
SCRIPT = "export const answer = 42;\n" * 200


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    made = tmp_path / "dist"
    (made / "assets").mkdir(parents=True)
    (made / "index.html").write_text(PAGE)
    (made / ".sources").write_text("digest")
    (made / "assets" / "index-abc123.js").write_text(SCRIPT)
    (made / "favicon.svg").write_text("<svg/>")
    (tmp_path / "secret.key").write_text("never")
    (made / "assets" / "link.js").symlink_to(tmp_path / "secret.key")
    return made


@pytest.fixture
async def http(bundle: Path) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()

    @app.get("/v1/things")
    def things() -> dict[str, int]:
        return {"things": 1}

    @app.post("/v1/auth/login")
    def login() -> dict[str, int]:
        return {}

    panel_files.install(app, bundle)
    problems.install(app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://deck") as client:
        yield client


@pytest.mark.parametrize("path", ["/", "/algos", "/algos/maker-1", "/login", "/risk/tree?scope=user:asha"])
async def test_every_address_of_the_panel_is_its_page(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["cache-control"] == "no-store"
    assert '<div id="root">' in answer.text


async def test_a_name_with_a_dot_is_no_file_to_a_browser(http: httpx.AsyncClient) -> None:
    answer = await http.get("/chart/NSE:M.M", headers={"accept": "text/html,*/*"})
    assert '<div id="root">' in answer.text
    assert (await http.get("/favicon.ico", headers={"accept": "image/*"})).status_code == 404


async def test_the_policy_closes_the_page_and_its_nonce_is_new_each_time(http: httpx.AsyncClient) -> None:
    seen = set()
    for _ in range(3):
        answer = await http.get("/")
        policy = answer.headers["content-security-policy"]
        nonce = re.search(r"'nonce-([\w-]{20,})'", policy)
        assert nonce is not None
        assert f'content="{nonce[1]}"' in answer.text
        assert "__CSP_NONCE__" not in answer.text
        seen.add(nonce[1])
        for part in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
            assert part in policy.split("; ")
        assert "unsafe-eval" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert len(seen) == 3


async def test_assets_are_kept_for_ever_and_packed(http: httpx.AsyncClient) -> None:
    packed = await http.get("/assets/index-abc123.js")
    assert packed.text == SCRIPT
    assert packed.headers["content-encoding"] == "gzip"
    assert "immutable" in packed.headers["cache-control"]
    assert packed.headers["content-type"].startswith(("text/javascript", "application/javascript"))
    assert int(packed.headers["content-length"]) == len(gzip.compress(SCRIPT.encode(), 6, mtime=0)) < len(SCRIPT)
    plain = await http.get("/assets/index-abc123.js", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.text == SCRIPT
    again = await http.get("/assets/index-abc123.js", headers={"if-none-match": packed.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_a_new_build_is_served_at_once(http: httpx.AsyncClient, bundle: Path) -> None:
    assert (await http.get("/favicon.svg")).text == "<svg/>"
    (bundle / "favicon.svg").write_text("<svg><path/></svg>")
    assert (await http.get("/favicon.svg")).text == "<svg><path/></svg>"


@pytest.mark.parametrize(
    "path",
    [
        "/assets/none.js",
        "/../secret.key",
        "/assets/..%2f..%2fsecret.key",
        "/assets/%2e%2e/%2e%2e/secret.key",
        "/%2e%2e/secret.key",
        "//etc/passwd.txt",
        "/.sources",
        "/assets/link.js",
        "/assets/a%00.js",
        "/assets/",
    ],
)
async def test_nothing_outside_the_bundle_is_served(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.get(path)
    assert answer.status_code == 404, answer.text
    assert "never" not in answer.text


async def test_the_api_keeps_its_own_answers(http: httpx.AsyncClient) -> None:
    assert (await http.get("/v1/things")).json() == {"things": 1}
    for path in ("/v1/nothing", "/v1", "/metrics/x"):
        answer = await http.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    wrong = await http.get("/v1/auth/login")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert (await http.post("/algos")).status_code in (404, 405)


async def test_without_a_bundle_it_says_how_to_have_one(tmp_path: Path) -> None:
    app = FastAPI()
    panel_files.install(app, tmp_path / "none")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://deck") as client:
        answer = await client.get("/")
    assert answer.status_code == 503
    assert "pip install" in answer.text
