"""The panel on the real system, from signing in to the kill switch: in this order, for the last one stops it all."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pyotp
import pytest
from playwright.sync_api import Browser, Locator, Request, Route, expect

from cluster.client import ApiClient
from tests.browser.conftest import PHONE, WIDE, Demo, Person, wait
from tests.support.patience import PATIENCE

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

NEW = "deck-3"


@pytest.fixture(scope="module")
def api(demo: Demo) -> ApiClient:
    """The same system, asked past the panel."""
    return ApiClient(demo.url, demo.key)


@pytest.fixture(scope="module")
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Machines that a test has joined."""
    running: list[subprocess.Popen[bytes]] = []
    yield running
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=40)


def test_nobody_gets_in_without_the_second_factor(demo: Demo, browser: Browser) -> None:
    context = browser.new_context(viewport=WIDE)
    person = Person(demo, "vera", context)
    page = person.page
    page.goto(demo.url)
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.get_by_label("User").fill("vera")
    page.get_by_label("Password").fill("not her password at all")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("password")
    page.get_by_label("Password").fill(person.password)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Second factor")).to_be_visible()
    # The cookie of a half-done sign-in opens nothing.
    assert page.evaluate("fetch('/v1/accounts').then(answer => answer.status)") in (401, 403)
    wrong = f"{(int(pyotp.TOTP(person.secret).now()) + 7) % 1_000_000:06d}"
    page.get_by_label("Code from your authenticator").fill(wrong)
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_text("the code is wrong")).to_be_visible()
    context.close()


def test_a_new_user_chooses_a_password_and_sets_up_an_authenticator(
    demo: Demo, browser: Browser, api: ApiClient
) -> None:
    name = f"newcomer-{secrets.token_hex(2)}"
    made = api.post("/users", {"id": name, "roles": ["trader"]})
    context = browser.new_context(viewport=WIDE)
    page = context.new_page()
    page.goto(demo.url)
    page.get_by_label("User").fill(name)
    page.get_by_label("Password").fill(made["one_time_password"])
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Choose a password")).to_be_visible()
    for box, value in zip(
        page.locator("input[type=password]").all(),
        (made["one_time_password"], "nine green bottles 42", "nine green bottles 42"),
        strict=True,
    ):
        box.fill(value)
    page.locator("button[type=submit]").click()
    expect(page.get_by_role("heading", name="Set up your authenticator")).to_be_visible()
    expect(page.get_by_alt_text(re.compile("QR code"))).to_be_visible()
    secret = page.locator("code").first.inner_text().replace(" ", "")
    page.get_by_label("Code from your authenticator").fill(pyotp.TOTP(secret).now())
    page.get_by_role("button", name="Confirm").click()
    codes = page.get_by_role("list", name="Recovery codes").get_by_role("listitem")
    expect(codes).to_have_count(10)
    recovery = codes.first.inner_text()
    page.get_by_label("I have kept them in a safe place").check()
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_role("heading", level=1, name="Deck")).to_be_visible()
    # A trader without an account sees nobody's.
    expect(page.get_by_text("alice-paper")).to_have_count(0)
    context.close()

    # The phone is lost: a recovery code opens the door, once.
    for works in (True, False):
        context = browser.new_context(viewport=WIDE)
        page = context.new_page()
        page.goto(demo.url)
        page.get_by_label("User").fill(name)
        page.get_by_label("Password").fill("nine green bottles 42")
        page.get_by_role("button", name="Sign in").click()
        page.get_by_text(re.compile("recovery code", re.I)).last.click()
        page.get_by_label("Recovery code").fill(recovery)
        page.get_by_role("button", name="Go on").click()
        if works:
            expect(page.get_by_role("heading", level=1, name="Deck")).to_be_visible()
        else:
            expect(page.get_by_text("it was used before")).to_be_visible()
        context.close()


def test_the_deck_shows_the_demo_at_work(operator: Person, api: ApiClient) -> None:
    page = operator.go("/", "Deck")
    expect(page.get_by_text("5 / 5")).to_be_visible(timeout=60_000 * PATIENCE)
    expect(page.get_by_role("grid", name="Accounts")).to_contain_text("alice-paper")
    expect(page.get_by_role("grid", name="Feeds")).to_contain_text("crypto")
    # `/` finds things, and leads to them.
    page.keyboard.press("/")
    page.get_by_placeholder(re.compile("Algo, order")).fill("maker-1")
    page.get_by_role("dialog").get_by_text("maker-1", exact=True).first.click()
    expect(page.get_by_role("heading", level=1, name="maker-1")).to_be_visible()


def test_a_machine_registered_in_the_panel_turns_green(
    operator: Person, api: ApiClient, started: list[subprocess.Popen[bytes]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    page = operator.go("/nodes", "Nodes")
    page.get_by_role("button", name="Register a machine").click()
    page.get_by_label("Name").fill(NEW)
    page.get_by_label("Labels").fill("region=moon")
    page.get_by_role("button", name="Make the command").click()
    answer_fresh(operator, page.get_by_test_id("join-command"))
    command = page.get_by_test_id("join-command").inner_text()
    assert command.startswith("quarterdeck join ")
    expect(page.get_by_role("status").filter(has_text="has not joined yet")).to_be_visible()
    home = tmp_path_factory.mktemp("joined")
    log = (home / "join.log").open("w")
    words = [*command.split()[1:], "--data-dir", str(home / "data"), "--node-ip", "127.0.0.1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "cluster", *words], stdout=log, stderr=log, start_new_session=True
    )
    started.append(process)
    expect(page.get_by_text(f"{NEW} has joined")).to_be_visible(timeout=120_000 * PATIENCE)
    page.get_by_role("button", name="Close").last.click()
    row = page.get_by_role("grid", name="Machines").get_by_role("row").filter(has_text=NEW)
    expect(row).to_contain_text("region=moon")
    wait("the machine with its facts", lambda: _well(api.get(f"/nodes/{NEW}")), 90)
    badge = row.locator(".state").first
    # Green, and not by its colour alone; a machine that tests keep busy says so.
    told = {("ok", "good"), ("degraded", "warn")}
    wait("it green", lambda: (badge.inner_text(), badge.get_attribute("data-tone")) in told, 20, page)


def _well(node: dict[str, Any]) -> dict[str, Any] | None:
    """The machine, once nothing but the load of these tests is wrong with it."""
    others = [reason for reason in node["reasons"] if not reason.startswith("its load")]
    return node if node["facts"] and node["health"] in ("ok", "degraded") and not others else None


def test_an_algo_started_on_it_trades(operator: Person, api: ApiClient) -> None:
    page = operator.go("/algos", "Algos")
    page.get_by_role("button", name="Add an algo").click()
    drawer = page.get_by_role("dialog", name="Add an algo")
    drawer.get_by_label("Name").fill("moon-1")
    operator.choose("Strategy", "market-maker", within=drawer)
    operator.choose("Account", "alice-paper", within=drawer)
    drawer.get_by_role("textbox", name="Feed").click()
    page.get_by_role("option", name="crypto").click()
    drawer.get_by_role("textbox", name="Instruments").click()
    instrument = api.get("/feeds/crypto")["instruments"][6]
    page.get_by_role("option", name=instrument).click()
    drawer.get_by_role("heading").first.click()
    drawer.get_by_label(re.compile("half.spread.bps", re.I)).fill("0.1")
    drawer.get_by_role("textbox", name="Machine").click()
    page.get_by_role("option", name=NEW).click()
    drawer.get_by_role("button", name="Add and start").click()
    expect(page.get_by_role("heading", level=1, name="moon-1")).to_be_visible()
    wait("the algo on the new machine", lambda: api.get("/algos/moon-1")["placed"] == NEW, 60)
    expect(page.locator(".page-head")).to_contain_text("running", timeout=60_000 * PATIENCE)
    wait("a fill of it", lambda: api.get("/fills", algo="moon-1")["items"], 90)
    page.get_by_role("tab", name="Fills").click()
    expect(page.get_by_role("grid").last.get_by_role("row").nth(1)).to_contain_text(instrument)


def test_an_order_by_hand_fills_and_a_changed_limit_refuses_the_next(
    operator: Person, trader: Person, api: ApiClient
) -> None:
    page = trader.go("/orders", "Orders")

    def order(quantity: str) -> None:
        page.get_by_role("button", name="Place an order").click()
        ticket = page.get_by_role("dialog").last
        trader.choose("Account", "bob-paper", within=ticket)
        trader.choose("Instrument", "BINANCE:BTCUSDT", within=ticket)
        kind = ticket.get_by_role("textbox", name="Type")
        if kind.input_value().lower() != "market":
            kind.click()
            page.get_by_role("option", name=re.compile("^market$", re.I)).click()
        ticket.get_by_label("Quantity").fill(quantity)
        ticket.get_by_role("button", name=re.compile("^(Buy|Place)")).last.click()

    order("0.01")
    expect(page.get_by_role("dialog")).to_have_count(0, timeout=20_000 * PATIENCE)
    trader.go("/trades", "Trades")
    page.get_by_role("textbox", name="Filter Executions").fill("panel-")
    mine = page.get_by_role("grid", name="Executions").get_by_role("row").filter(has_text="BTCUSDT")
    # In one part or in several: the quote may have had less than was asked for.
    wait("the whole order's executions", lambda: _traded(mine) == Decimal("0.01"))

    limits = operator.go("/risk", "Risk")
    limits.get_by_role("button", name="Set a limit", exact=True).click()
    dialog = limits.get_by_role("dialog", name="Set a limit")
    dialog.get_by_label("Level").fill("account:bob-paper")
    dialog.get_by_role("textbox", name="Limit").click()
    limits.get_by_role("option", name=re.compile("order quantity")).click()
    dialog.get_by_label("Value").fill("0.005")
    dialog.get_by_role("button", name="Set the limit").click()
    set_there = limits.get_by_role("table", name="Limits of bob-paper").filter(has_text="order quantity")
    answer_fresh(operator, set_there)
    expect(set_there).to_be_visible()
    wait("the limit in force", lambda: _holds(api, "account:bob-paper", "order_quantity"), 30)

    trader.go("/orders", "Orders")
    order("0.01")
    expect(page.get_by_role("alert")).to_contain_text("order_quantity")
    page.get_by_role("dialog").last.get_by_role("button", name="Cancel").click()


def _holds(api: ApiClient, scope: str, kind: str) -> bool:
    """Whether every session has heard of a limit."""
    limits = api.get("/risk/limits", limit=1000)["items"]
    return any((each["scope"], each["kind"]) == (scope, kind) and (each["state"] or {}).get("holds") for each in limits)


def _traded(executions: Locator) -> Decimal:
    """What these rows of executions come to."""
    return sum((Decimal(row.get_by_role("gridcell").nth(3).inner_text()) for row in executions.all()), Decimal(0))


def answer_fresh(person: Person, done: Locator) -> None:
    """A fresh code is asked for unless one was given in the last minutes."""
    asked = person.page.get_by_role("dialog", name="Confirm that it is you")
    wait("an answer", lambda: asked.is_visible() or done.first.is_visible(), 30)
    if asked.is_visible():
        person.give_fresh_code()


def test_changing_a_feeds_workers_shows_the_even_split(operator: Person, api: ApiClient) -> None:
    page = operator.go("/feeds/crypto", "Feeds")
    workers = page.get_by_role("table", name="Workers of crypto")
    expect(workers.get_by_role("row")).to_have_count(1 + 3)
    page.get_by_role("textbox", name="Workers", exact=True).fill("5")
    page.get_by_role("button", name="Change workers").click()
    expect(workers.get_by_role("row")).to_have_count(1 + 5, timeout=60_000 * PATIENCE)
    status = page.get_by_role("status").filter(has_text="split evenly")
    expect(status).to_contain_text(
        "Settled; split evenly, 4 to 4 instruments on each of 5 workers", timeout=90_000 * PATIENCE
    )
    shares = [row.get_by_role("cell").nth(3).inner_text() for row in workers.get_by_role("row").all()[1:]]
    assert shares == ["4"] * 5
    # Not one instrument was lost on the way.
    wait("all 20", lambda: sum(each["instrument_count"] for each in api.get("/feeds/crypto")["live"]) == 20, 20)


def test_hostile_text_is_text(operator: Person, api: ApiClient, demo: Demo) -> None:
    hostile = "<img src=x onerror='window.pwned=1'>"
    source = f"""
from strategies import Strategy

class Loud(Strategy):
    def on_start(self) -> None:
        self.log({hostile!r})
"""
    api.post("/strategies", {"name": "loud", "source": source})
    instrument = api.get("/feeds/crypto")["instruments"][0]
    api.post(
        "/algos",
        {"id": "loud-1", "strategy": "loud", "account": "alice-paper", "feed": "crypto", "instruments": [instrument],
         "parameters": {}, "node": "head", "start": True},
    )  # fmt: skip
    page = operator.go("/algos/loud-1", "loud-1")
    page.get_by_role("tab", name="Log").click()
    expect(page.locator(".log")).to_contain_text(hostile, timeout=60_000 * PATIENCE)
    assert page.evaluate("window.pwned") is None
    page.goto(f"{demo.url}/chart/{hostile.replace('/', '%2F').replace(' ', '%20')}")
    expect(page.get_by_role("heading", level=1)).to_contain_text("<img")
    assert page.evaluate("window.pwned") is None
    api.post("/algos/loud-1/stop")


def test_a_lost_connection_shows_and_heals(operator: Person) -> None:
    page = operator.go("/orders", "Orders")
    link = page.get_by_role("banner").locator("[aria-live=polite]").first
    expect(link).to_contain_text("Live")
    operator.context.set_offline(True)
    expect(link).not_to_contain_text("Live")
    expect(page.locator(".stale").first).to_be_visible()
    expect(link).to_contain_text(re.compile("lost|offline", re.I), timeout=30_000 * PATIENCE)
    operator.context.set_offline(False)
    expect(link).to_contain_text("Live", timeout=30_000 * PATIENCE)
    expect(page.locator(".grid-scroll.stale")).to_have_count(0)
    operator.complaints.clear()  # the browser tells of the sockets that it could not open


def test_an_action_cut_off_in_the_middle_happens_once_and_is_known(operator: Person, api: ApiClient) -> None:
    """The server has done it, its answer never comes: the panel asks again under the same key."""
    page = operator.go("/nodes/node-2")
    cut: list[str] = []

    def lose(route: Route) -> None:
        if route.request.method == "PATCH" and not cut:
            cut.append(route.request.headers["idempotency-key"])
            route.fetch()  # it reaches the server …
            route.abort("connectionreset")  # … and the answer is lost
        else:
            route.continue_()

    page.route("**/v1/nodes/node-2", lose)
    again: list[str] = []

    def asked(request: Request) -> None:
        if request.method == "PATCH":
            again.append(request.headers.get("idempotency-key", ""))

    page.on("request", asked)
    before = api.get("/nodes/node-2")["generation"]
    page.get_by_role("button", name="Cordon: no new algos").click()
    expect(page.get_by_role("button", name="Take algos again")).to_be_visible()
    assert cut
    # What it did is pushed, and may be shown before the panel has asked again; time for its request to be heard of.
    wait("the same request again", lambda: len(again) == 2, 30, page)
    assert set(again) == {cut[0]}
    assert api.get("/nodes/node-2")["generation"] == before + 1
    entries = api.get("/audit", action="update_node", subject="node-2")["items"]
    assert len([each for each in entries if each["actor"] == "admin"]) == 1
    page.unroute("**/v1/nodes/node-2")
    page.remove_listener("request", asked)
    page.get_by_role("button", name="Take algos again").click()
    expect(page.get_by_role("button", name="Cordon: no new algos")).to_be_visible()
    operator.complaints.clear()


def test_a_phone_shows_the_deck_and_stops_trading(demo: Demo, people: Callable[..., Person], browser: Browser) -> None:
    operator = people("admin")
    context = browser.new_context(viewport=PHONE, storage_state=operator.context.storage_state())
    page = context.new_page()
    for path, heading in (("/", "Deck"), ("/algos", "Algos"), ("/kill", "Kill switch")):
        page.goto(f"{demo.url}{path}")
        expect(page.get_by_role("heading", level=1, name=heading)).to_be_visible()
        # Nothing sticks out sideways but tables, which scroll by themselves.
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), path
    expect(page.get_by_role("textbox", name="What to stop")).to_be_visible()
    context.close()


def test_the_kill_switch_stops_everything_and_shows_the_proof(operator: Person, api: ApiClient) -> None:
    page = operator.go("/kill", "Kill switch")
    page.get_by_role("textbox", name="Reason").fill("the day is over")
    page.get_by_role("button", name="Stop the whole cluster").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop trading", exact=True).click()
    proof = page.get_by_role("region", name="Proof")
    answer_fresh(operator, proof)
    expect(proof).to_contain_text("Done: nothing is open any more", timeout=60_000 * PATIENCE)
    expect(proof).to_contain_text("Orders taken back")
    assert api.get("/orders", state="submitted")["items"] == []
    wait(
        "all algos at rest", lambda: {each["state"] for each in api.get("/algos")["items"]} <= {"stopped", "failed"}, 30
    )
