"""Topics ``algo-log:<id>`` on `/v1/stream`: the lines of an algo's log as they are written.

The table is the truth: what comes over the bus only says that there is more to read, so nothing is missed while Redis
is away and nothing comes twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from api.formats import time_text
from api.routes.algo_story import LogLineShown, Part, part_of
from api.security import KEY_CACHE_S, Caller
from api.services import Services
from cluster import streams
from storage.algo_log import KEPT
from storage.bus import Subscription
from storage.records import LogFilter
from trading.errors import BadInput, NotReady, UnknownThing
from trading.ids import AlgoId

PREFIX: Final = "algo-log:"
FORM: Final = "algo-log:<algo>"
#: Logs that one client may follow.
MOST_LOGS: Final = 20
#: Without word from the bus the table is read so often.
_LOOK_S: Final = 3.0


def is_log(text: str) -> bool:
    """Whether a topic is meant to be an algo's log."""
    return text.startswith(PREFIX)


class LogClient:
    """The logs that one client follows, each with the number of the line that it has last."""

    def __init__(self, deck: Services) -> None:
        self._deck = deck
        self._parts: dict[AlgoId, Part] = {}
        self._places: dict[AlgoId, int] = {}

    async def join(self, caller: Caller, texts: Sequence[str], places: Mapping[str, int]) -> None:
        """Follow logs, after the lines that ``places`` number or else from now on.

        Raises `BadInput` for too many, `UnknownThing` for an algo that the caller may not look at.
        """
        if len(texts) > MOST_LOGS:
            raise BadInput("topics", f"{len(texts)} logs, a client may follow {MOST_LOGS}")
        for text in texts:
            algo = AlgoId(text.removeprefix(PREFIX))
            self._parts[algo] = await part_of(self._deck, caller, algo)
            place = places.get(text)
            if place is None:
                newest = await self._deck.algo_log.tail(algo, 1)
                place = newest[-1].number if newest else 0
            self._places[algo] = place

    async def run(
        self, send: Callable[[dict[str, object]], Awaitable[None]], entrance: Callable[[], Awaitable[Caller | None]]
    ) -> None:
        """Send lines as they are written, for ever; waits for ever where no log is followed.

        ``entrance`` gives the caller as they are now (None: not known at the moment): a log that they may not look at
        any more ends.
        """
        subscription: Subscription | None = None
        checked = time.monotonic()
        try:
            while True:
                if time.monotonic() - checked > KEY_CACHE_S:
                    checked = time.monotonic()
                    caller = await entrance()
                    if caller is not None:
                        await self._check(caller)
                if not self._places:
                    await asyncio.Event().wait()
                for algo in self._places:
                    await self._send_new(algo, send)
                if subscription is None:
                    # Then once more, for what was written before it listened.
                    subscription = await self._subscribe()
                    if subscription is None:
                        await asyncio.sleep(_LOOK_S)
                    continue
                try:
                    async with asyncio.timeout(_LOOK_S):
                        await anext(subscription)
                        subscription.waiting()
                except TimeoutError:
                    continue
        finally:
            if subscription is not None:
                await subscription.close()

    async def _check(self, caller: Caller) -> None:
        for algo in list(self._places):
            try:
                self._parts[algo] = await part_of(self._deck, caller, algo)
            except UnknownThing:
                del self._places[algo]
            except NotReady:
                return  # while the database is away nobody can take a grant back either

    async def _subscribe(self) -> Subscription | None:
        try:
            return await self._deck.bus.subscribe([streams.algo_log(algo) for algo in self._places], size=64)
        except NotReady:
            # The table is read from time to time until Redis is back.
            return None

    async def _send_new(self, algo: AlgoId, send: Callable[[dict[str, object]], Awaitable[None]]) -> None:
        try:
            part = self._parts[algo]
            filters = LogFilter(user=part.user, first_epoch=part.first_epoch)
            lines = await self._deck.algo_log.tail(algo, KEPT, self._places[algo], filters)
        except NotReady:
            return  # what is there is read once the database is back
        for line in lines:
            body: dict[str, Any] = LogLineShown.model_validate(line).model_dump(mode="json")
            await send({"topic": f"{PREFIX}{algo}", "key": algo, "at": time_text(line.at), "body": body})
            self._places[algo] = line.number
