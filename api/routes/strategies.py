"""``/v1/strategies``: the code that algos run."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import ConfigDict, Field

from api.formats import Body, Cursor, Instant, Limit, Page, Shown, page_of
from api.security import Author, Caller, Right, Viewer
from api.services import Deck
from cluster import catalog
from storage.records import StrategyRecord
from trading.errors import Conflict
from trading.ids import name

router = APIRouter(prefix="/v1/strategies", tags=["strategies"])

_SOURCE = """from strategies import Strategy, StrategyParameters, Tick

class Mine(Strategy[StrategyParameters]):
    def on_tick(self, tick: Tick) -> None:
        self.log(f"{tick.instrument.id} {tick.price}")
"""


class NewStrategy(Body):
    """Strategy code; ``entry`` names the class where the source has several strategies."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "mine", "source": _SOURCE}]})

    name: str
    source: str = Field(min_length=1, max_length=1_000_000)
    entry: str = Field("", max_length=200)


class StrategyShown(Shown):
    """A strategy; ``version`` is the hash of its source, ``parameters`` their JSON Schema."""

    name: str
    version: str
    entry: str
    builtin: bool
    parameters: dict[str, Any]
    created_at: Instant
    #: Only of a single one, and only to those who may register strategies.
    source: str | None = None


def _shown(record: StrategyRecord, source: str | None = None) -> StrategyShown:
    return StrategyShown(
        name=record.name,
        version=record.version,
        entry=record.entry,
        builtin=not record.source,
        parameters=record.schema,
        created_at=record.created_at,
        source=source,
    )


@router.get("", response_model=Page[StrategyShown])
async def list_strategies(_: Viewer, deck: Deck, limit: Limit = 100, cursor: Cursor = None) -> dict[str, Any]:
    """All strategies."""
    page = page_of(await deck.desired.strategies(), lambda strategy: strategy.name, limit, cursor)
    return {**page, "items": [_shown(each) for each in page["items"]]}


@router.get("/{name}", response_model=StrategyShown)
async def get_strategy(name: str, caller: Viewer, deck: Deck) -> StrategyShown:
    """One strategy with the schema of its parameters."""
    record = await deck.desired.strategy(name)
    return _shown(record, record.source if record.source and _may_read(caller) else None)


@router.post("", response_model=StrategyShown, status_code=201)
async def create_strategy(body: NewStrategy, caller: Author, deck: Deck) -> StrategyShown:
    """Register strategy code.  It is loaded once, in a process of its own, to see that it can be."""
    name(body.name, "name")
    if body.name in catalog.BUILTIN:
        raise Conflict("strategy_exists", f"{body.name!r} is built in: choose another name")
    record = await catalog.read_strategy(body.name, body.source, body.entry)
    return _shown(await deck.desired.create_strategy(record, by=caller.user), record.source)


@router.delete("/{name}", status_code=204)
async def delete_strategy(name: str, caller: Author, deck: Deck) -> None:
    """Remove a strategy that no algo uses."""
    record = await deck.desired.strategy(name)
    if not record.source:
        raise Conflict("strategy_is_builtin", f"{name!r} is built in and cannot be removed")
    await deck.desired.delete_strategy(name, by=caller.user)


def _may_read(caller: Caller) -> bool:
    return Right.STRATEGIES in caller.rights
