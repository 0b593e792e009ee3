"""``nodes``, ``algos``, ``feeds``, ``orders``, ``positions``: the API from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from cluster.client import ApiClient
from cluster.commands.deck import DataDir, Json, settings_for
from cluster.commands.output import out, show, told
from cluster.deck import running_deck
from trading.errors import BadInput, NeedsOperator

Url = Annotated[
    str, typer.Option("--url", help="Address of the API (default: the deck on this machine).", envvar="QUARTERDECK_URL")
]
Key = Annotated[str, typer.Option("--api-key", help="API key.", envvar="QUARTERDECK_API_KEY")]

nodes = typer.Typer(help="Machines.", no_args_is_help=True)
algos = typer.Typer(help="Algos: list, create, start, stop, restart, upgrade, log.", no_args_is_help=True)
feeds = typer.Typer(help="Feeds: list, add and remove instruments, change workers.", no_args_is_help=True)
orders = typer.Typer(help="Orders: list, place, cancel.", no_args_is_help=True)


def api_for(url: str, key: str, data_dir: Path | None = None) -> ApiClient:
    """A client of the API that the options name."""
    if not url:
        found = running_deck(settings_for(data_dir).home)
        if found is None:
            raise NeedsOperator("no deck is running on this machine", "start one, or give --url")
        url = found.api_url
    if not key:
        raise NeedsOperator("no API key", "give --api-key or set QUARTERDECK_API_KEY")
    return ApiClient(url, key)


def pairs(given: list[str], field: str) -> dict[str, Any]:
    """``name=value`` options; a value that is JSON is taken as that."""
    found: dict[str, Any] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals:
            raise BadInput(field, f"{item!r} is not name=value")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


@nodes.command("list")
def list_nodes(url: Url = "", key: Key = "", data_dir: DataDir = None, as_json: Json = False) -> None:
    """Machines and how they are."""
    with told():
        found = api_for(url, key, data_dir).get("/nodes")
        columns = [
            ("node", "name"),
            ("load", "load"),
            ("cpu %", "facts.cpu_percent"),
            ("memory MB", "facts.memory_used_mb"),
        ]
        rows = [{**node, "load": ((node["facts"] or {}).get("load") or [None])[0]} for node in found["items"]]
        show(found, as_json, [*columns, ("algos", "algos")], rows)


def _change_node(name: str, change: dict[str, Any], url: str, key: str, data_dir: Path | None, as_json: bool) -> None:
    with told():
        found = api_for(url, key, data_dir).patch(f"/nodes/{quote(name, safe='')}", change)
        columns = [("node", "name"), ("labels", "labels"), ("cordoned", "cordoned"), ("draining", "draining")]
        show(found, as_json, columns, [found])


@nodes.command("token")
def make_join_token(
    name: Annotated[str, typer.Argument(help="Name of the machine; none: it names itself.")] = "",
    label: Annotated[list[str] | None, typer.Option(help="key=value; may be repeated.")] = None,
    with_secrets: Annotated[bool, typer.Option("--with-secrets", help="It may log in at brokers.")] = False,
    pool: Annotated[bool, typer.Option("--pool", help="For any number of machines, until it is revoked.")] = False,
    valid_s: Annotated[int, typer.Option(help="Seconds for which it can be used.")] = 3_600,
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """A one-time token with which a machine joins, and the command to run there."""
    with told():
        labels = {k: str(v) for k, v in pairs(label or [], "--label").items()}
        body = {"node": name, "labels": labels, "with_secrets": with_secrets, "pool": pool, "valid_s": valid_s}
        made = api_for(url, key, data_dir).post("/nodes/tokens", body)
        if as_json:
            show(made, True, [], [])
        else:
            out.print(made["command"], soft_wrap=True, highlight=False)


@nodes.command("cordon")
def cordon_node(
    name: str,
    off: Annotated[bool, typer.Option("--off", help="Take new algos again.")] = False,
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Put no new algos on a machine."""
    _change_node(name, {"cordoned": not off}, url, key, data_dir, as_json)


@nodes.command("drain")
def drain_node(
    name: str,
    off: Annotated[bool, typer.Option("--off", help="Take algos again.")] = False,
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Move a machine's algos to others, and put no new ones there."""
    _change_node(name, {"draining": not off}, url, key, data_dir, as_json)


@nodes.command("label")
def label_node(
    name: str,
    labels: Annotated[list[str], typer.Argument(help="key=value to set, key- to take away.")],
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Set and take away labels of a machine."""
    with told():
        before = api_for(url, key, data_dir).get(f"/nodes/{quote(name, safe='')}")
        wanted = dict(before["labels"])
        for each in labels:
            label, equals, value = each.partition("=")
            if equals:
                wanted[label] = value
            elif each.endswith("-"):
                wanted.pop(each[:-1], None)
            else:
                raise BadInput("labels", f"{each!r} is neither key=value nor key-")
    # As it was seen: what somebody else labels meanwhile is not lost.
    _change_node(name, {"labels": wanted, "generation": before["generation"]}, url, key, data_dir, as_json)


@nodes.command("remove")
def remove_node(
    name: str,
    force: Annotated[bool, typer.Option("--force", help="Even where algos need it.")] = False,
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
) -> None:
    """Forget a machine that is not here any more."""
    with told():
        api_for(url, key, data_dir).delete(f"/nodes/{quote(name, safe='')}?force={str(force).lower()}")
        out.print(f"node {name} is forgotten")


@algos.command("list")
def list_algos(url: Url = "", key: Key = "", data_dir: DataDir = None, as_json: Json = False) -> None:
    """Algos, their state and the reason in words."""
    with told():
        found = api_for(url, key, data_dir).get("/algos")
        columns = [("algo", "id"), ("strategy", "strategy"), ("version", "short"), ("account", "account")]
        columns += [("node", "node"), ("want", "want"), ("state", "state"), ("reason", "reason")]
        rows = [{**each, "short": each["strategy_version"][:12]} for each in found["items"]]
        show(found, as_json, columns, rows)


@algos.command("create")
def create_algo(
    name: str,
    strategy: Annotated[str, typer.Option(help="Name of the strategy.")],
    account: Annotated[str, typer.Option(help="Account to trade for.")],
    feed: Annotated[str, typer.Option(help="Feed that streams its instruments.")],
    instrument: Annotated[list[str], typer.Option(help="Instrument; may be given again.")],
    strategy_version: Annotated[str, typer.Option(help="Version of the strategy (default: the newest).")] = "",
    node: Annotated[str, typer.Option(help="Machine to run on (default: any).")] = "",
    parameter: Annotated[list[str] | None, typer.Option("--set", help="name=value; may be given again.")] = None,
    start: Annotated[bool, typer.Option("--start", help="Start it at once.")] = False,
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Create an algo."""
    with told():
        body = {
            "id": name,
            "strategy": strategy,
            "strategy_version": strategy_version,
            "account": account,
            "feed": feed,
            "instruments": instrument,
            "node": node,
            "parameters": pairs(parameter or [], "--set"),
            "start": start,
        }
        made = api_for(url, key, data_dir).post("/algos", body)
        show(made, as_json, [("algo", "id"), ("state", "state"), ("reason", "reason")], [made])


def _algo_command(verb: str, name: str, url: str, key: str, data_dir: Path | None, as_json: bool) -> None:
    with told():
        found = api_for(url, key, data_dir).post(f"/algos/{quote(name)}/{verb}")
        show(found, as_json, [("algo", "id"), ("want", "want"), ("state", "state"), ("reason", "reason")], [found])


@algos.command("start")
def start_algo(name: str, url: Url = "", key: Key = "", data_dir: DataDir = None, as_json: Json = False) -> None:
    """Start an algo."""
    _algo_command("start", name, url, key, data_dir, as_json)


@algos.command("stop")
def stop_algo(name: str, url: Url = "", key: Key = "", data_dir: DataDir = None, as_json: Json = False) -> None:
    """Stop an algo: its open orders are cancelled, its position stays."""
    _algo_command("stop", name, url, key, data_dir, as_json)


@algos.command("restart")
def restart_algo(name: str, url: Url = "", key: Key = "", data_dir: DataDir = None, as_json: Json = False) -> None:
    """Stop an algo and start it again."""
    _algo_command("restart", name, url, key, data_dir, as_json)


@algos.command("log")
def algo_log(
    name: str,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """The last lines of an algo's log."""
    with told():
        found = api_for(url, key, data_dir).get(f"/algos/{quote(name)}/logs", limit=limit)
        show(found, as_json, [("at", "at"), ("level", "level"), ("text", "text")], found["items"])


@feeds.command("list")
def list_feeds(url: Url = "", key: Key = "", data_dir: DataDir = None, as_json: Json = False) -> None:
    """Feeds and their workers."""
    with told():
        found = api_for(url, key, data_dir).get("/feeds")
        rows = [{**feed, "count": len(feed["instruments"])} for feed in found["items"]]
        show(
            found,
            as_json,
            [("feed", "id"), ("provider", "provider"), ("workers", "workers"), ("instruments", "count")],
            rows,
        )


@feeds.command("show")
def show_feed(name: str, url: Url = "", key: Key = "", data_dir: DataDir = None, as_json: Json = False) -> None:
    """One feed: its workers with counts, rates and ages."""
    with told():
        found = api_for(url, key, data_dir).get(f"/feeds/{quote(name)}")
        columns = [
            ("worker", "shard"),
            ("connected", "connected"),
            ("ticks", "ticks"),
            ("per s", "rate"),
            ("node", "node"),
        ]
        rows = [{**w, "count": len(w.get("instruments", []))} for w in found["live"]]
        show(found, as_json, [*columns, ("instruments", "count"), ("reason", "reason")], rows)


@feeds.command("workers")
def change_workers(
    name: str, count: int, url: Url = "", key: Key = "", data_dir: DataDir = None, as_json: Json = False
) -> None:
    """Change how many workers stream a feed, without losing a tick."""
    with told():
        found = api_for(url, key, data_dir).patch(f"/feeds/{quote(name)}", {"workers": count})
        show(found, as_json, [("feed", "id"), ("workers", "workers")], [found])


@feeds.command("add")
def add_instrument(
    name: str, instrument: str, url: Url = "", key: Key = "", data_dir: DataDir = None, as_json: Json = False
) -> None:
    """Add an instrument to a running feed."""
    with told():
        found = api_for(url, key, data_dir).put(f"/feeds/{quote(name)}/instruments/{quote(instrument)}")
        show(found, as_json, [("feed", "id"), ("instruments", "instruments")], [found])


@feeds.command("remove")
def remove_instrument(
    name: str, instrument: str, url: Url = "", key: Key = "", data_dir: DataDir = None, as_json: Json = False
) -> None:
    """Take an instrument out of a running feed."""
    with told():
        found = api_for(url, key, data_dir).delete(f"/feeds/{quote(name)}/instruments/{quote(instrument)}")
        show(found, as_json, [("feed", "id"), ("instruments", "instruments")], [found])


@feeds.command("want")
def want_instruments(
    name: str,
    client: Annotated[str, typer.Argument(help="Who wants them, such as an algo.")],
    instruments: Annotated[list[str] | None, typer.Argument(help="Exactly these; none: nothing any more.")] = None,
    channels: Annotated[list[str] | None, typer.Option("--channel", help="May be given several times.")] = None,
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Let a client of a feed want exactly these instruments, besides what others want."""
    with told():
        body = {"instruments": instruments or [], **({"channels": channels} if channels else {})}
        path = f"/feeds/{quote(name)}/clients/{quote(client)}/instruments"
        found = api_for(url, key, data_dir).put(path, body)
        show(found, as_json, _CLIENT_COLUMNS, [_client_row(found)])


@feeds.command("clients")
def list_clients(name: str, url: Url = "", key: Key = "", data_dir: DataDir = None, as_json: Json = False) -> None:
    """Who wants how much of a feed, and what fits besides."""
    with told():
        found = api_for(url, key, data_dir).get(f"/feeds/{quote(name)}/clients", limit=1000)
        show(found, as_json, _CLIENT_COLUMNS, [_client_row(each) for each in found["items"]])


@feeds.command("seconds")
def list_seconds(name: str, url: Url = "", key: Key = "", data_dir: DataDir = None, as_json: Json = False) -> None:
    """Which instruments of a feed have a second provider, and which of these are in use."""
    with told():
        api = api_for(url, key, data_dir)
        found = api.get(f"/feeds/{quote(name)}/seconds")
        carried = api.get(f"/feeds/{quote(name)}/instruments", limit=1000)["items"]
        live = {each["id"]: each["second"] or {} for each in carried}
        rows = [{"first": first, **live.get(first, {}), **source} for first, source in found["seconds"].items()]
        show(found, as_json, _SECOND_COLUMNS, rows)


@feeds.command("second")
def put_second(
    name: str,
    instrument: str,
    other: Annotated[str, typer.Argument(help="The feed that is to stand by.")],
    as_instrument: Annotated[str, typer.Option("--as", help="Its name there, if it is another.")] = "",
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Let another feed stand by for an instrument: it takes over while the feed's own provider is silent."""
    with told():
        body = {"feed": other, **({"instrument": as_instrument} if as_instrument else {})}
        found = api_for(url, key, data_dir).put(f"/feeds/{quote(name)}/seconds/{quote(instrument)}", body)
        rows = [{"first": first, **source} for first, source in found["seconds"].items()]
        show(found, as_json, _SECOND_COLUMNS[:3], rows)


@feeds.command("no-second")
def delete_second(
    name: str, instrument: str, url: Url = "", key: Key = "", data_dir: DataDir = None, as_json: Json = False
) -> None:
    """Let an instrument have no second provider any more."""
    with told():
        found = api_for(url, key, data_dir).delete(f"/feeds/{quote(name)}/seconds/{quote(instrument)}")
        rows = [{"first": first, **source} for first, source in found["seconds"].items()]
        show(found, as_json, _SECOND_COLUMNS[:3], rows)


@feeds.command("delete")
def delete_feed(
    name: str,
    force: Annotated[bool, typer.Option("--force", help="Though algos use it or it stands by for others.")] = False,
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
) -> None:
    """Remove a feed."""
    with told():
        api_for(url, key, data_dir).delete(f"/feeds/{quote(name)}" + ("?force=true" if force else ""))
        out.print(f"feed {name} is removed")


_SECOND_COLUMNS = [
    ("instrument", "first"),
    ("second in feed", "feed"),
    ("as", "instrument"),
    ("in use", "in_use"),
    ("switches", "switches"),
]

_CLIENT_COLUMNS = [
    ("client", "client"),
    ("instruments", "count"),
    ("channels", "channels"),
    ("feed carries", "capacity.wanted"),
    ("more fit", "capacity.spare"),
]


def _client_row(client: dict[str, Any]) -> dict[str, Any]:
    channels = sorted({channel for wished in client["instruments"].values() for channel in wished})
    return {**client, "count": len(client["instruments"]), "channels": ", ".join(channels)}


_ORDER_COLUMNS = [
    ("account", "account"),
    ("key", "client_order_id"),
    ("instrument", "instrument"),
    ("side", "side"),
    ("quantity", "quantity"),
    ("filled", "filled_quantity"),
    ("limit", "limit_price"),
    ("state", "state"),
    ("reason", "reason"),
]


@orders.command("list")
def list_orders(
    account: Annotated[str | None, typer.Option(help="Only this account's.")] = None,
    algo: Annotated[str | None, typer.Option(help="Only this algo's.")] = None,
    state: Annotated[str | None, typer.Option(help="Only in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on from a page's `next`.")] = None,
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Orders, newest first."""
    with told():
        query = {"account": account, "algo": algo, "state": state, "limit": limit, "cursor": cursor}
        found = api_for(url, key, data_dir).get("/orders", **query)
        show(found, as_json, _ORDER_COLUMNS, found["items"])


@orders.command("place")
def place_order(
    account: str,
    side: str,
    quantity: str,
    instrument: str,
    limit: Annotated[str | None, typer.Option(help="Limit price.")] = None,
    stop: Annotated[str | None, typer.Option(help="Stop price.")] = None,
    trail: Annotated[
        str | None, typer.Option(help="Trailing stop: its distance in money, or in percent as in 1.5%.")
    ] = None,
    time_in_force: Annotated[str, typer.Option("--tif", help="day, gtc, ioc, fok, opg or cls.")] = "day",
    client_order_id: Annotated[str | None, typer.Option("--key", help="Key: the same key never acts twice.")] = None,
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Place an order, such as: orders place alice-paper buy 0.01 BINANCE:BTCUSDT --limit 60000"""
    with told():
        kind = {(False, False): "market", (True, False): "limit", (False, True): "stop", (True, True): "stop_limit"}
        percent = trail is not None and trail.endswith("%")
        body = {
            "account": account,
            "side": side,
            "quantity": quantity,
            "instrument": instrument,
            "type": "trailing_stop" if trail is not None else kind[(limit is not None, stop is not None)],
            "limit_price": limit,
            "stop_price": stop,
            "trail_price": None if percent else trail,
            "trail_percent": trail[:-1] if trail is not None and percent else None,
            "time_in_force": time_in_force,
            "client_order_id": client_order_id,
        }
        made = api_for(url, key, data_dir).post("/orders", {k: v for k, v in body.items() if v is not None})
        show(made, as_json, _ORDER_COLUMNS, [made])


@orders.command("cancel")
def cancel_order(
    account: str, client_order_id: str, url: Url = "", key: Key = "", data_dir: DataDir = None, as_json: Json = False
) -> None:
    """Cancel an open order."""
    with told():
        made = api_for(url, key, data_dir).delete(f"/orders/{quote(account)}/{quote(client_order_id)}")
        show(made, as_json, _ORDER_COLUMNS, [made])


def positions(url: Url = "", key: Key = "", data_dir: DataDir = None, as_json: Json = False) -> None:
    """Positions with their profit."""
    with told():
        found = api_for(url, key, data_dir).get("/positions")
        columns = [("account", "account"), ("instrument", "instrument"), ("quantity", "quantity")]
        columns += [("average", "average_cost"), ("realised", "realised"), ("fees", "fees")]
        show(found, as_json, columns, found["items"])
        if not as_json and not found["items"]:
            out.print("No positions.")
