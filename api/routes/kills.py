"""``/v1/risk/kill``: stop trading now, and show that it has stopped."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request
from pydantic import ConfigDict, Field

from api.formats import Amount, Body, Instant, Shown
from api.idempotency import token_of
from api.problems import ProblemError
from api.routes.risk import check_scope, made_of, scopes_of
from api.security import Caller, Killer, Viewer
from api.services import Deck, Services
from api.shapes import ALIVE
from storage.records import AccountRecord, AlgoRecord, KillRecord
from trading.errors import TradeError, UnknownThing
from trading.ids import AlgoId, Nanos, UserId
from trading.kill_switch import Kill
from trading.limits import CLUSTER, HALTED, account_scope, algo_scope, check_limit, user_scope

router = APIRouter(prefix="/v1/risk", tags=["risk"])
_SESSION_S = 3.0


class KillWanted(Body):
    """What to stop: ``cluster``, ``user:<id>``, ``account:<id>`` or ``algo:<id>``; ``flatten`` closes positions too."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"scope": "user:asha", "flatten": False, "reason": "prices look wrong"}]}
    )

    scope: str
    flatten: bool = False
    reason: str = Field(min_length=1, max_length=500)


class OrderOfKill(Shown):
    """An order that was taken back, or placed to close a position; ``ended_at`` null: not yet."""

    client_order_id: str
    instrument: str
    state: str
    filled_quantity: Amount
    reason: str
    asked_at: Instant
    ended_at: Instant | None


class AccountOfKill(Shown):
    """What was done in one account, and what is left there."""

    account: str
    cancelled: list[OrderOfKill]
    closing: list[OrderOfKill]
    open_orders: int
    positions: dict[str, Amount]


class AlgoOfKill(Shown):
    """An algo of the scope."""

    id: str
    want: str
    state: str
    reason: str


class KillShown(Shown):
    """A kill and its proof as it stands now.

    ``done``: nothing is open any more, all is flat if that was asked for, every algo has stopped.  ``waiting`` says in
    words what is not.  ``cancelled``: orders that were open and have been asked back since, by it or, before it came to
    that, by the algos that it stops.  ``cancels_asked_ms``: from throwing it to the last cancel that was decided;
    ``took_ms``: to the last order's end.  ``silent`` sessions did not answer when it was thrown; they act as soon as
    they are back.
    """

    id: str
    scope: str
    flatten: bool
    reason: str
    at: Instant
    by: str
    lifted_at: Instant | None
    lifted_by: str
    done: bool
    waiting: list[str]
    silent: list[str]
    cancelled: int
    cancels_asked_ms: float | None
    took_ms: float | None
    accounts: list[AccountOfKill]
    algos: list[AlgoOfKill]


class KillLine(Shown):
    """A kill in the list."""

    id: str
    scope: str
    flatten: bool
    reason: str
    at: Instant
    by: str
    lifted_at: Instant | None
    lifted_by: str


@router.post("/kill", response_model=KillShown, status_code=201)
async def kill(
    body: KillWanted,
    request: Request,
    caller: Killer,
    deck: Deck,
    wait_s: Annotated[float, Query(ge=0, le=30, description="Wait so long for it to be done")] = 2.0,
) -> dict[str, Any]:
    """Halt a scope, take its orders back, close its positions if asked, stop its algos, and show the proof."""
    check_limit(body.scope, HALTED, "", None)
    # In this order: whom there is besides is nobody's to find out.
    await _require_own(deck, caller, body.scope)
    await check_scope(deck, body.scope)
    record, _ = await deck.kills.throw(body.scope, body.flatten, body.reason, caller.user, token_of(request))
    users = sorted({account.user for account in await _accounts_of(deck, record.scope)})
    thrown = Kill(
        id=record.id,
        scope=record.scope,
        flatten=record.flatten,
        reason=record.reason,
        at=record.at,
        by=record.by,
        halted_at=record.halted_at,
    )
    answers = await asyncio.gather(*(_tell(deck, user, thrown) for user in users))
    if silent := [user for user, heard in zip(users, answers, strict=True) if not heard]:
        await deck.kills.silent(record.id, silent)
        record = await deck.kills.get(record.id)
    until = time.monotonic() + wait_s
    while True:
        shown = await _shown(deck, record)
        if shown["done"] or time.monotonic() >= until:
            return shown
        await asyncio.sleep(0.1)


@router.get("/kills", response_model=list[KillLine])
async def list_kills(caller: Viewer, deck: Deck) -> list[dict[str, Any]]:
    """Kills, newest first; those who are not operators see their own and the cluster's."""
    scopes, made = await scopes_of(caller, deck), await made_of(caller, deck)
    return [_line(kill) for kill in await deck.kills.all() if _is_seen(kill, scopes, made)]


@router.get("/kills/{id}", response_model=KillShown)
async def get_kill(id: str, caller: Viewer, deck: Deck) -> dict[str, Any]:
    """A kill and its proof as it stands now."""
    record = await _seen_kill(deck, caller, id)
    # The proof of the cluster's is of everybody's accounts.
    await _require_own(deck, caller, record.scope, to_trade=False)
    return await _shown(deck, record)


@router.post("/kills/{id}/lift", response_model=KillLine)
async def lift_kill(id: str, caller: Killer, deck: Deck) -> dict[str, Any]:
    """Let the scope trade again.  Its algos stay stopped until somebody starts them."""
    record = await _seen_kill(deck, caller, id)
    await _require_own(deck, caller, record.scope)
    if not caller.is_operator and record.by != caller.user:
        raise ProblemError(403, "forbidden", "Forbidden", f"{record.by} threw it: only they or an operator may lift it")
    return _line(await deck.kills.lift(id, caller.user))


async def _seen_kill(deck: Services, caller: Caller, id: str) -> KillRecord:
    """A kill that the caller may see, as the list has it; `UnknownThing` otherwise."""
    record, scopes = await deck.kills.get(id), await scopes_of(caller, deck)
    if not _is_seen(record, scopes, await made_of(caller, deck)):
        raise UnknownThing("kill", id, "GET /v1/risk/kills lists them")
    return record


def _is_seen(kill: KillRecord, scopes: list[str] | None, made: dict[str, Nanos]) -> bool:
    """Whether a kill is of these scopes, and of an algo as it is and not of one that bore its name before."""
    return scopes is None or (kill.scope in {CLUSTER, *scopes} and kill.at >= made.get(kill.scope, 0))


async def _require_own(deck: Services, caller: Caller, scope: str, *, to_trade: bool = True) -> None:
    scopes = await scopes_of(caller, deck, to_trade=to_trade)
    if scopes is not None and scope not in scopes:
        raise ProblemError(403, "forbidden", "Forbidden", f"{scope} is not yours", field="scope")


async def _tell(deck: Services, user: UserId, thrown: Kill) -> bool:
    try:
        await deck.session(user).call("kill", thrown, timeout=_SESSION_S)
    except TradeError:
        # It reads kills when it starts and every two seconds: shown as silent until its orders are gone.
        return False
    return True


async def _accounts_of(deck: Services, scope: str) -> list[AccountRecord]:
    accounts = await deck.desired.accounts()
    algos = {algo.account for algo in await deck.desired.algos() if scope in (algo_scope(algo.id),)}
    return [
        each
        for each in accounts
        if scope in (CLUSTER, user_scope(each.user), account_scope(each.id)) or each.id in algos
    ]


async def _shown(deck: Services, record: KillRecord) -> dict[str, Any]:
    accounts = await _accounts_of(deck, record.scope)
    owners = {account.id: account.user for account in accounts}
    level, _, who = record.scope.partition(":")
    algos = [algo for algo in await deck.desired.algos() if _is_in(record.scope, algo)]
    found = await deck.kills.outcome(record, list(owners), AlgoId(who) if level == "algo" else None)
    off = {account.id for account in accounts if not account.enabled}
    waiting = [
        f"{each.account}: {each.open_orders} open orders"
        + (", which cannot be taken back while it is disabled" if each.account in off else "")
        for each in found
        if each.open_orders and not record.lifted_at
    ]
    if record.flatten:
        waiting += [
            f"{each.account}: {len(each.positions)} positions"
            + (", which cannot be closed while it is disabled: enable it" if each.account in off else "")
            for each in found
            if each.positions
        ]
        if not record.lifted_at:
            waiting += [
                f"{a.account}: of {id} a part is left to order {key}, which is open"
                for a in found
                for id, key in a.exits
            ]
    running = [algo for algo in algos if algo.want == "running" or algo.state in ALIVE]
    waiting += [f"algo {algo.id} is {algo.state}" for algo in running]
    busy = {owners[each.account] for each in found if each.open_orders}
    orders = [order for each in found for order in (*each.cancelled, *each.closing)]
    asked = [order.asked_at for each in found for order in each.cancelled]
    ended = [order.ended_at for order in orders if order.ended_at is not None]
    return {
        **_line(record),
        "done": not waiting,
        "waiting": waiting,
        "silent": [user for user in record.silent if user in busy],
        "cancelled": len(asked),
        "cancels_asked_ms": (max(asked) - record.at) / 1e6 if asked else None,
        "took_ms": (max(ended) - record.at) / 1e6 if ended and not waiting else None,
        "accounts": [msgspec.structs.asdict(each) for each in found],
        "algos": [{"id": algo.id, "want": algo.want, "state": algo.state, "reason": algo.reason} for algo in algos],
    }


def _is_in(scope: str, algo: AlgoRecord) -> bool:
    return scope in (CLUSTER, user_scope(algo.user), account_scope(algo.account), algo_scope(algo.id))


def _line(record: KillRecord) -> dict[str, Any]:
    line = {name: getattr(record, name) for name in ("id", "scope", "flatten", "reason", "at", "by", "lifted_by")}
    return {**line, "lifted_at": record.lifted_at or None}
