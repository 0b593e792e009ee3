"""``breaks``, ``reconcile``, ``reconciliations``: where our books and the brokers' differ, from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from cluster.commands.deck import DataDir, Json
from cluster.commands.output import out, show, told
from cluster.commands.resources import Key, Url, api_for

breaks = typer.Typer(help="Breaks: list, accept, explain.", no_args_is_help=True)

_COLUMNS = [
    ("break", "id"),
    ("account", "account"),
    ("instrument", "instrument"),
    ("kind", "kind"),
    ("order", "client_order_id"),
    ("ours", "ours"),
    ("theirs", "theirs"),
    ("age s", "age_s"),
    ("resolution", "resolution"),
]
Ours = Annotated[str, typer.Option("--ours", help="Our side, as `breaks list` showed it.")]
Theirs = Annotated[str, typer.Option("--theirs", help="The broker's side, as `breaks list` showed it.")]
Note = Annotated[str, typer.Option("--note", help="Why, in a few words; kept with the break.")]


@breaks.command("list")
def list_breaks(
    account: Annotated[str | None, typer.Option(help="Only this account's.")] = None,
    resolved: Annotated[bool, typer.Option("--resolved", help="Resolved ones too.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    cursor: Annotated[str | None, typer.Option(help="Go on from a page's `next`.")] = None,
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Breaks, oldest first, with both sides."""
    with told():
        query = {"account": account, "resolved": resolved, "limit": limit, "cursor": cursor}
        found = api_for(url, key, data_dir).get("/breaks", **query)
        show(found, as_json, _COLUMNS, found["items"])


def _settle(verb: str, id: str, body: dict[str, str], url: str, key: str, data_dir: Path | None, as_json: bool) -> None:
    with told():
        closed = api_for(url, key, data_dir).post(f"/breaks/{quote(id, safe='')}/{verb}", body)
        show(closed, as_json, _COLUMNS, [closed])


@breaks.command("accept")
def accept(
    id: str,
    ours: Ours,
    theirs: Theirs,
    note: Note,
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Take the broker's side for ours."""
    _settle("accept", id, {"ours": ours, "theirs": theirs, "note": note}, url, key, data_dir, as_json)


@breaks.command("explain")
def explain(
    id: str,
    ours: Ours,
    theirs: Theirs,
    note: Note,
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Leave both sides as they are; the difference is tolerated until it changes."""
    _settle("explain", id, {"ours": ours, "theirs": theirs, "note": note}, url, key, data_dir, as_json)


def reconcile(account: str, url: Url = "", key: Key = "", data_dir: DataDir = None, as_json: Json = False) -> None:
    """Compare an account with its broker now."""
    with told():
        found = api_for(url, key, data_dir).post(f"/accounts/{quote(account)}/reconcile")
        if not as_json:
            cash = found["cash_not_compared"] or f"ours {found['our_cash']}, theirs {found['their_cash']}"
            out.print(
                f"{found['orders']} orders, {found['executions']} executions, {found['positions']} positions agree; "
                f"{len(found['adopted'])} orders adopted; cash: {cash}"
            )
        show(found, as_json, _COLUMNS, [*found["breaks"], *found["tolerated"]])


def reconciliations(
    account: Annotated[str | None, typer.Option(help="Only this account's.")] = None,
    day: Annotated[str | None, typer.Option(help="Only this day, such as 2026-01-31.")] = None,
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Reports of days, newest first."""
    with told():
        found = api_for(url, key, data_dir).get("/reconciliations", account=account, day=day)
        columns = [("account", "account"), ("day", "day"), ("made", "made_at")]
        for part in ("orders", "executions", "positions"):
            columns += [(part, f"{part}.matched"), ("differ", f"{part}.differing")]
        rows = [
            {
                **each,
                **{part: each[part] or {} for part in ("orders", "executions", "positions", "cash")},
                "adopted": len(each["adopted"]),
                "breaks": len(each["breaks"]),
            }
            for each in found["items"]
        ]
        columns += [("cash agrees", "cash.agrees"), ("adopted", "adopted"), ("breaks", "breaks"), ("", "reason")]
        show(found, as_json, columns, rows)
