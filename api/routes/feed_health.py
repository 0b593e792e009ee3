"""How a feed's instruments go, what was refused of them, and which gaps they had."""

from __future__ import annotations

import math
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import ConfigDict

from api.feed_rows import Row, WindowWanted, window_of
from api.formats import Cursor, GivenInstant, Instant, InstantOrNone, Limit, Page, Shown, page_of
from api.security import Viewer
from api.services import Deck, Services
from storage.records import FeedRecord
from storage.wishes import WishesByClient, all_wanted
from trading.errors import UnknownThing
from trading.ids import FeedId, InstrumentId, Nanos, instrument_id

router = APIRouter(prefix="/v1/feeds", tags=["feeds"])

_NOT_CARRIED = "no worker carries it now"


class LastTick(Shown):
    """The last trade and the last quote of an instrument; null where there is none."""

    price: float | None
    size: float | None
    bid: float | None
    bid_size: float | None
    ask: float | None
    ask_size: float | None
    #: By the venue's clock (null where it sends none), and when it came.
    exchange_at: InstantOrNone
    received_at: Instant
    sequence: int


class SecondHealth(Shown):
    """An instrument's second provider and how it goes, at the worker that carries the instrument."""

    feed: str
    instrument: str
    #: Whether its ticks come out, and since when they do, or do not any more; null: since the worker carries it.
    in_use: bool
    since: InstantOrNone
    #: Changes from one provider to the other and back.
    switches: int
    #: Ticks that were left out, for the other provider had sent them, or for later ones were out already.
    doubles: int
    late: int
    #: When it was last heard; null: never.
    heard_at: InstantOrNone


class InstrumentHealth(Shown):
    """How one instrument of a feed goes."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "BINANCE-USDM:BTCUSDT",
                    "shard": 0,
                    "phase": "live",
                    "state": "live",
                    "reason": "",
                    "since": "2026-01-31T09:15:00.000000000+00:00",
                    "age_s": 0.04,
                    "patience_s": 5.0,
                    "ticks": 81230,
                    "rate": 412.0,
                    "gaps": 0,
                    "quarantined": 0,
                    "skew_ms": 1.8,
                    "skew_p99_ms": 7.3,
                    "polled": False,
                    "second": None,
                    "last": None,
                }
            ]
        }
    )

    id: str
    #: The worker that carries it; null where none does.
    shard: int | None
    #: ``live``; ``muted`` and ``ending`` while it moves between workers; "" where none carries it.
    phase: str = ""
    #: ``pending`` until its first tick; ``live``; ``stale``: silent too long; ``failed``: refused or passed over.
    state: str
    reason: str
    since: InstantOrNone = 0
    #: Seconds since its last tick; null before the first.
    age_s: float | None = None
    #: Silence that is still usual, in seconds.
    patience_s: float | None = None
    ticks: int = 0
    #: Ticks per second over the last seconds.
    rate: float = 0.0
    #: Times that ticks may have been missing, since this worker carries it; ``/gaps`` lists all.
    gaps: int = 0
    quarantined: int = 0
    #: Receipt less venue time in milliseconds: median, and 99 in a hundred; null where it is not known.
    skew_ms: float | None = None
    skew_p99_ms: float | None = None
    #: Whether it is asked for by REST, for its stream is silent.
    polled: bool = False
    #: Its second provider; null where it has none.
    second: SecondHealth | None = None
    last: LastTick | None = None


class InstrumentWindow(Shown):
    """A part of a feed's instruments.

    ``total``: how many pass the filters; ``states``: how many of the feed's there are in each state.
    """

    items: list[InstrumentHealth]
    offset: int
    total: int
    states: dict[str, int]


class QuarantinedTick(Shown):
    """A tick that was refused.  Numbers that are none are null."""

    reason: str
    flags: int
    price: float | None
    size: float | None
    bid: float | None
    bid_size: float | None
    ask: float | None
    ask_size: float | None
    exchange_at: InstantOrNone
    received_at: Instant
    sequence: int
    #: The last good price (of a quote: its middle) and how far from it was allowed; null where that does not apply.
    reference: float | None
    width: float | None


class InstrumentQuarantine(Shown):
    """What was refused of one instrument by the workers that carried it."""

    instrument: str
    #: Refused ticks by reason.
    counts: dict[str, int]
    #: The last ones, oldest first.
    last: list[QuarantinedTick]


class QuarantinePage(Page[InstrumentQuarantine]):
    """Instruments of which something was refused, and the counts of the feed as a whole."""

    counts: dict[str, int]
    note: str = ""


class Gap(Shown):
    """A time in which ticks of an instrument may be missing from the stream."""

    instrument: str
    shard: int
    #: When the last tick before came, and the first one after.
    since: Instant
    until: Instant
    reason: str
    #: ``waiting``, ``filled``, ``partly`` (as far as the provider told), ``failed``.
    state: str
    #: What was filled in.
    trades: int
    bars: int
    detail: str


@router.get("/{id}/instruments", response_model=Page[InstrumentHealth])
async def list_instruments(
    id: str,
    _: Viewer,
    deck: Deck,
    state: Annotated[str | None, Query(description="Only those in this state", pattern="^[a-z]+$")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """The instruments of a feed with state, age, rate, gaps and last tick, by name."""
    rows = [row for row in await _rows(deck, FeedId(id)) if state is None or row["state"] == state]
    page = page_of(rows, lambda row: str(row["id"]), limit, cursor)
    return {**page, "items": await _shown(deck, FeedId(id), page["items"])}


@router.get("/{id}/instruments/window", response_model=InstrumentWindow)
async def instruments_window(
    id: str, _: Viewer, deck: Deck, wanted: Annotated[WindowWanted, Query()]
) -> dict[str, Any]:
    """A part of a long list, sorted and filtered here: what somebody looks at, and no more; a second old at most."""
    feed = FeedId(id)
    prices = wanted.needs_prices()
    rows = await deck.feed_rows.of(feed, lambda: _rows(deck, feed, prices=prices), prices=prices)
    window = window_of(rows, wanted)
    return {
        # Those that were ordered by their prices are shown with these.
        "items": _with_prices(window.rows) if prices else await _shown(deck, feed, window.rows),
        "offset": wanted.offset,
        "total": window.total,
        "states": window.states,
    }


@router.get("/{id}/quarantine", response_model=QuarantinePage)
async def list_quarantine(
    id: str,
    _: Viewer,
    deck: Deck,
    instrument: Annotated[str | None, Query(description="Only this one")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """What was refused as bad: counts by reason, and the last ticks of each instrument; kept for a day."""
    feed, wishes = await deck.wishes.read(FeedId(id))
    only = None if instrument is None else wanted_of(feed, wishes, instrument)
    workers, trouble = await deck.look_all(f"worker:{feed.id}:")
    shown, note = await deck.look_all(f"quarantine:{feed.id}:")
    counts: dict[str, int] = {}
    for worker in workers.values():
        _add(counts, worker.get("refused_ticks", {}))
    found: dict[str, dict[str, Any]] = {}
    for part in shown.values():
        name = part["instrument"]
        if only is None or name == only:
            known = found.setdefault(name, {"instrument": name, "counts": {}, "last": []})
            _add(known["counts"], part["counts"])
            known["last"] = sorted([*known["last"], *part["last"]], key=lambda tick: int(tick["received_at"]))
    page = page_of(found.values(), lambda each: str(each["instrument"]), limit, cursor)
    return {**page, "counts": counts, "note": trouble or note}


@router.get("/{id}/gaps", response_model=Page[Gap])
async def list_gaps(
    id: str,
    _: Viewer,
    deck: Deck,
    instrument: str | None = None,
    since: Annotated[GivenInstant | None, Query(description="Ended at or after")] = None,
    until: Annotated[GivenInstant | None, Query(description="Began before")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Times in which ticks may be missing, newest first, and what became of them."""
    feed = await deck.desired.feed(FeedId(id))
    gaps, following = await deck.feed_gaps.page(
        feed.id,
        None if instrument is None else instrument_id(instrument),
        None if since is None else Nanos(since),
        None if until is None else Nanos(until),
        limit,
        cursor,
    )
    return {"items": gaps, "next": following}


def wanted_of(feed: FeedRecord, wishes: WishesByClient, text: str) -> InstrumentId:
    """The instrument that ``text`` names, of those that the feed carries.  Raises `UnknownThing`."""
    name = instrument_id(text)
    if name not in all_wanted(feed, wishes):
        raise UnknownThing("instrument", name, f"in feed {feed.id}")
    return name


async def _rows(deck: Services, id: FeedId, *, prices: bool = False) -> list[Row]:
    """What workers say of each instrument, by name; of two that have one, the worker that publishes it.  With
    ``prices``: and its last tick."""
    feed, wishes = await deck.wishes.read(id)
    workers, _ = await deck.look_all(f"worker:{id}:")
    found: dict[str, Row] = {}
    for worker in workers.values():
        for each in worker["instruments"]:
            known = found.get(each["id"])
            if known is None or known.get("phase") == "muted":
                found[each["id"]] = {**each, "shard": worker["shard"]}
    missing = {"shard": None, "state": "pending", "reason": _NOT_CARRIED}
    names = sorted(all_wanted(feed, wishes) | found.keys())
    last = await _last_ticks(deck, id, names) if prices else {}
    return [{**found.get(name, {"id": name, **missing}), "last": last.get(name)} for name in names]


async def _shown(deck: Services, feed: FeedId, rows: list[Row]) -> list[InstrumentHealth]:
    last = await _last_ticks(deck, feed, [row["id"] for row in rows])
    return _with_prices([{**row, "last": last.get(row["id"])} for row in rows])


def _with_prices(rows: list[Row]) -> list[InstrumentHealth]:
    return [InstrumentHealth(**row) for row in rows]


async def _last_ticks(deck: Services, feed: FeedId, names: list[str]) -> dict[str, LastTick]:
    named = await deck.instruments.named([InstrumentId(name) for name in names])
    found: dict[str, LastTick] = {}
    for row in await deck.last_values(feed):
        name = named.get(int(row["instrument"]))
        if name is None or (name in found and found[name].received_at > int(row["received_at"])):
            continue
        figures = {field: _number(row[field]) for field in ("price", "size", "bid", "bid_size", "ask", "ask_size")}
        found[name] = LastTick(
            **figures,
            exchange_at=int(row["exchange_at"]),
            received_at=int(row["received_at"]),
            sequence=int(row["sequence"]),
        )
    return found


def _number(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


def _add(counts: dict[str, int], more: dict[str, int]) -> None:
    for reason, count in more.items():
        counts[reason] = counts.get(reason, 0) + count
