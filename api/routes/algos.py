"""``/v1/algos``: running instances of strategies."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import ConfigDict, Field

from api.formats import Body, Cursor, Instant, Limit, Page, Shown, page_of
from api.problems import ProblemError
from api.security import AlgoRunner, Caller, Viewer
from api.services import Deck, Services, referenced
from api.shapes import AlgoShown, algo_live
from cluster import catalog
from cluster.placement import check_placement
from storage.records import AlgoRecord, Apart, Packing, Placement, StrategyRecord, StrategyVersion
from storage.wishes import all_wanted
from trading.errors import BadInput, Conflict, Fenced
from trading.ids import AlgoId, Epoch, FeedId, Nanos, NodeName, instrument_id, name

router = APIRouter(prefix="/v1/algos", tags=["algos"])

#: States in which something of an algo may still run.
_ALIVE = frozenset({"starting", "running", "stopping"})
_ATTEMPTS = 5


class PlacementGiven(Body):
    """Where an algo may run.  ``selector``: labels of its machine; ``apart``: from other algos of its account."""

    selector: str = Field("", max_length=2_000)
    packing: Packing = Packing.SPREAD
    apart: Apart = Apart.NO
    cpus: float = Placement().cpus
    memory_mb: int = Placement().memory_mb

    def placement(self) -> Placement:
        """Checked, as it is kept."""
        return check_placement(Placement(**self.model_dump()))


class NewAlgo(Body):
    """An algo to add; ``node`` "" lets the Supervisor choose, as ``placement`` says."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "momo-1",
                    "strategy": "ma-cross",
                    "account": "paper-1",
                    "feed": "crypto",
                    "instruments": ["BINANCE-USDM:BTCUSDT"],
                    "parameters": {"interval": "1s", "fast": 5, "slow": 20},
                    "node": "",
                    "start": True,
                }
            ]
        }
    )

    id: str
    strategy: str
    #: "": the newest that is not deprecated.  The algo keeps it until it is upgraded.
    strategy_version: str = Field("", max_length=64)
    account: str
    feed: str
    instruments: list[str] = Field(min_length=1, max_length=1_000)
    parameters: dict[str, Any] = Field(default_factory=dict)
    node: str = ""
    placement: PlacementGiven = PlacementGiven()
    start: bool = False


class AlgoChange(Body):
    """What may change; a running algo is restarted with it.  What is left out stays.

    ``generation``: of the algo as it was seen; where it has changed since, nothing is done (409).
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"parameters": {"fast": 8, "slow": 21}}]})

    parameters: dict[str, Any] | None = None
    node: str | None = None
    placement: PlacementGiven | None = None
    generation: int | None = Field(None, ge=1)


class LogLineShown(Shown):
    """A line of an algo's log; ``number`` is what to pass as ``after``."""

    number: int
    epoch: int
    at: Instant
    level: str
    text: str


@router.post("", response_model=AlgoShown, status_code=201)
async def create_algo(body: NewAlgo, caller: AlgoRunner, deck: Deck) -> AlgoShown:
    """Add an algo; with ``start`` it is started as well."""
    id = catalog.check_algo_id(name(body.id, "id"))
    account = await referenced("account", deck.account_of(caller, body.account))
    if body.start and not account.enabled:
        raise BadInput("account", f"account {account.id} is disabled: enable it, or leave out start")
    strategy = await referenced("strategy", deck.strategies.get(body.strategy))
    version = await pinned(deck, strategy, body.strategy_version)
    feed, wishes = await referenced("feed", deck.wishes.read(FeedId(body.feed)))
    carried = all_wanted(feed, wishes)
    instruments = tuple(dict.fromkeys(instrument_id(text, "instruments") for text in body.instruments))
    missing = [each for each in instruments if each not in carried]
    if missing:
        raise ProblemError(
            422,
            "not_in_feed",
            "Bad input",
            f"feed {feed.id} does not carry {', '.join(missing[:20])}: add them to it first",
            field="instruments",
            unknown=missing,
        )
    await _check_node(deck, body.node)
    await check_parameters(deck, strategy.name, version, body.parameters)
    now = Nanos(time.time_ns())
    record = AlgoRecord(
        id=id,
        user=account.user,
        account=account.id,
        strategy=strategy.name,
        strategy_version="" if version is None else version.version,
        parameters=body.parameters,
        instruments=instruments,
        feed=feed.id,
        node=NodeName(body.node),
        placement=body.placement.placement(),
        want="running" if body.start else "stopped",
        state="waiting" if body.start else "stopped",
        reason="",
        epoch=Epoch(0),
        created_at=now,
        updated_at=now,
    )
    return await shown(deck, await deck.desired.create_algo(record, by=caller.user))


@router.get("", response_model=Page[AlgoShown])
async def list_algos(caller: Viewer, deck: Deck, limit: Limit = 100, cursor: Cursor = None) -> dict[str, Any]:
    """Algos; operators see everybody's."""
    mine = [algo for algo in await deck.desired.algos() if caller.sees(algo.user)]
    page = page_of(mine, lambda algo: algo.id, limit, cursor)
    hot, _ = await deck.look_all("algo:")
    gone = await deck.strategies.deprecated()
    return {**page, "items": [_with_live(algo, hot.get(f"algo:{algo.id}"), gone) for algo in page["items"]]}


@router.get("/{id}", response_model=AlgoShown)
async def get_algo(id: str, caller: Viewer, deck: Deck) -> AlgoShown:
    """One algo: what is wanted, its state in words, how it goes."""
    return await shown(deck, await find(deck, caller, id))


@router.post("/{id}/start", response_model=AlgoShown)
async def start_algo(id: str, caller: AlgoRunner, deck: Deck) -> AlgoShown:
    """Start it; a failed one starts anew, a running one goes on untouched."""
    record = await find(deck, caller, id)
    if record.want == "running" and record.state != "failed":
        return await shown(deck, record)
    return await shown(deck, await _start(deck, caller, record))


@router.post("/{id}/stop", response_model=AlgoShown)
async def stop_algo(id: str, caller: AlgoRunner, deck: Deck) -> AlgoShown:
    """Stop it: it takes its open orders back and keeps its position."""
    record = await find(deck, caller, id)
    if record.want != "stopped":
        record = await deck.desired.update_algo(record.id, {"want": "stopped"}, by=caller.user)
    return await shown(deck, record)


@router.post("/{id}/restart", response_model=AlgoShown)
async def restart_algo(id: str, caller: AlgoRunner, deck: Deck) -> AlgoShown:
    """Stop it in order and start it again, from its snapshot."""
    record = await find(deck, caller, id)
    if record.want == "running" and record.state != "failed":
        # The new generation makes the Supervisor replace the incarnation.
        record = await deck.desired.update_algo(record.id, {"want": "running"}, by=caller.user)
    else:
        record = await _start(deck, caller, record)
    return await shown(deck, record)


@router.patch("/{id}", response_model=AlgoShown)
async def change_algo(id: str, body: AlgoChange, caller: AlgoRunner, deck: Deck) -> AlgoShown:
    """Change parameters, node or placement: so it moves to another machine, from its snapshot."""
    record = await find(deck, caller, id)
    if body.node is not None:
        await _check_node(deck, body.node)
    if body.parameters is not None:
        await check_parameters(deck, record.strategy, await version_of(deck, record), body.parameters)
    given = body.model_dump(exclude_none=True, exclude={"generation", "placement"})
    if body.placement is not None:
        given["placement"] = body.placement.placement()
    changes = {field: value for field, value in given.items() if getattr(record, field) != value}
    if changes:
        record = await deck.desired.update_algo(record.id, changes, by=caller.user, generation=body.generation)
    return await shown(deck, record)


@router.delete("/{id}", status_code=204)
async def delete_algo(id: str, caller: AlgoRunner, deck: Deck) -> None:
    """Remove a stopped algo with its log and snapshot; its orders stay in the journal."""
    record = await find(deck, caller, id)
    if record.want == "running" or record.state in _ALIVE:
        raise Conflict("algo_is_running", f"algo {id!r} is {record.state}: stop it and wait until it has stopped")
    await deck.desired.delete_algo(record.id, by=caller.user, generation=record.generation)


@router.get("/{id}/logs", response_model=Page[LogLineShown])
async def algo_logs(
    id: str,
    caller: Viewer,
    deck: Deck,
    limit: Limit = 100,
    after: Annotated[int, Query(ge=0, le=2**63 - 1, description="`next` of the answer before")] = 0,
) -> dict[str, Any]:
    """The newest lines above ``after``, oldest first; ``next`` is what to pass as ``after`` for later ones."""
    record = await find(deck, caller, id)
    lines = await deck.algo_log.tail(record.id, limit, after)
    return {"items": lines, "next": str(lines[-1].number if lines else after)}


async def find(deck: Services, caller: Caller, id: str) -> AlgoRecord:
    """An algo that the caller may see; `UnknownThing` otherwise."""
    return caller.own_algo(await deck.desired.algo(AlgoId(id)))


async def _start(deck: Services, caller: Caller, record: AlgoRecord) -> AlgoRecord:
    account = await deck.desired.account(record.account)
    if not account.enabled:
        raise Conflict("account_is_disabled", f"account {account.id} is disabled: enable it first")
    if all(feed.id != record.feed for feed in await deck.desired.feeds()):
        raise Conflict("feed_is_gone", f"feed {record.feed} was deleted: make it again, or delete this algo")
    if record.state == "failed":
        await _clear(deck, caller, record)
    return await deck.desired.update_algo(record.id, {"want": "running"}, by=caller.user)


async def _clear(deck: Services, caller: Caller, record: AlgoRecord) -> None:
    """Forget the failure.  A new epoch first: what is left of the failed incarnation could tell of it again."""
    for _ in range(_ATTEMPTS):
        epoch = await deck.desired.new_algo_epoch(record.id, by=caller.user)
        try:
            await deck.desired.set_algo_state(record.id, epoch, "waiting", "asked to start", by=caller.user)
        except Fenced:
            continue  # the Supervisor numbers one too
        return
    raise Conflict("algo_is_changing", f"algo {record.id!r} keeps being started elsewhere: look at it again")


async def _check_node(deck: Services, node: str) -> None:
    if node:
        await referenced("node", deck.desired.node(NodeName(node)))


async def pinned(deck: Services, strategy: StrategyRecord, asked: str) -> StrategyVersion | None:
    """The version that a new algo is to pin, None of a built-in strategy; raises `Conflict` for a deprecated one."""
    if strategy.builtin:
        if asked:
            raise BadInput("strategy_version", f"{strategy.name} is built in and comes with the release: leave it out")
        return None
    if not asked and not strategy.version:
        raise Conflict(
            "version_deprecated", f"all versions of {strategy.name} are deprecated: submit another or bring one back"
        )
    version = await referenced(
        "strategy_version", deck.strategies.version(strategy.name, asked or strategy.version, "strategy_version")
    )
    refuse_deprecated(version)
    return version


def refuse_deprecated(version: StrategyVersion) -> None:
    """Raise `Conflict` where nobody may take it up."""
    if version.deprecated_at:
        raise Conflict(
            "version_deprecated",
            f"version {version.version[:12]} of {version.strategy} is deprecated: {version.deprecated_because}",
        )


async def version_of(deck: Services, record: AlgoRecord) -> StrategyVersion | None:
    """The version that an algo runs; None of a built-in strategy."""
    if not record.strategy_version:
        return None
    return await deck.strategies.version(record.strategy, record.strategy_version)


async def check_parameters(
    deck: Services, strategy: str, version: StrategyVersion | None, parameters: dict[str, Any]
) -> None:
    """Raise `BadInput` naming the parameter unless the strategy takes these."""
    if version is None:
        await catalog.check_builtin_parameters(strategy, parameters)
    else:
        await deck.submissions.check_parameters(version, parameters)


async def shown(deck: Services, record: AlgoRecord) -> AlgoShown:
    """An algo as it is answered."""
    hot, _ = await deck.look(f"algo:{record.id}")
    return _with_live(record, hot, await deck.strategies.deprecated())


def _with_live(record: AlgoRecord, hot: dict[str, Any] | None, deprecated: dict[tuple[str, str], str]) -> AlgoShown:
    return AlgoShown.model_validate(record).model_copy(
        update={
            "live": algo_live(hot, record.epoch),
            "previous_version": record.previous.get("version"),
            "deprecated": deprecated.get((record.strategy, record.strategy_version)),
        }
    )
