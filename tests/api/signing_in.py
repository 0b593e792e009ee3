"""A browser for tests: it keeps cookies, sends what our page sends, and has a phone for codes."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import httpx
import pyotp
import pytest

from tests.api.playing import Stage
from trading.ids import UserId

PASSWORD = "seven otters juggle plums"
AGENT = "Mozilla/5.0 (test)"


class Phone:
    """Makes codes, none of them twice; a test need not wait for the next 30 seconds."""

    def __init__(self, secret: str) -> None:
        self.totp = pyotp.TOTP(secret)
        self.step = 0

    def code(self) -> str:
        """A code that was not used yet; sets the clock of `storage.second_factors` on where it must."""
        now = int(Clock.now()) // 30
        self.step = max(self.step + 1, now)
        Clock.ahead += max(0, (self.step - now)) * 30
        return self.totp.generate_otp(self.step)


class Clock:
    """The clock of second factors, some steps ahead of time."""

    ahead = 0.0

    @classmethod
    def now(cls) -> float:
        return time.time() + cls.ahead


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    """Codes are told apart by 30 seconds: the clock goes on when the next is asked for."""
    from storage import second_factors

    Clock.ahead = 0.0

    monkeypatch.setattr(second_factors, "time", SimpleNamespace(time=Clock.now, time_ns=time.time_ns))
    return Clock


class Browser:
    """One user's browser."""

    def __init__(self, stage: Stage, address: str = "127.0.0.1", agent: str = AGENT, base: str = "http://deck") -> None:
        self.stage = stage
        self.base = base
        transport = httpx.ASGITransport(stage.app, raise_app_exceptions=False, client=(address, 1))
        self.http = httpx.AsyncClient(transport=transport, base_url=base, headers={"User-Agent": agent})
        self.phone: Phone | None = None

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """A request as the page sends it; ``headers`` with _ for -, "" to leave one out."""
        csrf = self.http.cookies.get("__Host-qd_csrf") or self.http.cookies.get("qd_csrf") or ""
        usual = {"origin": self.base, "x-csrf-token": csrf}
        given = usual | {name.replace("_", "-").lower(): value for name, value in headers.items()}
        sent = {name: value for name, value in given.items() if value}
        return await self.http.request(method, path, json=body, headers=sent)

    async def post(self, path: str, body: Any = None, status: int = 200) -> Any:
        """The body of a POST that must be answered so."""
        answer = await self.ask("POST", path, body)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    async def refused(self, status: int, code: str, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """The problem of a request that must be refused."""
        answer = await self.ask(method, path, body, **headers)
        assert (answer.status_code, answer.json().get("code")) == (status, code), answer.text
        return answer.json()

    async def login(self, user: str, password: str = PASSWORD) -> str:
        """What is due after the password."""
        step: str = (await self.post("/v1/auth/login", {"user": user, "password": password}))["step"]
        return step

    async def enrol(self) -> list[str]:
        """Enrol a phone; the recovery codes."""
        begun = await self.post("/v1/auth/totp", {"current": PASSWORD})
        self.phone = Phone(begun["secret"])
        done = await self.post("/v1/auth/totp/confirm", {"code": self.phone.code()})
        assert done["step"] == "done"
        codes: list[str] = done["recovery_codes"]
        return codes

    def code(self) -> str:
        """The phone's next code."""
        assert self.phone is not None
        return self.phone.code()


async def has_password(stage: Stage, user: str, password: str = PASSWORD) -> None:
    """Give a user a password that is theirs."""
    await stage.services.passwords.set(UserId(user), password, "test", one_time=False)


async def signed_in(stage: Stage, user: str, *roles: str, **browser: str) -> Browser:
    """A browser of a new user with these roles, signed in all the way."""
    if roles:
        await stage.person(user, *roles)
    if not await stage.services.passwords.verify(user, PASSWORD):
        await has_password(stage, user)
    found = Browser(stage, **browser)
    if await found.login(user) == "enrol":
        await found.enrol()
    return found
