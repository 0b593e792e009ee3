"""A user's portfolio at a moment: positions with marks and profit, cash, exposure by account."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

import msgspec

from trading.account_book import AccountBook
from trading.exposure import ExposureBook, Line
from trading.ids import AccountId, InstrumentId, Nanos, UserId
from trading.instruments import Instrument
from trading.orders import ZERO


class PositionView(msgspec.Struct, frozen=True, kw_only=True):
    """A position with its mark."""

    account: AccountId
    instrument: InstrumentId
    quantity: Decimal
    average_cost: Decimal
    mark: Decimal | None
    realised: Decimal
    unrealised: Decimal
    fees: Decimal
    #: Signed notional at the mark.
    exposure: Decimal
    #: Of the price, and so of all amounts; "" where the instrument is not known.
    currency: str = ""
    #: When the market told the mark; 0: it is that of an execution, or there is none.
    mark_at: Nanos = Nanos(0)


class AccountView(msgspec.Struct, frozen=True, kw_only=True):
    """An account's sums.  ``profit`` is realised + unrealised - fees.

    ``currency`` is that of its cash, ``currencies`` are those of the other amounts, which are added up as they are.
    """

    account: AccountId
    connected: bool
    reconciled: bool
    cash: Decimal | None
    currency: str
    realised: Decimal
    unrealised: Decimal
    fees: Decimal
    profit: Decimal
    gross_exposure: Decimal
    open_orders: int
    open_breaks: int
    currencies: tuple[str, ...] = ()


class Portfolio(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a user holds."""

    user: UserId
    at: Nanos
    accounts: tuple[AccountView, ...]
    positions: tuple[PositionView, ...]


def portfolio(
    user: UserId,
    books: Iterable[AccountBook],
    exposure: ExposureBook,
    at: Nanos,
    instruments: Mapping[InstrumentId, Instrument],
) -> Portfolio:
    """The view of these accounts; a position without a mark counts no unrealised profit."""
    accounts, positions = [], []
    for book in books:
        realised = unrealised = fees = ZERO
        currencies = {_currency(line.instrument, instruments) for line in _open_lines(book, exposure)}
        for position in book.positions.values():
            mark = exposure.marks.get(position.instrument)
            currency = _currency(position.instrument, instruments)
            currencies.add(currency)
            gain = position.unrealised(mark) if mark is not None and position.quantity else ZERO
            realised += position.realised
            unrealised += gain
            fees += position.fees
            positions.append(
                PositionView(
                    account=book.account,
                    instrument=position.instrument,
                    quantity=position.quantity,
                    average_cost=position.average_cost,
                    mark=mark,
                    realised=position.realised,
                    unrealised=gain,
                    fees=position.fees,
                    exposure=position.exposure(mark) if mark is not None else ZERO,
                    currency=currency,
                    mark_at=exposure.marked_at.get(position.instrument, Nanos(0)),
                )
            )
        accounts.append(
            AccountView(
                account=book.account,
                connected=book.connected,
                reconciled=book.reconciled,
                cash=book.cash,
                currency=book.currency,
                realised=realised,
                unrealised=unrealised,
                fees=fees,
                profit=realised + unrealised - fees,
                gross_exposure=level.gross if (level := exposure.accounts.get(book.account)) is not None else ZERO,
                open_orders=len(book.open),
                open_breaks=len(book.breaks),
                currencies=tuple(sorted(currencies)),
            )
        )
    return Portfolio(user=user, at=at, accounts=tuple(accounts), positions=tuple(positions))


def _currency(instrument: InstrumentId, instruments: Mapping[InstrumentId, Instrument]) -> str:
    known = instruments.get(instrument)
    return known.currency if known is not None else ""


def _open_lines(book: AccountBook, exposure: ExposureBook) -> list[Line]:
    """What an account may come to hold, which its exposure counts."""
    level = exposure.accounts.get(book.account)
    return [line for line in level.lines if line.value] if level is not None else []


def equity_of(view: Portfolio, account: AccountId) -> Decimal | None:
    """Cash and what is held at its marks; None where the cash is not known, or the mark of something held."""
    told = next((each for each in view.accounts if each.account == account), None)
    if told is None or told.cash is None:
        return None
    equity = told.cash
    for held in view.positions:
        if held.account == account and held.quantity:
            if held.mark is None:
                return None
            equity += held.exposure
    return equity
