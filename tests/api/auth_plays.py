"""Calls of every route of signing in that changes something, for `tests.api.test_audit`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from tests.api.playing import Stage
from tests.api.signing_in import PASSWORD, Browser, has_password

#: (method, route, action in the audit, call).
Play: TypeAlias = tuple[str, str, str, Callable[[], Awaitable[Any]]]


class AuthPlays:
    """The operator's own browsers."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.first, self.second = Browser(stage), Browser(stage)
        self.begun: dict[str, Any] = {}

    def plays(self) -> list[Play]:
        """In an order in which each is possible."""
        auth, first = "/v1/auth", self.first
        new = {"current": PASSWORD, "new": "nine purple kites at noon"}
        return [
            ("post", auth + "/login", "login", self._login),
            ("post", auth + "/totp", "begin_totp", first.enrol),
            ("post", auth + "/totp/confirm", "enrol_totp", first.enrol),
            ("post", auth + "/code", "login_code", self._code),
            ("post", auth + "/fresh", "fresh_code", lambda: first.post(auth + "/fresh", {"code": first.code()})),
            ("post", auth + "/recovery-codes", "make_recovery_codes", lambda: first.post(auth + "/recovery-codes")),
            ("delete", "/v1/sessions/{id}", "end_session", self._end_one),
            ("delete", "/v1/sessions", "end_session", self._end_others),
            ("post", auth + "/password", "set_password", lambda: first.post(auth + "/password", new)),
            ("post", auth + "/logout", "logout", lambda: first.post(auth + "/logout", status=204)),
        ]

    async def _login(self) -> None:
        await has_password(self.stage, "admin")
        assert await self.first.login("admin") == "enrol"

    async def _code(self) -> None:
        assert await self.second.login("admin") == "code"
        assert await self.second.post("/v1/auth/code", {"code": self.first.code()}) == {"step": "done"}

    async def _end_one(self) -> None:
        id = (await self.second.ask("GET", "/v1/auth/session")).json()["id"]
        assert (await self.first.ask("DELETE", f"/v1/sessions/{id}")).status_code == 204

    async def _end_others(self) -> None:
        await self._code()
        assert (await self.first.ask("DELETE", "/v1/sessions")).status_code == 204
