"""Every page: it opens, it complains of nothing, axe finds nothing serious, and CI keeps its picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Person

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()

#: Address, heading, name of the picture.
PAGES = [
    ("/", "Deck", "deck"),
    ("/algos", "Algos", "algos"),
    ("/algos/maker-1", "maker-1", "algo"),
    ("/orders", "Orders", "orders"),
    ("/positions", "Positions", "positions"),
    ("/trades", "Trades", "trades"),
    ("/chart/BINANCE:BTCUSDT", "BINANCE:BTCUSDT", "chart"),
    ("/alerts", "Alerts", "alerts"),
    ("/nodes", "Nodes", "nodes"),
    ("/nodes/head", "Nodes", "node"),
    ("/feeds", "Feeds", "feeds"),
    ("/feeds/crypto", "Feeds", "feed"),
    ("/strategies", "Strategies", "strategies"),
    ("/strategies/ma-cross", "Strategies", "strategy"),
    ("/accounts", "Accounts & brokers", "accounts"),
    ("/accounts/alice-paper", "Accounts & brokers", "account"),
    ("/risk", "Risk", "risk"),
    ("/reconciliation", "Reconciliation", "reconciliation"),
    ("/audit", "Audit", "audit"),
    ("/users", "Users", "users"),
    ("/kill", "Kill switch", "kill"),
    ("/profile", "Profile", "profile"),
]


def serious(person: Person) -> list[str]:
    """What axe finds on the page as it stands: rules of WCAG 2 A and AA, serious and critical."""
    page = person.page
    page.evaluate(AXE)
    found: dict[str, Any] = page.evaluate(
        "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']})"
    )
    return [
        f"{each['id']} ({each['impact']}): {node['html'][:160]} — {node['failureSummary'][:300]}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


@pytest.mark.parametrize(("path", "heading", "name"), PAGES, ids=[name for _, _, name in PAGES])
def test_a_page(operator: Person, artefacts: Path, path: str, heading: str, name: str) -> None:
    page = operator.go(path)
    # Behind an open drawer the page's own heading is hidden from those who cannot see it.
    expect(page.locator("h1", has_text=heading).first).to_be_visible()
    expect(page.get_by_role("grid").first.or_(page.locator("main, .page").first).first).to_be_visible()
    expect(page.locator("[aria-busy=true]")).to_have_count(0)
    page.wait_for_timeout(800)
    assert page.title().endswith("Quarterdeck")
    page.screenshot(path=artefacts / f"{name}.png")
    assert serious(operator) == []


@pytest.mark.parametrize("tab", ["Money at risk", "Losses and drawdown", "Daily maxima", "Surveillance"])
def test_the_parts_of_the_risk_page(operator: Person, artefacts: Path, tab: str) -> None:
    page = operator.go("/risk", "Risk")
    page.get_by_role("tab", name=tab).click()
    page.wait_for_timeout(1_500)
    page.screenshot(path=artefacts / f"risk-{tab.lower().replace(' ', '-')}.png")
    assert serious(operator) == []


def test_the_light_theme_is_as_good(operator: Person, artefacts: Path) -> None:
    page = operator.go("/", "Deck")
    scheme = "document.documentElement.getAttribute('data-mantine-color-scheme')"
    before = page.evaluate(scheme)
    page.evaluate("localStorage.setItem('mantine-color-scheme-value', 'light')")
    try:
        for path, heading in (("/", "Deck"), ("/orders", "Orders"), ("/risk", "Risk"), ("/feeds/crypto", "Feeds")):
            page = operator.go(path, heading)
            assert page.evaluate(scheme) == "light"
            page.wait_for_timeout(800)
            page.screenshot(path=artefacts / f"light-{heading.lower()}.png")
            assert serious(operator) == []
    finally:
        page.evaluate(f"localStorage.setItem('mantine-color-scheme-value', {json.dumps(before)})")


def test_the_first_page_is_light(operator: Person) -> None:
    page = operator.go("/", "Deck")
    page.wait_for_load_state("load")
    scripts = page.evaluate(
        "performance.getEntriesByType('resource').filter(each => each.name.endsWith('.js'))"
        ".map(each => [each.name, each.encodedBodySize])"
    )
    assert scripts
    assert sum(size for _, size in scripts) <= 350_000, scripts
