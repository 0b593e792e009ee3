"""Changes for WebSocket clients: one subscription on the bus, a ring of the last ones, numbered.

A client reads the ring by its own place in it, so a slow one costs nothing; one that the ring has overtaken
has lost changes and must be told so.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from api.formats import time_text
from api.security import Caller
from api.shapes import AlertShown, AlgoShown, EventShown, OrderShown, PortfolioShown
from cluster import streams
from cluster.streams import Change
from storage.alerts import AlertRecord, Alerts
from storage.bus import LOST, Bus
from storage.desired import Desired
from trading.errors import NeedsOperator, NotReady
from trading.ids import Nanos
from trading.orders import Order, OrderEvent

log = logging.getLogger("quarterdeck")

RING: Final = 5_000
TOPICS: Final = ("orders", "portfolio", "algos", "feeds", "alerts")
_WATCH_S: Final = 1.0


class Entry:
    """A change in the ring; ``change`` None stands for changes that may be missing."""

    __slots__ = ("_text", "change", "sequence")

    def __init__(self, sequence: int, change: Change | None) -> None:
        self.sequence = sequence
        self.change = change
        self._text = ""

    def text(self) -> str:
        """What clients get; made once for all of them."""
        if not self._text:
            self._text = self._written(self.change)
        return self._text

    def text_for(self, caller: Caller) -> str:
        """What a caller gets, "" where nothing of it is shown to them."""
        change = self.change
        if change is None:
            return self.text()
        if not change.user:
            # Feeds are everybody's; an alert about nobody is about the deck as a whole.
            return self.text() if change.topic != "alerts" or caller.is_operator else ""
        if change.topic == "portfolio":
            return self._portfolio(change, caller)
        account = change.account
        if change.topic == "orders":
            account = str(change.body["order"]["account"])
        seen = caller.reaches(account, change.user) if account else caller.sees(change.user)
        return self.text() if seen else ""

    def _portfolio(self, change: Change, caller: Caller) -> str:
        """Somebody's portfolio, or the accounts of it that the caller may see."""
        accounts = [str(each["account"]) for each in change.body["accounts"]]
        seen = [each for each in accounts if caller.reaches(each, change.user)]
        if len(seen) == len(accounts) and caller.sees(change.user):
            return self.text()
        if not seen:
            return ""
        parts = {
            part: [each for each in change.body[part] if caller.reaches(each["account"], change.user)]
            for part in ("accounts", "positions")
        }
        return self._written(msgspec.structs.replace(change, body={**change.body, **parts}))

    def _written(self, change: Change | None) -> str:
        message: dict[str, Any] = {"sequence": self.sequence}
        if change is None:
            message |= {"reset": True, "detail": "changes may be missing: read again what you show"}
        else:
            message |= {
                "topic": change.topic,
                "key": change.key,
                "at": time_text(change.at),
                "body": _body(change),
            }
        return msgspec.json.encode(message).decode()


class Hub:
    """The ring and those who wait for news of it."""

    def __init__(self, bus: Bus, size: int = RING) -> None:
        self._bus = bus
        self._ring: deque[Entry] = deque(maxlen=size)
        self._news = asyncio.Event()
        #: Names this ring: its numbers mean nothing to another.
        self.instance = secrets.token_hex(6)
        # From the clock, so that a place in the ring of an API that has been restarted is always too old here.
        self.newest = time.time_ns() // 1_000
        #: Open streams, by user.
        self.clients: Counter[str] = Counter()
        #: Whether `watch` has had its first look, from which on it notices changes.
        self.watching = False

    def add(self, changes: Iterable[Change | None]) -> None:
        """Number changes and wake who waits."""
        for change in changes:
            self.newest += 1
            self._ring.append(Entry(self.newest, change))
        self._news.set()
        self._news = asyncio.Event()

    def has(self, sequence: int) -> bool:
        """Whether everything after ``sequence`` is still here."""
        return self.newest - len(self._ring) <= sequence <= self.newest

    def after(self, sequence: int) -> Sequence[Entry]:
        """What came after ``sequence``; only where `has` it."""
        count = self.newest - sequence
        return list(self._ring)[len(self._ring) - count :] if count else ()

    async def news(self, wait_s: float) -> None:
        """Return when there is something new, or after ``wait_s`` seconds."""
        try:
            async with asyncio.timeout(wait_s):
                await self._news.wait()
        except TimeoutError:
            return

    async def run(self) -> None:
        """Take changes from the bus, for ever."""
        delay = 0.2
        while True:
            try:
                subscription = await self._bus.subscribe([streams.CHANGES], size=RING)
            except (NotReady, NeedsOperator) as error:
                log.info("changes cannot be read yet: %s", error)
                await asyncio.sleep(delay)
                delay = min(delay * 1.7, 3.0)
                continue
            try:
                dropped = 0
                async for item in subscription:
                    if item is LOST or subscription.dropped != dropped:
                        dropped = subscription.dropped
                        self.add([None])
                    if item is not LOST:
                        self._take(item[1])
            finally:
                await subscription.close()

    def _take(self, raw: bytes) -> None:
        try:
            changes = streams.decode_changes(raw)
        except msgspec.DecodeError as error:
            log.warning("a message on %s makes no sense: %s", streams.CHANGES, error)
            return
        self.add(changes)

    async def watch(self, desired: Desired) -> None:
        """Make changes of what the stores tell of algos and feeds, which nobody publishes."""
        seen: _Known | None = None
        while True:
            try:
                now: _Known = {
                    ("algos", algo.id): (algo.user, algo.account, _algo(algo)) for algo in await desired.algos()
                }
                now.update({("feeds", feed.id): ("", "", _feed(feed)) for feed in await desired.feeds()})
            except (NotReady, NeedsOperator):
                # /readyz tells of it; what changed meanwhile is found by comparing again.
                await asyncio.sleep(_WATCH_S if self.watching else 0.1)
                continue
            if seen is not None and now != seen:
                self.add(_differences(seen, now, Nanos(time.time_ns())))
            seen, self.watching = now, True
            await asyncio.sleep(_WATCH_S)

    async def watch_alerts(self, alerts: Alerts) -> None:
        """Make changes of alerts that were raised or acknowledged from now on, whoever did it; none is left out."""
        place: int | None = None
        while True:
            try:
                if place is None:
                    place = await alerts.newest_change()
                changed = await alerts.changed_after(place)
            except (NotReady, NeedsOperator):
                await asyncio.sleep(_WATCH_S)
                continue
            if changed:
                self.add(_alert(record) for record in changed)
                place = changed[-1].change
            await asyncio.sleep(_WATCH_S)


#: (topic, key) -> owner, account and body.
_Known: TypeAlias = dict[tuple[str, str], tuple[str, str, Any]]


def _differences(before: _Known, after: _Known, at: Nanos) -> list[Change]:
    """What is new or other in ``after``, and, with body null, what is gone."""
    changed = [key for key, value in after.items() if before.get(key) != value]
    gone = [key for key in before if key not in after]
    return [
        *(_change(key, after[key], at) for key in changed),
        *(_change(key, (*before[key][:2], None), at) for key in gone),
    ]


def _change(key: tuple[str, str], value: tuple[str, str, Any], at: Nanos) -> Change:
    user, account, body = value
    return Change(topic=key[0], key=key[1], user=user, account=account, at=at, body=body)


def _algo(record: Any) -> Any:
    return AlgoShown.model_validate(record).model_dump(mode="json", exclude={"live"})


def _alert(record: AlertRecord) -> Change:
    body = AlertShown.model_validate(record).model_dump(mode="json")
    at = Nanos(time.time_ns())
    return Change(topic="alerts", key=record.id, user=record.user, account=record.account or "", at=at, body=body)


def _feed(record: Any) -> Any:
    return {
        "id": record.id,
        "workers": record.workers,
        "instruments": list(record.instruments),
        "enabled": record.enabled,
        "generation": record.generation,
    }


def _body(change: Change) -> Any:
    """The body in the API's own formats; of a topic that is not known here, as it came."""
    if change.topic == "orders":
        order = msgspec.convert(change.body["order"], Order)
        event = msgspec.convert(change.body["event"], OrderEvent)
        return {
            "order": OrderShown.model_validate(order).model_dump(mode="json"),
            "event": EventShown.model_validate(event).model_dump(mode="json"),
        }
    if change.topic == "portfolio":
        return PortfolioShown.model_validate(change.body).model_dump(mode="json")
    return change.body
