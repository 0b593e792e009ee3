"""The tree of limits with their use, as the panel shows it: cluster, users, accounts, algos, instruments."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from decimal import Decimal

from pydantic import ConfigDict, Field

from api.currencies import Currencies, InCurrencies
from api.formats import Amount, InstantOrNone, Shown
from api.glance import Seen, share
from storage.records import AccountRecord, AlgoRecord, LimitRecord
from trading.ids import UserId
from trading.levels import LevelUse
from trading.limits import CLUSTER, KINDS, account_scope, algo_scope, user_scope


class LimitUse(Shown):
    """A limit in force; ``used`` null where no one figure says it; ``use`` reaches 1 at the limit."""

    kind: str
    value: Amount
    used: Amount | None
    use: float | None
    unit: str
    generation: int


class LevelFigures(Shown):
    """What a level has in use, as central risk told it a moment ago; amounts in several currencies are null."""

    gross: Amount | None
    net: Amount | None
    money_at_risk: Amount | None
    pnl_today: Amount | None
    drawdown: Amount | None
    open_orders: int


class OldTold(Shown):
    """Of which account a session has told nothing lately, and when it told last (null: not known).

    ``account`` null: others', which are not shown to who asks.
    """

    account: str | None
    at: InstantOrNone


class TreeNode(InCurrencies):
    """A level; ``instrument`` not "": of this instrument alone, on the level above.

    ``figures`` null: central risk has told nothing of it.  Limits of money are in its currency too; where there are
    several, what is used of them is what central risk holds against them: amounts added up as they are.
    ``old``: of whom figures and use are not of now, for what they hold counts all the same.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "scope": "cluster",
                    "instrument": "",
                    "currency": "USDT",
                    "currencies": ["USDT"],
                    "title": "All",
                    "limits": [
                        {
                            "kind": "gross_exposure",
                            "value": "250000",
                            "used": "52000",
                            "use": 0.208,
                            "unit": "money",
                            "generation": 3,
                        }
                    ],
                    "figures": None,
                    "children": [],
                    "old": [],
                }
            ]
        }
    )

    scope: str
    instrument: str
    title: str
    limits: list[LimitUse]
    figures: LevelFigures | None
    children: list[TreeNode]
    old: list[OldTold] = Field(default_factory=list)


_Place = tuple[str, str]


class _Growing:
    """What the nodes are made of."""

    def __init__(self, seen: Seen, currencies: Currencies, scopes: Collection[str] | None) -> None:
        self.currencies = currencies
        self._limits: dict[_Place, list[LimitRecord]] = defaultdict(list)
        self._shown = None if scopes is None else {CLUSTER, *scopes}
        self._own = scopes
        for record in seen.limits:
            if record.value is not None:
                self._limits[(record.scope, record.instrument)].append(record)
        risk = seen.risk
        self._uses = {(use.scope, use.instrument): use for use in risk.levels} if risk is not None else {}
        self._used: dict[tuple[str, str, str], Decimal | None] = {}
        for state in risk.limits if risk is not None else ():
            used = state.get("used")
            self._used[(state["scope"], state["kind"], state["instrument"])] = None if used is None else Decimal(used)

    def node(self, scope: str, title: str, children: Iterable[TreeNode | None]) -> TreeNode | None:
        """A level with what is below; None where there is nothing to show."""
        instruments = sorted({i for s, i in (*self._limits, *self._uses) if s == scope and i})
        below = [
            *(each for each in children if each is not None),
            *(each for i in instruments if (each := self._leaf(scope, i)) is not None),
        ]
        limits, figures = self._limits_at(scope, ""), self._figures(scope, "")
        if not limits and not below and _is_idle(figures):
            return None
        return TreeNode(
            scope=scope,
            instrument="",
            title=title,
            limits=limits,
            figures=self._summed(figures, scope),
            children=below,
            **self.currencies.fields(scope),
        )

    def _leaf(self, scope: str, instrument: str) -> TreeNode | None:
        limits, figures = self._limits_at(scope, instrument), self._figures(scope, instrument)
        if not limits and _is_idle(figures):
            return None
        return TreeNode(
            scope=scope,
            instrument=instrument,
            title=instrument,
            limits=limits,
            figures=figures,
            children=[],
            **self.currencies.fields(scope, instrument),
        )

    def _summed(self, figures: LevelFigures | None, scope: str) -> LevelFigures | None:
        if figures is None or self.currencies.is_one(scope):
            return figures
        return LevelFigures(
            gross=None, net=None, money_at_risk=None, pnl_today=None, drawdown=None, open_orders=figures.open_orders
        )

    def _limits_at(self, scope: str, instrument: str) -> list[LimitUse]:
        if self._shown is not None and scope not in self._shown:
            return []
        return [self._limit(each) for each in sorted(self._limits[(scope, instrument)], key=lambda each: each.kind)]

    def _limit(self, record: LimitRecord) -> LimitUse:
        assert record.value is not None, "only those in force are taken"
        seen = self._own is None or record.scope in self._own
        used = self._used.get((record.scope, record.kind, record.instrument)) if seen else None
        return LimitUse(
            kind=record.kind,
            value=record.value,
            used=used,
            use=share(used, record.value),
            unit=KINDS[record.kind].unit if record.kind in KINDS else "",
            generation=record.version,
        )

    def _figures(self, scope: str, instrument: str) -> LevelFigures | None:
        if self._own is not None and scope not in self._own:
            return None  # what all others do together is not everybody's to see
        use: LevelUse | None = self._uses.get((scope, instrument))
        if use is None:
            return None
        return LevelFigures(
            gross=use.gross,
            net=use.net,
            money_at_risk=use.money_at_risk,
            pnl_today=use.profit,
            drawdown=use.drawdown,
            open_orders=use.open_orders,
        )


def limit_tree(
    seen: Seen,
    users: Sequence[UserId],
    accounts: Sequence[AccountRecord],
    algos: Sequence[AlgoRecord],
    scopes: Collection[str] | None,
) -> TreeNode:
    """The tree over these users, accounts and algos; ``scopes``: levels that may be looked into, None: all.

    The cluster itself is always there.
    """
    growing = _Growing(seen, Currencies(seen, accounts), scopes)
    owners = sorted({*users, *(account.user for account in accounts)})
    branches = []
    for user in owners:
        below = []
        for account in accounts:
            if account.user == user:
                leaves = [growing.node(algo_scope(a.id), a.id, ()) for a in algos if a.account == account.id]
                below.append(growing.node(account_scope(account.id), account.id, leaves))
        branches.append(growing.node(user_scope(user), user, below))
    title = "All"
    root = growing.node(CLUSTER, title, branches)
    return root or TreeNode(
        scope=CLUSTER,
        instrument="",
        title=title,
        limits=[],
        figures=None,
        children=[],
        **growing.currencies.fields(CLUSTER),
    )


def _is_idle(figures: LevelFigures | None) -> bool:
    return figures is None or not (
        figures.gross or figures.open_orders or figures.money_at_risk or figures.pnl_today or figures.drawdown
    )
