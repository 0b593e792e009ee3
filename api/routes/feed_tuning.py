"""``/v1/feeds/{id}/tuning``: how strict a feed's filter is, and how patient it is with silence."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter
from pydantic import ConfigDict, Field

from api.formats import Body, Shown
from api.problems import ProblemError
from api.routes.feed_health import wanted_of
from api.security import Caller, FeedKeeper, Viewer
from api.services import Deck, Services
from trading.errors import BadInput, Conflict
from trading.feed_tuning import Tuning, settled
from trading.ids import FeedId, InstrumentId, instrument_id

router = APIRouter(prefix="/v1/feeds", tags=["feeds"])


class TuningSeen(Body):
    """What was set when somebody looked: ``filter`` and ``freshness`` as they were answered."""

    filter: dict[str, Any]
    freshness: dict[str, Any]


class TuningBody(Body):
    """What is set; each name that is left out stays as the feed, or the default, has it.

    ``seen``: 409 `tuning_moved` where something else is set by now; its ``present`` shows what.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"filter": {"band_floor": 0.01, "off": ["crossed"]}, "freshness": {"least_s": 10}}]
        }
    )

    filter: dict[str, Any] = Field(default_factory=dict)
    freshness: dict[str, Any] = Field(default_factory=dict)
    seen: TuningSeen | None = None


class TuningShown(Shown):
    """What is set, and what is in force because of it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "instrument": None,
                    "filter": {"band_floor": 0.01},
                    "freshness": {},
                    "in_force": {"filter": {"band_floor": 0.01}, "freshness": {"least_s": 5.0}},
                }
            ]
        }
    )

    #: null: of the feed as a whole.
    instrument: str | None
    filter: dict[str, Any]
    freshness: dict[str, Any]
    in_force: dict[str, dict[str, Any]]


@router.get("/{id}/tuning", response_model=list[TuningShown])
async def list_tuning(id: str, _: Viewer, deck: Deck) -> list[TuningShown]:
    """How strict the feed's filter is and how patient it is with silence: the feed's, then instruments' own."""
    feed = await deck.desired.feed(FeedId(id))
    whole, own = await deck.feed_tunings.of(feed.id)
    return [_tuning(whole, None, whole), *(_tuning(whole, name, own[name]) for name in sorted(own))]


@router.put("/{id}/tuning", response_model=TuningShown)
async def tune_feed(id: str, body: TuningBody, caller: FeedKeeper, deck: Deck) -> TuningShown:
    """Set the filter and the patience of a feed, taken up within seconds.  What is left out is the default."""
    feed = await deck.desired.feed(FeedId(id))
    tuning = Tuning(filter=body.filter, freshness=body.freshness)
    _, own = await deck.feed_tunings.of(feed.id)
    shown = _tuning(tuning, None, tuning)
    for name, each in own.items():
        try:
            settled(tuning, each)
        except BadInput as error:
            raise BadInput(error.args[0], f"{error.detail} (with what is set of {name})") from error
    await _put(deck, feed.id, None, tuning, caller, body.seen)
    return shown


@router.put("/{id}/tuning/{instrument:path}", response_model=TuningShown)
async def tune_instrument(id: str, instrument: str, body: TuningBody, caller: FeedKeeper, deck: Deck) -> TuningShown:
    """Set them for one instrument, on top of the feed's."""
    feed, wishes = await deck.wishes.read(FeedId(id))
    name = wanted_of(feed, wishes, instrument)
    tuning = Tuning(filter=body.filter, freshness=body.freshness)
    whole, _ = await deck.feed_tunings.of(feed.id)
    shown = _tuning(whole, name, tuning)
    await _put(deck, feed.id, name, tuning, caller, body.seen)
    return shown


@router.delete("/{id}/tuning/{instrument:path}", status_code=204)
async def untune_instrument(id: str, instrument: str, caller: FeedKeeper, deck: Deck) -> None:
    """Let an instrument have the feed's settings again."""
    feed = await deck.desired.feed(FeedId(id))
    await deck.feed_tunings.put(feed.id, instrument_id(instrument), Tuning(), by=caller.user)


async def _put(
    deck: Services, feed: FeedId, name: InstrumentId | None, tuning: Tuning, caller: Caller, seen: TuningSeen | None
) -> None:
    before = None if seen is None else Tuning(filter=seen.filter, freshness=seen.freshness)
    try:
        await deck.feed_tunings.put(feed, name, tuning, by=caller.user, seen=before)
    except Conflict as error:
        whole, own = await deck.feed_tunings.of(feed)
        present = _tuning(whole, name, whole if name is None else own.get(name, Tuning()))
        more = present.model_dump(mode="json")
        raise ProblemError(409, error.code, "Conflict", error.detail, present=more) from error


def _tuning(feed: Tuning, instrument: InstrumentId | None, own: Tuning) -> TuningShown:
    filter_, freshness = settled(feed, own if instrument is not None else Tuning())
    return TuningShown(
        instrument=instrument,
        filter=own.filter,
        freshness=own.freshness,
        in_force={"filter": msgspec.to_builtins(filter_), "freshness": msgspec.to_builtins(freshness)},
    )
