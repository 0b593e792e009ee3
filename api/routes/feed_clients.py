"""``/v1/feeds/{id}/clients``: who wants what of a feed.

An instrument is streamed while any client wants it, in every channel that any of them wants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import ConfigDict, Field

from api.algo_words import names_for
from api.formats import Body, Cursor, Limit, Page, Shown, page_of
from api.listing import parse_instruments, require_listed
from api.security import Caller, FeedKeeper, Viewer
from api.services import Deck, Services
from cluster import catalog
from cluster.feeds import OWN_LIST, subscriptions_of
from storage.records import AlgoRecord, FeedRecord
from storage.wishes import WishesByClient
from trading.errors import BadInput, Conflict, UnknownThing
from trading.ids import FeedId, InstrumentId, instrument_id, name
from trading.subscriptions import Change, Channels, Subscriptions

router = APIRouter(prefix="/v1/feeds/{id}/clients", tags=["feeds"])


class Wish(Body):
    """Instruments, and in which channels: the feed's own where none are named."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"instruments": ["BINANCE-USDM:SOLUSDT"], "channels": ["trade", "quote"]}]}
    )

    instruments: list[str] = Field(max_length=10_000)
    channels: list[str] | None = Field(default=None, min_length=1, max_length=10)


class CapacityShown(Shown):
    """What a feed's provider allows, and what of it is left."""

    provider: str
    channels: list[str]
    instruments_per_worker: int
    workers: int
    max_workers: int
    #: Instruments that anybody wants, each once.
    wanted: int
    #: More of them that fit on the workers there are, and on as many as there may be.
    spare: int
    spare_at_most: int


class ClientShown(Shown):
    """What one client wants of a feed."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "feed": "crypto",
                    "client": "momo-1",
                    "instruments": {"BINANCE-USDM:SOLUSDT": ["trade", "quote"]},
                    "added": ["BINANCE-USDM:SOLUSDT"],
                    "removed": [],
                    "retuned": [],
                    "capacity": {
                        "provider": "binance-usdm",
                        "channels": ["trade", "quote", "depth", "bar"],
                        "instruments_per_worker": 100,
                        "workers": 2,
                        "max_workers": 20,
                        "wanted": 3,
                        "spare": 197,
                        "spare_at_most": 1997,
                    },
                }
            ]
        }
    )

    feed: str
    #: ``feed`` is the feed's own list.
    client: str
    #: Instrument -> channels.
    instruments: dict[str, list[str]]
    #: What this request changed for the feed as a whole: streamed from now on, not any more, in other channels.
    added: list[str]
    removed: list[str]
    retuned: list[str]
    capacity: CapacityShown


@router.get("", response_model=Page[ClientShown])
async def list_clients(
    id: str,
    _: Viewer,
    deck: Deck,
    instrument: Annotated[str | None, Query(description="Only clients that want this one")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Who wants what; ``feed`` is the feed's own list."""
    record, subscriptions = await _subscriptions(deck, id)
    one = None if instrument is None else instrument_id(instrument)
    clients = subscriptions.all_clients() if one is None else subscriptions.clients(one)
    page = page_of(clients, str, limit, cursor)
    return {**page, "items": [_shown(record, subscriptions, client) for client in page["items"]]}


@router.get("/{client}", response_model=ClientShown)
async def get_client(id: str, client: str, _: Viewer, deck: Deck) -> ClientShown:
    """What one client wants."""
    record, subscriptions = await _subscriptions(deck, id)
    if not subscriptions.wish(client):
        raise UnknownThing("client", client, f"it wants nothing of feed {id}")
    return _shown(record, subscriptions, client)


@router.put("/{client}/instruments", response_model=ClientShown)
async def replace_wish(id: str, client: str, body: Wish, caller: FeedKeeper, deck: Deck) -> ClientShown:
    """Let a client want exactly these: what it wanted besides, it wants no more."""
    wished = parse_instruments(body.instruments)

    def want(subscriptions: Subscriptions, record: FeedRecord) -> None:
        gone = [each for each in subscriptions.wish(client) if each not in wished]
        subscriptions.unsubscribe(client, gone)
        subscriptions.subscribe(client, wished, body.channels or record.channels, record.workers)

    return await _change(deck, caller, id, client, wished, want)


@router.post("/{client}/instruments", response_model=ClientShown)
async def extend_wish(id: str, client: str, body: Wish, caller: FeedKeeper, deck: Deck) -> ClientShown:
    """Let a client want these too; those it wants already, it wants in these channels from now on."""
    wished = parse_instruments(body.instruments)

    def want(subscriptions: Subscriptions, record: FeedRecord) -> None:
        subscriptions.subscribe(client, wished, body.channels or record.channels, record.workers)

    return await _change(deck, caller, id, client, wished, want)


@router.put("/{client}/instruments/{instrument:path}", response_model=ClientShown)
async def wish_one(
    id: str,
    client: str,
    instrument: str,
    caller: FeedKeeper,
    deck: Deck,
    channels: Annotated[list[str] | None, Query(description="Several are given one by one; none: the feed's")] = None,
) -> ClientShown:
    """Let a client want one more instrument, or want it in other channels."""
    one = parse_instruments([instrument], "instrument")

    def want(subscriptions: Subscriptions, record: FeedRecord) -> None:
        subscriptions.subscribe(client, one, channels or record.channels, record.workers)

    return await _change(deck, caller, id, client, one, want, "instrument")


@router.delete("/{client}/instruments/{instrument:path}", response_model=ClientShown)
async def drop_one(id: str, client: str, instrument: str, caller: FeedKeeper, deck: Deck) -> ClientShown:
    """Let a client want an instrument no more; it goes on while others want it."""
    one = instrument_id(instrument)
    return await _change(deck, caller, id, client, (), lambda subs, _: void(subs.unsubscribe(client, [one])))


@router.delete("/{client}", status_code=204)
async def drop_client(id: str, client: str, caller: FeedKeeper, deck: Deck) -> None:
    """Let a client want nothing any more; it is nothing new where it wants nothing already."""
    await _change(deck, caller, id, client, (), lambda subs, _: void(subs.unsubscribe(client)))


def void(_: Change) -> None:
    """Nothing."""


def capacity_shown(record: FeedRecord, subscriptions: Subscriptions) -> CapacityShown:
    """What the provider allows and what is left."""
    spare = subscriptions.spare(record.workers)
    return CapacityShown(
        provider=record.provider,
        channels=list(subscriptions.capacity.channels),
        instruments_per_worker=spare.instruments_per_worker,
        workers=record.workers,
        max_workers=spare.max_workers,
        wanted=spare.wanted,
        spare=spare.now,
        spare_at_most=spare.at_most,
    )


async def traded_by_algos(deck: Services, feed: str) -> dict[InstrumentId, list[AlgoRecord]]:
    """Instruments that algos on this feed trade now, each with these algos."""
    found: dict[InstrumentId, list[AlgoRecord]] = {}
    for algo in await deck.desired.algos():
        if algo.feed == feed and algo.want == "running":
            for instrument in algo.instruments:
                found.setdefault(instrument, []).append(algo)
    return found


def refuse_to_take_from_algos(
    caller: Caller, removed: Iterable[InstrumentId], traded: Mapping[InstrumentId, Sequence[AlgoRecord]]
) -> None:
    """Raise `Conflict` where a running algo trades what nobody wants any more."""
    for instrument in removed:
        if instrument in traded:
            named = names_for(caller, traded[instrument])
            raise Conflict("instrument_in_use", f"algos trade {instrument} on this feed ({named}): stop them first")


async def _change(
    deck: Services,
    caller: Caller,
    id: str,
    client: str,
    wished: Sequence[InstrumentId],
    want: Callable[[Subscriptions, FeedRecord], None],
    field: str = "instruments",
) -> ClientShown:
    """Let ``want`` change what is wanted, check that against what it was, and write it down."""
    feed = FeedId(id)
    name(client, "client")
    if client == OWN_LIST:
        raise BadInput("client", f"{OWN_LIST!r} is the feed's own list: change it at /v1/feeds/{id}/instruments")
    before = await deck.desired.feed(feed)
    await require_listed(deck, caller, before.provider, before.settings, wished, field)
    limits = await catalog.feed_limits(before.provider, before.settings)
    traded = await traded_by_algos(deck, id)
    found: list[tuple[Mapping[InstrumentId, Channels], Subscriptions]] = []

    def decide(record: FeedRecord, wishes: WishesByClient) -> Mapping[InstrumentId, Channels]:
        subscriptions = subscriptions_of(record, wishes, limits)
        had = subscriptions.wanted()
        want(subscriptions, record)
        refuse_to_take_from_algos(caller, (each for each in had if not subscriptions.channels(each)), traded)
        found.append((had, subscriptions))
        return subscriptions.wish(client)

    record = await deck.wishes.change(feed, client, decide, by=caller.user)
    had, subscriptions = found[-1]
    has = subscriptions.wanted()
    return _shown(record, subscriptions, client).model_copy(
        update={
            "added": [each for each in has if each not in had],
            "removed": [each for each in had if each not in has],
            "retuned": [each for each in has if each in had and has[each] != had[each]],
        }
    )


async def _subscriptions(deck: Services, id: str) -> tuple[FeedRecord, Subscriptions]:
    record, wishes = await deck.wishes.read(FeedId(id))
    return record, subscriptions_of(record, wishes, await catalog.feed_limits(record.provider, record.settings))


def _shown(record: FeedRecord, subscriptions: Subscriptions, client: str) -> ClientShown:
    return ClientShown(
        feed=record.id,
        client=client,
        instruments={each: list(channels) for each, channels in sorted(subscriptions.wish(client).items())},
        added=[],
        removed=[],
        retuned=[],
        capacity=capacity_shown(record, subscriptions),
    )
