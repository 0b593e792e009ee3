"""Sessions once they are open: forged requests, idle time, fresh codes, other networks, their end."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
import websockets

from storage.alerts import AlertFilter
from storage.login_attempts import MOST_BY_USER
from storage.panel_sessions import ABSOLUTE, IDLE, is_unusual_hour
from tests.api.playing import Stage, order_body
from tests.api.signing_in import PASSWORD, Browser, clock, has_password, signed_in
from tests.api.test_sign_in import entries
from tests.support.patience import PATIENCE
from trading.ids import Nanos, UserId

__all__ = ["clock"]

HOUR = 3_600_000_000_000


async def viewer(stage: Stage, user: str = "vera", **browser: str) -> Browser:
    if all(each.id != user for each in await stage.services.desired.users()):
        await stage.person(user, "viewer")
    return await signed_in(stage, user, **browser)


async def olga_signed_in(stage: Stage) -> Browser:
    await stage.person("olga", "viewer")
    return await signed_in(stage, "olga")


async def shift(stage: Stage, column: str, by: int) -> None:
    """Let time go by for all sessions."""
    async with stage.services.database.connection() as connection:
        await connection.execute(f"UPDATE panel_sessions SET {column} = {column} - {by}".encode())
    door = stage.services.doorkeeper.sessions
    door._known.clear()
    door._seen.clear()


async def alerts(stage: Stage) -> list[str]:
    return [each.text for each in (await stage.services.alerts.page(AlertFilter(kind="session")))[0]]


async def test_the_other_network_is_told_of_at_an_unusual_hour_too(stage: Stage) -> None:
    await viewer(stage, address="10.1.1.1")
    now = time.time_ns()
    async with stage.services.database.connection() as connection:
        await connection.execute("UPDATE sign_ins SET at = %s", (now - 32 * HOUR,))
        for day in range(2, 14):
            await connection.execute(
                'INSERT INTO sign_ins ("user", at, network) VALUES (%s, %s, %s)',
                ("vera", now - day * 24 * HOUR - 8 * HOUR, "10.1.1.0/24"),
            )
    other = Browser(stage, address="99.9.9.9")
    await other.login("vera")
    network, hour = sorted(await alerts(stage), reverse=True)
    assert "signed in from 99.9.9.9 while signed in from 10.1.1.1 too" in network
    assert "at which this user is not usually here" in hour


async def test_what_was_unusual_about_a_session_is_not_closed_from_where_it_is(stage: Stage) -> None:
    owner = await viewer(stage, address="10.1.1.1")
    thief, twin = Browser(stage, address="99.9.9.9"), Browser(stage, address="99.9.9.10")
    for browser in (thief, twin):
        await browser.login("vera")
    alerts = (await stage.get("/v1/alerts?open=true&kind=session"))["items"]
    assert len(alerts) == 2
    for browser in (thief, twin):
        for each in alerts:
            path = f"/v1/alerts/{each['id']}/acknowledge"
            assert (await browser.refused(409, "own_session", "POST", path))["detail"].startswith(
                "it is about a session"
            )
    # Its end makes it harmless, and leaves the one about the other.
    assert (await thief.ask("POST", "/v1/auth/logout")).is_success
    (ended,) = [each["id"] for each in alerts if each["text"].startswith("vera signed in from 99.9.9.9 ")]
    await twin.post(f"/v1/alerts/{ended}/acknowledge")
    (left,) = [each["id"] for each in alerts if each["id"] != ended]
    await twin.refused(409, "own_session", "POST", f"/v1/alerts/{left}/acknowledge")
    await owner.post(f"/v1/alerts/{left}/acknowledge")


async def test_who_is_shut_out_is_signed_out_for_good(stage: Stage) -> None:
    browser = await viewer(stage)
    for enabled, status in ((False, 401), (True, 401)):
        changed = await stage.ask("PATCH", "/v1/users/vera", {"enabled": enabled})
        assert changed.is_success, changed.text
        assert (await browser.ask("GET", "/v1/me")).status_code == status
    assert [each["subject"] for each in await entries(stage, "end_session")]
    await browser.login("vera")
    assert (await browser.ask("GET", "/v1/me")).status_code == 200


async def test_cookies_are_out_of_reach(stage: Stage) -> None:
    await stage.person("vera", "viewer")
    await has_password(stage, "vera")
    body = {"user": "vera", "password": PASSWORD}
    answer = await Browser(stage).ask("POST", "/v1/auth/login", body)
    session, csrf = sorted(answer.headers.get_list("set-cookie"), reverse=True)
    assert session.startswith("qd_session=qs_")
    assert csrf.startswith("qd_csrf=")
    for cookie in (session, csrf):
        assert "SameSite=strict" in cookie
        assert "Path=/" in cookie
        assert "Secure" not in cookie
        assert "Domain" not in cookie
    assert "HttpOnly" in session
    assert "HttpOnly" not in csrf


@pytest.mark.parametrize(("base", "origin"), [("https://deck", "https://deck"), ("http://deck", "https://deck")])
async def test_over_https_cookies_are_bound_to_the_host(stage: Stage, base: str, origin: str) -> None:
    """Whether https comes to us or ends at a proxy that keeps the page's origin."""
    await stage.person("vera", "viewer")
    await has_password(stage, "vera")
    body = {"user": "vera", "password": PASSWORD}
    browser = Browser(stage, base=base)
    answer = await browser.ask("POST", "/v1/auth/login", body, origin=origin)
    session, csrf = sorted(answer.headers.get_list("set-cookie"), reverse=True)
    assert session.startswith("__Host-qd_session=qs_")
    assert csrf.startswith("__Host-qd_csrf=")
    for cookie in (session, csrf):
        for part in ("Secure", "Path=/", "SameSite=strict"):
            assert part in cookie
        assert "Domain" not in cookie
    assert "HttpOnly" in session
    assert "HttpOnly" not in csrf


async def test_a_session_over_https_goes_by_its_own_cookies_alone(stage: Stage) -> None:
    browser = await viewer(stage, base="https://deck")
    assert set(browser.http.cookies) == {"__Host-qd_session", "__Host-qd_csrf"}
    # Somebody else's, which a neighbour under the same domain has put there.
    neighbour = await viewer(stage, "otto")
    browser.http.cookies.set("qd_session", neighbour.http.cookies["qd_session"], domain="deck")
    assert (await browser.ask("GET", "/v1/me")).json()["user"] == "vera"
    assert (await browser.ask("DELETE", "/v1/sessions")).status_code == 204
    answer = await browser.ask("POST", "/v1/auth/logout")
    assert answer.status_code == 204
    # What is left is not ours, and opens nothing.
    assert set(browser.http.cookies) == {"qd_session"}
    await browser.refused(401, "unauthorized", "GET", "/v1/me")
    assert (await neighbour.ask("GET", "/v1/me")).status_code == 200


async def test_a_cookie_of_the_old_name_is_no_session_over_https_and_is_taken_away(stage: Stage) -> None:
    old = await viewer(stage)
    cookies = {"qd_session": old.http.cookies["qd_session"], "qd_csrf": old.http.cookies["qd_csrf"]}
    for base in ("https://deck", "http://deck"):
        browser = Browser(stage, base=base)
        for name, value in cookies.items():
            browser.http.cookies.set(name, value)
        # With the origin a page sends, or, reading, with its address alone.
        for method, path, headers in (
            ("DELETE", "/v1/sessions", {"origin": "https://deck", "x_csrf_token": cookies["qd_csrf"]}),
            ("GET", "/v1/me", {"origin": "", "referer": "https://deck/orders"}),
            ("GET", "/v1/auth/session", {"origin": "", "referer": "https://deck/orders"}),
        ):
            answer = await browser.ask(method, path, **headers)
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized"), path
            (gone,) = answer.headers.get_list("set-cookie")
            assert gone.startswith('qd_session="";')
            assert "Max-Age=0" in gone
            browser.http.cookies.set("qd_session", cookies["qd_session"])
        answer = await browser.ask(
            "POST", "/v1/auth/login", {"user": "vera", "password": PASSWORD}, origin="https://deck"
        )
        assert answer.status_code == 200
        told = answer.headers.get_list("set-cookie")
        assert sorted(each.partition("=")[0] for each in told if "Max-Age=0" in each) == ["qd_csrf", "qd_session"]
        assert sorted(each.partition("=")[0] for each in told if "Max-Age=0" not in each) == [
            "__Host-qd_csrf",
            "__Host-qd_session",
        ]
    # Over http nothing is different.
    assert (await old.ask("GET", "/v1/me")).status_code == 200


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"origin": "http://evil.example"}, "forged_origin"),
        ({"origin": "https://evil.example"}, "forged_origin"),
        ({"origin": "http://deck.evil.example"}, "forged_origin"),
        ({"origin": "http://deck:81"}, "forged_origin"),
        ({"origin": "null"}, "forged_origin"),
        ({"origin": ""}, "forged_origin"),
        ({"origin": "", "referer": "http://evil.example/deck"}, "forged_origin"),
        ({"x_csrf_token": ""}, "csrf"),
        ({"x_csrf_token": "0" * 64}, "csrf"),
    ],
)
async def test_forged_requests_are_refused_and_audited(stage: Stage, headers: dict[str, str], code: str) -> None:
    browser = await viewer(stage)
    await browser.refused(403, code, "DELETE", "/v1/sessions", **headers)
    (entry,) = await entries(stage, "login_refused")
    assert entry["actor"] == "vera"
    assert (await browser.ask("GET", "/v1/me")).status_code == 200


async def test_our_own_page_is_let_through(stage: Stage) -> None:
    browser = await viewer(stage)
    for headers in ({}, {"origin": "http://DECK:80"}, {"origin": "", "referer": "http://deck/orders?x"}):
        assert (await browser.ask("DELETE", "/v1/sessions", **headers)).status_code == 204


async def test_a_forged_login_is_refused(stage: Stage) -> None:
    body = {"user": "vera", "password": PASSWORD}
    await Browser(stage).refused(403, "forged_origin", "POST", "/v1/auth/login", body, origin="http://evil.example")


async def test_a_session_ends_when_nobody_is_there(stage: Stage) -> None:
    browser = await viewer(stage)
    await shift(stage, "seen_at", IDLE - 20_000_000_000)
    # What the page asks by itself, and asking for the session, is no sign of a person.
    for path, headers in (("/v1/me", {"x_background": "1"}), ("/v1/auth/session", {})):
        assert (await browser.ask("GET", path, **headers)).status_code == 200
    await shift(stage, "seen_at", 21_000_000_000)
    said = await browser.refused(401, "unauthorized", "GET", "/v1/me")
    assert "idle" in said["detail"]
    assert (await entries(stage, "login_refused"))[0]["actor"] == "vera"


async def test_a_session_goes_on_while_somebody_is_there_but_not_for_ever(stage: Stage) -> None:
    browser = await viewer(stage)
    for _ in range(3):
        await shift(stage, "seen_at", IDLE - 20_000_000_000)
        assert (await browser.ask("GET", "/v1/me")).status_code == 200
    await shift(stage, "ends_at", ABSOLUTE)
    said = await browser.refused(401, "unauthorized", "GET", "/v1/me")
    assert "longest" in said["detail"]


async def test_a_stolen_cookie_in_another_browser_ends_the_session(stage: Stage) -> None:
    browser = await viewer(stage)
    thief = Browser(stage, agent="curl/8")
    thief.http.cookies = browser.http.cookies
    await thief.refused(401, "unauthorized", "GET", "/v1/me")
    await browser.refused(401, "unauthorized", "GET", "/v1/me")
    assert "another browser" in (await entries(stage, "login_refused"))[-1]["after"]["reason"]
    assert (await entries(stage, "end_session"))[0]["after"]["because"] == "its cookie came from another browser"


async def test_a_session_that_moves_to_another_network_is_told(stage: Stage) -> None:
    browser = await viewer(stage, address="192.0.2.7")
    for address, count in (("192.0.2.99", 0), ("198.51.100.1", 1), ("198.51.100.2", 1)):
        other = Browser(stage, address=address)
        other.http.cookies = browser.http.cookies
        assert (await other.ask("GET", "/v1/me")).status_code == 200
        assert len(await alerts(stage)) == count, address


async def test_two_networks_at_once_are_told(stage: Stage) -> None:
    await viewer(stage, address="192.0.2.7")
    await viewer(stage, address="192.0.2.8")
    assert await alerts(stage) == []
    await viewer(stage, address="2001:db8:1::7")
    (text,) = await alerts(stage)
    assert "2001:db8:1::7" in text
    assert "192.0.2.7" in text
    await viewer(stage, "otto", address="203.0.113.1")
    assert len(await alerts(stage)) == 1


async def test_an_unusual_hour_is_told(stage: Stage) -> None:
    await stage.person("vera", "viewer")
    far = time.time_ns() - 12 * HOUR
    async with stage.services.database.connection() as connection:
        for day in range(10):
            await connection.execute(
                "INSERT INTO sign_ins VALUES ('vera', %s, '127.0.0.0/24')", (far - day * 24 * HOUR,)
            )
    await viewer(stage)
    (text,) = await alerts(stage)
    assert "hour" in text
    # Now it has been seen once.
    await viewer(stage)
    assert len(await alerts(stage)) == 1


def test_hours_are_near_each_other_across_midnight() -> None:
    day = 24 * HOUR
    evenings = [each * day - HOUR for each in range(1, 11)]
    assert not is_unusual_hour(100 * day + HOUR, evenings)
    assert is_unusual_hour(100 * day + HOUR + 1, evenings)
    assert not is_unusual_hour(100 * day + 12 * HOUR, evenings[:9])


async def test_sensitive_acts_ask_for_a_fresh_code(stage: Stage) -> None:
    browser = await signed_in(stage, "olga", "operator", "trader")
    wishes: list[tuple[str, str, Any]] = [
        ("POST", "/v1/risk/kill", {"scope": "user:olga", "reason": "x"}),
        ("PUT", "/v1/risk/limits", {"scope": "cluster", "kind": "position", "value": "5"}),
        ("DELETE", "/v1/risk/limits?scope=cluster&kind=position", None),
        ("POST", "/v1/keys", {}),
        ("POST", "/v1/users", {"id": "new", "roles": ["viewer"]}),
        ("PATCH", "/v1/users/new", {"roles": ["viewer"]}),
        ("POST", "/v1/nodes/tokens", {"node": "edge"}),
        ("POST", "/v1/auth/recovery-codes", None),
    ]
    await shift(stage, "fresh_until", HOUR)
    for method, path, body in wishes:
        await browser.refused(403, "fresh_code_needed", method, path, body)
    await browser.refused(401, "wrong_code", "POST", "/v1/auth/fresh", {"code": "000000"})
    fresh = await browser.post("/v1/auth/fresh", {"code": browser.code()})
    assert (await browser.ask("GET", "/v1/auth/session")).json()["fresh_until"] == fresh["fresh_until"]
    for method, path, body in wishes:
        answer = await browser.ask(method, path, body)
        assert answer.is_success, (path, answer.text)
    # Everyday acts never ask.
    await shift(stage, "fresh_until", HOUR)
    assert (await browser.ask("POST", "/v1/auth/logout")).status_code == 204


async def test_nobody_from_outside_keeps_an_operator_from_the_kill_switch(stage: Stage) -> None:
    browser = await signed_in(stage, "olga", "operator", address="192.0.2.7")
    await shift(stage, "fresh_until", HOUR)
    for _ in range(MOST_BY_USER + 1):
        await Browser(stage).ask("POST", "/v1/auth/login", {"user": "olga", "password": "x"})
    await Browser(stage).refused(429, "locked_out", "POST", "/v1/auth/login", {"user": "olga", "password": PASSWORD})
    assert await Browser(stage, address="192.0.2.8").login("olga") == "code"
    assert await browser.post("/v1/auth/fresh", {"code": browser.code()})
    await browser.post("/v1/risk/kill?wait_s=0", {"scope": "cluster", "reason": "x"}, 201)


async def test_guessing_codes_in_a_session_ends_in_a_lock_out_of_its_own(stage: Stage) -> None:
    browser = await signed_in(stage, "olga", "operator")
    for _ in range(MOST_BY_USER):
        await browser.refused(401, "wrong_code", "POST", "/v1/auth/fresh", {"code": "000000"})
    await browser.refused(429, "locked_out", "POST", "/v1/auth/fresh", {"code": browser.code()})
    assert len(await alerts(stage)) == 1
    other = Browser(stage)
    assert await other.login("olga") == "code"
    assert await other.post("/v1/auth/code", {"code": browser.code()}) == {"step": "done"}


async def test_a_key_needs_no_code(stage: Stage) -> None:
    assert (await stage.ask("POST", "/v1/users", {"id": "new", "roles": ["viewer"]})).status_code == 201


async def test_sessions_are_listed_and_ended(stage: Stage) -> None:
    here = await viewer(stage, address="192.0.2.7", agent="Firefox")
    there = await viewer(stage)
    other = await viewer(stage, "otto")
    listed = (await here.ask("GET", "/v1/sessions")).json()["items"]
    assert [(each["user"], each["address"], each["agent"], each["current"]) for each in listed] == [
        ("vera", "192.0.2.7", "Firefox", True),
        ("vera", "127.0.0.1", "Mozilla/5.0 (test)", False),
    ]
    ottos = (await other.ask("GET", "/v1/sessions")).json()["items"][0]["id"]
    await here.refused(404, "unknown_session", "DELETE", f"/v1/sessions/{ottos}")
    await here.refused(404, "unknown_user", "GET", "/v1/sessions?user=otto")
    assert (await here.ask("DELETE", f"/v1/sessions/{listed[1]['id']}")).status_code == 204
    await there.refused(401, "unauthorized", "GET", "/v1/me")
    assert (await stage.get("/v1/sessions"))["items"] == []
    assert [each["id"] for each in (await stage.get("/v1/sessions?user=otto"))["items"]] == [ottos]
    assert (await stage.ask("DELETE", f"/v1/sessions/{ottos}")).status_code == 204
    await other.refused(401, "unauthorized", "GET", "/v1/me")
    await viewer(stage)
    assert (await here.ask("DELETE", "/v1/sessions")).status_code == 204
    assert len((await here.ask("GET", "/v1/sessions")).json()["items"]) == 1


async def test_signing_out_ends_the_session_and_takes_the_cookies(stage: Stage) -> None:
    browser = await viewer(stage)
    token = browser.http.cookies["qd_session"]
    answer = await browser.ask("POST", "/v1/auth/logout")
    assert answer.status_code == 204
    assert not browser.http.cookies
    browser.http.cookies.set("qd_session", token)
    await browser.refused(401, "unauthorized", "GET", "/v1/me")


async def test_orders_of_a_session_name_it_as_their_cause(stage: Stage) -> None:
    await stage.trading()
    browser = await signed_in(stage, "asha")
    assert (await browser.ask("POST", "/v1/orders", order_body())).status_code == 201
    id = (await browser.ask("GET", "/v1/auth/session")).json()["id"]
    (event,) = (await stage.get("/v1/orders/paper-1/k-1"))["events"]
    assert event["cause"] == f"api/asha/{id}"


async def test_the_stream_opens_by_the_cookie_and_ends_with_the_session(stage: Stage, served: str) -> None:
    browser = await viewer(stage)
    cookie = "; ".join(f"{name}={value}" for name, value in browser.http.cookies.items())
    headers = {"Cookie": cookie}
    agent = "Mozilla/5.0 (test)"
    for origin in (None, "http://evil.example"):
        async with websockets.connect(
            f"ws://{served}/v1/stream", additional_headers=headers, origin=origin, user_agent_header=agent
        ) as socket:
            await socket.send(json.dumps({"topics": ["feeds"]}))
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4401
    # From a page that was loaded over https the cookie must be the one that is bound to the host.
    bound = {"Cookie": "; ".join(f"__Host-{each}" for each in cookie.split("; "))}
    for sent, is_let_in in ((headers, False), (bound, True)):
        async with websockets.connect(
            f"ws://{served}/v1/stream", additional_headers=sent, origin=f"https://{served}", user_agent_header=agent
        ) as socket:
            await socket.send(json.dumps({"topics": ["feeds"]}))
            if is_let_in:
                assert "instance" in json.loads(await socket.recv())
            else:
                with pytest.raises(websockets.ConnectionClosed):
                    await socket.recv()
    async with websockets.connect(
        f"ws://{served}/v1/stream", additional_headers=headers, origin=f"http://{served}", user_agent_header=agent
    ) as socket:
        await socket.send(json.dumps({"topics": ["feeds"]}))
        assert "instance" in json.loads(await socket.recv())
        id = (await browser.ask("GET", "/v1/auth/session")).json()["id"]
        await stage.ask("DELETE", f"/v1/sessions/{id}")
        began = time.monotonic()
        with pytest.raises(websockets.ConnectionClosed) as closed:
            async with asyncio.timeout(20):
                await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4401
        took = time.monotonic() - began
        print(f"the stream ended {took:.2f} s after its session")
        assert took < 5 * PATIENCE


async def test_every_answer_has_its_headers(stage: Stage) -> None:
    for path in ("/healthz", "/v1/me", "/v1/nothing", "/openapi.json"):
        answer = await stage.http.get(path)
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; frame-ancestors 'none'")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert "strict-transport-security" not in answer.headers
    assert "max-age" in (await stage.http.get("https://deck/healthz")).headers["strict-transport-security"]


async def test_a_key_that_was_made_to_look_closes_nothing(stage: Stage) -> None:
    browser = await olga_signed_in(stage)
    looking = (await stage.make("/v1/keys", {"user": "admin", "rights": ["view"], "label": "wall screen"}))["key"]
    (session,) = [each["id"] for each in (await stage.get("/v1/sessions?user=olga"))["items"]]
    await stage.refused(403, "forbidden", "DELETE", f"/v1/sessions/{session}", key=looking)
    await stage.refused(403, "forbidden", "DELETE", "/v1/sessions", key=looking)
    await stage.services.alerts.raise_alert(
        kind="session", severity="warning", user=UserId("olga"), subject="s", text="t", at=Nanos(1)
    )
    (alert,) = [each["id"] for each in (await stage.get("/v1/alerts?open=true"))["items"] if each["subject"] == "s"]
    await stage.refused(403, "forbidden", "POST", f"/v1/alerts/{alert}/acknowledge", key=looking)
    assert (await stage.ask("POST", f"/v1/alerts/{alert}/acknowledge")).status_code == 200
    assert (await browser.ask("GET", "/v1/accounts")).status_code == 200
    assert (await stage.ask("DELETE", f"/v1/sessions/{session}")).status_code == 204
