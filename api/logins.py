"""Logins in the audit: which key is used from where, and which keys, passwords and sessions are refused."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from storage.api_keys import ApiKeys
from storage.desired import Desired
from storage.login_attempts import network_of
from trading.errors import TradeError
from trading.ids import UserId

log = logging.getLogger("quarterdeck")

#: A key in use from one address is noted once in so many seconds; so is an address whose keys are refused.
EVERY_S: Final = 600.0
#: Entries about refused keys within `EVERY_S`, from however many addresses: nobody without a key may fill the audit.
MOST_REFUSED: Final = 200
#: And about somebody who is known (whose session, whose lock-out): what strangers do leaves room for these.
MOST_OF_KNOWN: Final = 1_000
#: An entry that could not be written is tried again with the first use after so many seconds.
_AGAIN_S: Final = 5.0
_MOST_KEPT: Final = 10_000
#: Who acts where nobody knows.
NOBODY: Final = "unknown"


@dataclass(slots=True)
class _Refused:
    """Refusals of one address since ``began``; ``untold`` of them are in no entry yet.

    ``user``: of this user, where it is known whom they are about.
    """

    began: float
    address: str
    user: str = ""
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
        #: When the present count of entries began and how many there are: of nobody known, of somebody known.
        self._windows: dict[bool, tuple[float, int]] = {}

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

    async def refused(self, key: str, address: str, why: str, whose: dict[str, str] | None = None) -> None:
        """A key did not, nor a session; ``whose`` says ``user`` and more where that is known of a session."""
        now = self._clock()
        user = "" if whose is None else whose["user"]
        # What is known to be about somebody has entries of its own, which no noise from the address hides.
        place = network_of(address, v4=32, v6=64)
        mark = place if whose is None else f"{place} {user} {why}"
        known = self._refused.get(mark)
        if known is None and len(self._refused) >= _MOST_KEPT:
            await self.sweep()
            if len(self._refused) >= _MOST_KEPT:
                mark = address = "(too many addresses)"
                user = ""
                known = self._refused.get(mark)
        if known is not None:
            known.untold += 1
            known.last = why
            return
        # Before anything is awaited: many may come at once.
        self._refused[mark] = entry = _Refused(now, address, user)
        if not self._may_write(now, user):
            entry.untold, entry.last = 1, why
            return
        known_of = whose if whose is not None else await self._trace(key)
        after = {"address": address, "reason": why, "refused": 1, **known_of}
        subject = known_of.get("key") or known_of.get("session") or address
        if not await self._write(known_of.get("user", NOBODY), "login_refused", subject, after):
            entry.untold, entry.last = entry.untold + 1, why

    async def locked_out(self, user: str, address: str, what: Sequence[str]) -> None:
        """A user, an address or both may try no more for a while; ``user`` "" where there is none of that name."""
        if self._may_write(self._clock(), user):
            await self._write(user or NOBODY, "locked_out", user or address, {"address": address, "locked": list(what)})

    async def sweep(self, *, at_the_end: bool = False) -> None:
        """Note how many more keys were refused of addresses whose time is over, or, ``at_the_end``, of all."""
        now = self._clock()
        over = [mark for mark, each in self._refused.items() if at_the_end or now - each.began >= EVERY_S]
        ended = {mark: self._refused.pop(mark) for mark in over}
        left = {mark: each for mark, each in ended.items() if each.untold}
        for mark, each in list(left.items()):
            if not self._may_write(now, each.user):
                continue
            del left[mark]
            after = {"address": each.address, "reason": each.last, "refused": each.untold}
            await self._write(each.user or NOBODY, "login_refused", each.address, after)
        if left:
            # One entry for the rest: how many, from how many addresses.
            addresses = {each.address for each in left.values()}
            after = {"addresses": len(addresses), "refused": sum(each.untold for each in left.values())}
            await self._write(NOBODY, "login_refused", "(many addresses)", after)

    def _may_write(self, now: float, user: str) -> bool:
        known = bool(user)
        began, written = self._windows.get(known, (now, 0))
        if now - began >= EVERY_S:
            began, written = now, 0
        self._windows[known] = (began, written + 1)
        return written < (MOST_OF_KNOWN if known else MOST_REFUSED)

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
