from __future__ import annotations

import time

import pytest

from storage.database import Database
from storage.desired import Desired
from storage.panel_sessions import ABSOLUTE, KEPT, PanelSessions
from storage.records import UserRecord
from trading.ids import Nanos, UserId

ASHA = UserId("asha")


@pytest.fixture
async def sessions(db: Database) -> PanelSessions:
    await Desired(db).create_user(UserRecord(id=ASHA, roles=("viewer",), created_at=Nanos(1)), "test")
    return PanelSessions(db)


async def test_a_session_that_ended_is_known_for_a_while_then_forgotten(db: Database, sessions: PanelSessions) -> None:
    ended, token = await sessions.begin(ASHA, "192.0.2.1", "Firefox")
    live, other = await sessions.begin(ASHA, "192.0.2.1", "Firefox\0")
    assert await sessions.end([ended.id], "signed out", "asha") == [ended.id]
    assert await sessions.end([ended.id], "again", "asha") == []
    found = await sessions.find(token)
    assert found is not None
    assert found.is_over(time.time_ns()) == "this session was ended: signed out"
    assert [each.id for each in await sessions.live(ASHA)] == [live.id]
    await sessions.sweep()
    assert await sessions.find(token) is not None
    async with db.connection() as connection:
        await connection.execute("UPDATE panel_sessions SET ended_at = ended_at - %s WHERE ended_at > 0", (KEPT + 1,))
    await sessions.sweep()
    assert await sessions.find(token) is None
    assert await sessions.find(other) is not None
    async with db.connection() as connection:
        await connection.execute("UPDATE panel_sessions SET ends_at = ends_at - %s", (ABSOLUTE + KEPT + 1,))
    await sessions.sweep()
    assert await sessions.find(other) is None


async def test_an_older_token_opens_nothing_once_there_is_another(sessions: PanelSessions) -> None:
    session, before = await sessions.begin(ASHA, "192.0.2.1", "")
    after = await sessions.rise(session.id, code_passed=True)
    assert await sessions.find(before) is None
    found = await sessions.find(after)
    assert found is not None
    assert (found.id, found.code_passed, found.fresh_until) == (session.id, True, 0)


async def test_an_ended_session_does_not_rise(sessions: PanelSessions) -> None:
    session, _ = await sessions.begin(ASHA, "192.0.2.1", "")
    await sessions.end([session.id], "signed out", "asha")
    assert await sessions.find(await sessions.rise(session.id, code_passed=True)) is None


async def test_sessions_go_with_their_user(db: Database, sessions: PanelSessions) -> None:
    _, token = await sessions.begin(ASHA, "192.0.2.1", "")
    await Desired(db).delete_user(ASHA, "test")
    assert await sessions.find(token) is None
