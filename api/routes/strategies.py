"""``/v1/strategies``: the code that algos run, by name."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from pydantic import ConfigDict, Field

from api.formats import Body, Cursor, Instant, Limit, Page, Shown, page_of
from api.refused_uploads import NotedRoute
from api.security import Author, Caller, Right, Viewer
from api.services import Deck, Services
from cluster.submissions import Submission
from storage.records import StrategyRecord, StrategyVersion
from trading.errors import Conflict

router = APIRouter(prefix="/v1/strategies", tags=["strategies"])
submitting = APIRouter(prefix="/v1/strategies", tags=["strategies"], route_class=NotedRoute)

_SOURCE = """from strategies import Strategy, StrategyParameters, Tick

class Mine(Strategy[StrategyParameters]):
    def on_tick(self, tick: Tick) -> None:
        self.log(f"{tick.instrument.id} {tick.price}")
"""


class NewStrategy(Body):
    """A strategy in one module; ``entry`` names the class where it has several.

    ``parameters`` and ``instruments`` are what it is tried with over a made-up market, ``smoke`` false leaves that out.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "mine", "source": _SOURCE}]})

    name: str
    source: str = Field(min_length=1, max_length=1_000_000)
    entry: str = Field("", max_length=200)
    requirements: list[str] = Field(default_factory=list, max_length=50)
    parameters: dict[str, Any] = Field(default_factory=dict)
    instruments: list[str] = Field(default_factory=list, max_length=10)
    smoke: bool = True


class StrategyShown(Shown):
    """A strategy and the version that a new algo takes: the newest that is not deprecated, "" where there is none.

    ``parameters`` are that version's, as JSON Schema.  ``version`` of a built-in one changes with the release.
    """

    name: str
    version: str
    entry: str
    builtin: bool
    parameters: dict[str, Any]
    created_at: Instant
    #: Only of a single one in one module, and only to those who may register strategies.
    source: str | None = None


def _shown(record: StrategyRecord, source: str | None = None) -> StrategyShown:
    return StrategyShown(
        name=record.name,
        version=record.version,
        entry=record.entry,
        builtin=record.builtin,
        parameters=record.schema,
        created_at=record.created_at,
        source=source,
    )


@router.get("", response_model=Page[StrategyShown])
async def list_strategies(_: Viewer, deck: Deck, limit: Limit = 100, cursor: Cursor = None) -> dict[str, Any]:
    """All strategies."""
    page = page_of(await deck.strategies.all(), lambda strategy: strategy.name, limit, cursor)
    return {**page, "items": [_shown(each) for each in page["items"]]}


@router.get("/{name}", response_model=StrategyShown)
async def get_strategy(name: str, caller: Viewer, deck: Deck) -> StrategyShown:
    """One strategy with the schema of its parameters."""
    record = await deck.strategies.get(name)
    if record.builtin or not record.version or not may_read(caller):
        return _shown(record)
    return _shown(record, await _source(deck, await deck.strategies.version(name, record.version)))


@submitting.post(
    "",
    response_model=StrategyShown,
    status_code=201,
    responses={200: {"model": StrategyShown, "description": "The very same was submitted before"}},
)
async def submit_source(body: NewStrategy, caller: Author, deck: Deck, response: Response) -> StrategyShown:
    """Submit a strategy in one module; under a name that is there, another version of it.

    It is loaded and tried in a process of its own first.  The same content again is the same version: 200 then."""
    handed = Submission(
        name=body.name,
        file_name=f"{body.name}.py",
        data=body.source.encode(),
        entry=body.entry,
        requirements=tuple(body.requirements),
        parameters=body.parameters,
        instruments=tuple(body.instruments),
        smoke=body.smoke,
        field="source",
    )
    version, is_new = await deck.submissions.submit(handed, caller.user)
    response.status_code = 201 if is_new else 200
    return StrategyShown(
        name=version.strategy,
        version=version.version,
        entry=version.entry,
        builtin=False,
        parameters=version.schema,
        created_at=version.submitted_at,
        source=body.source,
    )


@router.delete("/{name}", status_code=204)
async def delete_strategy(name: str, caller: Author, deck: Deck) -> None:
    """Remove a strategy that no algo uses, with all its versions."""
    record = await deck.strategies.get(name)
    if record.builtin:
        raise Conflict("strategy_is_builtin", f"{name!r} is built in and cannot be removed")
    await deck.strategies.delete(name, by=caller.user)


async def _source(deck: Services, version: StrategyVersion) -> str | None:
    if version.kind != "file":
        return None
    (content,) = (await deck.submissions.files(version)).values()
    return content.decode()


def may_read(caller: Caller) -> bool:
    """Whether the caller is shown code."""
    return Right.STRATEGIES in caller.rights
