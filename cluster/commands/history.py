"""``history``: bars of an instrument, on the screen or into a file."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from cluster.commands.deck import DataDir, Json
from cluster.commands.exports import Force, Until, save
from cluster.commands.output import err, show, told
from cluster.commands.resources import Key, Url, api_for

_COLUMNS = [(name, name) for name in ("open", "high", "low", "close", "volume", "trades")]


def history(
    instrument: Annotated[str, typer.Argument(help="VENUE:SYMBOL, such as BINANCE:BTCUSDT.")],
    since: Annotated[
        str | None, typer.Option(help="Bars that open at or after, such as 2026-01-31T09:15:00Z (default: a day ago).")
    ] = None,
    until: Until = None,
    interval: Annotated[str, typer.Option(help="A number and s, m, h or d, such as 5m.")] = "1m",
    csv: Annotated[
        Path | None, typer.Option(help="Write all bars that fit to this CSV file; - for standard output.")
    ] = None,
    force: Force = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on from a page's `next`.")] = None,
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Closed bars of an instrument, oldest first; what is not stored is fetched from its provider."""
    with told():
        start = since or (datetime.now(UTC) - timedelta(days=1)).isoformat()
        query = {"instrument": instrument, "start": start, "end": until, "interval": interval}
        api = api_for(url, key, data_dir)
        if csv is not None:
            save(api, "/history.csv", csv, force, query)
            return
        found = api.get("/history", **query, limit=limit, cursor=cursor)
        show(found, as_json, [("opened at", "opened_at"), *_COLUMNS], found["items"])
        for gap in found["gaps"] if not as_json else ():
            err.print(f"not known from {gap['start']} to {gap['end']}: {gap['reason']}", style="yellow")
