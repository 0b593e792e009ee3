"""``/v1/instruments``: what can be traded."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import ConfigDict, Field

from api.formats import Amount, Body, Limit, Page, Shown
from api.problems import unknown_reference
from api.security import FeedKeeper, Viewer
from api.services import Deck
from cluster import catalog
from trading.errors import UnknownThing
from trading.ids import instrument_id

router = APIRouter(prefix="/v1/instruments", tags=["instruments"])


class InstrumentShown(Shown):
    """A tradable thing and its steps."""

    id: str
    provider_symbol: str
    provider: str
    tick_size: Amount
    lot_size: Amount
    currency: str
    #: Stands for it in tick arrays.
    number: int
    multiplier: Amount
    min_quantity: Amount
    min_notional: Amount
    calendar: str
    description: str


class Import(Body):
    """Whose list to fetch; ``settings`` as in a feed."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"provider": "binance-usdm", "settings": {}}]})

    provider: str
    settings: dict[str, Any] = Field(default_factory=dict)


class Imported(Shown):
    """How many instruments the provider lists; all are stored now."""

    imported: int


@router.get("", response_model=Page[InstrumentShown])
async def list_instruments(
    _: Viewer,
    deck: Deck,
    query: Annotated[str, Query(max_length=60, description="Part of id, symbol or description")] = "",
    provider: Annotated[str | None, Query(max_length=60)] = None,
    limit: Limit = 100,
) -> dict[str, Any]:
    """The instruments that fit best, matching ids first; for others ask more narrowly."""
    return {"items": await deck.instruments.search(query, limit, provider), "next": None}


@router.get("/{instrument:path}", response_model=InstrumentShown)
async def get_instrument(instrument: str, _: Viewer, deck: Deck) -> Any:
    """One instrument, ``VENUE:SYMBOL``."""
    found = await deck.instruments.get([instrument_id(instrument)])
    if not found:
        raise UnknownThing("instrument", instrument, "POST /v1/instruments/import fetches a provider's list")
    return found[0]


@router.post("/import", response_model=Imported)
async def import_instruments(body: Import, caller: FeedKeeper, deck: Deck) -> dict[str, int]:
    """Fetch a provider's list of instruments and store it."""
    try:
        listed = await catalog.listing(body.provider, body.settings, await deck.credentials_for(caller, body.settings))
    except UnknownThing as error:
        raise unknown_reference("provider", error) from error
    stored = await deck.instruments.upsert(listed)
    await deck.desired.audit(caller.user, "import_instruments", body.provider, None, {"imported": len(stored)})
    return {"imported": len(stored)}
