"""``/v1/risk``: limits and how far they are used."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query
from pydantic import ConfigDict

from api.currencies import NO_MONEY, Currencies, InCurrencies
from api.formats import Amount, Body, Cursor, Instant, Limit, Page, Shown, page_of
from api.problems import unknown_reference
from api.security import Caller, FreshOperator, Viewer
from api.services import Deck, Services, referenced
from storage.limits import Seen
from storage.records import LimitRecord, MaximaRecord
from trading.errors import BadInput, NotReady, TradeError, UnknownThing
from trading.ids import AccountId, AlgoId, InstrumentId, Nanos, UserId
from trading.limits import CLUSTER, KINDS, PAUSED, account_scope, algo_scope, check_limit, user_scope

router = APIRouter(prefix="/v1/risk", tags=["risk"])
_DAY_NS = 86_400_000_000_000


class LimitWanted(Body):
    """A limit to put in force.

    ``scope`` is ``cluster``, ``user:<id>``, ``account:<id>`` or ``algo:<id>``; ``kind`` one of `GET /v1/risk/kinds`;
    ``instrument`` "" means each instrument, or all together; ``value`` null lifts it.  ``seen``, where it is given: the
    value that was in force when it was looked at, null for none; 409 `limit_moved` where that is another one by now.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"scope": "account:paper-1", "kind": "gross_exposure", "instrument": "", "value": "250000"}]
        }
    )

    scope: str
    kind: str
    instrument: str = ""
    value: Amount | None
    seen: Amount | None = None


class KindShown(Shown):
    """A kind of limit: its unit, what it bounds, on which levels, whether for one instrument."""

    kind: str
    unit: str
    bounds: str
    levels: list[str]
    instrument: Literal["no", "may", "must"]


class StateShown(Shown):
    """Whether everybody keeps a limit by now.

    ``holds``: every session that may act has heard of it and no more than it allows is lent out, ``since`` then;
    ``waiting`` names the sessions that are waited for.  ``breached``: more is in use than it allows (``used``, where
    one figure says it): only orders that reduce pass.  Of the cluster's limits operators alone see ``used`` and
    ``waiting``.
    """

    used: Amount | None
    breached: bool
    holds: bool
    since: Instant | None
    waiting: list[str]


class LimitShown(InCurrencies):
    """A limit in force; ``state`` null: central risk has not told lately.

    ``currency``: of one of money; with several ``currencies`` what is used of it are amounts added up as they are.
    """

    scope: str
    kind: str
    instrument: str
    value: Amount | None
    version: int
    changed_at: Instant
    changed_by: str
    state: StateShown | None = None


class ExposureLine(InCurrencies):
    """Use of one limit that sessions share: in use, lent to them (use included), the limit.

    With several ``currencies`` amounts are added up as they are, as the limit does.
    """

    resource: str
    scope: str
    kind: str
    instrument: str
    used: Amount
    lent: Amount
    limit: Amount | None
    by_session: dict[str, str]


class ReachedShown(Shown):
    """A loss that has reached its limit: entries are refused."""

    kind: str
    scope: str
    value: Amount | None
    limit: Amount | None


class LevelShown(InCurrencies):
    """Use of a level, or of one instrument on it.

    ``gross``: value of what is held or may come to be held, signs left off; ``net``: signed value of what is held;
    ``long`` and ``short``: the most that open orders could make of it; ``profit`` and ``drawdown``: since the day
    began, realised and not, fees included; ``money_at_risk``: the loss if every protective stop is hit.
    Where there are several ``currencies`` amounts are null.
    """

    scope: str
    instrument: str
    gross: Amount | None
    net: Amount | None
    long: Amount | None
    short: Amount | None
    profit: Amount | None
    drawdown: Amount | None
    money_at_risk: Amount | None
    open_orders: int
    limits: dict[str, Amount]
    blocked: list[ReachedShown]


class RiskShown(Shown):
    """What central risk told a moment ago; ``over`` names limits with more lent than they allow now."""

    at: Instant
    epoch: int
    limits_version: int
    exposure: list[ExposureLine]
    over: list[str]
    levels: list[LevelShown]


class MaximaShown(InCurrencies):
    """The highest of each measure in a day, of one level; each by itself.

    Amounts are null where the level has, or had, several currencies.
    """

    day: Instant
    scope: str
    instrument: str
    gross: Amount | None
    long: Amount | None
    short: Amount | None
    money_at_risk: Amount | None
    loss: Amount | None
    drawdown: Amount | None
    open_orders: int
    sampled_at: Instant


By = Literal["cluster", "user", "account", "algo", "instrument"]


@router.get("/kinds", response_model=list[KindShown])
async def list_kinds(caller: Viewer) -> list[dict[str, Any]]:
    """All kinds of limits."""
    return [
        {"kind": name, "unit": k.unit, "bounds": k.bounds, "levels": list(k.levels), "instrument": k.instrument}
        for name, k in KINDS.items()
    ]


@router.get("/limits", response_model=Page[LimitShown])
async def list_limits(caller: Viewer, deck: Deck, limit: Limit = 100, cursor: Cursor = None) -> dict[str, Any]:
    """Limits in force: of the cluster and of the own accounts and algos; operators see all."""
    scopes, made = await scopes_of(caller, deck), await made_of(caller, deck)
    found = [
        each
        for each in await deck.desired.limits()
        if each.value is not None
        and (scopes is None or each.scope in {CLUSTER, *scopes})
        and each.changed_at >= made.get(each.scope, 0)
    ]
    page = page_of(found, lambda each: f"{each.scope} {each.kind} {each.instrument}", limit, cursor)
    view = await deck.hot.get("risk", dict[str, Any]) or {}
    states = {(s["scope"], s["kind"], s["instrument"]): s for s in view.get("limits", ())}
    currencies = await _currencies(caller, deck)
    page["items"] = [
        _shown(
            each,
            states.get((each.scope, each.kind, each.instrument)),
            currencies,
            # What all do together, and who they are, is not everybody's to see.
            whole=scopes is None or each.scope != CLUSTER,
        )
        for each in page["items"]
    ]
    return page


@router.put("/limits", response_model=LimitShown)
async def set_limit(body: LimitWanted, caller: FreshOperator, deck: Deck) -> dict[str, Any]:
    """Put a limit in force, at once and with a new version; ``state`` says whether everybody keeps it by now.

    The halt that a kill holds is not lowered, nor lifted: 409 `kill_in_force` names the kill that is to be released.
    """
    check_limit(body.scope, body.kind, body.instrument, body.value)
    _refuse_pause(body.kind)
    await _check_references(deck, body.scope, body.instrument)
    # Read before: what is set is not to look refused because something cannot be read after it.
    currencies = await _currencies(caller, deck)
    seen = Seen(body.seen) if "seen" in body.model_fields_set else None
    record = await deck.desired.set_limit(body.scope, body.kind, body.instrument, body.value, caller.user, seen)
    return _shown(record, await _state_of(deck, record), currencies)


@router.delete("/limits", status_code=204)
async def lift_limit(
    caller: FreshOperator,
    deck: Deck,
    scope: Annotated[str, Query()],
    kind: Annotated[str, Query()],
    instrument: Annotated[str, Query()] = "",
    seen: Annotated[Amount | None, Query(description="As of PUT: the value that was looked at")] = None,
) -> None:
    """Lift a limit; 409 `kill_in_force` for the halt of a kill, which is released at its own route."""
    check_limit(scope, kind, instrument, None)
    _refuse_pause(kind)
    in_force = {
        (each.scope, each.kind, each.instrument) for each in await deck.desired.limits() if each.value is not None
    }
    if (scope, kind, instrument) not in in_force:
        raise UnknownThing("limit", f"{scope} {kind} {instrument}".strip(), "GET /v1/risk/limits lists them")
    await deck.desired.set_limit(scope, kind, instrument, None, caller.user, None if seen is None else Seen(seen))


@router.get("/exposure", response_model=RiskShown)
async def exposure(
    caller: Viewer,
    deck: Deck,
    by: Annotated[By | None, Query(description="Only levels of this sort")] = None,
) -> dict[str, Any]:
    """How far limits are used, level by level; those who are not operators see their own."""
    view = await deck.hot.get("risk", dict[str, Any])
    if view is None:
        raise NotReady("central risk has not told anything lately: nothing new is granted until it does", 2.0)
    bounds: dict[str, dict[str, str]] = {}
    for state in view.get("limits", ()):
        if not state["instrument"]:
            bounds.setdefault(state["scope"], {})[state["kind"]] = state["value"]
    currencies = await _currencies(caller, deck)
    levels = [
        {**_FLAT, **_told(use, currencies), "limits": {} if use.get("instrument") else bounds.get(use["scope"], {})}
        for use in view.get("levels", ())
        if by is None or _sort_of(use) == by
    ]
    scopes = await scopes_of(caller, deck)
    exposure = [
        line | (currencies.fields(line["scope"], line["instrument"]) if _is_money(line["kind"]) else NO_MONEY)
        for line in view["exposure"]
    ]
    if scopes is None:
        return {**view, "exposure": exposure, "levels": levels}
    return {
        **view,
        "exposure": [line for line in exposure if line["scope"] in scopes],
        "over": [each for each in view["over"] if each.split("/", 1)[0] in scopes],
        "levels": [use for use in levels if use["scope"] in scopes],
    }


@router.get("/maxima", response_model=list[MaximaShown])
async def maxima(
    caller: Viewer,
    deck: Deck,
    days: Annotated[int, Query(ge=1, le=3700, description="How many days back, today included")] = 30,
    scope: Annotated[str | None, Query(description="Only this level")] = None,
) -> list[dict[str, Any]]:
    """The highest use of each day, for charts, oldest first; those who are not operators see their own."""
    scopes = await scopes_of(caller, deck)
    if scope is not None:
        scopes = [scope] if scopes is None or scope in scopes else []
    found = await maxima_of(deck, caller, Nanos(time.time_ns() - days * _DAY_NS), scopes)
    currencies = await _currencies(caller, deck)
    return [_told(msgspec.structs.asdict(each), currencies) for each in found]


async def maxima_of(deck: Services, caller: Caller, since: Nanos, scopes: list[str] | None) -> list[MaximaRecord]:
    """Maxima of these levels (None: of all); to others than operators only of days since an algo has its name.

    Of the day on which it took that from another, the figures are of both: they are left out.
    """
    found, made = await deck.days.maxima(since, scopes), await made_of(caller, deck)
    if not made:
        return found
    reused = {algo_scope(each) for each in await deck.desired.reused_algos()}
    return [
        each for each in found if each.day + (0 if each.scope in reused else _DAY_NS - 1) >= made.get(each.scope, 0)
    ]


async def made_of(caller: Caller, deck: Services) -> dict[str, Nanos]:
    """Since when each algo's level is of that algo; nothing to operators, who see what went before too."""
    if caller.is_operator:
        return {}
    return {algo_scope(each.id): each.created_at for each in await deck.desired.algos()}


_FLAT = {"instrument": "", "blocked": ()}
#: Of a level, or a day's highest of it: the amounts of money.
_MONEY = ("gross", "net", "long", "short", "profit", "drawdown", "money_at_risk", "loss")


async def _currencies(caller: Caller, deck: Services) -> Currencies:
    return Currencies(await deck.glance.seen(), await deck.accounts_of(caller))


def _told(use: dict[str, Any], currencies: Currencies) -> dict[str, Any]:
    """Figures of a level with their currency; amounts in several, which have no sum, are None."""
    where = use["scope"], use.get("instrument", "")
    unknown = {} if currencies.is_one(*where) else {name: None for name in _MONEY if name in use}
    return {**use, **unknown, **currencies.fields(*where)}


def _is_money(kind: str) -> bool:
    return kind in KINDS and KINDS[kind].unit == "money"


def _sort_of(use: dict[str, Any]) -> str:
    if use.get("instrument"):
        return "instrument"
    return str(use["scope"]).partition(":")[0]


async def scopes_of(caller: Caller, deck: Services, *, to_trade: bool = False) -> list[str] | None:
    """Levels that a caller may look at besides the cluster's limits, or, ``to_trade``, act on; None: all."""
    if caller.is_operator:
        return None
    accounts = [each for each in await deck.accounts_of(caller) if not to_trade or caller.trades_account(each)]
    algos = [each for each in await deck.desired.algos() if caller.sees_algo(each)]
    algos = [each for each in algos if not to_trade or caller.trades_algo(each)]
    return [
        *([user_scope(caller.user)] if caller.only_accounts is None else []),
        *(account_scope(account.id) for account in accounts),
        *(algo_scope(algo.id) for algo in algos),
    ]


def _shown(record: LimitRecord, state: Any, currencies: Currencies, *, whole: bool = True) -> dict[str, Any]:
    """``whole``: with how much of it is used, and who is waited for."""
    shown = {name: getattr(record, name) for name in record.__struct_fields__}
    shown |= currencies.fields(record.scope, record.instrument) if _is_money(record.kind) else NO_MONEY
    if state is not None:
        get = state.get if isinstance(state, dict) else lambda name: getattr(state, name)
        shown["state"] = {name: get(name) for name in ("used", "breached", "holds", "waiting")}
        shown["state"]["since"] = get("since") or None
        if not whole:
            shown["state"] |= {"used": None, "waiting": []}
    return shown


async def _state_of(deck: Services, record: LimitRecord) -> Any:
    """What central risk makes of a limit that was just set; None where it does not answer now."""
    if deck.link is None or record.value is None:
        return None
    try:
        return await deck.link.risk().call("limit_state", record.scope, record.kind, record.instrument, timeout=2.0)
    except TradeError:
        # The limit is in force with its commit; the list shows its state once central risk is back.
        return None


def _refuse_pause(kind: str) -> None:
    if kind == PAUSED:
        raise BadInput("kind", "algos are paused by POST /v1/algos/{id}/pause, and resumed by /resume")


async def check_scope(deck: Services, scope: str) -> None:
    """Raise 422 unless whom a level is about exists."""
    level, _, who = scope.partition(":")
    if level == "account":
        await referenced("scope", deck.desired.account(AccountId(who)))
    elif level == "user":
        await referenced("scope", deck.desired.user(UserId(who)))
    elif level == "algo":
        await referenced("scope", deck.desired.algo(AlgoId(who)))


async def _check_references(deck: Services, scope: str, instrument: str) -> None:
    await check_scope(deck, scope)
    if instrument and not await deck.instruments.get([InstrumentId(instrument)]):
        raise unknown_reference("instrument", UnknownThing("instrument", instrument, "GET /v1/instruments lists them"))
