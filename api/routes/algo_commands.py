"""``/v1/algos/{id}/start``, ``/stop``, ``/restart``, ``/pause``, ``/resume``, ``/move``."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query
from pydantic import ConfigDict, Field

from api.formats import Body
from api.routes.accounts import Refusal
from api.routes.algos import (
    AlgoChanged,
    AlgoWithStop,
    changed,
    check_node,
    fields_of,
    find_traded,
    shown,
    with_present,
    with_stop,
)
from api.security import AlgoRunner, Caller
from api.services import Deck, Services
from api.shapes import ALIVE, AlgoShown
from cluster.placement import Machine, choose
from storage.records import AlgoRecord, KillRecord, OrderFilter
from trading.entries import entries
from trading.errors import Conflict, TradeError
from trading.ids import CauseId, NodeName
from trading.kill_switch import Kill
from trading.limits import PAUSED, algo_scope
from trading.orders import CancelOrder, Order, OrderState

router = APIRouter(prefix="/v1/algos", tags=["algos"])

#: A session hears of a limit within a second.
_HEARD_S = 3.0
_SESSION_S = 3.0
#: Pages of open orders of an account that are looked at.
_MOST_PAGES = 50
_OPEN = tuple(state for state in OrderState if not state.is_final)


class StopWanted(Body):
    """How to stop: ``orders``, cancel or leave what is open; ``position``, keep what is held or flatten it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"orders": "cancel", "position": "flatten"}]})

    orders: Literal["cancel", "leave"] = "cancel"
    position: Literal["keep", "flatten"] = "keep"


class PauseWanted(Body):
    """Why, for others to read; ``cancel_open``: its open orders that could enlarge a position are taken back too."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"because": "prices look wrong", "cancel_open": True}]})

    because: str = Field("", max_length=500)
    cancel_open: bool = False


class MoveWanted(Body):
    """Where to; "" lets the Supervisor choose, as its placement says.

    ``generation``: of the algo as it was seen.  ``force``: also to a machine that cannot take it now; it waits then.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"node": "edge", "generation": 4}]})

    node: str
    generation: int | None = Field(None, ge=1)
    force: bool = False


class EntryLeft(Refusal):
    """An open order that its session would not take back, and why."""

    client_order_id: str


class AlgoPaused(AlgoShown):
    """A paused algo.

    ``holds``: every session has heard of it, so no order that does not reduce passes any more.  ``cancelled``: keys of
    the orders that are being taken back; ``refused``: those that are not, and may still fill.
    """

    holds: bool = False
    cancelled: list[str] = Field(default_factory=list)
    refused: list[EntryLeft] = Field(default_factory=list)


Wait = Annotated[float, Query(ge=0, le=30, description="Wait so long for it to be done")]


@router.post("/{id}/start", response_model=AlgoShown)
async def start_algo(id: str, caller: AlgoRunner, deck: Deck) -> AlgoShown:
    """Start it; a failed one starts anew, a running one goes on untouched."""
    return await shown(deck, await start(deck, caller, await find_traded(deck, caller, id)))


@router.post("/{id}/stop", response_model=AlgoWithStop)
async def stop_algo(
    id: str, caller: AlgoRunner, deck: Deck, body: StopWanted | None = None, wait_s: Wait = 0.0
) -> AlgoWithStop:
    """Stop it: it takes its open orders back and keeps its position, unless asked otherwise.

    Asked again, nothing happens twice; asked otherwise, the last word counts.  `stop` tells what is left.
    """
    record, kill = await stop(deck, caller, await find_traded(deck, caller, id), body or StopWanted())
    if kill is not None:
        await tell(deck, record, kill)
    until = time.monotonic() + wait_s
    while True:
        answer = await with_stop(deck, record)
        if answer.stop is None or answer.stop.done or time.monotonic() >= until:
            return answer
        await asyncio.sleep(0.1)
        record = await find_traded(deck, caller, id)


@router.post("/{id}/restart", response_model=AlgoShown)
async def restart_algo(id: str, caller: AlgoRunner, deck: Deck) -> AlgoShown:
    """Stop it in order and start it again, from its snapshot."""
    return await shown(deck, await restart(deck, caller, await find_traded(deck, caller, id)))


@router.post("/{id}/pause", response_model=AlgoPaused)
async def pause_algo(id: str, caller: AlgoRunner, deck: Deck, body: PauseWanted | None = None) -> AlgoPaused:
    """Let it run on, see the market and reduce what it holds, and refuse whatever else it asks for.

    It holds through restarts, other machines and other versions, until it is resumed.
    """
    wanted = body or PauseWanted()
    record = await pause(deck, caller, await find_traded(deck, caller, id), wanted)
    return await paused(deck, caller, record, wanted, await until_heard(deck, record))


@router.post("/{id}/resume", response_model=AlgoShown)
async def resume_algo(id: str, caller: AlgoRunner, deck: Deck) -> AlgoShown:
    """Let a paused algo trade again."""
    return await shown(deck, await resume(deck, caller, await find_traded(deck, caller, id)))


@router.post("/{id}/move", response_model=AlgoChanged)
async def move_algo(id: str, body: MoveWanted, caller: AlgoRunner, deck: Deck) -> AlgoChanged:
    """Pin it to another machine: it stops in order and goes on there from its snapshot.

    Of two who move it at once one gets 409, with the algo as it stands as `present`.
    """
    record = await find_traded(deck, caller, id)
    return await changed(deck, record, await move(deck, caller, record, body))


# What they do, for one algo or for many


async def start(deck: Services, caller: Caller, record: AlgoRecord) -> AlgoRecord:
    """Want it running; a failure is forgotten."""
    if record.want == "running" and record.state != "failed":
        return record
    account = await deck.desired.account(record.account)
    if not account.enabled:
        raise Conflict("account_is_disabled", f"account {account.id} is disabled: enable it first")
    if all(feed.id != record.feed for feed in await deck.desired.feeds()):
        raise Conflict("feed_is_gone", f"feed {record.feed} was deleted: make it again, or delete this algo")
    return await deck.algo_commands.start(record.id, by=caller.user)


async def restart(deck: Services, caller: Caller, record: AlgoRecord) -> AlgoRecord:
    """Have a running one replaced; start one that does not run."""
    if record.want == "running" and record.state != "failed":
        # The new generation makes the Supervisor replace the incarnation.  Of the one that was looked at: a stop that
        # somebody else asked for meanwhile must not be undone.
        return await deck.desired.update_algo(
            record.id, {"want": "running"}, by=caller.user, generation=record.generation
        )
    return await start(deck, caller, record)


async def stop(
    deck: Services, caller: Caller, record: AlgoRecord, wanted: StopWanted
) -> tuple[AlgoRecord, KillRecord | None]:
    """Want it stopped as ``wanted``; and the kill, if its session is to hear of one now."""
    return await deck.algo_commands.stop(record.id, wanted.orders, wanted.position, by=caller.user)


async def pause(deck: Services, caller: Caller, record: AlgoRecord, wanted: PauseWanted) -> AlgoRecord:
    """Refuse its entries from now on."""
    return await deck.algo_commands.pause(record.id, wanted.because, by=caller.user)


async def resume(deck: Services, caller: Caller, record: AlgoRecord) -> AlgoRecord:
    """Let it enter again."""
    return await deck.algo_commands.resume(record.id, by=caller.user)


async def move(deck: Services, caller: Caller, record: AlgoRecord, wanted: MoveWanted) -> AlgoRecord:
    """Pin it elsewhere.  Raises `Conflict` for a machine that cannot take it, and where somebody else was faster."""
    await check_node(deck, wanted.node)
    if wanted.generation in (None, record.generation) and wanted.node == record.node:
        return record
    if wanted.node and not wanted.force:
        await _check_takes(deck, record, wanted.node)
    # The generation that was looked at: of two who move it at once, one is told.
    generation = wanted.generation or record.generation
    try:
        return await deck.desired.update_algo(
            record.id, {"node": NodeName(wanted.node)}, by=caller.user, generation=generation
        )
    except Conflict as error:
        raise await with_present(deck, caller, record.id, error) from error


async def paused(deck: Services, caller: Caller, record: AlgoRecord, wanted: PauseWanted, holds: bool) -> AlgoPaused:
    """The answer to a pause, once what is open has been taken back if that was asked for."""
    cancelled, refused = await _cancel_entries(deck, caller, record) if wanted.cancel_open else ([], [])
    return AlgoPaused(**fields_of(await shown(deck, record)), holds=holds, cancelled=cancelled, refused=refused)


async def until_heard(deck: Services, record: AlgoRecord) -> bool:
    """Wait until every session that may act has heard of a pause; False where that is not known in time."""
    if deck.link is None:
        return False
    until = time.monotonic() + _HEARD_S
    while time.monotonic() < until:
        try:
            state = await deck.link.risk().call("limit_state", algo_scope(record.id), PAUSED, "", timeout=2.0)
        except TradeError:
            # It is in force with its commit; sessions that hear nothing from central risk enter nothing after 5 s.
            return False
        if state is None or state.holds:
            return state is not None
        await asyncio.sleep(0.1)
    return False


async def _cancel_entries(deck: Services, caller: Caller, record: AlgoRecord) -> tuple[list[str], list[EntryLeft]]:
    """Take back an algo's open orders that could enlarge a position: the keys of those that are, and those that are
    not.  One that has ended meanwhile is neither.
    """
    filters = OrderFilter(account=record.account, states=_OPEN)
    found: list[Order] = []
    cursor: str | None = None
    for _ in range(_MOST_PAGES):
        page, cursor = await deck.journal.orders(filters, cursor, limit=1000)
        found += page
        if cursor is None:
            break
    held = {each.instrument: each.quantity for each in await deck.journal.positions([record.account])}
    mine = [order for order in entries(found, held) if order.algo == record.id and not order.cancelling]
    if not mine:
        return [], []
    cause = CauseId(caller.cause)
    cancels = [
        CancelOrder(account=record.account, client_order_id=order.client_order_id, cause=cause) for order in mine
    ]
    results = await deck.session(record.user).call("cancel", cancels, timeout=5.0)
    taken, refused = list[str](), list[EntryLeft]()
    for cancel, result in zip(cancels, results, strict=True):
        key = str(cancel.client_order_id)
        if not isinstance(result, TradeError):
            taken.append(key)
        elif result.code != "order_is_final":
            refused.append(EntryLeft(client_order_id=key, code=result.code, detail=str(result)))
    left = {each.client_order_id: each.detail for each in refused}
    await deck.note(caller, "cancel_entries", record.id, {"orders": taken, "refused": left})
    return taken, refused


async def tell(deck: Services, record: AlgoRecord, kill: KillRecord) -> None:
    """Let the session begin at once with closing what an algo holds."""
    thrown = msgspec.convert(kill, Kill, from_attributes=True)
    try:
        await deck.session(record.user).call("kill", thrown, timeout=_SESSION_S)
    except TradeError:
        # It reads kills when it starts and every two seconds; until all is closed the algo's `stop` says so.
        await deck.kills.silent(kill.id, [record.user])


async def _check_takes(deck: Services, record: AlgoRecord, node: str) -> None:
    there = await deck.desired.node(NodeName(node))
    view = await deck.hot.get("cluster", dict[str, Any]) or {}
    here, agent = view.get("nodes"), f"node/{there.name}"
    facts: dict[str, Any] = next((each["facts"] for each in view.get("actors", ()) if each["name"] == agent), {})
    machine = Machine(
        name=there.name,
        alive=here is None or there.name in here,
        cordoned=there.cordoned or there.draining,
        draining=there.draining,
        unfit=str(view.get("unfit", {}).get(there.name, "")),
        labels=there.labels,
        cpus=facts.get("cpus"),
        memory_mb=facts.get("memory_for_algos_mb"),
    )
    for other in await deck.desired.algos():
        if other.placed == there.name and other.state in ALIVE and other.id != record.id:
            machine.take(other.account, other.placement)
    found, why = choose(record.account, there.name, record.placement, [machine])
    if found is None:
        raise Conflict("node_cannot_take", f"{why}, so algo {record.id!r} would wait there: choose another, or force")
