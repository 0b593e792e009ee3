"""``/v1/deck``: everything at a glance, as far as the caller may see."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import ConfigDict

from api.currencies import Currencies, InCurrencies, currency_fields
from api.formats import Amount, Instant, Shown
from api.glance import Seen, share
from api.routes.alerts import alerts_of
from api.security import Caller, Viewer
from api.services import Deck, Services
from api.shapes import ALIVE
from storage.records import AccountRecord, AlgoRecord, FeedRecord
from trading.levels import LevelUse
from trading.limits import CLUSTER, account_scope, algo_scope, user_scope
from trading.orders import ZERO

router = APIRouter(prefix="/v1", tags=["deck"])


class AccountGlance(InCurrencies):
    """An account.  ``gross``: the value of all that is held or may come to be held, signs left off.

    Where it has amounts in several currencies, those that would be sums are null.
    """

    account: str
    user: str
    connector: str
    enabled: bool
    #: ``ready``; ``off``; ``unknown``: nothing told lately; ``disconnected``; ``reconciling``; ``breaks``.
    state: str
    detail: str
    #: Cash and holdings; null where the broker's cash is not known.
    equity: Amount | None
    #: Since the day began, realised and not, fees included; null: not known now.
    pnl_today: Amount | None
    gross: Amount | None
    gross_limit: Amount | None
    #: From 0, at 1 the limit is reached.
    gross_use: float | None
    #: Of how many instruments that it holds the market has told no price for a minute: all amounts are as of then.
    old_marks: int


class AlgosGlance(Shown):
    """Algos: how many run, how many should, how many are in each state."""

    running: int
    wanted: int
    by_state: dict[str, int]


class FeedGlance(Shown):
    """A feed.

    ``state``: ``ok``; ``off``; ``degraded``: a worker is missing or an instrument is silent; ``down``: none comes.
    """

    feed: str
    provider: str
    enabled: bool
    state: str
    instruments: int
    live: int
    stale: int
    workers_wanted: int
    workers: int


class NodeGlance(Shown):
    """A machine: its health, how much of its CPU and memory is in use (percent; null: not known), algos on it."""

    node: str
    state: str
    cpu: float | None
    memory: float | None
    algos: int


class KillGlance(Shown):
    """A kill in force."""

    id: str
    scope: str
    reason: str
    at: Instant


class DeckShown(InCurrencies):
    """The deck at a glance; sums are over what the caller sees.

    ``not_known``: accounts that are left out of the sums, because nothing, or nothing new, is known of them, such as
    are switched off while they hold something included; the sums are null where it is all of them.
    ``currency``: of all amounts; where there are several no sum is known.
    ``gross_limit``: for operators the cluster's, else the caller's own; null for a key of some accounts only.
    ``gross_used``: what all it is set for uses of that limit, so nothing of accounts that others grant; ``gross_use``:
    its share.  Null where it is not known of any of it, or is in several currencies.
    ``trouble``: what could not be read.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "at": "2026-01-31T09:15:00.000000000+00:00",
                    "currency": "USDT",
                    "currencies": ["USDT"],
                    "pnl_today": "120.5",
                    "gross": "52000",
                    "net": "-1200",
                    "gross_limit": "250000",
                    "gross_used": "52000",
                    "gross_use": 0.208,
                    "not_known": [],
                    "accounts": [],
                    "algos": {"running": 3, "wanted": 4, "by_state": {"failed": 1, "running": 3}},
                    "feeds": [],
                    "nodes": [],
                    "open_orders": 12,
                    "breaks": 0,
                    "alerts": 1,
                    "kills": [],
                    "trouble": "",
                }
            ]
        }
    )

    at: Instant
    pnl_today: Amount | None
    gross: Amount | None
    net: Amount | None
    gross_limit: Amount | None
    gross_used: Amount | None
    gross_use: float | None
    not_known: list[str]
    accounts: list[AccountGlance]
    algos: AlgosGlance
    feeds: list[FeedGlance]
    nodes: list[NodeGlance]
    open_orders: int
    breaks: int
    #: Open ones.
    alerts: int
    kills: list[KillGlance]
    trouble: str


@router.get("/deck", response_model=DeckShown)
async def deck_at_a_glance(caller: Viewer, deck: Deck) -> Response:
    """Profit, exposure, accounts, algos, feeds, machines, what is open and what is wrong; a second old at most."""
    seen = await deck.glance.seen()
    who = (caller.user, caller.key_id, caller.reach, tuple(sorted(caller.grants.items())))
    answer = deck.deck_answers.get(who, seen.at)
    if answer is None:
        answer = (await _shown(deck, caller, seen)).model_dump_json().encode()
        deck.deck_answers.keep(who, seen.at, answer)
    return Response(answer, media_type="application/json")


async def _shown(deck: Services, caller: Caller, seen: Seen) -> DeckShown:
    mine = {each.id for each in await deck.accounts_of(caller)}
    accounts = [each for each in seen.accounts if each.id in mine]
    algos = algos_of(caller, seen)
    limits = seen.gross_limits()
    # What a user may use is nothing that a key of some of the accounts may look at.
    scope = CLUSTER if caller.is_operator else user_scope(caller.user) if caller.sees(caller.user) else None
    limit, used = (limits.get(scope), _gross_of(scope, seen)) if scope is not None else (None, None)
    uses = {each.id: seen.use_of(each) for each in accounts}
    whole = [use for use in uses.values() if use is not None]
    not_known = [each.id for each in accounts if seen.is_missed(each)]
    currencies = Currencies(seen, accounts)
    # Where nothing has happened nothing is added.
    moved = [each for each, use in uses.items() if use is not None and (use.gross or use.net or use.profit)]
    found = frozenset[str]().union(*(currencies.of(account_scope(each)) for each in moved or uses))
    # Nothing is the sum of no accounts, but not of accounts of which nothing is known, nor of several currencies.
    summed = (bool(whole) or not not_known) and (len(found) <= 1 or not moved)
    gross = sum((use.gross for use in whole), ZERO) if summed else None
    shown = [_account(each, seen, uses[each.id], limits, currencies) for each in accounts]
    scopes = {CLUSTER, user_scope(caller.user)}
    scopes |= {account_scope(each.id) for each in accounts} | {algo_scope(each.id) for each in algos}
    there = Counter(algo.placed for algo in algos if algo.state in ALIVE)
    return DeckShown(
        at=seen.at,
        **currency_fields(found),
        pnl_today=sum((use.profit for use in whole), ZERO) if summed else None,
        gross=gross,
        net=sum((use.net for use in whole), ZERO) if summed else None,
        gross_limit=limit,
        gross_used=used,
        gross_use=share(used, limit),
        not_known=not_known,
        accounts=shown,
        algos=AlgosGlance(
            running=sum(algo.state == "running" for algo in algos),
            wanted=sum(algo.want == "running" for algo in algos),
            by_state=dict(sorted(Counter(algo.state for algo in algos).items())),
        ),
        feeds=[_feed(each, seen) for each in seen.feeds],
        nodes=[
            NodeGlance(
                node=each.record.name,
                state=str(each.health.health),
                cpu=each.facts.cpu_percent if each.facts is not None and each.fresh else None,
                memory=_percent(each.facts.memory_used_mb, each.facts.memory_total_mb)
                if each.facts is not None and each.fresh
                else None,
                algos=there[each.record.name],
            )
            for each in seen.machines
        ],
        open_orders=sum(seen.open[each].orders for each in mine if each in seen.open),
        breaks=sum(seen.open[each].breaks for each in mine if each in seen.open),
        alerts=await deck.alerts.count_open(await alerts_of(deck, caller)),
        kills=[
            KillGlance(id=kill.id, scope=kill.scope, reason=kill.reason, at=kill.at)
            for kill in seen.kills
            if caller.is_operator or kill.scope in scopes
        ],
        trouble=seen.trouble,
    )


def _gross_of(scope: str, seen: Seen) -> Decimal | None:
    """What is in use of the cluster's, or a user's, gross exposure; None where it is not known of all its accounts.

    It is no sum of what somebody sees, who may be granted accounts of others.
    """
    accounts = [each for each in seen.accounts if scope in (CLUSTER, user_scope(each.user))]
    if any(seen.is_missed(each) for each in accounts) or not Currencies(seen, accounts).is_one(scope):
        return None
    if (use := seen.uses().get(scope)) is not None:
        return use.gross
    # Of levels on which nothing has happened central risk says nothing.
    known = [seen.use_of(each) for each in accounts]
    return None if any(use is not None and use.gross for use in known) else ZERO


def algos_of(caller: Caller, seen: Seen) -> list[AlgoRecord]:
    """The algos that a caller sees."""
    return [algo for algo in seen.algos if caller.sees_algo(algo)]


def _account(
    record: AccountRecord, seen: Seen, use: LevelUse | None, limits: dict[str, Decimal], currencies: Currencies
) -> AccountGlance:
    scope = account_scope(record.id)
    limit = limits.get(scope)
    if not currencies.is_one(scope):
        use = None
    state, detail = _state(record, seen)
    return AccountGlance(
        account=record.id,
        user=record.user,
        connector=record.connector,
        enabled=record.enabled,
        state=state,
        detail=detail,
        **currencies.fields(scope),
        equity=seen.equity_of(record) if currencies.is_one(scope) else None,
        pnl_today=None if use is None else use.profit,
        gross=None if use is None else use.gross,
        gross_limit=limit,
        gross_use=None if use is None else share(use.gross, limit),
        old_marks=seen.old_marks(record),
    )


def _state(record: AccountRecord, seen: Seen) -> tuple[str, str]:
    if not record.enabled:
        return "off", "it is switched off"
    told = seen.told_of(record)
    if told is None:
        return "unknown", f"the session of {record.user} has not told of it yet"
    if seen.is_quiet(record):
        quiet_s = (seen.at - seen.told_at(record)) / 1e9
        return "unknown", f"the session of {record.user} has told nothing for {quiet_s:.0f} s"
    if not told.connected:
        return "disconnected", "its broker cannot be reached, or the log-in is not done"
    if not told.reconciled:
        return "reconciling", "it is being compared with its broker"
    if told.open_breaks:
        return "breaks", f"{told.open_breaks} differences to the broker's books are open"
    return "ready", ""


def _feed(record: FeedRecord, seen: Seen) -> FeedGlance:
    workers = [each for each in seen.workers.get(record.id, ()) if each.connected]
    states: Counter[str] = Counter()
    for worker in workers:
        states.update(worker.states)
    wanted = max(len(record.instruments), states.total())
    if not record.enabled:
        state = "off"
    elif wanted and not states["live"]:
        state = "down"
    elif states["live"] < wanted or len(workers) < record.workers:
        state = "degraded"
    else:
        state = "ok"
    return FeedGlance(
        feed=record.id,
        provider=record.provider,
        enabled=record.enabled,
        state=state,
        instruments=wanted,
        live=states["live"],
        stale=states["stale"],
        workers_wanted=record.workers,
        workers=len(workers),
    )


def _percent(part: int, whole: int) -> float | None:
    return round(100 * part / whole, 1) if whole > 0 else None
