"""``/v1/algos``: running instances of strategies."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import ConfigDict, Field

from api.formats import Amount, Body, Cursor, Limit, Page, Shown, page_of
from api.problems import ProblemError
from api.routes.kills import OrderOfKill
from api.security import AlgoRunner, Caller, Viewer
from api.services import Deck, Services, referenced
from api.shapes import ALIVE, AlgoShown, algo_live
from cluster import catalog, live_parameters
from cluster.algo_labels import check_algo_labels, select
from cluster.live_parameters import need_restart
from cluster.placement import check_placement
from storage.records import AlgoRecord, Apart, OverCpu, Packing, Placement, StrategyRecord, StrategyVersion
from storage.wishes import all_wanted
from trading.errors import BadInput, Conflict
from trading.ids import AlgoId, Epoch, FeedId, Nanos, NodeName, instrument_id, name

router = APIRouter(prefix="/v1/algos", tags=["algos"])

_ATTEMPTS = 5


class PlacementGiven(Body):
    """Where an algo may run, and how much it may take.

    ``selector``: labels of its machine; ``apart``: from other algos of its account.
    """

    selector: str = Field("", max_length=2_000)
    packing: Packing = Packing.SPREAD
    apart: Apart = Apart.NO
    cpus: float = Placement().cpus
    memory_mb: int = Placement().memory_mb
    cpu_limit: float = Placement().cpu_limit
    over_cpu: OverCpu = OverCpu.NICE

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
                    "labels": {"desk": "alpha"},
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
    #: For commands to many; `desk=alpha` selects it then.
    labels: dict[str, str] = Field(default_factory=dict)
    start: bool = False


class AlgoChange(Body):
    """What may change; what is left out stays.  ``labels`` take the place of all that it has.

    ``generation``: of the algo as it was seen; where it has changed since, nothing is done (409).
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"parameters": {"fast": 8, "slow": 21}}]})

    parameters: dict[str, Any] | None = None
    node: str | None = None
    placement: PlacementGiven | None = None
    labels: dict[str, str] | None = None
    generation: int | None = Field(None, ge=1)


Applied = Literal["live", "restart", "stored", "unchanged"]


class AlgoChanged(AlgoShown):
    """An algo after a change.

    ``applied``: ``live``, its running incarnation takes it up as it is; ``restart``, it stops in order and starts again
    with it; ``stored``, it begins with it when it is started; ``unchanged``, it was so already.
    """

    applied: Applied = "unchanged"


class StopShown(Shown):
    """What has come of a stop, and what is left.

    ``waiting`` says in words what is not done yet.  ``closing``: the orders that close its position.
    """

    done: bool
    waiting: list[str]
    open_orders: int
    positions: dict[str, Amount]
    closing: list[OrderOfKill]


class AlgoWithStop(AlgoShown):
    """An algo; of one that is to be stopped, with what has come of it."""

    stop: StopShown | None = None


@router.post("", response_model=AlgoShown, status_code=201)
async def create_algo(body: NewAlgo, caller: AlgoRunner, deck: Deck) -> AlgoShown:
    """Add an algo; with ``start`` it is started as well."""
    id = catalog.check_algo_id(name(body.id, "id"))
    account = await referenced("account", deck.traded_account_of(caller, body.account))
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
    await check_node(deck, body.node)
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
        labels=check_algo_labels(body.labels),
        want="running" if body.start else "stopped",
        state="waiting" if body.start else "stopped",
        reason="",
        epoch=Epoch(0),
        created_at=now,
        updated_at=now,
    )
    return await shown(deck, await deck.desired.create_algo(record, by=caller.user))


@router.get("", response_model=Page[AlgoShown])
async def list_algos(
    caller: Viewer,
    deck: Deck,
    limit: Limit = 100,
    cursor: Cursor = None,
    selector: Annotated[
        str | None, Query(max_length=2_000, description="Labels, such as desk=alpha,state=failed")
    ] = None,
) -> dict[str, Any]:
    """Algos; operators see everybody's."""
    mine = [algo for algo in await deck.desired.algos() if caller.sees_algo(algo)]
    if selector is not None:
        mine = select(mine, selector)
    page = page_of(mine, lambda algo: algo.id, limit, cursor)
    hot, _ = await deck.look_all("algo:")
    gone = await deck.strategies.deprecated()
    return {**page, "items": [_with_live(algo, hot.get(f"algo:{algo.id}"), gone) for algo in page["items"]]}


@router.get("/{id}", response_model=AlgoWithStop)
async def get_algo(id: str, caller: Viewer, deck: Deck) -> AlgoWithStop:
    """One algo: what is wanted, its state in words, how it goes; of a stopped one, what is left open."""
    return await with_stop(deck, await find(deck, caller, id))


@router.patch("/{id}", response_model=AlgoChanged)
async def change_algo(id: str, body: AlgoChange, caller: AlgoRunner, deck: Deck) -> AlgoChanged:
    """Change parameters, labels, node or placement.

    A running algo takes up labels, and parameters that its strategy declares updatable, as it runs; for anything else
    it stops in order and goes on with it from its snapshot, on another machine if need be.
    """
    for attempt in range(_ATTEMPTS):
        record = await find_traded(deck, caller, id)
        changes = await _changes(deck, record, body)
        if not changes:
            return await changed(deck, record, record)
        if await _is_live(deck, record, changes):
            changes["restart_generation"] = record.restart_generation
        # What is live was judged by the record as it was seen.
        generation = body.generation or record.generation
        try:
            after = await deck.desired.update_algo(record.id, changes, by=caller.user, generation=generation)
        except Conflict as error:
            if body.generation is not None or attempt + 1 == _ATTEMPTS:
                raise await with_present(deck, caller, id, error) from error
            continue
        return await changed(deck, record, after)
    raise AssertionError("the last attempt returns or raises")


async def _changes(deck: Services, record: AlgoRecord, body: AlgoChange) -> dict[str, Any]:
    """What is asked for and is not so yet; checked."""
    if body.node is not None:
        await check_node(deck, body.node)
    if body.parameters is not None:
        await check_parameters(deck, record.strategy, await version_of(deck, record), body.parameters)
    given = body.model_dump(exclude_none=True, exclude={"generation", "placement"})
    if body.labels is not None:
        check_algo_labels(body.labels)
    if body.placement is not None:
        given["placement"] = body.placement.placement()
    return {field: value for field, value in given.items() if getattr(record, field) != value}


async def _is_live(deck: Services, record: AlgoRecord, changes: dict[str, Any]) -> bool:
    if not set(changes) <= {"labels", "parameters"}:
        return False
    if "parameters" not in changes:
        return True
    version = await version_of(deck, record)
    schema = (await deck.strategies.get(record.strategy)).schema if version is None else version.schema
    return not need_restart(schema, live_parameters.changed(schema, record.parameters, changes["parameters"]))


@router.delete("/{id}", status_code=204)
async def delete_algo(id: str, caller: AlgoRunner, deck: Deck) -> None:
    """Remove a stopped algo with its snapshot; its orders, its log and its events stay readable."""
    record = await find_traded(deck, caller, id)
    if record.want == "running" or record.state in ALIVE:
        raise Conflict("algo_is_running", f"algo {id!r} is {record.state}: stop it and wait until it has stopped")
    await deck.desired.delete_algo(record.id, by=caller.user, generation=record.generation)


async def find(deck: Services, caller: Caller, id: str) -> AlgoRecord:
    """An algo that the caller may see; `UnknownThing` otherwise."""
    return caller.own_algo(await deck.desired.algo(AlgoId(id)))


async def find_traded(deck: Services, caller: Caller, id: str) -> AlgoRecord:
    """As `find`, of an algo that the caller may command; the 403 problem where it may only be looked at."""
    return caller.traded_algo(await find(deck, caller, id))


async def check_node(deck: Services, node: str) -> None:
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


def fields_of(algo: AlgoShown) -> dict[str, Any]:
    """What an answer with more than the algo has of it."""
    return {name: getattr(algo, name) for name in AlgoShown.model_fields}


async def changed(deck: Services, before: AlgoRecord, after: AlgoRecord) -> AlgoChanged:
    """An algo after a change, and how that takes effect."""
    applied: Applied = "unchanged"
    if after.generation != before.generation:
        goes = after.want == "running" and after.state != "failed"
        is_live = after.restart_generation == before.restart_generation
        applied = "stored" if not goes else "live" if is_live else "restart"
    return AlgoChanged(**fields_of(await shown(deck, after)), applied=applied)


async def with_stop(deck: Services, record: AlgoRecord) -> AlgoWithStop:
    """An algo; of one that is to be stopped, what has come of it."""
    stop = None
    if record.want == "stopped":
        left = await deck.algo_commands.left(record)
        closing = await deck.kills.closing(record.flatten, record.account) if record.flatten else []
        waiting = [f"it is {record.state}"] if record.state in ALIVE else []
        if left.open_orders and record.stop_orders == "cancel":
            waiting.append(f"{left.open_orders} orders are open")
        if left.positions and record.stop_position == "flatten":
            held = ", ".join(f"{quantity:f} {each}" for each, quantity in sorted(left.positions.items()))
            waiting.append(f"it holds {held}")
        stop = StopShown(
            done=not waiting,
            waiting=waiting,
            open_orders=left.open_orders,
            positions=left.positions,
            closing=[OrderOfKill.model_validate(order) for order in closing],
        )
    return AlgoWithStop(**fields_of(await shown(deck, record)), stop=stop)


async def with_present(deck: Services, caller: Caller, id: str, error: Conflict) -> Exception:
    """``error``, with the algo as it stands now where somebody else was faster."""
    if error.code != "generation_changed":
        return error
    present = await shown(deck, await find(deck, caller, id))
    return ProblemError(409, error.code, "Conflict", error.detail, present=present.model_dump(mode="json"))
