"""Limits: what may not be exceeded, at which level, and what is said when one is.

The tree is cluster → user → account → algo; every limit on an order's path must hold, so the tightest wins.  The
kinds that bound what many sessions use together are lent out at the cluster's level (`trading.budgets`); all other
levels live inside one session and are checked there (`trading.session_risk`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Final, Literal

import msgspec

from trading.errors import BadInput
from trading.ids import InstrumentId, instrument_id, name

CLUSTER: Final = "cluster"
LEVELS: Final = (CLUSTER, "user", "account", "algo")

ORDER_QUANTITY: Final = "order_quantity"
ORDER_NOTIONAL: Final = "order_notional"
PRICE_COLLAR: Final = "price_collar"
POSITION: Final = "position"
GROSS_EXPOSURE: Final = "gross_exposure"
NET_EXPOSURE: Final = "net_exposure"
BUYING_POWER: Final = "buying_power"
LEVERAGE: Final = "leverage"
CONCENTRATION: Final = "concentration"
OPEN_ORDERS: Final = "open_orders"
ORDERS_PER_SECOND: Final = "orders_per_second"
DAILY_LOSS: Final = "daily_loss"
DRAWDOWN: Final = "drawdown"
MONEY_AT_RISK: Final = "money_at_risk"
RESTRICTED: Final = "restricted"
MARKET_HOURS: Final = "market_hours"
REDUCE_ONLY: Final = "reduce_only"
HALTED: Final = "halted"
PAUSED: Final = "paused"
DAY_START: Final = "day_start"

_ALL: Final = LEVELS
_MOST: Final = Decimal(10) ** 15


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """What a kind of limit bounds, in which unit, where it makes sense."""

    unit: str
    bounds: str
    levels: tuple[str, ...] = _ALL
    #: Whether it may be set for one instrument; ``"must"``: only so.
    instrument: Literal["no", "may", "must"] = "no"
    most: Decimal = _MOST
    whole: bool = False


KINDS: Final[Mapping[str, Kind]] = {
    ORDER_QUANTITY: Kind(unit="quantity", bounds="the size of one order", instrument="may"),
    ORDER_NOTIONAL: Kind(unit="money", bounds="the value of one order", instrument="may"),
    PRICE_COLLAR: Kind(
        unit="percent",
        bounds="how far an order's limit or stop price is from the last price",
        instrument="may",
        most=Decimal(1000),
    ),
    POSITION: Kind(unit="quantity", bounds="what is held or may come to be held of each instrument", instrument="may"),
    GROSS_EXPOSURE: Kind(unit="money", bounds="the value of all that is held or may come to be held, signs left off"),
    NET_EXPOSURE: Kind(unit="money", bounds="the value of all longs less all shorts, open orders at their worst"),
    BUYING_POWER: Kind(
        unit="times cash",
        bounds="the value of open entries and of what was bought since the broker last told the cash",
        levels=(CLUSTER, "user", "account"),
        most=Decimal(1000),
    ),
    LEVERAGE: Kind(
        unit="times equity",
        bounds="gross exposure, as a multiple of cash and holdings",
        levels=(CLUSTER, "user", "account"),
        most=Decimal(1000),
    ),
    CONCENTRATION: Kind(
        unit="percent",
        bounds="the share of one instrument in gross exposure (in equity where that is more)",
        most=Decimal(100),
    ),
    OPEN_ORDERS: Kind(unit="orders", bounds="how many orders may still fill", whole=True),
    ORDERS_PER_SECOND: Kind(
        unit="orders", bounds="orders and changes sent in any second", most=Decimal(1_000_000), whole=True
    ),
    DAILY_LOSS: Kind(unit="money", bounds="loss since the day began, realised and not, fees included"),
    DRAWDOWN: Kind(unit="money", bounds="loss since the day's best moment, realised and not, fees included"),
    MONEY_AT_RISK: Kind(unit="money", bounds="the loss if every protective stop is hit; all of it where there is none"),
    RESTRICTED: Kind(
        unit="0 or 1", bounds="an instrument that may not be entered", instrument="must", most=Decimal(1), whole=True
    ),
    MARKET_HOURS: Kind(
        unit="0 or 1",
        bounds="entries while the instrument's venue is closed",
        instrument="may",
        most=Decimal(1),
        whole=True,
    ),
    REDUCE_ONLY: Kind(
        unit="0 or 1",
        bounds="everything but orders that reduce a position",
        instrument="may",
        most=Decimal(1),
        whole=True,
    ),
    HALTED: Kind(
        unit="0, 1 or 2",
        bounds="1: everything but orders that reduce a position; 2: those too, only cancels pass",
        instrument="may",
        most=Decimal(2),
        whole=True,
    ),
    PAUSED: Kind(
        unit="0 or 1",
        bounds="everything but orders that reduce a position; set by pausing the algo, lifted by resuming it",
        levels=("algo",),
        most=Decimal(1),
        whole=True,
    ),
    DAY_START: Kind(
        unit="minutes after 00:00 UTC",
        bounds="nothing: it says when the day of daily_loss and drawdown begins",
        levels=(CLUSTER,),
        most=Decimal(1439),
        whole=True,
    ),
}
#: On or off: 1 on any level holds, whatever the others say.
STATES: Final = (RESTRICTED, MARKET_HOURS, REDUCE_ONLY, HALTED, PAUSED)
#: At the cluster's level these are lent to sessions in slices.
LENT: Final = (POSITION, GROSS_EXPOSURE, NET_EXPOSURE, OPEN_ORDERS, ORDERS_PER_SECOND, MONEY_AT_RISK)
#: A ratio of all users together says nothing: set for the cluster, these hold for each user by itself.
RATIOS: Final = (BUYING_POWER, LEVERAGE, CONCENTRATION)
#: The two sides of `NET_EXPOSURE`: longs of one session do not free room for shorts of another, nor use it up.
LONG: Final = "long"
SHORT: Final = "short"


def user_scope(user: str) -> str:
    """The level of one user in the tree."""
    return f"user:{user}"


def account_scope(account: str) -> str:
    """The level of one account in the tree."""
    return f"account:{account}"


def algo_scope(algo: str) -> str:
    """The level of one algo in the tree."""
    return f"algo:{algo}"


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """``value`` is the most that is allowed; ``instrument`` "" means each instrument, or all together."""

    scope: str
    kind: str
    instrument: str
    value: Decimal
    #: When it was set (ns): a limit set again, to whatever value, is a new one.
    changed_at: int = 0
    #: Who set it.
    by: str = ""


class Violation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One limit that is broken: which, on which level, by what.  A state has no ``value`` and no ``limit``.

    ``by``: who set it, where that is told.
    """

    kind: str
    scope: str
    instrument: str = ""
    value: Decimal | None = None
    limit: Decimal | None = None
    by: str = ""

    @property
    def text(self) -> str:
        """In words; `violation_of` reads them back."""
        of = f" of {self.instrument}" if self.instrument else ""
        if self.value is None or self.limit is None:
            why = f"paused by {self.by}" if self.by else _SET.get(self.kind, "only orders that reduce pass")
            return f"{self.kind}{of} is set on {self.scope}: {why}"
        verb = "has reached" if self.kind in (DAILY_LOSS, DRAWDOWN) else "is above"
        return f"{self.kind}{of} {plain(self.value)} {verb} the limit {plain(self.limit)} of {self.scope}"


_SET: Final = {
    RESTRICTED: "the instrument may not be entered",
    MARKET_HOURS: "the venue is closed now",
    HALTED: "trading is halted",
}
_NUMBER: Final = r"-?[0-9.]+|Infinity"
_ABOVE: Final = re.compile(rf"(\w+)(?: of (.+?))? ({_NUMBER}) (?:is above|has reached) the limit ({_NUMBER}) of (\S+)")
_STATE: Final = re.compile(r"(\w+)(?: of (.+?))? is set on (\S+): (.+)")


def violation_of(text: str) -> Violation | None:
    """The limit that a reason speaks of; None for a reason of another sort."""
    if found := _ABOVE.fullmatch(text):
        kind, instrument, value, limit, scope = found.groups()
        if kind in KINDS:
            return Violation(
                kind=kind, scope=scope, instrument=instrument or "", value=Decimal(value), limit=Decimal(limit)
            )
    elif (found := _STATE.fullmatch(text)) and found[1] in KINDS:
        _, told, by = found[4].rpartition("paused by ")
        return Violation(kind=found[1], scope=found[3], instrument=found[2] or "", by=by if told else "")
    return None


def plain(amount: Decimal) -> str:
    """An amount without exponent and without idle zeros."""
    return f"{amount.normalize():f}"


def check_limit(scope: str, kind: str, instrument: str, value: Decimal | None) -> None:
    """Raise `BadInput` naming the field unless these make a limit (``value`` None takes a limit away)."""
    level, colon, who = scope.partition(":")
    if level not in LEVELS or (level == CLUSTER) == bool(colon):
        raise BadInput(
            "scope", f"{scope!r} is not a level: write 'cluster', 'user:<id>', 'account:<id>' or 'algo:<id>'"
        )
    if level != CLUSTER:
        name(who, "scope")
    about = KINDS.get(kind)
    if about is None:
        raise BadInput("kind", f"{kind!r} is not a kind of limit: choose one of {', '.join(KINDS)}")
    if level not in about.levels:
        raise BadInput("scope", f"{kind} has no meaning for one {level}: set it for {' or '.join(about.levels)}")
    if instrument:
        instrument_id(instrument)
        if about.instrument == "no":
            raise BadInput("instrument", f"{kind} is over all instruments; leave it empty or use {POSITION}")
    elif about.instrument == "must":
        raise BadInput("instrument", f"{kind} is about one instrument: say which")
    if value is None:
        return
    if not value.is_finite() or value < 0:
        raise BadInput("value", f"{value} must be a number from 0 up, or null for no limit")
    if value > about.most:
        raise BadInput(
            "value", f"{plain(value)} is beyond {plain(about.most)}, the most that {kind} ({about.unit}) can be"
        )
    if about.whole and value != value.to_integral_value():
        raise BadInput("value", f"{plain(value)} must be a whole number: {kind} is in {about.unit}")


class LimitTree:
    """All limits, by key."""

    __slots__ = ("_by_key", "version")

    def __init__(self, limits: Iterable[Limit] = (), version: int = 0) -> None:
        self.version = version
        self._by_key = {(limit.scope, limit.kind, limit.instrument): limit for limit in limits}

    def get(self, scope: str, kind: str, instrument: str = "") -> Limit | None:
        """The limit at exactly this level: the instrument's own, else the general one; None without one."""
        if instrument:
            own = self._by_key.get((scope, kind, instrument))
            if own is not None:
                return own
        return self._by_key.get((scope, kind, ""))

    def value(self, scope: str, kind: str, instrument: str = "") -> Decimal | None:
        """What the limit at exactly this level is; None without one."""
        limit = self.get(scope, kind, instrument)
        return None if limit is None else limit.value

    def limit_of(self, name_of_resource: str) -> Decimal | None:
        """The limit behind a resource; None when it has been taken away."""
        scope, kind, of = name_of_resource.split("/", 2)
        return self.value(scope, kind, of if kind == POSITION else "")

    @property
    def day_start_ns(self) -> int:
        """How long after 00:00 UTC the day of losses begins."""
        return int(self.value(CLUSTER, DAY_START) or 0) * 60_000_000_000

    def all(self) -> tuple[Limit, ...]:
        """Every limit, in a fixed order."""
        return tuple(limit for _, limit in sorted(self._by_key.items()))


def resource(scope: str, kind: str, of: str = "") -> str:
    """Name of the shared amount that a limit bounds; ``of`` an instrument, or a side of net exposure."""
    return f"{scope}/{kind}/{of}"


#: Resources that are not of an instrument.
GROSS_RESOURCE: Final = resource(CLUSTER, GROSS_EXPOSURE)
LONG_RESOURCE: Final = resource(CLUSTER, NET_EXPOSURE, LONG)
SHORT_RESOURCE: Final = resource(CLUSTER, NET_EXPOSURE, SHORT)
ORDERS_RESOURCE: Final = resource(CLUSTER, OPEN_ORDERS)
RATE_RESOURCE: Final = resource(CLUSTER, ORDERS_PER_SECOND)
RISK_RESOURCE: Final = resource(CLUSTER, MONEY_AT_RISK)


def position_resource(instrument: InstrumentId) -> str:
    """Name of the shared position of an instrument."""
    return resource(CLUSTER, POSITION, instrument)
