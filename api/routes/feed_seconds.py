"""``/v1/feeds/{id}/seconds``: which instruments have a second provider, in which other feed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import msgspec
from fastapi import APIRouter
from pydantic import ConfigDict, Field

from api.formats import Body, Shown
from api.listing import require_listed
from api.problems import unknown_reference
from api.security import Caller, FeedKeeper, Viewer
from api.services import Deck, Services
from cluster import catalog
from cluster.feeds import subscriptions_of
from storage.records import FeedRecord
from storage.wishes import all_wanted
from trading import seconds as rules
from trading.errors import BadInput, Conflict, UnknownThing
from trading.ids import FeedId, InstrumentId, instrument_id
from trading.seconds import Seconds, SecondSource

router = APIRouter(prefix="/v1/feeds/{id}/seconds", tags=["feeds"])

#: A feed that somebody else changes at the same moment is read again this often.
_ATTEMPTS = 5
_MOST = 10_000


class Second(Body):
    """The same instrument in another feed."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"feed": "crypto-2"}]})

    feed: str
    #: As the other feed's provider lists it; null: by the same name.
    instrument: str | None = None


class SecondsBody(Body):
    """All instruments of the feed that have a second; others have none any more."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"seconds": {"BINANCE:BTCUSDT": {"feed": "crypto-2"}}}]})

    seconds: dict[str, Second] = Field(max_length=_MOST)


class SecondShown(Shown):
    """Where an instrument's second is."""

    feed: str
    instrument: str


class SecondsShown(Shown):
    """The instruments of a feed that have a second; how each goes is among the feed's instruments."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "feed": "crypto",
                    "seconds": {"BINANCE:BTCUSDT": {"feed": "crypto-2", "instrument": "BINANCE:BTCUSDT"}},
                    "stands_by_for": [],
                }
            ]
        }
    )

    feed: str
    seconds: dict[str, SecondShown]
    #: Feeds that have a second in this one.
    stands_by_for: list[str]


@router.get("", response_model=SecondsShown)
async def get_seconds(id: str, _: Viewer, deck: Deck) -> SecondsShown:
    """Which instruments of a feed have a second provider, and which feeds this one stands by for."""
    return await _shown(deck, await deck.desired.feed(FeedId(id)))


@router.put("", response_model=SecondsShown)
async def replace_seconds(id: str, body: SecondsBody, caller: FeedKeeper, deck: Deck) -> SecondsShown:
    """Let exactly these instruments have a second: it takes over while the first is silent."""
    given = parse_seconds(body.seconds)
    return await _shown(deck, await _change(deck, caller, id, lambda _: given, given))


@router.delete("", status_code=204)
async def delete_seconds(id: str, caller: FeedKeeper, deck: Deck) -> None:
    """Let no instrument of a feed have a second any more."""
    await _change(deck, caller, id, lambda _: {}, {})


@router.put("/{instrument:path}", response_model=SecondsShown)
async def put_second(id: str, instrument: str, body: Second, caller: FeedKeeper, deck: Deck) -> SecondsShown:
    """Let one instrument have a second, or another one."""
    one = instrument_id(instrument)
    given = {one: _parsed(one, body, "instrument")}
    changed = await _change(deck, caller, id, lambda had: {**had, **given}, given, lambda _, field: field)
    return await _shown(deck, changed)


@router.delete("/{instrument:path}", response_model=SecondsShown)
async def delete_second(id: str, instrument: str, caller: FeedKeeper, deck: Deck) -> SecondsShown:
    """Let one instrument have no second any more."""
    gone = instrument_id(instrument)

    def without(had: Seconds) -> dict[InstrumentId, SecondSource]:
        if gone not in had:
            raise UnknownThing("second", gone, f"in feed {id}")
        return {each: source for each, source in had.items() if each != gone}

    return await _shown(deck, await _change(deck, caller, id, without, {}))


def parse_seconds(given: Mapping[str, Second]) -> dict[InstrumentId, SecondSource]:
    """What a body spells; `BadInput` for an instrument that is written wrongly."""
    found = {}
    for text, second in given.items():
        one = instrument_id(text, "seconds")
        found[one] = _parsed(one, second, _field_of(one, "instrument"))
    return found


def _parsed(one: InstrumentId, second: Second, field: str) -> SecondSource:
    other = one if second.instrument is None else instrument_id(second.instrument, field)
    return SecondSource(FeedId(second.feed), other)


def _field_of(instrument: InstrumentId, field: str) -> str:
    return f"seconds.{instrument}.{field}"


async def check_seconds(
    deck: Services,
    caller: Caller,
    record: FeedRecord,
    carried: Collection[InstrumentId],
    given: Seconds,
    field_of: Callable[[InstrumentId, str], str] = _field_of,
) -> None:
    """Refuse what of ``given``, seconds for a feed of which ``carried`` is wanted, cannot be: naming the field.

    ``record.seconds`` are all that the feed is to have.
    """
    others: dict[FeedId, FeedRecord] = {}
    all_of_them = {**await deck.feed_seconds.all(), record.id: record.seconds}
    rules.check_each_once(record.seconds, "seconds")
    for first, source in given.items():
        feed_field, field = field_of(first, "feed"), field_of(first, "instrument")
        if first not in carried:
            raise BadInput(field_of(first, "instrument"), f"{first} is not among the instruments of feed {record.id}")
        if source.feed == record.id:
            raise BadInput(feed_field, f"{source.feed} is the feed itself: name another one")
        if source.feed not in others:
            try:
                others[source.feed] = await deck.desired.feed(source.feed)
            except UnknownThing as error:
                raise unknown_reference(feed_field, error) from error
        other = others[source.feed]
        await require_listed(deck, caller, other.provider, other.settings, [source.instrument], field)
        listed = {each.id: each for each in await deck.instruments.get([first, source.instrument])}
        rules.check_twins(listed[first], listed[source.instrument], field)
        rules.check_no_circle(record.id, first, all_of_them, feed_field)
    for other in others.values():
        mine = [first for first, source in given.items() if source.feed == other.id]
        await _check_room(deck, record, other, field_of(mine[0], "feed"))


async def _check_room(deck: Services, record: FeedRecord, other: FeedRecord, field: str) -> None:
    """Raise `BadInput` where the other feed cannot carry what this one wants of it besides."""
    limits = await catalog.feed_limits(other.provider, other.settings)
    channels = [each for each in rules.channels_of(record.channels) if each in limits.channels]
    if not channels:
        raise BadInput(field, f"feeds {record.id} and {other.id} have neither trades nor quotes in common")
    subscriptions = subscriptions_of(other, await deck.wishes.of(other.id), limits)
    client = rules.client_of(record.id)
    subscriptions.unsubscribe(client)
    wanted = [source.instrument for source in record.seconds.values() if source.feed == other.id]
    try:
        subscriptions.subscribe(client, wanted, channels, other.workers)
    except BadInput as error:
        raise BadInput(field, f"feed {other.id} cannot stand by: {error.detail}") from error


async def stands_by_for(deck: Services, feed: str) -> list[str]:
    """Feeds that have a second in this one."""
    found = (await deck.feed_seconds.all()).items()
    return [first for first, seconds in found if any(source.feed == feed for source in seconds.values())]


async def _change(
    deck: Services,
    caller: Caller,
    id: str,
    decide: Callable[[Seconds], dict[InstrumentId, SecondSource]],
    given: Seconds,
    field_of: Callable[[InstrumentId, str], str] = _field_of,
) -> FeedRecord:
    """Set what ``decide`` makes of the seconds that there are, of which ``given`` are news."""
    for attempt in range(_ATTEMPTS):
        record, wishes = await deck.wishes.read(FeedId(id))
        after = decide(record.seconds)
        if after == record.seconds:
            return record
        carried = all_wanted(record, wishes)
        await check_seconds(deck, caller, msgspec.structs.replace(record, seconds=after), carried, given, field_of)
        try:
            return await deck.desired.update_feed(
                record.id, {"seconds": after}, by=caller.user, generation=record.generation
            )
        except UnknownThing as error:
            raise unknown_reference("feed", error) from error
        except Conflict as error:
            if error.code != "generation_changed" or attempt + 1 == _ATTEMPTS:
                raise
    raise AssertionError("unreachable")


async def _shown(deck: Services, record: FeedRecord) -> SecondsShown:
    shown = {
        first: SecondShown(feed=source.feed, instrument=source.instrument)
        for first, source in sorted(record.seconds.items())
    }
    return SecondsShown(feed=record.id, seconds=shown, stands_by_for=await stands_by_for(deck, record.id))
