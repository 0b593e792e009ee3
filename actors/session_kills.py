"""What a user's session does for a kill, and for a flattening by hand: halt, take back, close, and go on with it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from copy import copy
from functools import partial
from typing import Any

import msgspec

from actors.session_io import SessionIO
from cluster.process import now
from storage.kills import Kills
from trading.errors import Conflict, TradeError, UnknownThing
from trading.flattening import Flattened, Flattening, closing_orders, is_to_be_tried_again, orders_of, to_take_back
from trading.instructions import Lane
from trading.kill_switch import CancelPace, Kill, to_cancel, to_close
from trading.orders import OrderState

log = logging.getLogger("quarterdeck")

#: Cancels of a kill wait at most so long for their turn before it is answered.
HAND_OVER_S = 2.5
#: Cancels get so long to end before what is held is closed.
QUIET_S = 8.0
#: The broker gets so long to take closing orders, and those that are refused are tried again for so long.
TAKEN_S = 2.0
TRY_AGAIN_S = 4.0
#: What is refused again and again is logged once in so many seconds.
TELL_AGAIN_S = 60.0


class SessionKills(SessionIO):
    """Carries out kills, whoever threw them, and flattens an account when asked to."""

    def __init__(self, user: str) -> None:
        super().__init__(user)
        self.kills = Kills(self.database)
        self._cancel_pace = CancelPace()
        #: What was refused of kills' commands, and when it was logged.
        self._refused: dict[str, float] = {}

    async def _heed_kills(self) -> None:
        """Carry out every kill in force, whoever threw it and whatever has died since."""
        for record in await self.kills.in_force():
            kill = msgspec.convert(record, Kill, from_attributes=True)
            if self._concerns(kill):
                self._carry_out(kill)

    def _concerns(self, kill: Kill) -> bool:
        return any(kill.covers(self.user, account) for account in self._core().accounts)

    def _carry_out(self, kill: Kill) -> int:
        """Halt, take back, close: as far as it can be done now.  Returns how many orders are being taken back."""
        core = self._core()
        core.halt(kill.scope, kill.halted_at)
        asked = 0
        for account, book in core.accounts.items():
            if not kill.covers(self.user, account):
                continue
            if cancels := self._cancel_pace.due(to_cancel(kill, book), now()):
                asked += len(cancels)
                self._ask(partial(core.cancel, cancels=cancels))
            if kill.flatten and (closing := to_close(kill, book, now(), core.instruments, core.exposure.marks)):
                self._ask(partial(core.place, intents=closing))
        return asked

    def _ask(self, act: Any) -> None:
        """A command of the session's own: nobody waits for the answer, so what is refused before it is journaled is
        logged.
        """
        self._token += 1
        token = self._token
        self._replies[token] = reply = asyncio.get_running_loop().create_future()
        reply.add_done_callback(partial(self._note_refusals, token))
        self._do(act(token, now=now()))

    def _note_refusals(self, token: int, reply: asyncio.Future[Any]) -> None:
        del self._replies[token]
        if reply.cancelled():
            return
        refused = "; ".join(sorted({str(each) for each in reply.result() if isinstance(each, TradeError)}))
        # It is asked for again and again.
        at = asyncio.get_running_loop().time()
        self._refused = {text: told for text, told in self._refused.items() if at - told < TELL_AGAIN_S}
        if refused and refused not in self._refused:
            self._refused[refused] = at
            log.warning("what a kill asks for is refused: %s", refused)

    async def kill(self, kill: Kill) -> int:
        """Throw the kill switch here and now; answers once every cancel has been handed over.

        How many orders are being taken back; closing them out follows by itself.
        """
        core = self._ready_core()
        if not self._concerns(kill):
            return 0
        # Whoever throws it again means now.
        self._cancel_pace = CancelPace()
        asked = self._carry_out(kill)
        lanes = [book for account, book in core.accounts.items() if kill.covers(self.user, account)]
        await _as_long_as(lambda: any(book.queued[Lane.CANCEL] and book.connected for book in lanes), HAND_OVER_S)
        if kill.flatten:
            self.spawn(self._follow_up(), "closing after a kill")
        return asked

    async def _follow_up(self) -> None:
        """Look often for a while, so that closing does not wait for the next round; what is lifted is left."""
        for _ in range(20):
            await asyncio.sleep(0.2)
            try:
                await self._heed_kills()
            except TradeError as error:
                # PostgreSQL is away: the rounds go on looking, and the session must not end for it.
                log.info("kills cannot be read: %s", error)
                return

    async def flatten(self, wish: Flattening) -> Flattened:
        """Take back all that is open in an account, then close all that it holds; the account trades on.

        Answers once the broker has taken the closing orders; those that are refused are tried again for a few seconds.
        `Conflict` among them: some may still fill, and what is held of their instruments is left.  Raises
        `Conflict` ``being_closed`` while a kill, or another flattening, closes what is held, ``account_is_disabled``.
        """
        core = self._ready_core()
        book = core.accounts.get(wish.account)
        if book is None:
            raise UnknownThing("account", wish.account, f"of user {self.user}")
        if book.disabled:
            raise Conflict("account_is_disabled", f"account {wish.account} is disabled: enable it first")
        cancels = to_take_back(wish, book, core.waiting_keys(wish.account))
        cancelled = await self._command(lambda token: core.cancel(token, cancels, now()))
        await _as_long_as(lambda: any(not key.startswith(wish.id) for key in book.open), QUIET_S)
        until = asyncio.get_running_loop().time() + TRY_AGAIN_S
        while True:
            closing, left = closing_orders(wish, book, now(), core.instruments, core.exposure.marks)
            placed = await self._command(partial(core.place, intents=closing, now=now())) if closing else ()
            await _as_long_as(lambda: any(o.state is OrderState.PENDING for o in orders_of(wish, book)), TAKEN_S)
            if asyncio.get_running_loop().time() > until or not is_to_be_tried_again(wish, book):
                break
            await asyncio.sleep(0.25)
        # Asked for again, its answer is of both times.
        errors = [each for each in (*placed, *left) if isinstance(each, TradeError)]
        return Flattened(cancelled=cancelled, closing=(*map(copy, orders_of(wish, book)), *errors))


async def _as_long_as(condition: Callable[[], bool], seconds: float) -> None:
    """Wait until a condition no longer holds, ``seconds`` at most."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while condition():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
