"""``orders export``, ``fills export``, ``fills list``: history into a file, executions on the screen."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.client import ApiClient
from cluster.commands.deck import DataDir, Json
from cluster.commands.output import err, show, told
from cluster.commands.resources import Key, Url, api_for
from trading.errors import BadInput

fills = typer.Typer(help="Executions: list, export.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(help="CSV file to write; - for standard output.")]
Account = Annotated[str | None, typer.Option(help="Only this account's.")]
Algo = Annotated[str | None, typer.Option(help="Only this algo's.")]
Instrument = Annotated[str | None, typer.Option(help="Only of this instrument.")]
Since = Annotated[str | None, typer.Option(help="At or after this time, such as 2026-01-31T09:15:00Z.")]
Until = Annotated[str | None, typer.Option(help="Before this time.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a file that is there.")]


def export_orders(
    file: File,
    account: Account = None,
    algo: Algo = None,
    instrument: Instrument = None,
    state: Annotated[list[str] | None, typer.Option(help="Only in this state; may be given again.")] = None,
    since: Since = None,
    until: Until = None,
    force: Force = False,
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
) -> None:
    """Write all orders that fit to a CSV file, newest first."""
    query = {"account": account, "algo": algo, "instrument": instrument, "state": state or None}
    with told():
        save(api_for(url, key, data_dir), "/orders.csv", file, force, {**query, "since": since, "until": until})


@fills.command("export")
def export_fills(
    file: File,
    account: Account = None,
    algo: Algo = None,
    instrument: Instrument = None,
    since: Since = None,
    until: Until = None,
    force: Force = False,
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
) -> None:
    """Write all executions that fit to a CSV file, newest first."""
    query = {"account": account, "algo": algo, "instrument": instrument, "since": since, "until": until}
    with told():
        save(api_for(url, key, data_dir), "/fills.csv", file, force, query)


@fills.command("list")
def list_fills(
    account: Account = None,
    algo: Algo = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on from a page's `next`.")] = None,
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Executions, newest first."""
    with told():
        query = {"account": account, "algo": algo, "limit": limit, "cursor": cursor}
        found = api_for(url, key, data_dir).get("/fills", **query)
        columns = [("account", "account"), ("key", "client_order_id"), ("instrument", "instrument"), ("side", "side")]
        columns += [("quantity", "fill.quantity"), ("price", "fill.price"), ("fee", "fill.fee"), ("at", "fill.at")]
        show(found, as_json, columns, found["items"])


def save(api: ApiClient, path: str, file: Path, force: bool, query: dict[str, Any]) -> None:
    """Download into ``file``, which is there whole or, where the answer breaks off, as it was before."""
    if str(file) == "-":
        api.download(path, sys.stdout.buffer, **query)
        return
    if file.is_dir() or not file.parent.is_dir():
        raise BadInput("FILE", f"{file} is a folder" if file.is_dir() else f"there is no folder {file.parent}")
    if file.exists() and not force:
        raise BadInput("FILE", f"{file} is there already: choose another name, or give --force to replace it")
    try:
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    except OSError as error:
        raise BadInput("FILE", f"{file} cannot be written: {error.strerror}") from error
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as into:
            size = api.download(path, into, **query)
        part.replace(file)
    except OSError as error:
        raise BadInput("FILE", f"{file} cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
    err.print(f"{file}: {size:,} bytes")
