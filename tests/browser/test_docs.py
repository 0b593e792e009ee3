"""The page that shows the API, in a browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import WIDE, Demo

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


def test_the_api_is_shown_without_anybody_elses_host(demo: Demo, browser: Browser) -> None:
    context = browser.new_context(viewport=WIDE)
    page = context.new_page()
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(f"{demo.url}/docs")
    expect(page.get_by_role("link", name="/v1/auth/login", exact=True)).to_be_visible()
    assert [url for url in asked if not url.startswith((demo.url, "data:"))] == []
    assert said == []
    context.close()
