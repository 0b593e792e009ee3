"""``/v1/feeds``: which instruments are streamed, by how many workers, and how that goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from fastapi import APIRouter
from pydantic import ConfigDict, Field

from api.formats import Body, Cursor, Instant, Limit, Page, Shown, page_of
from api.problems import ProblemError, unknown_reference
from api.security import Caller, FeedKeeper, Viewer
from api.services import Deck, Services
from cluster import catalog
from storage.records import FeedRecord
from trading.errors import BadInput, Conflict, UnknownThing
from trading.ids import FeedId, InstrumentId, Nanos, instrument_id, name
from trading.sharding import check_capacity

router = APIRouter(prefix="/v1/feeds", tags=["feeds"])

#: A feed that somebody else changes at the same moment is read again this often.
_ATTEMPTS = 5


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


class FeedChange(Body):
    """What may change; what is left out stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"workers": 5}]})

    workers: int | None = None
    enabled: bool | None = None


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
    """A feed as wanted, and ``live`` as it goes."""

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
                    "enabled": True,
                    "generation": 1,
                    "created_at": "2026-01-31T09:15:00.000000000+00:00",
                    "settled": True,
                    "pending_steps": 0,
                    "assignment": {"0": ["BINANCE-USDM:BTCUSDT"], "1": ["BINANCE-USDM:ETHUSDT"]},
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
    enabled: bool
    generation: int
    created_at: Instant
    #: Every instrument is where it should be, for this very generation.
    settled: bool
    pending_steps: int | None
    #: Worker -> instruments that should be there.
    assignment: dict[str, list[str]]
    ticks: int
    rate: float
    live: list[WorkerLive]
    #: Why there is no live part, where there is none.
    note: str


@router.post("", response_model=FeedShown, status_code=201)
async def create_feed(body: NewFeed, caller: FeedKeeper, deck: Deck) -> FeedShown:
    """Stream instruments of a provider.  Those not stored yet are looked up in the provider's list first."""
    feed = FeedId(name(body.id, "id"))
    instruments = _parse(body.instruments)
    try:
        limits = await catalog.feed_limits(body.provider, body.settings)
    except UnknownThing as error:
        raise unknown_reference("provider", error) from error
    channels = tuple(dict.fromkeys(body.channels))
    for channel in channels:
        if channel not in limits.channels:
            raise BadInput("channels", f"{body.provider} has no channel {channel[:30]!r}: use {_join(limits.channels)}")
    check_capacity(
        len(instruments),
        body.workers,
        instruments_per_worker=limits.instruments_per_worker,
        max_workers=limits.max_workers,
        provider=body.provider,
    )
    # Whoever streams by an account's key must be allowed that account.
    await deck.credentials_for(caller, body.settings)
    await _listed(deck, caller, body.provider, body.settings, instruments)
    record = FeedRecord(
        id=feed,
        provider=body.provider,
        settings=body.settings,
        channels=channels,
        workers=body.workers,
        instruments=instruments,
        created_at=Nanos(time.time_ns()),
    )
    return await _shown(deck, await deck.desired.create_feed(record, by=caller.user))


@router.get("", response_model=Page[FeedShown])
async def list_feeds(_: Viewer, deck: Deck, limit: Limit = 100, cursor: Cursor = None) -> dict[str, Any]:
    """All feeds; the instruments of their workers are left to the single feed."""
    page = page_of(await deck.desired.feeds(), lambda feed: feed.id, limit, cursor)
    return {**page, "items": [await _shown(deck, feed, details=False) for feed in page["items"]]}


@router.get("/{id}", response_model=FeedShown)
async def get_feed(id: str, _: Viewer, deck: Deck) -> FeedShown:
    """One feed with its workers: counts, rates, ages, the state of each instrument."""
    return await _shown(deck, await deck.desired.feed(FeedId(id)))


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

    def without(feed: FeedRecord) -> dict[str, Any]:
        if gone not in feed.instruments:
            raise UnknownThing("instrument", gone, f"in feed {id}")
        return {"instruments": tuple(each for each in feed.instruments if each != gone)}

    for algo in await deck.desired.algos():
        if algo.feed == id and gone in algo.instruments and algo.want == "running":
            raise Conflict("instrument_in_use", f"algo {algo.id} trades {gone} on this feed: stop it first")
    return await _shown(deck, await _change(deck, caller.user, id, without))


@router.patch("/{id}", response_model=FeedShown)
async def change_feed(id: str, body: FeedChange, caller: FeedKeeper, deck: Deck) -> FeedShown:
    """Change the number of workers, or whether it streams."""
    before = await deck.desired.feed(FeedId(id))
    limits = await catalog.feed_limits(before.provider, before.settings)

    def changed(feed: FeedRecord) -> dict[str, Any]:
        if body.workers is not None:
            check_capacity(
                len(feed.instruments),
                body.workers,
                instruments_per_worker=limits.instruments_per_worker,
                max_workers=limits.max_workers,
                provider=feed.provider,
            )
        return body.model_dump(exclude_none=True)

    return await _shown(deck, await _change(deck, caller.user, id, changed))


@router.delete("/{id}", status_code=204)
async def delete_feed(id: str, caller: FeedKeeper, deck: Deck) -> None:
    """Remove a feed that no algo uses."""
    users = [algo.id for algo in await deck.desired.algos() if algo.feed == id]
    if users:
        raise Conflict("feed_in_use", f"feed {id!r} is used by algos ({_join(users[:10])}): delete them first")
    await deck.desired.delete_feed(FeedId(id), by=caller.user)


def _parse(texts: Sequence[str], field: str = "instruments") -> tuple[InstrumentId, ...]:
    return tuple(dict.fromkeys(instrument_id(text, field) for text in texts))


def _join(words: Sequence[str]) -> str:
    return ", ".join(words)


async def _listed(
    deck: Services,
    caller: Caller,
    provider: str,
    settings: dict[str, Any],
    instruments: Sequence[InstrumentId],
    field: str = "instruments",
) -> None:
    """Raise 422 listing those that the provider does not have; fetches its list where one is not stored."""
    unknown = await _unknown(deck, provider, instruments)
    if unknown:
        credentials = await deck.credentials_for(caller, settings)
        await deck.instruments.upsert(await catalog.listing(provider, settings, credentials))
        unknown = await _unknown(deck, provider, instruments)
    if unknown:
        raise ProblemError(
            422,
            "unknown_instrument",
            "Bad input",
            f"{provider} does not list {_join(unknown[:20])}" + (" …" if len(unknown) > 20 else ""),
            field=field,
            unknown=unknown,
        )


async def _unknown(deck: Services, provider: str, instruments: Sequence[InstrumentId]) -> list[InstrumentId]:
    found = {each.id for each in await deck.instruments.get(instruments) if each.provider == provider}
    return [each for each in instruments if each not in found]


async def _add(deck: Services, caller: Caller, id: str, texts: Sequence[str], field: str) -> FeedShown:
    fresh = _parse(texts, field)
    before = await deck.desired.feed(FeedId(id))
    await _listed(deck, caller, before.provider, before.settings, fresh, field)
    limits = await catalog.feed_limits(before.provider, before.settings)

    def added(feed: FeedRecord) -> dict[str, Any]:
        all_of_them = tuple(dict.fromkeys((*feed.instruments, *fresh)))
        check_capacity(
            len(all_of_them),
            feed.workers,
            instruments_per_worker=limits.instruments_per_worker,
            max_workers=limits.max_workers,
            provider=feed.provider,
        )
        return {"instruments": all_of_them}

    return await _shown(deck, await _change(deck, caller.user, id, added))


async def _change(deck: Services, by: str, id: str, changes: Callable[[FeedRecord], dict[str, Any]]) -> FeedRecord:
    """Set what ``changes`` says of the feed as it stands; nothing where it stands so already."""
    for attempt in range(_ATTEMPTS):
        feed = await deck.desired.feed(FeedId(id))
        wanted = {field: value for field, value in changes(feed).items() if getattr(feed, field) != value}
        if not wanted:
            return feed
        try:
            return await deck.desired.update_feed(feed.id, wanted, by=by, generation=feed.generation)
        except Conflict as error:
            if error.code != "generation_changed" or attempt + 1 == _ATTEMPTS:
                raise
    raise AssertionError("unreachable")


async def _shown(deck: Services, feed: FeedRecord, *, details: bool = True) -> FeedShown:
    view, note = await deck.look(f"feed:{feed.id}")
    workers, trouble = await deck.look_all(f"worker:{feed.id}:")
    now = time.time_ns()
    live = sorted((_worker(each, now, details) for each in workers.values()), key=lambda w: w.shard)
    current = view is not None and view["generation"] == feed.generation
    return FeedShown(
        **{**msgspec.structs.asdict(feed), "instruments": list(feed.instruments), "channels": list(feed.channels)},
        settled=bool(current and view and not (view["pending_steps"] or view["draining"] or view["silent"])),
        pending_steps=view["pending_steps"] if view else None,
        assignment=view["assignment"] if view else {},
        ticks=sum(worker.ticks for worker in live),
        rate=round(sum(worker.rate for worker in live), 1),
        live=live,
        note=trouble or note,
    )


def _worker(stats: dict[str, Any], now: int, details: bool) -> WorkerLive:
    return WorkerLive(
        **{
            **stats,
            "age_s": round((now - stats["at"]) / 1e9, 3),
            "instrument_count": len(stats["instruments"]),
            "instruments": stats["instruments"] if details else [],
        }
    )
