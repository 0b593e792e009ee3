"""``/v1/feeds``: which instruments are streamed, by how many workers, and how that goes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query
from pydantic import ConfigDict, Field

from api.algo_words import names_for
from api.formats import Body, Cursor, Instant, Limit, Page, Shown, page_of
from api.listing import parse_instruments, require_listed
from api.problems import unknown_reference
from api.routes.feed_clients import CapacityShown, capacity_shown, refuse_to_take_from_algos, traded_by_algos
from api.routes.feed_seconds import Second, SecondShown, check_seconds, parse_seconds, stands_by_for
from api.security import Caller, FeedKeeper, Viewer
from api.services import Deck, Services, referenced
from cluster import catalog
from cluster.feeds import OWN_LIST, capacity_of, subscriptions_of
from storage.records import FeedRecord
from trading.errors import Conflict, UnknownThing
from trading.ids import FeedId, Nanos, NodeName, instrument_id, name
from trading.sharding import check_capacity
from trading.subscriptions import Capacity, Subscriptions

router = APIRouter(prefix="/v1/feeds", tags=["feeds"])

#: A feed that somebody else changes at the same moment is read again this often.
_ATTEMPTS = 5
#: What a coordinator tells of, any of which means that not all is as it should be.
_UNSETTLED = ("moving", "uncarried", "stranded", "silent", "gone", "passed_over")


class NewFeed(Body):
    """A feed to add.  ``settings`` say where the provider is reached; {} means its public servers."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "crypto",
                    "provider": "binance-usdm",
                    "instruments": ["BINANCE-USDM:BTCUSDT", "BINANCE-USDM:ETHUSDT"],
                    "workers": 2,
                }
            ]
        }
    )

    id: str
    provider: str
    settings: dict[str, Any] = Field(default_factory=dict)
    instruments: list[str] = Field(default_factory=list, max_length=10_000)
    workers: int = 1
    channels: list[str] = Field(default=["trade", "quote"], min_length=1, max_length=10)
    #: Machines that the workers run on, in turn; none: the head's.
    nodes: list[str] = Field(default_factory=list, max_length=100)
    #: Instruments that have a second provider: where in another feed.
    seconds: dict[str, Second] = Field(default_factory=dict, max_length=10_000)


class FeedChange(Body):
    """What may change; what is left out stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"workers": 5}]})

    workers: int | None = None
    enabled: bool | None = None
    #: The feed's own list, whole, and the channels of it.
    instruments: list[str] | None = Field(default=None, max_length=10_000)
    channels: list[str] | None = Field(default=None, min_length=1, max_length=10)


class MoreInstruments(Body):
    """Instruments to add."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"instruments": ["BINANCE-USDM:SOLUSDT"]}]})

    instruments: list[str] = Field(min_length=1, max_length=10_000)


class InstrumentLive(Shown):
    """How one instrument goes at its worker."""

    id: str
    #: ``live``; ``muted`` and ``ending`` while it moves between workers.
    phase: str
    ticks: int
    #: Seconds since its last tick; null before the first.
    age_s: float | None
    #: ``pending`` until its first tick; ``live``; ``stale``: silent too long; ``failed``: refused or passed over.
    state: str
    reason: str


class WorkerLive(Shown):
    """How one worker goes, a moment ago; ``rate`` is in ticks per second."""

    shard: int
    node: str
    epoch: int
    connected: bool
    reason: str
    at: Instant
    age_s: float
    ticks: int
    rate: float
    batches: int
    garbage: int
    reconnects: int
    unpublished: int
    #: Ticks from the stream, bad ones among them; refused; another worker's to publish, or kept back for a move.
    received: int = 0
    quarantined: int = 0
    withheld: int = 0
    #: Trades filled in from history, and ticks from polls by REST.
    backfilled: int = 0
    polled: int = 0
    #: Ticks of second providers that were published, instruments that come from one now, changes from one provider to
    #: the other, ticks that both had sent, and batches of second providers that did not come here.
    from_second: int = 0
    by_second: int = 0
    second_switches: int = 0
    second_doubles: int = 0
    second_lost: int = 0
    #: Instruments subscribed to again, and connections given up, for their silence.
    resubscribed: int = 0
    given_up: int = 0
    #: Times that ticks of an instrument may have been missing; those that could not be filled.
    gaps: int = 0
    unfilled_gaps: int = 0
    #: Refused ticks by reason; instruments by state.
    refused_ticks: dict[str, int] = Field(default_factory=dict)
    states: dict[str, int] = Field(default_factory=dict)
    #: Median of receipt less venue time over the instruments, in milliseconds.
    skew_ms: float | None = None
    instrument_count: int
    instruments: list[InstrumentLive]


class FeedShown(Shown):
    """A feed as wanted, and ``live`` as it goes.

    Where instruments are only counted ``instruments``, ``assignment`` and those of workers are empty.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "crypto",
                    "provider": "binance-usdm",
                    "settings": {},
                    "channels": ["trade", "quote"],
                    "workers": 2,
                    "instruments": ["BINANCE-USDM:BTCUSDT", "BINANCE-USDM:ETHUSDT"],
                    "instrument_count": 2,
                    "nodes": [],
                    "seconds": {},
                    "enabled": True,
                    "generation": 1,
                    "created_at": "2026-01-31T09:15:00.000000000+00:00",
                    "settled": True,
                    "pending_steps": 0,
                    "assignment": {"0": ["BINANCE-USDM:BTCUSDT"], "1": ["BINANCE-USDM:ETHUSDT"]},
                    "assigned": {"0": 1, "1": 1},
                    "ticks": 81230,
                    "rate": 412.0,
                    "live": [],
                    "note": "",
                }
            ]
        }
    )

    id: str
    provider: str
    settings: dict[str, Any]
    channels: list[str]
    workers: int
    instruments: list[str]
    instrument_count: int
    nodes: list[str]
    #: Instruments that have a second provider: where in another feed.
    seconds: dict[str, SecondShown]
    enabled: bool
    generation: int
    created_at: Instant
    #: Every instrument is where it should be, for this very generation.
    settled: bool
    pending_steps: int | None
    #: Worker -> instruments that should be there, and how many.
    assignment: dict[str, list[str]]
    assigned: dict[str, int]
    #: On the way from one worker to another; carried by nobody yet; carried by nobody, for no worker has room.
    moving: list[str] = Field(default_factory=list)
    uncarried: list[str] = Field(default_factory=list)
    stranded: list[str] = Field(default_factory=list)
    #: Workers that do not answer, and those given up, whose instruments others carry.
    silent: list[int] = Field(default_factory=list)
    gone: list[int] = Field(default_factory=list)
    #: Instruments, each with the worker for which the provider took the subscription and sent nothing.
    passed_over: list[tuple[str, int]] = Field(default_factory=list)
    #: Why what is wanted cannot be had; "" where it can.
    trouble: str = ""
    #: Limits of the provider and what is left; null in lists.
    capacity: CapacityShown | None = None
    ticks: int
    rate: float
    live: list[WorkerLive]
    #: Why there is no live part, where there is none.
    note: str


@router.post("", response_model=FeedShown, status_code=201)
async def create_feed(body: NewFeed, caller: FeedKeeper, deck: Deck) -> FeedShown:
    """Stream instruments of a provider.  Those not stored yet are looked up in the provider's list first."""
    feed = FeedId(name(body.id, "id"))
    instruments = parse_instruments(body.instruments)
    try:
        limits = await catalog.feed_limits(body.provider, body.settings)
    except UnknownThing as error:
        raise unknown_reference("provider", error) from error
    capacity = capacity_of(body.provider, limits)
    channels = capacity.check_channels(body.channels)
    _check_fit(len(instruments), body.workers, capacity)
    # Whoever streams by an account's key must be allowed that account.
    await deck.credentials_for(caller, body.settings)
    await require_listed(deck, caller, body.provider, body.settings, instruments)
    record = FeedRecord(
        id=feed,
        provider=body.provider,
        settings=body.settings,
        channels=channels,
        workers=body.workers,
        instruments=instruments,
        created_at=Nanos(time.time_ns()),
        nodes=tuple([(await referenced("nodes", deck.desired.node(NodeName(node)))).name for node in body.nodes]),
        seconds=parse_seconds(body.seconds),
    )
    await check_seconds(deck, caller, record, instruments, record.seconds)
    return await _shown(deck, await deck.desired.create_feed(record, by=caller.user))


_Names = Annotated[bool, Query(description="Name the instruments; false: only count them")]


@router.get("", response_model=Page[FeedShown])
async def list_feeds(
    _: Viewer, deck: Deck, limit: Limit = 100, cursor: Cursor = None, instruments: _Names = True
) -> dict[str, Any]:
    """All feeds; the instruments of their workers are left to the single feed."""
    page = page_of(await deck.desired.feeds(), lambda feed: feed.id, limit, cursor)
    return {**page, "items": [await _shown(deck, feed, details=False, names=instruments) for feed in page["items"]]}


@router.get("/{id}", response_model=FeedShown)
async def get_feed(id: str, _: Viewer, deck: Deck, instruments: _Names = True) -> FeedShown:
    """One feed with its workers: counts, rates, ages, the state of each instrument."""
    return await _shown(deck, await deck.desired.feed(FeedId(id)), names=instruments)


@router.put("/{id}/instruments/{instrument:path}", response_model=FeedShown)
async def add_instrument(id: str, instrument: str, caller: FeedKeeper, deck: Deck) -> FeedShown:
    """Stream one more instrument."""
    return await _add(deck, caller, id, [instrument], "instrument")


@router.post("/{id}/instruments", response_model=FeedShown)
async def add_instruments(id: str, body: MoreInstruments, caller: FeedKeeper, deck: Deck) -> FeedShown:
    """Stream more instruments: all of them or, where one cannot be, none."""
    return await _add(deck, caller, id, body.instruments, "instruments")


@router.delete("/{id}/instruments/{instrument:path}", response_model=FeedShown)
async def remove_instrument(id: str, instrument: str, caller: FeedKeeper, deck: Deck) -> FeedShown:
    """Stop streaming an instrument that no running algo trades."""
    gone = instrument_id(instrument)

    def without(feed: FeedRecord, _: Subscriptions) -> dict[str, Any]:
        if gone not in feed.instruments:
            raise UnknownThing("instrument", gone, f"in feed {id}")
        return {"instruments": tuple(each for each in feed.instruments if each != gone)}

    return await _shown(deck, await _change(deck, caller, id, without))


@router.patch("/{id}", response_model=FeedShown)
async def change_feed(id: str, body: FeedChange, caller: FeedKeeper, deck: Deck) -> FeedShown:
    """Change the number of workers, the feed's own list, its channels, or whether it streams: while it streams."""
    before = await deck.desired.feed(FeedId(id))
    given = body.model_dump(exclude_none=True)
    if body.instruments is not None:
        given["instruments"] = parse_instruments(body.instruments)
        await require_listed(deck, caller, before.provider, before.settings, given["instruments"])
    capacity = capacity_of(before.provider, await catalog.feed_limits(before.provider, before.settings))
    if body.channels is not None:
        given["channels"] = capacity.check_channels(body.channels)
    if body.workers is not None:
        _check_fit(0, body.workers, capacity)

    def changed(feed: FeedRecord, subscriptions: Subscriptions) -> dict[str, Any]:
        workers = feed.workers if body.workers is None else body.workers
        if body.instruments is not None:
            subscriptions.unsubscribe(OWN_LIST)
            subscriptions.subscribe(OWN_LIST, given["instruments"], given.get("channels", feed.channels), workers)
        elif body.workers is not None:
            _check_fit(len(subscriptions.wanted()), workers, capacity)
        return given

    return await _shown(deck, await _change(deck, caller, id, changed))


@router.delete("/{id}", status_code=204)
async def delete_feed(
    id: str,
    caller: FeedKeeper,
    deck: Deck,
    force: Annotated[
        bool, Query(description="Also where algos use it, which are stopped, or it stands by for other feeds")
    ] = False,
) -> None:
    """Remove a feed that no algo uses and that stands by for no other.

    With ``force``: stop its algos, tell them why, let feeds that it stands by for have no second, and remove it.
    """
    if force:
        for algo in await deck.desired.force_delete_feed(FeedId(id), by=caller.user):
            line = (Nanos(time.time_ns()), "warning", f"feed {id} was deleted by {caller.user}: the algo is stopped")
            with contextlib.suppress(UnknownThing):  # somebody was quick to delete it
                await deck.algo_log.append(algo.id, algo.epoch, [line])
        return
    users = [algo for algo in await deck.desired.algos() if algo.feed == id]
    if users:
        named = names_for(caller, users)
        raise Conflict(
            "feed_in_use",
            f"feed {id!r} is used by algos ({named}): delete them first, or add force=true to stop them",
        )
    if first := await stands_by_for(deck, id):
        raise Conflict(
            "feed_in_use",
            f"feed {id!r} stands by for feeds ({', '.join(first[:10])}): change their seconds first, or add force=true",
        )
    await deck.desired.delete_feed(FeedId(id), by=caller.user)


def _check_fit(instruments: int, workers: int, capacity: Capacity) -> None:
    check_capacity(
        instruments,
        workers,
        instruments_per_worker=capacity.instruments_per_worker,
        max_workers=capacity.max_workers,
        provider=capacity.provider,
    )


async def _add(deck: Services, caller: Caller, id: str, texts: Sequence[str], field: str) -> FeedShown:
    fresh = parse_instruments(texts, field)
    before = await deck.desired.feed(FeedId(id))
    await require_listed(deck, caller, before.provider, before.settings, fresh, field)

    def added(feed: FeedRecord, subscriptions: Subscriptions) -> dict[str, Any]:
        subscriptions.subscribe(OWN_LIST, fresh, feed.channels, feed.workers)
        return {"instruments": tuple(dict.fromkeys((*feed.instruments, *fresh)))}

    return await _shown(deck, await _change(deck, caller, id, added))


async def _change(
    deck: Services, caller: Caller, id: str, changes: Callable[[FeedRecord, Subscriptions], dict[str, Any]]
) -> FeedRecord:
    """Set what ``changes`` says of the feed and all that is wanted of it; nothing where it stands so already."""
    for attempt in range(_ATTEMPTS):
        feed, wishes = await deck.wishes.read(FeedId(id))
        limits = await catalog.feed_limits(feed.provider, feed.settings)
        given = changes(feed, subscriptions_of(feed, wishes, limits))
        wanted = {field: value for field, value in given.items() if getattr(feed, field) != value}
        if not wanted:
            return feed
        if "instruments" in wanted:
            left = {*wanted["instruments"], *(each for wish in wishes.values() for each in wish)}
            removed = [each for each in feed.instruments if each not in left]
            refuse_to_take_from_algos(caller, removed, await traded_by_algos(deck, id) if removed else {})
        try:
            # Wishes raise the generation too.
            return await deck.desired.update_feed(feed.id, wanted, by=caller.user, generation=feed.generation)
        except Conflict as error:
            if error.code != "generation_changed" or attempt + 1 == _ATTEMPTS:
                raise
    raise AssertionError("unreachable")


async def _shown(deck: Services, feed: FeedRecord, *, details: bool = True, names: bool = True) -> FeedShown:
    view, note = await deck.look(f"feed:{feed.id}")
    workers, trouble = await deck.look_all(f"worker:{feed.id}:")
    now = time.time_ns()
    live = sorted((_worker(each, now, details and names) for each in workers.values()), key=lambda w: w.shard)
    assignment = view["assignment"] if view else {}
    current = view is not None and view["generation"] == feed.generation
    seen = {} if view is None else view
    told = {field: seen[field] for field in (*_UNSETTLED, "trouble") if field in seen}
    if not details:
        told = {field: each for field, each in told.items() if field not in ("moving", "uncarried", "stranded")}
    return FeedShown(
        **{
            **msgspec.structs.asdict(feed),
            "instruments": list(feed.instruments) if names else [],
            "instrument_count": len(feed.instruments),
            "channels": list(feed.channels),
            "nodes": list(feed.nodes),
            "seconds": msgspec.to_builtins(feed.seconds),
        },
        **told,
        settled=current and not any(seen.get(field) for field in ("pending_steps", "draining", *_UNSETTLED)),
        pending_steps=view["pending_steps"] if view else None,
        assignment=assignment if names else {},
        assigned={shard: len(held) for shard, held in assignment.items()},
        ticks=sum(worker.ticks for worker in live),
        rate=round(sum(worker.rate for worker in live), 1),
        live=live,
        note=trouble or note,
        capacity=await _capacity(deck, feed) if details else None,
    )


async def _capacity(deck: Services, feed: FeedRecord) -> CapacityShown:
    limits = await catalog.feed_limits(feed.provider, feed.settings)
    return capacity_shown(feed, subscriptions_of(feed, await deck.wishes.of(feed.id), limits))


def _worker(stats: dict[str, Any], now: int, details: bool) -> WorkerLive:
    return WorkerLive(
        **{
            **stats,
            "age_s": round((now - stats["at"]) / 1e9, 3),
            "instrument_count": len(stats["instruments"]),
            "instruments": stats["instruments"] if details else [],
        }
    )
