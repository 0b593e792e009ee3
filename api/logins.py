"""Logins in the audit: which key is used from where, and which are refused."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from storage.api_keys import ApiKeys
from storage.desired import Desired
from trading.errors import TradeError
from trading.ids import UserId

log = logging.getLogger("quarterdeck")

#: A key in use from one address is noted once in so many seconds; so is an address whose keys are refused.
EVERY_S: Final = 600.0
#: Entries about refused keys within `EVERY_S`, from however many addresses: nobody without a key may fill the audit.
MOST_REFUSED: Final = 200
#: An entry that could not be written is tried again with the first use after so many seconds.
_AGAIN_S: Final = 5.0
_MOST_KEPT: Final = 10_000
#: Who acts where nobody knows.
NOBODY: Final = "unknown"


@dataclass(slots=True)
class _Refused:
    """Refusals of one address since ``began``; ``untold`` of them are in no entry yet."""

    began: float
    untold: int = 0
    last: str = ""


class Logins:
    """Notes logins.  Nobody is kept out because the audit cannot be written: an exit must not wait for it."""

    def __init__(self, keys: ApiKeys, desired: Desired, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        self._desired = desired
        self._clock = clock
        #: (key, address) -> when it is to be noted again.
        self._used: dict[tuple[str, str], float] = {}
        self._refused: dict[str, _Refused] = {}
        self._window: tuple[float, int] = (clock(), 0)

    async def used(self, user: UserId, key_id: str, roles: tuple[str, ...], address: str) -> None:
        """A key opened the door."""
        now = self._clock()
        due = self._used.get((key_id, address))
        if due is not None and now < due:
            return
        if len(self._used) >= _MOST_KEPT:
            self._used = {each: at for each, at in self._used.items() if now < at}
            if len(self._used) >= _MOST_KEPT:
                self._used.clear()
        self._used[key_id, address] = now + EVERY_S
        if not await self._write(user, "login", key_id, {"address": address, "roles": list(roles)}):
            self._used[key_id, address] = now + _AGAIN_S

    async def refused(self, key: str, address: str, why: str) -> None:
        """A key did not."""
        now = self._clock()
        known = self._refused.get(address)
        if known is None and len(self._refused) >= _MOST_KEPT:
            await self.sweep()
            if len(self._refused) >= _MOST_KEPT:
                address = "(too many addresses)"
                known = self._refused.get(address)
        if known is not None:
            known.untold += 1
            known.last = why
            return
        # Before anything is awaited: many may come at once.
        self._refused[address] = entry = _Refused(now)
        if not self._may_write(now):
            entry.untold, entry.last = 1, why
            return
        whose = await self._trace(key)
        after = {"address": address, "reason": why, "refused": 1, **whose}
        if not await self._write(whose.get("user", NOBODY), "login_refused", whose.get("key", address), after):
            entry.untold, entry.last = entry.untold + 1, why

    async def sweep(self, *, at_the_end: bool = False) -> None:
        """Note how many more keys were refused of addresses whose time is over, or, ``at_the_end``, of all."""
        now = self._clock()
        over = [address for address, each in self._refused.items() if at_the_end or now - each.began >= EVERY_S]
        ended = {address: self._refused.pop(address) for address in over}
        left = {address: each for address, each in ended.items() if each.untold}
        for address, each in list(left.items()):
            if not self._may_write(now):
                break
            del left[address]
            after = {"address": address, "reason": each.last, "refused": each.untold}
            await self._write(NOBODY, "login_refused", address, after)
        if left:
            # One entry for the rest: how many, from how many addresses.
            after = {"addresses": len(left), "refused": sum(each.untold for each in left.values())}
            await self._write(NOBODY, "login_refused", "(many addresses)", after)

    def _may_write(self, now: float) -> bool:
        began, written = self._window
        if now - began >= EVERY_S:
            began, written = now, 0
        self._window = (began, written + 1)
        return written < MOST_REFUSED

    async def _trace(self, key: str) -> dict[str, str]:
        """Whose key it was, where it was one of ours; else its digest's beginning, by which to tell keys apart."""
        try:
            record = await self._keys.whose(key)
        except TradeError as error:
            log.warning("whose a refused key was could not be looked up: %s", error)
            record = None
        if record is not None:
            return {"user": record.user, "key": record.id}
        return {"sha256": hashlib.sha256(key.encode()).hexdigest()[:12]}

    async def _write(self, actor: str, action: str, subject: str, after: dict[str, Any]) -> bool:
        try:
            await self._desired.audit(actor, action, subject, None, after)
        except TradeError as error:
            log.warning("%s of %s (%s) is not in the audit: %s", action, actor, after, error)
            return False
        return True
