"""Whether instruments are still what they were registered as: asked by their symbols, once a day of India's.

Kite's ticker knows tokens only, and says nothing of one that it does not know.  A contract that has expired gives its
token to another; that one's prices must not be shown under the old name.  So a token is let in after its symbol was
looked up.  Where the look-up itself fails, it is let in all the same and looked up again: a quiet REST server must not
blind a ticker that works.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import date
from typing import Final

from connectors.base import Clock
from connectors.kite.wire import ist_day
from trading.errors import NeedsOperator, TradeError
from trading.ids import InstrumentId

#: As many as one request may name.
_AT_ONCE: Final = 1_000

#: Gives the tokens that ids have now, without those that Kite does not list.
LookUp = Callable[[Sequence[InstrumentId]], Awaitable[Mapping[InstrumentId, int]]]


class SymbolCheck:
    """Which tokens may be streamed."""

    def __init__(self, look_up: LookUp, clock: Clock) -> None:
        self._look_up = look_up
        self._clock = clock
        #: Token -> the day of its last look-up; None: it was let in without one.
        self._let_in: dict[int, date | None] = {}

    def __repr__(self) -> str:
        return f"<SymbolCheck {len(self._let_in)} tokens>"

    def lets_in(self, token: int) -> bool:
        """Whether a token may be streamed."""
        return token in self._let_in

    def forget(self, tokens: Iterable[int]) -> None:
        """Tokens that are not wanted any more."""
        for token in tokens:
            self._let_in.pop(token, None)

    async def look(self, wanted: Mapping[int, InstrumentId]) -> dict[int, str]:
        """Look up what was not looked up today; returns the tokens that are refused, and why.

        Raises what the look-up raises.  After `NeedsOperator` nothing more is let in, for there is no ticker then
        either; after other errors all are.
        """
        today = ist_day(self._clock())
        due = [token for token in wanted if self._let_in.get(token) != today]
        refused: dict[int, str] = {}
        try:
            for start in range(0, len(due), _AT_ONCE):
                tokens = due[start : start + _AT_ONCE]
                found = await self._look_up([wanted[token] for token in tokens])
                for token in tokens:
                    self._judge(token, wanted[token], found.get(wanted[token]), today, refused)
        except NeedsOperator:
            raise
        except TradeError:
            for token in due:
                if token not in refused:
                    self._let_in.setdefault(token, None)
            raise
        return refused

    def _judge(
        self, token: int, instrument: InstrumentId, now: int | None, today: date, refused: dict[int, str]
    ) -> None:
        if now == token:
            self._let_in[token] = today
            return
        self._let_in.pop(token, None)
        what = "it has expired or was never there" if now is None else f"its token is {now} now, not {token}"
        refused[token] = f"Kite does not list {instrument} as it was registered: {what}; list it anew"
