"""``quarterdeck user``: the way back in, from the deck's own machine; and the demo's logins."""

from __future__ import annotations

import asyncio
import stat
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import Result
from typer.testing import CliRunner

from cluster import demo_logins
from cluster.commands import app
from cluster.demo_logins import code_of, give_logins
from storage.login_attempts import MOST_BY_USER
from tests.api.playing import Stage
from tests.api.signing_in import PASSWORD, Browser, Clock, clock, signed_in
from tests.api.test_sign_in import entries
from trading.errors import NeedsOperator, UnknownThing

__all__ = ["clock"]


@pytest.fixture
def here(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """The stage, as a deck that runs on this machine."""
    found = SimpleNamespace(database_url=stage.services.deck.database_url)
    for module in ("users", "keys"):
        # By name: the package has Typer's objects under the same names.
        monkeypatch.setattr(sys.modules[f"cluster.commands.{module}"], "running_deck", lambda _: found)
    return stage


async def run(*words: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, list(words))


async def password_of(*words: str) -> str:
    done = await run("user", "password", *words)
    assert done.exit_code == 0, done.output
    return done.stdout.strip().splitlines()[-1]


async def test_the_first_operator_gets_a_password_and_enrols(here: Stage) -> None:
    browser = Browser(here)
    assert await browser.login("admin", await password_of("admin")) == "password"
    assert (await entries(here, "set_password"))[0]["actor"] == "command line"


async def test_a_password_leaves_the_second_factor_and_a_reset_takes_it(here: Stage) -> None:
    first = await signed_in(here, "olga", "operator")
    browser = Browser(here)
    assert await browser.login("olga", await password_of("olga")) == "code"
    await first.refused(401, "unauthorized", "GET", "/v1/me")
    assert await browser.post("/v1/auth/code", {"code": first.code()}) == {"step": "password"}
    browser = Browser(here)
    password = await password_of("olga", "--reset")
    assert await browser.login("olga", password) == "password"
    assert await browser.post("/v1/auth/password", {"current": password, "new": PASSWORD}) == {"step": "enrol"}


async def test_a_reset_revokes_the_keys_unless_they_are_to_be_kept(here: Stage) -> None:
    key = await here.person("asha", "trader")
    kept = await run("user", "password", "asha", "--reset", "--keep-keys")
    assert "API keys: 0 revoked, 1 still good." in kept.stdout
    assert (await here.get("/v1/me", key=key))["user"] == "asha"
    done = await run("user", "password", "asha", "--reset")
    assert "API keys: 1 revoked, 0 still good." in done.stdout
    here.services.doorkeeper.forget_user("asha")
    await here.refused(401, "unauthorized", "GET", "/v1/me", key=key)
    refused = await run("user", "password", "asha", "--keep-keys")
    assert refused.exit_code == 2


async def test_a_lock_out_is_ended(here: Stage) -> None:
    await signed_in(here, "vera", "viewer")
    # Where they have not signed in from: at home a lock-out keeps out nobody who has the right password.
    elsewhere = "203.0.113.9"
    for _ in range(MOST_BY_USER):
        await Browser(here, elsewhere).ask("POST", "/v1/auth/login", {"user": "vera", "password": "wrong"})
    body = {"user": "vera", "password": PASSWORD}
    answer = await Browser(here, elsewhere).ask("POST", "/v1/auth/login", body)
    assert (answer.status_code, answer.json()["code"]) == (429, "locked_out")
    assert 0 < int(answer.headers["retry-after"]) <= 60
    assert "second" in answer.json()["detail"]
    assert (await here.get("/v1/users/vera"))["locked_until"] is not None
    assert [each["subject"] for each in await entries(here, "locked_out")] == ["vera"]
    assert (await run("user", "unlock", "vera")).exit_code == 0
    assert await Browser(here, elsewhere).login("vera") == "done"


async def test_who_is_not_there_is_told(here: Stage) -> None:
    for words in (("password", "nobody"), ("unlock", "nobody")):
        done = await run("user", *words)
        assert done.exit_code != 0
        assert "nobody" in done.output


async def test_keys_made_here_end(here: Stage) -> None:
    done = await run("keys", "new", "--days", "3")
    assert done.exit_code == 0, done.output
    newest = (await here.get("/v1/keys"))["items"][-1]
    assert newest["expires_at"] is not None
    assert (await run("keys", "new", "--days", "367")).exit_code == 2


async def test_the_demos_people_sign_in_with_what_it_shows(
    here: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await here.person("alice", "trader")
    home = here.services.deck.home
    for _ in range(2):  # it can be done again
        (login,) = await give_logins(here.services.deck.database_url, home, {"alice": "trader"})
    assert login.address.startswith("otpauth://totp/Quarterdeck:alice?secret=" + login.secret)
    assert stat.S_IMODE((home / "logins.json").stat().st_mode) == 0o600
    browser = Browser(here)
    assert await browser.login("alice", login.password) == "code"
    Clock.ahead = 0.0
    assert await browser.post("/v1/auth/code", {"code": code_of("alice", home)}) == {"step": "done"}
    with pytest.raises(UnknownThing):
        code_of("bo", home)
    done = await run("user", "code", "alice", "--data-dir", str(home))
    assert done.stdout.strip().isdigit()
    monkeypatch.setattr(demo_logins.tempfile, "gettempdir", lambda: str(tmp_path / "empty"))
    with pytest.raises(NeedsOperator, match="no demo"):
        code_of("alice")


def test_there_are_no_codes_of_other_decks(tmp_path: Path) -> None:
    with pytest.raises(NeedsOperator):
        code_of("admin", tmp_path)
