"""What a person does at the panel on an ordinary day, on the real system; it leaves the demo trading as it found it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import httpx
import pyotp
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from cluster.client import ApiClient
from tests.browser.conftest import WIDE, Demo, Person, wait
from tests.support.patience import PATIENCE
from trading.errors import TradeError

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

PASSWORD = "nine green bottles 42"
#: Of the demo's own algos.
THEIRS = ("cross-1", "cross-2", "maker-1", "maker-2", "revert-1")


@pytest.fixture(scope="module")
def api(demo: Demo) -> ApiClient:
    """The same system, asked past the panel."""
    return ApiClient(demo.url, demo.key)


@pytest.fixture(scope="module", autouse=True)
def _as_it_was(api: ApiClient) -> Iterator[None]:
    """The demo's algos run before and after, and no others."""
    yield
    for each in api.get("/algos")["items"]:
        if each["id"] not in THEIRS:
            _remove(api, each["id"])
    for each in THEIRS:
        api.post(f"/algos/{each}/resume")
        api.post(f"/algos/{each}/start")
    wait("the demo's algos", lambda: all(_state(api, each) == "running" for each in THEIRS))


def _remove(api: ApiClient, algo: str) -> None:
    api.post(f"/algos/{algo}/stop", {"position": "flatten"})

    def is_gone() -> bool:
        try:
            api.delete(f"/algos/{algo}")
        except TradeError:
            return False  # it still stops, or closes what it holds
        return True

    wait(f"the end of {algo}", is_gone)


def _state(api: ApiClient, algo: str) -> str:
    found: str = api.get(f"/algos/{algo}")["state"]
    return found


@pytest.fixture
def maker(api: ApiClient) -> Iterator[str]:
    """A market maker of alice's that runs on the head and is removed afterwards."""
    name = f"acts-{secrets.token_hex(2)}"
    api.post(
        "/algos",
        {"id": name, "strategy": "market-maker", "account": "alice-paper", "feed": "crypto", "node": "head",
         "instruments": ["BINANCE:ETHUSDT"], "parameters": {"half_spread_bps": "1"}, "start": True},
    )  # fmt: skip
    wait("the maker", lambda: _state(api, name) == "running")
    yield name
    _remove(api, name)


def act(person: Person, button: Locator, done: Locator) -> None:
    """Press ``button``, give a fresh code if one is asked for, and see ``done``."""
    asked = person.page.get_by_role("dialog", name="Confirm that it is you")
    button.click()
    expect(asked.or_(done).first).to_be_visible()
    if asked.is_visible():
        person.give_fresh_code()
    expect(done).to_be_visible()


def answer(person: Person, title: str | re.Pattern[str], verb: str, *, typed: str | None = None) -> None:
    """Say yes in the dialog of that title, which closes; a fresh code is given if one is asked for."""
    dialog = person.page.get_by_role("dialog", name=title)
    if typed is not None:
        dialog.get_by_label(f"Type {typed} to confirm").fill(typed)
    asked = person.page.get_by_role("dialog", name="Confirm that it is you")
    dialog.get_by_role("button", name=verb, exact=True).click()
    wait("an answer", lambda: asked.is_visible() or not dialog.is_visible(), 30)
    if asked.is_visible():
        person.give_fresh_code()
    expect(dialog).to_be_hidden()


def command(person: Person, algo: str, name: str) -> None:
    """One of an algo's rarer commands, from its page's menu."""
    page = person.page
    page.get_by_role("button", name="More").click()
    page.get_by_role("menuitem", name=name).click()


def head(page: Page) -> Locator:
    """The line that says how an algo stands."""
    return page.locator(".page-head")


def test_a_resting_order_is_changed_and_cancelled_by_hand(trader: Person, api: ApiClient) -> None:
    page = trader.go("/orders", "Orders")
    page.get_by_role("button", name="Place an order").click()
    ticket = page.get_by_role("dialog").last
    trader.choose("Account", "bob-paper", within=ticket)
    trader.choose("Instrument", "BINANCE:BTCUSDT", within=ticket)
    ticket.get_by_role("textbox", name="Type").click()
    page.get_by_role("option", name="Limit", exact=True).click()
    ticket.get_by_label("Quantity").fill("0.001")
    ticket.get_by_label("Limit price").fill("41000")
    ticket.get_by_role("button", name=re.compile("^Buy 0.001")).click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    row = page.get_by_role("grid", name="Orders").get_by_role("row").filter(has_text="BTCUSDT").first
    expect(row).to_contain_text("submitted")
    expect(row).to_contain_text("41,000")
    row.click()
    drawer = page.get_by_role("dialog", name=re.compile("^Order "))
    drawer.get_by_role("button", name="Change", exact=True).click()
    drawer.get_by_label("Limit price").fill("42000")
    drawer.get_by_role("button", name="Ask the broker to change it").click()
    # The list behind it and the drawer follow without being asked again.
    expect(drawer.locator("dl")).to_contain_text("42,000")
    expect(drawer.get_by_role("table", name="Events of the order")).to_contain_text("bob")
    mine = [o for o in api.get("/orders", account="bob-paper", state="submitted")["items"] if o["algo"] is None]
    assert [Decimal(o["limit_price"]) for o in mine] == [Decimal(42000)]
    drawer.get_by_role("button", name="Cancel it").click()
    answer(trader, "Cancel this order", "Cancel the order")
    expect(drawer).to_contain_text("cancelled")
    trader.go("/orders", "Orders")
    expect(page.get_by_role("grid", name="Orders").get_by_role("row").filter(has_text="BTCUSDT")).to_have_count(0)


def test_an_algo_is_paused_tuned_restarted_and_moved(operator: Person, api: ApiClient, maker: str) -> None:
    page = operator.go(f"/algos/{maker}", maker)
    expect(head(page)).to_contain_text("running")

    page.get_by_role("button", name="Pause", exact=True).click()
    page.get_by_role("dialog", name=f"Pause {maker}").get_by_label("Reason").fill("news at two")
    answer(operator, f"Pause {maker}", f"Pause {maker}")
    expect(head(page)).to_contain_text("paused")
    expect(head(page)).to_contain_text("news at two")
    command(operator, maker, "Resume")
    answer(operator, f"Resume {maker}", f"Resume {maker}")
    expect(head(page)).not_to_contain_text("paused")

    # A parameter that is marked live holds at once: the same process quotes wider.
    before = api.get(f"/algos/{maker}")["epoch"]
    page.get_by_role("tab", name="Parameters").click()
    page.get_by_label(re.compile("half.spread.bps", re.I)).fill("50")
    page.get_by_role("button", name="Change", exact=True).click()
    expect(page.get_by_text("The running algo has taken it up.")).to_be_visible()
    wait("wider quotes", lambda: _away(api, maker) > Decimal("0.0025"), 60)
    assert api.get(f"/algos/{maker}")["epoch"] == before

    command(operator, maker, "Restart")
    answer(operator, f"Restart {maker}", f"Restart {maker}")
    wait("a restart", lambda: api.get(f"/algos/{maker}")["epoch"] > before and _state(api, maker) == "running", 40)

    command(operator, maker, "Move to another machine")
    dialog = page.get_by_role("dialog", name=f"Move {maker}")
    dialog.get_by_role("textbox", name="Machine").click()
    page.get_by_role("option", name=re.compile("^node-2")).click()
    answer(operator, f"Move {maker}", f"Move {maker}")
    wait("the move", lambda: api.get(f"/algos/{maker}")["placed"] == "node-2" and _state(api, maker) == "running", 40)
    page.get_by_role("tab", name="Overview").click()
    expect(page.get_by_role("region", name="What it is")).to_contain_text("node-2")
    expect(head(page)).to_contain_text("running")


def _away(api: ApiClient, algo: str) -> Decimal:
    """How far its nearest quote is from the market, as a part of the price; 0 where it has none (it may have one side
    only, for what it holds)."""
    orders = api.get("/orders", algo=algo, state="submitted")["items"]
    listed = api.get("/feeds/crypto/instruments", limit=100)["items"]
    last = next(each["last"]["price"] for each in listed if each["id"] == "BINANCE:ETHUSDT")
    return min((abs(Decimal(o["limit_price"]) / Decimal(last) - 1) for o in orders), default=Decimal(0))


def test_an_algos_labels_and_placement_are_changed(operator: Person, api: ApiClient, maker: str) -> None:
    page = operator.go(f"/algos/{maker}", maker)
    epoch = api.get(f"/algos/{maker}")["epoch"]
    dialog = page.get_by_role("dialog", name=f"Labels and placement of {maker}")
    page.get_by_role("button", name="Labels and placement").click()
    dialog.get_by_role("textbox", name="Labels", exact=True).fill("desk=alpha, risk=low")
    dialog.get_by_role("button", name="Save", exact=True).click()
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("region", name="What it is")).to_contain_text("desk=alpha")
    assert api.get(f"/algos/{maker}")["labels"] == {"desk": "alpha", "risk": "low"}

    page.get_by_role("button", name="Labels and placement").click()
    dialog.get_by_label("On machines with these labels").fill("a b")
    dialog.get_by_role("button", name="Save and restart it").click()
    expect(dialog).to_contain_text("is no requirement")
    dialog.get_by_label("On machines with these labels").fill("!moon")
    dialog.get_by_role("button", name="Save and restart it").click()
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("region", name="What it is")).to_contain_text("!moon")
    wait("the next incarnation", lambda: api.get(f"/algos/{maker}")["epoch"] > epoch)
    wait("it runs again", lambda: _state(api, maker) == "running")


def test_an_algos_equity_and_log_are_shown(operator: Person) -> None:
    page = operator.go("/algos/maker-1", "maker-1")
    expect(page.get_by_role("img", name=re.compile("^Profit of maker-1")).locator("canvas").first).to_be_visible()
    page.get_by_role("tab", name="Log").click()
    expect(page.get_by_role("log", name="Log of maker-1").locator("time").first).to_be_visible()


STRATEGY = """
from strategies import Strategy


class Speaker(Strategy):
    def set_up(self) -> None:
        self.silent = True

    def on_tick(self, tick) -> None:
        if self.silent:
            self.log({word!r})
        self.silent = False
"""


def test_two_versions_of_a_strategy(operator: Person, api: ApiClient, tmp_path: Path) -> None:
    name = f"speaker-{secrets.token_hex(2)}"
    page = operator.page

    def upload(word: str) -> str:
        operator.go("/strategies", "Strategies")
        page.get_by_role("button", name="Upload").click()
        dialog = page.get_by_role("dialog", name="Upload a strategy")
        dialog.get_by_role("textbox", name="Strategy").fill(name)
        file = tmp_path / f"{word}.py"
        file.write_text(STRATEGY.format(word=f"I am the {word}"))
        page.locator("input[type=file]").set_input_files(file)
        expect(dialog.get_by_text(file.name)).to_be_visible()
        dialog.get_by_role("heading").first.click()  # closes the list of known names
        button = dialog.get_by_role("button", name="Check and upload")
        act(operator, button, page.get_by_role("tab", name="Versions"))
        expect(dialog).to_be_hidden(timeout=60_000 * PATIENCE)
        made: str = api.get(f"/strategies/{name}")["version"]
        return made

    first = upload("first")
    algo = f"{name}-a"
    api.post(
        "/algos",
        {"id": algo, "strategy": name, "account": "alice-paper", "feed": "crypto", "node": "head",
         "instruments": ["BINANCE:SOLUSDT"], "parameters": {}, "start": True},
    )  # fmt: skip
    # It says so at its first tick, which the upgrade must not forestall.
    wait(
        "its first word", lambda: "I am the first" in {each["text"] for each in api.get(f"/algos/{algo}/logs")["items"]}
    )
    second = upload("second")
    assert first != second
    page.get_by_role("tab", name="Differences").click()
    expect(page.get_by_label("Differences", exact=True).last).to_contain_text("I am the second")
    expect(page.get_by_label("Differences", exact=True).last).to_contain_text("I am the first")

    operator.go(f"/algos/{algo}?tab=versions", algo)
    versions = page.get_by_role("table", name="Versions")
    runs = versions.get_by_role("row").filter(has_text="it runs this")
    expect(runs).to_contain_text(first[:12])
    versions.get_by_role("row").filter(has_text=second[:12]).get_by_role("button", name="Go to it").click()
    answer(operator, f"Take {algo} to {second[:12]}", "Upgrade")
    expect(runs).to_contain_text(second[:12])
    page.get_by_role("tab", name="Log").click()
    log = page.get_by_role("log", name=f"Log of {algo}")
    expect(log).to_contain_text("I am the first", timeout=40_000 * PATIENCE)
    expect(log).to_contain_text("I am the second", timeout=40_000 * PATIENCE)

    page.get_by_role("button", name="Rare").click()
    page.get_by_role("menuitem", name="Roll back to the version before").click()
    answer(operator, f"Roll {algo} back", "Roll back")
    page.get_by_role("tab", name="Versions").click()
    expect(runs).to_contain_text(first[:12])
    wait("the first version again", lambda: _state(api, algo) == "running", 40)
    assert api.get(f"/algos/{algo}")["strategy_version"] == first


def test_entries_are_paused_an_account_is_flattened_and_the_day_starts_again(operator: Person, api: ApiClient) -> None:
    def held() -> list[str]:
        return [p["instrument"] for p in api.get("/positions", account="bob-paper")["items"] if Decimal(p["quantity"])]

    page = operator.go("/", "Deck")
    page.get_by_role("button", name="Pause entries").click()
    dialog = page.get_by_role("dialog", name="Pause entries")
    dialog.get_by_label("Reason").fill("flat before lunch")
    pause = dialog.get_by_role("button", name=re.compile(r"^Pause \d+ algos"))
    act(operator, pause, dialog.get_by_text(re.compile(r"^\d+ done$")))
    dialog.get_by_role("button", name="Close").last.click()
    assert {each["paused_by"] for each in api.get("/algos")["items"] if each["id"] in THEIRS} == {"admin"}

    page.get_by_role("button", name="Flatten an account").click()
    dialog = page.get_by_role("dialog", name="Flatten an account")
    operator.choose("Account", "bob-paper", within=dialog)
    dialog.get_by_label("Reason").fill("flat before lunch")
    flatten = dialog.get_by_role("button", name="Flatten bob-paper")
    act(operator, flatten, dialog.get_by_text(re.compile("(is|are) being taken back")))
    dialog.get_by_role("button", name="Close").last.click()
    wait("a flat account", lambda: not held(), 30)
    operator.go("/positions", "Positions")
    expect(page.get_by_role("grid", name="Positions")).to_be_visible()
    expect(page.get_by_role("grid", name="Positions").get_by_role("row").filter(has_text="bob-paper")).to_have_count(0)

    # Two are stopped for the night, and everything is started for the day.
    operator.go("/algos", "Algos")
    for each in ("maker-2", "cross-2"):
        page.get_by_role("checkbox", name=f"Select {each}").check()
    page.get_by_role("button", name="Stop", exact=True).click()
    answer(operator, "Stop 2 algos", "Stop 2 algos")
    wait("two at rest", lambda: {_state(api, each) for each in ("maker-2", "cross-2")} == {"stopped"})
    operator.go("/", "Deck")
    page.get_by_role("button", name="Start all for the day").click()
    dialog = page.get_by_role("dialog", name="Start for the day")
    start = dialog.get_by_role("button", name=re.compile(r"^Start \d+ algos"))
    act(operator, start, dialog.get_by_text(re.compile(r"^\d+ done$")))
    dialog.get_by_role("button", name="Close").last.click()
    operator.go("/algos", "Algos")
    page.get_by_role("checkbox", name="Select all rows").check()
    command(operator, "", "Resume")
    verb = page.get_by_role("dialog").get_by_role("button", name=re.compile(r"^Resume \d+ algos")).inner_text()
    answer(operator, verb, verb)
    wait("all at work", lambda: {_state(api, each) for each in THEIRS} == {"running"})
    assert {each["paused_by"] for each in api.get("/algos")["items"]} == {""}


def shown_once(page: Page, title: str) -> str:
    """The secret that is shown in a dialog, which is closed."""
    dialog = page.get_by_role("dialog", name=title)
    expect(dialog).to_contain_text("never again")
    secret = dialog.locator("pre").inner_text()
    dialog.get_by_role("button", name="I have kept it").click()
    expect(dialog).to_be_hidden()
    return secret


def test_a_user_is_added_granted_locked_out_and_reset(operator: Person, api: ApiClient, demo: Demo) -> None:
    page = operator.go("/users", "Users")
    name = f"carol-{secrets.token_hex(2)}"
    page.get_by_role("button", name="Add a user").click()
    dialog = page.get_by_role("dialog", name="Add a user")
    dialog.get_by_label("Name").fill(name)
    act(
        operator,
        dialog.get_by_role("button", name="Add", exact=True),
        page.get_by_role("dialog", name="One-time password"),
    )
    password = shown_once(page, "One-time password")
    page.get_by_role("grid", name="Users").get_by_role("row").filter(has_text=name).click()
    expect(page.get_by_role("heading", level=1, name=name)).to_be_visible()

    operator.choose("Account to grant", "alice-paper")
    grants = page.get_by_role("grid", name=f"Grants of {name}")
    granted = grants.get_by_role("row").filter(has_text="alice-paper")
    page.get_by_role("button", name="Grant…").click()
    answer(operator, f"Grant alice-paper to {name}", "Let them look")
    expect(granted).to_contain_text("look")
    assert [each["account"] for each in api.get("/grants", user=name)["items"]] == ["alice-paper"]
    granted.get_by_role("button", name="Take alice-paper back").click()
    answer(operator, f"Take alice-paper back from {name}", "Take back")
    expect(granted).to_have_count(0)
    assert api.get("/grants", user=name)["items"] == []

    page.get_by_role("button", name="Make a key").click()
    dialog = page.get_by_role("dialog", name=f"Make a key for {name}")
    dialog.get_by_label("Label").fill("reports")
    act(operator, dialog.get_by_role("button", name="Make it"), page.get_by_role("dialog", name="Your new key"))
    key = shown_once(page, "Your new key")

    def status() -> int:
        return httpx.get(f"{demo.url}/v1/me", headers={"Authorization": f"Bearer {key}"}, timeout=60).status_code

    assert status() == 200
    page.get_by_role("button", name="Revoke key reports").click()
    answer(operator, "Revoke reports", "Revoke it")
    expect(page.get_by_role("grid", name="API keys").get_by_role("row").filter(has_text="reports")).to_contain_text(
        "revoked"
    )
    assert status() == 401

    # Somebody guesses at the password until the door shuts.
    for _ in range(20):
        if api.get(f"/users/{name}")["locked_until"]:
            break
        httpx.post(f"{demo.url}/v1/auth/login", json={"user": name, "password": "a guess that is wrong"}, timeout=60)
    page.reload()
    unlock = page.get_by_role("button", name="Unlock", exact=True)
    unlock.click()
    answer(operator, f"Unlock {name}", "Unlock")
    expect(unlock).to_have_count(0)
    assert api.get(f"/users/{name}")["locked_until"] is None

    key = api.post("/keys", {"user": name})["id"]
    page.get_by_role("button", name="Reset password and authenticator").click()
    expect(page.get_by_label("Revoke the API keys too")).to_be_checked()
    answer(operator, f"Reset {name}", "Reset", typed=name)
    expect(page.get_by_role("dialog", name="One-time password")).to_contain_text("1 API key was revoked.")
    assert next(each for each in api.get("/keys", limit=1_000)["items"] if each["id"] == key)["revoked_at"]
    assert shown_once(page, "One-time password") != password


def enter(page: Page, demo: Demo, user: str, password: str) -> None:
    page.goto(demo.url)
    page.get_by_label("User").fill(user)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def test_a_new_user_minds_their_own_profile(demo: Demo, browser: Browser, api: ApiClient) -> None:
    name = f"dora-{secrets.token_hex(2)}"
    made = api.post("/users", {"id": name, "roles": ["trader"]})
    context = browser.new_context(viewport=WIDE)
    page = context.new_page()
    enter(page, demo, name, made["one_time_password"])
    expect(page.get_by_role("heading", name="Choose a password")).to_be_visible()
    words = (made["one_time_password"], PASSWORD, PASSWORD)
    for box, value in zip(page.locator("input[type=password]").all(), words, strict=True):
        box.fill(value)
    page.locator("button[type=submit]").click()
    expect(page.get_by_role("heading", name="Set up your authenticator")).to_be_visible()
    secret = page.locator("code").first.inner_text().replace(" ", "")
    page.get_by_label("Code from your authenticator").fill(pyotp.TOTP(secret).now())
    page.get_by_role("button", name="Confirm").click()
    codes = page.get_by_role("list", name="Recovery codes").get_by_role("listitem")
    expect(codes).to_have_count(10)
    recovery = codes.all_inner_texts()
    page.get_by_label("I have kept them in a safe place").check()
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_role("heading", level=1, name="Deck")).to_be_visible()

    def elsewhere(password: str, code: str) -> Page:
        other = browser.new_context(viewport=WIDE).new_page()
        enter(other, demo, name, password)
        other.get_by_text(re.compile("recovery code", re.I)).last.click()
        other.get_by_label("Recovery code").fill(code)
        other.get_by_role("button", name="Go on").click()
        expect(other.get_by_role("heading", level=1, name="Deck")).to_be_visible()
        return other

    def is_out(other: Page) -> None:
        other.goto(f"{demo.url}/profile")
        expect(other.get_by_role("heading", name="Sign in")).to_be_visible()
        other.context.close()

    second = elsewhere(PASSWORD, recovery[0])
    page.goto(f"{demo.url}/profile")
    end = page.get_by_role("button", name=re.compile(f"^End the session of {name}"))
    expect(end).to_have_count(1)
    end.click()
    page.get_by_role("dialog", name="End this session").get_by_role("button", name="End it").click()
    expect(end).to_have_count(0)
    is_out(second)

    third = elsewhere(PASSWORD, recovery[1])
    page.get_by_label("Present password").fill("not the present one")
    page.get_by_label(re.compile("^New password(?! again)")).fill("ten blue bottles 43")
    page.get_by_label("New password again").fill("ten blue bottles 43")
    page.get_by_role("button", name="Change it").click()
    expect(page.get_by_label("Present password")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("Present password").fill(PASSWORD)
    page.get_by_role("button", name="Change it").click()
    expect(page.get_by_text("Your other sessions have ended.")).to_be_visible()
    is_out(third)
    elsewhere("ten blue bottles 43", recovery[2]).context.close()
    context.close()


def test_the_audit_is_verified(operator: Person) -> None:
    page = operator.go("/audit", "Audit")
    page.get_by_role("button", name="Verify now").click()
    expect(page.get_by_text("All is as it was written")).to_be_visible(timeout=60_000 * PATIENCE)


def test_an_account_is_compared_with_its_broker(operator: Person) -> None:
    page = operator.go("/reconciliation", "Reconciliation")
    panel = page.get_by_role("region", name="Compare now")
    panel.get_by_role("textbox", name="Account").click()
    page.get_by_role("option", name="bob-paper").click()
    panel.get_by_role("button", name="Compare with the broker").click()
    expect(panel.get_by_role("status")).to_contain_text("bob-paper:", timeout=40_000 * PATIENCE)
    expect(panel.get_by_role("status")).to_contain_text("positions are alike")


def test_an_alert_is_acknowledged(operator: Person, api: ApiClient) -> None:
    def seen() -> set[str]:
        """Alerts that the operator has acknowledged."""
        return {each["id"] for each in api.get("/alerts", limit=1_000)["items"] if each["acknowledged_by"] == "admin"}

    wait("an alert", lambda: [each for each in api.get("/alerts")["items"] if not each["acknowledged_at"]])
    before = seen()
    page = operator.go("/alerts", "Alerts")
    # Whichever is the newest at that moment: more may come while the test looks.
    page.get_by_role("button", name=re.compile("^Acknowledge: ")).first.click()
    assert len(wait("the acknowledgement", lambda: seen() - before, 20)) == 1
    page.get_by_text("All", exact=True).click()
    expect(page.get_by_role("grid", name="Alerts").get_by_role("row").filter(has_text="by admin").first).to_be_visible()


def test_an_instrument_leaves_a_feed_and_joins_it_again(operator: Person, api: ApiClient) -> None:
    instrument = "BINANCE:XRPUSDT"  # no algo of the demo wants it
    carried = set(api.get("/feeds/crypto")["instruments"])
    page = operator.go("/feeds/crypto", "Feeds")
    grid = page.get_by_role("grid", name="Instruments of crypto")
    page.get_by_role("textbox", name="Filter Instruments of crypto").fill("XRPUSDT")
    row = grid.get_by_role("row").filter(has_text=instrument)
    page.get_by_role("checkbox", name=f"Select {instrument}").check()
    page.get_by_role("button", name="Remove 1").click()
    answer(operator, "Remove an instrument", "Remove")
    wait("it gone", lambda: set(api.get("/feeds/crypto")["instruments"]) == carried - {instrument})
    expect(row).to_have_count(0)

    page.get_by_role("textbox", name="Add instruments").fill("XRPUSDT")
    page.get_by_role("option", name=instrument, exact=True).click()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Add", exact=True).click()
    wait("it back", lambda: set(api.get("/feeds/crypto")["instruments"]) == carried)
    expect(row).to_be_visible()
    wait("the feed at rest", lambda: api.get("/feeds/crypto")["settled"])


def test_a_wrong_setting_of_a_new_account_is_told_at_its_field(operator: Person, api: ApiClient) -> None:
    page = operator.go("/accounts", "Accounts")
    page.get_by_role("button", name="Add an account").click()
    dialog = page.get_by_role("dialog", name="Add an account")
    operator.choose("User", "bob", within=dialog)
    name = f"bob-{secrets.token_hex(2)}"
    dialog.get_by_label("Name").fill(name)
    fee = dialog.get_by_label(re.compile("fee.bps", re.I))
    fee.fill("-1")
    dialog.get_by_role("button", name="Add the account").click()
    asked = page.get_by_role("dialog", name="Confirm that it is you")
    wait("an answer", lambda: asked.is_visible() or fee.get_attribute("aria-invalid") == "true", 20)
    if asked.is_visible():
        operator.give_fresh_code()
    expect(fee).to_have_attribute("aria-invalid", "true")
    assert name not in {each["id"] for each in api.get("/accounts")["items"]}
