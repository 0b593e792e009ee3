"""The table of permissions in docs/access.md is what the API does: every route, every role, by real requests.

``python -m tests.api.test_permissions`` prints the lines for the table, ``--write`` puts them into the docs.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter

import pytest
import websockets

from api.app import create_app
from api.security import ROLES
from cluster.settings import DeckSettings
from tests.api.permissions import ANYONE, MACHINES, Row, rows, table, write
from tests.api.playing import Stage
from tests.api.signing_in import PASSWORD, Browser, clock, has_password, signed_in
from tests.api.test_panel_sessions import HOUR, shift

__all__ = ["clock"]


def request_of(row: Row) -> tuple[str, str]:
    """A request that the route gets, with nothing that it could act on."""
    return row.method, re.sub(r"\{[^}]*\}", "x", row.path)


def by_http(wanted: list[Row]) -> list[Row]:
    return [row for row in wanted if row.method != "WS"]


def test_the_table_has_every_route_as_it_is(stage: Stage) -> None:
    built, told = rows(stage.app), table()
    assert [row for row, count in Counter(told).items() if count > 1] == []
    missing = "\n".join(row.line for row in built if row not in told)
    assert not missing, f"docs/access.md lacks these lines:\n{missing}"
    assert set(told) == set(built), f"there is no such route: {set(told) - set(built)}"


def test_only_these_are_open_to_anyone() -> None:
    # The panel's files are no secret: what they show is asked for like anything else.
    panel = "/{path:path}"
    assert {row.path for row in table() if row.roles == ANYONE} - {panel} == {
        "/docs", "/healthz", "/metrics", "/openapi.json", "/readyz", "/v1/auth/login",
    }  # fmt: skip


@pytest.mark.parametrize("role", list(ROLES))
async def test_a_key_of_each_role_goes_as_far_as_the_table_says(stage: Stage, role: str) -> None:
    key = await stage.person(f"a-{role}", role)
    for row in by_http(table()):
        method, path = request_of(row)
        answer = await stage.ask(method, path, {}, key=key)
        said = (row, answer.status_code, answer.text)
        if row.roles == MACHINES or row.right.startswith("session"):
            assert answer.status_code == 401, said
        elif row.roles == ANYONE or role in row.roles.split(", "):
            assert answer.status_code not in (401, 403), said
        else:
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), said


@pytest.mark.parametrize("role", list(ROLES))
async def test_a_session_of_each_role_goes_as_far_as_the_table_says(stage: Stage, role: str) -> None:
    browser = await signed_in(stage, f"s-{role}", role)
    if browser.phone is None:
        await browser.enrol()
    for fresh in (True, False):
        for row in by_http(table()):
            if row.path == "/v1/auth/logout":
                continue
            method, path = request_of(row)
            answer = await browser.ask(method, path, {})
            said = (row, fresh, answer.status_code, answer.text)
            if row.roles == MACHINES:
                assert answer.status_code == 401, said
            elif row.roles != ANYONE and role not in row.roles.split(", "):
                assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), said
            elif row.fresh == "yes" and not fresh:
                assert (answer.status_code, answer.json()["code"]) == (403, "fresh_code_needed"), said
            else:
                assert answer.status_code not in (401, 403), said
        await shift(stage, "fresh_until", HOUR)
    assert (await browser.ask("POST", "/v1/auth/logout")).status_code == 204


async def test_nobody_and_an_expired_session_get_nothing(stage: Stage) -> None:
    expired = await signed_in(stage, "olga", *ROLES)
    half = Browser(stage)
    assert await half.login("olga") == "code"
    await shift(stage, "seen_at", HOUR)
    nobody = Browser(stage)
    begun = Browser(stage)
    await begun.login("olga")
    for row in by_http(table()):
        method, path = request_of(row)
        for browser in (nobody, expired, half, begun):
            if browser is begun and row.right.startswith("session"):
                continue
            answer = await browser.ask(method, path, {})
            is_open = row.roles == ANYONE
            assert (answer.status_code == 401) is not is_open, (row, answer.status_code, answer.text)


async def test_the_stream_is_open_to_every_role_and_to_nobody_else(stage: Stage, served: str) -> None:
    (row,) = [row for row in table() if row.method == "WS"]
    for role in row.roles.split(", "):
        key = await stage.person(f"a-{role}", role)
        async with websockets.connect(f"ws://{served}{row.path}") as socket:
            await socket.send(json.dumps({"key": key, "topics": ["feeds"]}))
            assert "instance" in json.loads(await socket.recv())
    async with websockets.connect(f"ws://{served}{row.path}") as socket:
        await socket.send(json.dumps({"topics": ["feeds"]}))
        with pytest.raises(websockets.ConnectionClosed):
            await socket.recv()


async def test_a_session_with_a_password_to_change_may_only_do_that(stage: Stage) -> None:
    made = await stage.make("/v1/users", {"id": "olga", "roles": list(ROLES)})
    browser = Browser(stage)
    assert await browser.login("olga", made["one_time_password"]) == "password"
    for row in by_http(table()):
        method, path = request_of(row)
        if row.right.startswith("session") or row.roles == ANYONE:
            continue
        assert (await browser.ask(method, path, {})).status_code == 401, row
    await has_password(stage, "olga", PASSWORD)


if __name__ == "__main__":
    deck = DeckSettings(DATABASE_URL="postgresql://nowhere", REDIS_URL="redis://nowhere")  # type: ignore[call-arg]
    lines = "\n".join(row.line for row in rows(create_app(deck, connect=False)))
    if "--write" in sys.argv:
        write(lines)
    else:
        print(lines)
