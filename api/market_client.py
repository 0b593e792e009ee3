"""What one WebSocket client has of the market's topics: its places in their lines, its limits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from api.market import Market, Topic
from api.topics import MarketTopic
from api.updates import Update
from trading.errors import BadInput

#: Topics of market data that one client may have.
MOST_TOPICS: Final = 200
#: Updates in one message; what is beyond goes into the next.
MOST_UPDATES: Final = 500


class MarketClient:
    """One client; ``places`` are the numbers that it came back with, by topic."""

    def __init__(self, market: Market, places: Mapping[str, int]) -> None:
        self._market = market
        self._given = dict(places)
        #: In the order in which they were served last, so that none waits for ever behind others.
        self._topics: dict[str, Topic] = {}
        #: Number up to which each was read.
        self._places: dict[str, int] = {}
        #: Of these not all fitted into the last message: (numbers and updates, how many were skipped).
        self._left: dict[str, tuple[list[tuple[int, Update]], int]] = {}

    def __repr__(self) -> str:
        return f"<MarketClient {len(self._topics)} topics>"

    @property
    def topics(self) -> Sequence[str]:
        """What it has."""
        return list(self._topics)

    async def join(self, wanted: Sequence[MarketTopic]) -> list[Topic]:
        """Add topics.  Raises `BadInput` where they would be too many; then none is added."""
        fresh = [each for each in wanted if each.text not in self._topics]
        if len(self._topics) + len(fresh) > MOST_TOPICS:
            raise BadInput(
                "topics",
                f"{len(self._topics) + len(fresh)} topics of market data, a client may have {MOST_TOPICS}: "
                f"{MOST_TOPICS - len(self._topics)} more fit",
            )
        joined = await self._market.join(fresh)
        for topic in joined:
            text = topic.topic.text
            self._topics[text] = topic
            place = self._given.pop(text, None)
            if place is not None:
                self._places[text] = place
        return joined

    def leave(self, texts: Iterable[str] | None = None) -> None:
        """Give topics up; all of them where none are named."""
        chosen = [text for text in (list(self._topics) if texts is None else texts) if text in self._topics]
        self._market.leave(self._topics.pop(text) for text in chosen)
        for text in chosen:
            self._places.pop(text, None)
            self._left.pop(text, None)

    def collect(self) -> str:
        """The next message, "" where there is nothing new."""
        parts: list[str] = []
        served: list[str] = []
        skipped_now = 0
        for text, topic in self._topics.items():
            if len(parts) >= MOST_UPDATES:
                break
            left = self._left.pop(text, None)
            if left is None:
                place = self._places.get(text)
                if place == topic.line.newest:
                    continue
                updates, skipped = topic.line.after(place)
                self._places[text] = topic.line.newest
            else:
                updates, skipped = left
            room = MOST_UPDATES - len(parts)
            for number, update in updates[:room]:
                parts.append(f'{{"n":{number},"skipped":{skipped},{update.text()}}}')
                skipped_now += skipped
                skipped = 0
            if len(updates) > room:
                self._left[text] = (updates[room:], skipped)
            served.append(text)
        for text in served:
            self._topics[text] = self._topics.pop(text)
        if not parts:
            return ""
        self._market.sent.inc(len(parts))
        self._market.conflated.inc(skipped_now)
        return f'{{"updates":[{",".join(parts)}]}}'
