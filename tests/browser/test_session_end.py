"""What a person sees of the end of a session: the notice before it, the way to stay, and the reason afterwards."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from cluster.client import ApiClient
from tests.browser.conftest import WIDE, Demo
from tests.browser.test_acts import PASSWORD, enter

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def api(demo: Demo) -> ApiClient:
    """The same system, asked past the panel."""
    return ApiClient(demo.url, demo.key)


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport=WIDE)
    yield made
    made.close()


def newcomer(context: BrowserContext, demo: Demo, api: ApiClient) -> tuple[str, Page]:
    """Somebody who may only look, and so needs no authenticator, signed in."""
    name = f"edda-{secrets.token_hex(2)}"
    made = api.post("/users", {"id": name, "roles": ["viewer"]})["one_time_password"]
    page = context.new_page()
    enter(page, demo, name, made)
    expect(page.get_by_role("heading", name="Choose a password")).to_be_visible()
    for box, value in zip(page.locator("input[type=password]").all(), (made, PASSWORD, PASSWORD), strict=True):
        box.fill(value)
    page.locator("button[type=submit]").click()
    expect(page.get_by_role("heading", level=1, name="Deck")).to_be_visible()
    return name, page


def test_an_idle_end_is_told_and_put_off_for_all_tabs(demo: Demo, context: BrowserContext, api: ApiClient) -> None:
    _, page = newcomer(context, demo, api)
    other = context.new_page()
    renewed: list[str] = []

    def soon(route: Route) -> None:
        """The session as it is, but for its idle end, which is near until somebody has put it off."""
        answer = route.fetch()
        body: dict[str, Any] = answer.json()
        if not renewed:
            body["idle_ends_at"] = (datetime.now(UTC) + timedelta(seconds=90)).isoformat()
        route.fulfill(response=answer, json=body)

    context.route("**/v1/auth/session", soon)
    context.on("request", lambda asked: renewed.append(asked.url) if asked.url.endswith("/v1/me") else None)
    other.goto(demo.url)
    page.goto(demo.url)
    for each in (page, other):
        said = each.get_by_role("alert").filter(has_text="You will be signed out at")
        expect(said).to_contain_text("What is typed into a form and not sent is lost then.")
    page.get_by_role("button", name="Stay signed in").focus()
    page.keyboard.press("Enter")
    for each in (page, other):
        expect(each.get_by_text("You will be signed out at")).to_have_count(0)
    assert renewed


def test_the_sign_in_says_why_a_session_is_over(demo: Demo, context: BrowserContext, api: ApiClient) -> None:
    name, page = newcomer(context, demo, api)
    (session,) = [each["id"] for each in api.get("/sessions", user=name)["items"]]
    api.delete(f"/sessions/{session}")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(page.get_by_role("status")).to_contain_text("This session was ended: by admin")
    enter(page, demo, name, PASSWORD)
    expect(page.get_by_role("heading", level=1, name="Deck")).to_be_visible()
    page.get_by_role("button", name=f"Menu of {name}").click()
    page.get_by_role("menuitem", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(page.get_by_text("You were signed out")).to_have_count(0)
