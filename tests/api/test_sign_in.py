"""Signing in, step by step, and what is refused on the way."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from api import sign_in
from storage.login_attempts import MOST_BY_USER
from tests.api.playing import Stage
from tests.api.signing_in import PASSWORD, Browser, Phone, clock, has_password, signed_in
from trading.errors import NotReady
from trading.ids import UserId

__all__ = ["clock"]


async def entries(stage: Stage, action: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await stage.get(f"/v1/audit?action={action}&limit=1000"))["items"]
    return found


async def test_a_new_trader_changes_the_password_then_enrols_then_is_in(stage: Stage) -> None:
    made = await stage.make("/v1/users", {"id": "asha", "roles": ["trader"]})
    assert (made["enabled"], made["totp"], made["locked_until"]) == (True, False, None)
    browser = Browser(stage)
    assert await browser.login("asha", made["one_time_password"]) == "password"
    await browser.refused(401, "unauthorized", "GET", "/v1/me")
    await browser.refused(409, "other_step", "POST", "/v1/auth/totp")
    body = {"current": made["one_time_password"], "new": PASSWORD}
    assert await browser.post("/v1/auth/password", body) == {"step": "enrol"}
    await browser.refused(401, "unauthorized", "GET", "/v1/orders")
    begun = await browser.post("/v1/auth/totp")
    assert begun["uri"].startswith("otpauth://totp/Quarterdeck:asha?secret=" + begun["secret"])
    assert begun["qr_svg"].startswith("<svg")
    browser.phone = Phone(begun["secret"])
    await browser.refused(401, "wrong_code", "POST", "/v1/auth/totp/confirm", {"code": "000000"})
    done = await browser.post("/v1/auth/totp/confirm", {"code": browser.code()})
    assert done["step"] == "done"
    assert len(set(done["recovery_codes"])) == 10
    me = (await browser.ask("GET", "/v1/me")).json()
    assert (me["user"], me["roles"]) == ("asha", ["trader"])
    session = (await browser.ask("GET", "/v1/auth/session")).json()
    assert (session["step"], session["totp"], session["user"], session["id"]) == ("done", True, "asha", me["key_id"])
    assert set(session["rights"]) == set(me["rights"])
    assert (await stage.get("/v1/users/asha"))["totp"] is True


async def test_a_second_sign_in_asks_for_a_code_and_takes_each_code_once(stage: Stage) -> None:
    first = await signed_in(stage, "asha", "trader")
    code = first.code()
    other = Browser(stage)
    assert await other.login("asha") == "code"
    for path in ("/v1/auth/totp", "/v1/auth/recovery-codes"):
        await other.refused(409, "other_step", "POST", path)
    await other.refused(409, "other_step", "POST", "/v1/auth/password", {"current": PASSWORD, "new": "x" * 20})
    assert await other.post("/v1/auth/code", {"code": code}) == {"step": "done"}
    third = Browser(stage)
    await third.login("asha")
    said = await third.refused(401, "wrong_code", "POST", "/v1/auth/code", {"code": code})
    assert "used before" in said["detail"]
    assert any("replayed" in each["after"]["reason"] for each in await entries(stage, "login_refused"))
    assert await third.post("/v1/auth/code", {"code": first.code()}) == {"step": "done"}


async def test_the_token_changes_when_the_session_may_do_more(stage: Stage) -> None:
    first = await signed_in(stage, "asha", "trader")
    other = Browser(stage)
    await other.login("asha")
    before = other.http.cookies["qd_session"]
    await other.post("/v1/auth/code", {"code": first.code()})
    assert other.http.cookies["qd_session"] != before
    thief = Browser(stage)
    thief.http.cookies.set("qd_session", before)
    await thief.refused(401, "unauthorized", "GET", "/v1/me")


async def test_a_recovery_code_works_once_and_counts_for_no_sensitive_act(stage: Stage) -> None:
    await stage.person("asha", "trader")
    await has_password(stage, "asha")
    first = Browser(stage)
    await first.login("asha")
    codes = await first.enrol()
    other = Browser(stage)
    await other.login("asha")
    assert await other.post("/v1/auth/code", {"recovery_code": codes[3].upper().replace("-", " ")}) == {"step": "done"}
    await other.refused(403, "fresh_code_needed", "POST", "/v1/keys", {})
    third = Browser(stage)
    await third.login("asha")
    await third.refused(401, "wrong_code", "POST", "/v1/auth/code", {"recovery_code": codes[3]})
    (alert,) = (await stage.services.alerts.page(_all()))[0]
    assert alert.kind == "session"
    assert "9 are left" in alert.text


async def test_who_lost_the_phone_enrols_another_with_a_recovery_code_and_the_password(stage: Stage) -> None:
    await stage.person("asha", "trader")
    await has_password(stage, "asha")
    first = Browser(stage)
    await first.login("asha")
    codes = await first.enrol()
    other = Browser(stage)
    await other.login("asha")
    await other.post("/v1/auth/code", {"recovery_code": codes[0]})
    assert (await other.ask("GET", "/v1/auth/session")).json()["recovered"] is True
    await other.refused(422, "wrong_password", "POST", "/v1/auth/totp")
    await other.refused(422, "wrong_password", "POST", "/v1/auth/totp", {"current": "nine purple kites at noon"})
    begun = await other.post("/v1/auth/totp", {"current": PASSWORD})
    # Nothing else is opened by it meanwhile.
    await other.refused(403, "fresh_code_needed", "POST", "/v1/auth/recovery-codes")
    other.phone = Phone(begun["secret"])
    assert (await other.post("/v1/auth/totp/confirm", {"code": other.code()}))["step"] == "done"
    session = (await other.ask("GET", "/v1/auth/session")).json()
    assert (session["recovered"], session["fresh_until"] is not None) == (False, True)
    await other.post("/v1/auth/recovery-codes")
    third = Browser(stage)
    await third.login("asha")
    await third.refused(401, "wrong_code", "POST", "/v1/auth/code", {"code": first.code()})
    assert await third.post("/v1/auth/code", {"code": other.code()}) == {"step": "done"}


async def test_a_session_of_somebody_without_a_second_factor_enrols_none_without_the_password(stage: Stage) -> None:
    browser = await signed_in(stage, "vera", "viewer")
    await browser.refused(422, "wrong_password", "POST", "/v1/auth/totp")
    await browser.post("/v1/auth/totp", {"current": PASSWORD})


async def test_an_old_session_that_comes_to_need_a_second_factor_enrols_none_without_the_password(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = await signed_in(stage, "vera", "viewer")
    await stage.ask("PATCH", "/v1/users/vera", {"roles": ["viewer", "trader"]})
    assert (await browser.ask("GET", "/v1/auth/session")).json()["step"] == "enrol"
    monkeypatch.setattr(sign_in, "_SIGNED_IN_NS", 1)
    await browser.refused(422, "wrong_password", "POST", "/v1/auth/totp")
    await browser.enrol()


async def test_what_could_not_be_judged_is_no_failed_attempt(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = await signed_in(stage, "asha", "trader")

    async def busy(*_: object) -> bool:
        raise NotReady("too many sign in at once", 1.0)

    with monkeypatch.context() as patched:
        patched.setattr(stage.services.passwords, "verify", busy)
        patched.setattr(stage.services.second_factors, "verify", busy)
        for _ in range(8):
            other = Browser(stage, "203.0.113.9")
            await other.refused(503, "not_ready", "POST", "/v1/auth/login", {"user": "asha", "password": PASSWORD})
            await browser.refused(503, "not_ready", "POST", "/v1/auth/fresh", {"code": "123456"})
    assert await Browser(stage, "203.0.113.9").login("asha") == "code"
    await browser.post("/v1/auth/fresh", {"code": browser.code()})


async def test_strangers_fill_no_room_of_what_is_noted_about_users(stage: Stage) -> None:
    from api.logins import MOST_REFUSED

    logins = stage.services.doorkeeper.logins
    for n in range(MOST_REFUSED + 50):
        await logins.refused("guess", f"203.0.{n // 250}.{n % 250}", "a wrong user or password")
    await logins.locked_out("admin", "203.0.113.9", ("user",))
    await logins.refused("", "203.0.113.9", "a stolen session", {"user": "admin", "session": "s-1"})
    assert [each["subject"] for each in await entries(stage, "locked_out")] == ["admin"]
    refused = await entries(stage, "login_refused")
    assert len(refused) == MOST_REFUSED + 1
    assert [each for each in refused if each["actor"] == "admin"]
    await logins.refused("guess", "2001:db8::1", "x")
    for n in range(2, 300):
        await logins.refused("guess", f"2001:db8::{n:x}", "x")
    assert len([mark for mark in logins._refused if mark.startswith("2001")]) == 1


def _all() -> Any:
    from storage.alerts import AlertFilter

    return AlertFilter()


async def test_a_viewer_needs_no_second_factor_but_may_have_one(stage: Stage) -> None:
    await stage.person("vera", "viewer")
    await has_password(stage, "vera")
    browser = Browser(stage)
    assert await browser.login("vera") == "done"
    said = await browser.refused(409, "no_second_factor", "POST", "/v1/auth/fresh", {"code": "123456"})
    assert "enrol" in said["detail"]
    await browser.enrol()
    assert await Browser(stage).login("vera") == "code"


async def test_a_role_that_needs_a_second_factor_holds_open_sessions_to_it(stage: Stage) -> None:
    await stage.person("vera", "viewer")
    browser = await signed_in(stage, "vera")
    answer = await stage.ask("PATCH", "/v1/users/vera", {"roles": ["viewer", "trader"]})
    assert answer.json()["roles"] == ["viewer", "trader"]
    await browser.refused(401, "unauthorized", "GET", "/v1/me")
    assert (await browser.ask("GET", "/v1/auth/session")).json()["step"] == "enrol"


async def test_refusals_do_not_tell_what_was_wrong(stage: Stage) -> None:
    await stage.person("asha", "viewer")
    await has_password(stage, "asha")
    await stage.person("no-password", "viewer")
    said = [
        await Browser(stage).refused(401, "wrong_login", "POST", "/v1/auth/login", {"user": user, "password": password})
        for user, password in (("asha", "wrong"), ("nobody", "wrong"), ("no-password", PASSWORD), ("a\x01b", "\x01"))
    ]
    assert said == [said[0]] * 4
    assert (
        "set-cookie" not in (await Browser(stage).ask("POST", "/v1/auth/login", {"user": "x", "password": "y"})).headers
    )
    whose = [each["actor"] for each in await entries(stage, "login_refused")]
    assert sorted(whose) == ["asha", "no-password", "unknown"]


async def test_a_locked_address_tells_nobody_who_is_known_there(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    await stage.person("asha", "viewer")
    await signed_in(stage, "asha", address="192.0.2.7")
    stranger = Browser(stage, "192.0.2.9")
    async with stage.services.database.connection() as connection:
        await connection.execute(
            "INSERT INTO login_attempts VALUES ('address/192.0.2.9/32', 20, %(now)s, %(until)s)",
            {"now": time.time_ns(), "until": time.time_ns() + 3_600_000_000_000},
        )
    # A busy machine may take longer over a hash than anybody is looked at: the hash is not what is tried here.
    looked_at: list[str] = []

    async def quick(user: str, password: str) -> bool:
        looked_at.append(user)
        return user == "asha" and password == PASSWORD

    async def busy(*_: object) -> bool:
        raise NotReady("too many sign in at once", 1.0)

    async def slow(*_: object) -> bool:
        await asyncio.sleep(60)
        return True

    monkeypatch.setattr(sign_in, "_LOCKED_S", 0.6)
    monkeypatch.setattr(sign_in, "_LOOK_S", 0.4)
    monkeypatch.setattr(stage.services.passwords, "verify", quick)

    async def told(user: str, password: str = "wrong") -> dict[str, Any]:
        began = time.monotonic()
        said = await stranger.refused(429, "locked_out", "POST", "/v1/auth/login", {"user": user, "password": password})
        assert 0.6 <= time.monotonic() - began < 30
        assert said.pop("retry_after") > 3_000
        # Time goes on between two answers.
        return {**said, "detail": said["detail"].replace("59 minutes", "60 minutes")}

    found = {user: [await told(user) for _ in range(MOST_BY_USER + 2)] for user in ("asha", "nobody")}
    assert found["asha"] == found["nobody"]
    assert looked_at == ["asha"] * MOST_BY_USER
    # Not even the right password, once so many were tried.
    assert await told("asha", PASSWORD) == found["nobody"][0]
    await stage.ask("POST", "/v1/users/asha/unlock")
    for trouble in (busy, slow):
        with monkeypatch.context() as patched:
            patched.setattr(stage.services.passwords, "verify", trouble)
            for _ in range(MOST_BY_USER + 1):
                assert await told("asha", PASSWORD) == found["nobody"][0]
    # Neither was a failed attempt.
    assert await stranger.login("asha") == "done"


async def test_what_was_typed_in_place_of_a_name_is_not_kept(stage: Stage) -> None:
    for _ in range(7):
        await Browser(stage).ask("POST", "/v1/auth/login", {"user": PASSWORD, "password": "x"})
    await stage.services.doorkeeper.logins.sweep(at_the_end=True)
    assert await entries(stage, "locked_out")
    assert PASSWORD not in (await stage.ask("GET", "/v1/audit?limit=1000")).text
    rows = await _rows(stage, "SELECT * FROM login_attempts")
    assert PASSWORD not in str(rows)


async def _rows(stage: Stage, statement: str) -> list[dict[str, Any]]:
    from storage.database import dicts

    async with stage.services.database.connection() as connection:
        return await dicts(connection, statement, {})


@pytest.mark.parametrize(
    ("new", "word"),
    [
        ("short", "12"),
        ("xx-asha-very-long-indeed", "name"),
        ("password1234", "guessed"),
        ("aaaaaaaaaaaaaaaa", "guessed"),
        ("x" * 201, "200"),
        (PASSWORD, "take another"),
    ],
)
async def test_a_password_that_is_easily_guessed_is_refused(stage: Stage, new: str, word: str) -> None:
    await stage.person("asha", "viewer")
    browser = await signed_in(stage, "asha")
    said = await browser.refused(422, "bad_input", "POST", "/v1/auth/password", {"current": PASSWORD, "new": new})
    assert said["field"] == "new"
    assert word in said["detail"]
    assert await Browser(stage).login("asha") == "done"


async def test_a_new_password_ends_the_other_sessions(stage: Stage) -> None:
    await stage.person("asha", "viewer")
    here, there = await signed_in(stage, "asha"), await signed_in(stage, "asha")
    said = await here.refused(
        422, "wrong_password", "POST", "/v1/auth/password", {"current": "wrong", "new": "nine purple kites at noon"}
    )
    assert said["field"] == "current"
    body = {"current": PASSWORD, "new": "nine purple kites at noon"}
    assert await here.post("/v1/auth/password", body) == {"step": "done"}
    assert (await here.ask("GET", "/v1/me")).status_code == 200
    said = await there.refused(401, "unauthorized", "GET", "/v1/me")
    assert "password was changed" in said["detail"]
    await Browser(stage).refused(401, "wrong_login", "POST", "/v1/auth/login", {"user": "asha", "password": PASSWORD})


async def test_an_operator_resets_somebody_who_lost_the_phone(stage: Stage) -> None:
    browser = await signed_in(stage, "asha", "trader")
    password = (await stage.ask("POST", "/v1/users/asha/reset")).json()["one_time_password"]
    await browser.refused(401, "unauthorized", "GET", "/v1/me")
    await Browser(stage).refused(401, "wrong_login", "POST", "/v1/auth/login", {"user": "asha", "password": PASSWORD})
    again = Browser(stage)
    assert await again.login("asha", password) == "password"
    assert await again.post("/v1/auth/password", {"current": password, "new": PASSWORD}) == {"step": "enrol"}
    await again.enrol()
    assert [each["name"] for each in await _rows(stage, "SELECT name FROM secrets")] == ["totp/asha"]


async def test_a_reset_revokes_the_keys_and_tells_how_many(stage: Stage) -> None:
    key = await stage.person("asha", "trader")
    await stage.person("bela", "trader")
    made = await stage.make("/v1/keys", {"user": "asha"})
    await stage.ask("DELETE", f"/v1/keys/{made['id']}")
    assert (await stage.get("/v1/me", key=key))["user"] == "asha"
    done = (await stage.ask("POST", "/v1/users/asha/reset")).json()
    assert (done["keys_revoked"], done["keys_left"]) == (1, 0)
    await stage.refused(401, "unauthorized", "GET", "/v1/me", key=key)
    good = {each["user"] for each in (await stage.get("/v1/keys"))["items"] if each["revoked_at"] is None}
    assert good == {"admin", "bela"}
    (told,) = await entries(stage, "reset_user")
    assert (told["subject"], told["after"]["keys_revoked"]) == ("asha", 1)
    because = [(each["after"] or {}).get("because") for each in await entries(stage, "revoke_api_key")]
    assert because.count("the user was reset") == 1


async def test_a_reset_leaves_the_keys_where_that_is_asked_for(stage: Stage) -> None:
    key = await stage.person("asha", "trader")
    done = (await stage.ask("POST", "/v1/users/asha/reset", {"revoke_keys": False})).json()
    assert (done["keys_revoked"], done["keys_left"]) == (0, 1)
    assert (await stage.get("/v1/me", key=key))["user"] == "asha"
    await stage.refused(422, "bad_input", "POST", "/v1/users/asha/reset", {"revoke_keys": "perhaps"})


async def test_a_one_time_password_ends(stage: Stage) -> None:
    made = await stage.make("/v1/users", {"id": "asha", "roles": ["viewer"]})
    async with stage.services.database.connection() as connection:
        await connection.execute("UPDATE passwords SET expires_at = 1")
    body = {"user": "asha", "password": made["one_time_password"]}
    await Browser(stage).refused(401, "wrong_login", "POST", "/v1/auth/login", body)


async def test_a_disabled_user_has_no_way_in(stage: Stage) -> None:
    key = await stage.person("asha", "viewer")
    browser = await signed_in(stage, "asha")
    assert (await stage.ask("PATCH", "/v1/users/asha", {"enabled": False})).json()["enabled"] is False
    await browser.refused(401, "unauthorized", "GET", "/v1/me")
    await stage.refused(401, "unauthorized", "GET", "/v1/me", key=key)
    await Browser(stage).refused(401, "wrong_login", "POST", "/v1/auth/login", {"user": "asha", "password": PASSWORD})
    await stage.ask("PATCH", "/v1/users/asha", {"enabled": True})
    assert (await stage.get("/v1/me", key=key))["user"] == "asha"


async def test_nobody_shuts_themselves_out(stage: Stage) -> None:
    for change in ({"enabled": False}, {"roles": ["viewer"]}):
        await stage.refused(409, "own_access", "PATCH", "/v1/users/admin", change)


async def test_without_the_secret_key_enrolment_says_what_to_do(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    await stage.person("asha", "trader")
    await has_password(stage, "asha")
    browser = Browser(stage)
    assert await browser.login("asha") == "enrol"
    monkeypatch.setenv("QUARTERDECK_SECRET_KEY", "not a key")
    stage.services._secrets = None
    said = await browser.refused(424, "needs_operator", "POST", "/v1/auth/totp")
    assert "QUARTERDECK_SECRET_KEY" in said["detail"]


async def test_what_is_kept_opens_nothing(stage: Stage) -> None:
    browser = await signed_in(stage, "asha", "trader")
    token = browser.http.cookies["qd_session"]
    assert browser.phone is not None
    tables = ("passwords", "panel_sessions", "second_factors", "recovery_codes", "secrets", "audit")
    kept = "".join([str(await _rows(stage, f"SELECT * FROM {table}")) for table in tables])
    for secret in (PASSWORD, token, browser.phone.totp.secret, UserId("qs_")):
        assert secret not in kept
    assert "$argon2id$v=19$m=65536,t=3,p=1$" in kept
