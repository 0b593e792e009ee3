"""A real Chromium in front of the demo: what `make run` shows, driven as a person would."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyotp
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, expect, sync_playwright

from tests.support.patience import PATIENCE

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
#: Without these it looks for Google's hosts at every start; root needs the first.
_FLAGS: Final = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
WIDE: Final[ViewportSize] = {"width": 1366, "height": 768}
PHONE: Final[ViewportSize] = {"width": 390, "height": 844}

# Two cores carry the whole deck besides the browser.
expect.set_options(timeout=20_000 * PATIENCE)


def chromium() -> str:
    """Where the browser is; where there is none the test is skipped, or fails in CI, which installs one."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        text = f"there is no {' or '.join(_NAMES)} (Debian: apt-get install chromium)"
        if os.environ.get("QUARTERDECK_BROWSER_TESTS") == "1":
            pytest.fail(text)
        pytest.skip(text)
    return found


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = chromium()
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=list(_FLAGS))
        yield running
        running.close()


@dataclass(frozen=True)
class Login:
    """What the terminal says of a demo user."""

    user: str
    password: str
    secret: str


class Demo:
    """`quarterdeck demo` in a process of its own, by what it says in the terminal."""

    def __init__(self, log: Path, *, attach: bool) -> None:
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        if not attach:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cluster", "demo", "--json", "--rate", "200"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log.open("w"),
                start_new_session=True,
            )
        told = wait("the demo", self._is_open, 120)
        self.url, self.key = told["url"], told["key"]
        self.logins = {
            found["user"]: Login(**found.groupdict())
            for found in re.finditer(
                r"login (?P<user>\S+) +password (?P<password>\S+) .*secret (?P<secret>[A-Z2-7]+)\)", log.read_text()
            )
        }

    def _is_open(self) -> re.Match[str] | None:
        text = self.log.read_text()
        assert self.process is None or self.process.poll() is None, f"the demo ended: {text[-3000:]}"
        return re.search(r"the market is open; API=(?P<url>\S+) KEY=(?P<key>\S+)", text)

    def stop(self) -> None:
        """As Ctrl-C does."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise


@pytest.fixture(scope="session")
def demo(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The demo with its market open: two machines, a feed, five algos, a login of each role.

    QUARTERDECK_DEMO_LOG: what a demo that runs already said in its terminal; it is used, and left running.
    """
    given = os.environ.get("QUARTERDECK_DEMO_LOG", "")
    running = Demo(Path(given) if given else tmp_path_factory.mktemp("demo") / "demo.log", attach=bool(given))
    try:
        yield running
    finally:
        running.stop()


class Person:
    """Somebody at the panel, with an authenticator."""

    def __init__(self, demo: Demo, user: str, context: BrowserContext) -> None:
        login = demo.logins[user]
        self.demo = demo
        self.user = user
        self.password = login.password
        self.secret = login.secret
        self.url = demo.url
        self.context = context
        context.set_default_timeout(30_000 * PATIENCE)
        self.page = context.new_page()
        #: What the page complained of: refused scripts or styles, errors that nobody caught.
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._heard)
        self._last_code = ""

    def _heard(self, message: Any) -> None:
        # A refused request is told by the page itself; the browser's own line about it is no fault of ours.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def code(self) -> str:
        """A code that was not used yet: each works once."""
        deadline = time.monotonic() + 40
        while (code := pyotp.TOTP(self.secret).now()) == self._last_code:
            assert time.monotonic() < deadline, "the authenticator's code did not change within 40 s"
            time.sleep(0.5)
        self._last_code = code
        return code

    def sign_in(self) -> None:
        """By password and code, through the pages."""
        page = self.page
        page.goto(self.url)
        page.get_by_label("User").fill(self.user)
        page.get_by_label("Password").fill(self.password)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", name="Second factor")).to_be_visible()
        page.get_by_label("Code from your authenticator").fill(self.code())
        page.get_by_role("button", name="Go on").click()
        expect(page.get_by_role("heading", level=1, name="Deck")).to_be_visible()

    def give_fresh_code(self) -> None:
        """Answer the dialog that asks for one, where it is asked for."""
        dialog = self.page.get_by_role("dialog", name="Confirm that it is you")
        expect(dialog).to_be_visible()
        dialog.get_by_label("Code from your authenticator").fill(self.code())
        dialog.get_by_role("button", name="Confirm", exact=True).click()
        expect(dialog).to_be_hidden()

    def go(self, path: str, heading: str | None = None) -> Page:
        """Open an address of the panel."""
        self.page.goto(f"{self.url}{path}")
        if heading is not None:
            expect(self.page.get_by_role("heading", level=1, name=heading)).to_be_visible()
        return self.page

    def choose(self, label: str, option: str, *, within: Any = None) -> None:
        """Choose in a searchable select."""
        where = within or self.page
        where.get_by_role("textbox", name=label).first.click()
        where.get_by_role("textbox", name=label).first.fill(option)
        self.page.get_by_role("option", name=option).first.click()


@pytest.fixture(scope="session")
def people(demo: Demo, browser: Browser) -> Iterator[Callable[..., Person]]:
    """Signed-in people by name, each once."""
    here: dict[str, Person] = {}

    def person(user: str) -> Person:
        if user not in here:
            here[user] = Person(demo, user, browser.new_context(viewport=WIDE, base_url=demo.url))
            here[user].sign_in()
        return here[user]

    yield person
    for each in here.values():
        each.context.close()


@pytest.fixture
def operator(people: Callable[..., Person]) -> Iterator[Person]:
    """The operator, signed in; nothing they do may make the page complain."""
    person = people("admin")
    person.complaints.clear()
    yield person
    assert person.complaints == []


@pytest.fixture
def trader(people: Callable[..., Person]) -> Iterator[Person]:
    """bob, who trades."""
    person = people("bob")
    person.complaints.clear()
    yield person
    assert person.complaints == []


@pytest.fixture(scope="session")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures go: what CI keeps, else a temporary folder."""
    given = os.environ.get("CI_ARTEFACTS", "")
    folder = Path(given) / "panel" if given else tmp_path_factory.mktemp("panel")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def wait(what: str, ready: Callable[[], Any], seconds: float = 60.0, page: Page | None = None) -> Any:
    """Wait until ``ready()`` is true; the failure says what was awaited.  ``page``: its events are heard."""
    deadline = time.monotonic() + seconds * PATIENCE
    while not (found := ready()):
        assert time.monotonic() < deadline, f"{what} was not so within {seconds * PATIENCE:g} s"
        if page is None:
            time.sleep(0.2)
        else:
            page.wait_for_timeout(100)
    return found
