"""``kill`` and ``risk``: stop trading, and see how far limits are used."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cluster.commands.deck import DataDir, Json
from cluster.commands.output import out, show, told
from cluster.commands.resources import Key, Url, api_for

risk = typer.Typer(help="Limits, exposure, kills.", no_args_is_help=True)
_LEVELS = [
    ("level", "scope"),
    ("instrument", "instrument"),
    ("in", "currencies"),
    ("gross", "gross"),
    ("net", "net"),
    ("profit", "profit"),
    ("drawdown", "drawdown"),
    ("at risk", "money_at_risk"),
    ("orders", "open_orders"),
]
_LIMITS = [
    ("level", "scope"),
    ("kind", "kind"),
    ("instrument", "instrument"),
    ("limit", "value"),
    ("in", "currencies"),
    ("used", "used"),
    ("holds", "holds"),
    ("waiting for", "waiting"),
]
_KILLS = [("kill", "id"), ("scope", "scope"), ("at", "at"), ("by", "by"), ("reason", "reason"), ("lifted", "lifted_at")]


def kill(
    scope: Annotated[str, typer.Argument(help="cluster, user:ID, account:ID or algo:ID.")],
    reason: Annotated[str, typer.Option(help="Why; it is kept.")],
    flatten: Annotated[bool, typer.Option("--flatten", help="Close positions too.")] = False,
    wait: Annotated[float, typer.Option(min=0, max=15, help="Wait so many seconds for it to be done.")] = 10.0,
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Stop trading now: halt, take orders back, stop algos; shows the proof.  Exit code 1 while it is not done."""
    with told():
        body = {"scope": scope, "flatten": flatten, "reason": reason}
        made = api_for(url, key, data_dir).post(f"/risk/kill?wait_s={wait:g}", body)
        counted = {"cancelled": "cancelled", "closed": "closing", "held": "positions"}
        rows = [{**each, **{name: len(each[of]) for name, of in counted.items()}} for each in made["accounts"]]
        columns = [("account", "account"), ("cancelled", "cancelled"), ("open", "open_orders"), ("closed", "closed")]
        show(made, as_json, [*columns, ("positions", "held")], rows)
        if not as_json:
            said = "done" if made["done"] else f"not done: {'; '.join(made['waiting'])}"
            out.print(f"{made['id']}: {said}; lift it with `quarterdeck risk lift {made['id']}`")
    if not made["done"]:
        raise typer.Exit(1)


@risk.command("exposure")
def exposure(
    by: Annotated[str | None, typer.Option(help="cluster, user, account, algo or instrument.")] = None,
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """How much of everything is in use."""
    with told():
        found = api_for(url, key, data_dir).get("/risk/exposure", **({"by": by} if by else {}))
        rows = [{**each, "currencies": " ".join(each["currencies"])} for each in found["levels"]]
        show(found, as_json, _LEVELS, rows)


@risk.command("limits")
def limits(url: Url = "", key: Key = "", data_dir: DataDir = None, as_json: Json = False) -> None:
    """Limits in force, and whether everybody keeps them by now."""
    with told():
        found = api_for(url, key, data_dir).get("/risk/limits", limit=1000)
        show(found, as_json, _LIMITS, [_flat(each) for each in found["items"]])


def _flat(limit: dict[str, Any]) -> dict[str, Any]:
    state = limit["state"] or {}
    return {
        **limit,
        **state,
        "waiting": ", ".join(state.get("waiting", ())),
        "currencies": " ".join(limit["currencies"]),
        "holds": state.get("holds", ""),
    }


@risk.command("limit")
def set_limit(
    scope: str,
    kind: str,
    value: Annotated[str, typer.Argument(help="A number, or 'none' to lift it.")],
    instrument: Annotated[str, typer.Option(help="Only for this instrument.")] = "",
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Set a limit."""
    with told():
        body = {"scope": scope, "kind": kind, "instrument": instrument, "value": None if value == "none" else value}
        made = api_for(url, key, data_dir).put("/risk/limits", body)
        show(made, as_json, _LIMITS, [_flat(made)])


@risk.command("kills")
def kills(url: Url = "", key: Key = "", data_dir: DataDir = None, as_json: Json = False) -> None:
    """Kills, newest first."""
    with told():
        found = api_for(url, key, data_dir).get("/risk/kills")
        show(found, as_json, _KILLS, found)


@risk.command("lift")
def lift(id: str, url: Url = "", key: Key = "", data_dir: DataDir = None, as_json: Json = False) -> None:
    """Let what a kill stopped trade again; its algos stay stopped."""
    with told():
        made = api_for(url, key, data_dir).post(f"/risk/kills/{id}/lift")
        show(made, as_json, _KILLS, [made])
