"""``algos``: create, command one or many, look at their logs and events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from cluster.commands.deck import DataDir, Json
from cluster.commands.output import out, show, told
from cluster.commands.resources import Key, Url, api_for, pairs
from cluster.log_follow import follow
from trading.errors import BadInput

algos = typer.Typer(
    help="Algos: list, create, start, stop, restart, pause, resume, move, tune, label, upgrade, log, events.",
    no_args_is_help=True,
)

Names = Annotated[list[str] | None, typer.Argument(help="Names of algos.")]
Chosen = Annotated[
    str, typer.Option("--selector", help="All algos with these labels, such as desk=alpha,state=failed.")
]

_COLUMNS: Final = [("algo", "id"), ("want", "want"), ("state", "state"), ("reason", "reason")]
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@algos.command("list")
def list_algos(
    selector: Chosen = "", url: Url = "", key: Key = "", data_dir: DataDir = None, as_json: Json = False
) -> None:
    """Algos, their state and the reason in words."""
    with told():
        found = api_for(url, key, data_dir).get("/algos", selector=selector or None)
        columns = [("algo", "id"), ("strategy", "strategy"), ("version", "short"), ("account", "account")]
        columns += [("node", "node"), ("want", "want"), ("state", "state"), ("reason", "reason")]
        rows = [{**each, "short": each["strategy_version"][:12]} for each in found["items"]]
        show(found, as_json, columns, rows)


@algos.command("show")
def show_algo(name: str, url: Url = "", key: Key = "", data_dir: DataDir = None, as_json: Json = False) -> None:
    """One algo; of one that is stopped, what it has left open."""
    with told():
        found = api_for(url, key, data_dir).get(_path(name))
        left = found["stop"] or {}
        row = {**found, "open": left.get("open_orders"), "held": left.get("positions"), "waiting": left.get("waiting")}
        columns = [*_COLUMNS, ("node", "placed"), ("epoch", "epoch"), ("paused by", "paused_by")]
        show(found, as_json, [*columns, ("open orders", "open"), ("holds", "held"), ("waiting", "waiting")], [row])


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
    label: Annotated[list[str] | None, typer.Option(help="key=value; may be given again.")] = None,
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
            "labels": {k: str(v) for k, v in pairs(label or [], "--label").items()},
            "start": start,
        }
        made = api_for(url, key, data_dir).post("/algos", body)
        show(made, as_json, [("algo", "id"), ("state", "state"), ("reason", "reason")], [made])


def _command(
    verb: str,
    names: list[str] | None,
    selector: str,
    body: dict[str, Any],
    url: str,
    key: str,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """One algo by its own command, several by a batch: then one that is refused gives exit code 1."""
    with told():
        if bool(names) == bool(selector):
            raise BadInput("--selector", "name the algos, or select them by their labels")
        api = api_for(url, key, data_dir)
        if names and len(names) == 1:
            found = api.post(f"{_path(names[0])}/{verb}", body)
            show(found, as_json, _COLUMNS, [found])
            return
        chosen = {"ids": names} if names else {"selector": selector}
        found = api.post("/algos/batch", {"action": verb, **chosen, **body})
        rows = [
            {"id": each["id"], **(each["algo"] or {"state": "refused", "reason": each["problem"]["detail"]})}
            for each in found["results"]
        ]
        show(found, as_json, _COLUMNS, rows)
        if found["refused"]:
            raise typer.Exit(1)


@algos.command("start")
def start_algo(
    names: Names = None, selector: Chosen = "", url: Url = "", key: Key = "", data_dir: DataDir = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Start algos."""
    _command("start", names, selector, {}, url, key, data_dir, as_json)


@algos.command("stop")
def stop_algo(
    names: Names = None,
    selector: Chosen = "",
    leave_orders: Annotated[bool, typer.Option("--leave-orders", help="Leave open orders as they are.")] = False,
    flatten: Annotated[bool, typer.Option("--flatten", help="Close what they hold, at market.")] = False,
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Stop algos: their open orders are cancelled, their positions stay, unless asked otherwise."""
    body = {
        **({"orders": "leave"} if leave_orders else {}),
        **({"position": "flatten"} if flatten else {}),
    }
    _command("stop", names, selector, body, url, key, data_dir, as_json)


@algos.command("restart")
def restart_algo(
    names: Names = None, selector: Chosen = "", url: Url = "", key: Key = "", data_dir: DataDir = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Stop algos and start them again."""
    _command("restart", names, selector, {}, url, key, data_dir, as_json)


@algos.command("pause")
def pause_algo(
    names: Names = None,
    selector: Chosen = "",
    because: Annotated[str, typer.Option("--because", help="Why, for others to read.")] = "",
    cancel_open: Annotated[bool, typer.Option("--cancel-open", help="Take back their open entries too.")] = False,
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Let algos run on and only reduce what they hold."""
    body = {"because": because, "cancel_open": cancel_open}
    _command("pause", names, selector, body, url, key, data_dir, as_json)


@algos.command("resume")
def resume_algo(
    names: Names = None, selector: Chosen = "", url: Url = "", key: Key = "", data_dir: DataDir = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Let paused algos trade again."""
    _command("resume", names, selector, {}, url, key, data_dir, as_json)


@algos.command("move")
def move_algo(
    node: Annotated[str, typer.Option("--to", help='Machine to go to; "" lets the Supervisor choose.')],
    names: Names = None,
    selector: Chosen = "",
    force: Annotated[bool, typer.Option("--force", help="Also where they cannot run now: they wait there.")] = False,
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Let algos go on on another machine, from their snapshots."""
    _command("move", names, selector, {"node": node, "force": force}, url, key, data_dir, as_json)


@algos.command("tune")
def tune_algo(
    name: str,
    parameter: Annotated[list[str], typer.Argument(help="name=value; what is not named stays.")],
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Change parameters: live where the strategy declares them updatable, by a restart otherwise."""
    with told():
        api = api_for(url, key, data_dir)
        before = api.get(_path(name))
        wanted = {**before["parameters"], **pairs(parameter, "parameters")}
        # As it was seen: what somebody else changes meanwhile is not lost.
        found = api.patch(_path(name), {"parameters": wanted, "generation": before["generation"]})
        show(found, as_json, [("algo", "id"), ("applied", "applied"), ("parameters", "parameters")], [found])


@algos.command("label")
def label_algo(
    name: str,
    labels: Annotated[list[str], typer.Argument(help="key=value to set, key- to take away.")],
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Set and take away labels of an algo."""
    with told():
        api = api_for(url, key, data_dir)
        before = api.get(_path(name))
        wanted = dict(before["labels"])
        for each in labels:
            label, equals, value = each.partition("=")
            if equals:
                wanted[label] = value
            elif each.endswith("-"):
                wanted.pop(each[:-1], None)
            else:
                raise BadInput("labels", f"{each!r} is neither key=value nor key-")
        found = api.patch(_path(name), {"labels": wanted, "generation": before["generation"]})
        show(found, as_json, [("algo", "id"), ("labels", "labels")], [found])


@algos.command("log")
def algo_log(
    name: str,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    is_followed: Annotated[bool, typer.Option("--follow", "-f", help="Go on with lines as they are written.")] = False,
    level: Annotated[str, typer.Option(help="This level and graver ones: debug, info, warning, error.")] = "",
    since: Annotated[str, typer.Option(help="Not before: a time with offset, or so long ago, such as 10m or 2h.")] = "",
    text: Annotated[str, typer.Option(help="Only lines with this in them.")] = "",
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """The last lines of an algo's log; also of one that was deleted."""
    with told():
        api = api_for(url, key, data_dir)
        query = {"level": level or None, "since": _since(since), "text": text or None}
        if not is_followed:
            found = api.get(f"{_path(name)}/logs", limit=limit, **query)
            show(
                found, as_json, [("at", "at"), ("level", "level"), ("text", "line")], [_row(x) for x in found["items"]]
            )
            return
        # Where the filters let nothing pass, following begins at the end all the same.
        newest = api.get(f"{_path(name)}/logs", limit=1)["next"]
        found = api.get(f"{_path(name)}/logs", limit=limit, **query)
        for line in found["items"]:
            _print(line, as_json)
        try:
            for line in follow(api, name, max(int(newest), int(found["next"]))):
                if _passes(line, level, text):
                    _print(line, as_json)
        except KeyboardInterrupt:
            return


@algos.command("events")
def algo_events(
    name: str,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """What happened to an algo, newest first; also to one that was deleted."""
    with told():
        found = api_for(url, key, data_dir).get(f"{_path(name)}/events", limit=limit)
        columns = [("at", "at"), ("what", "text"), ("epoch", "epoch"), ("state", "state"), ("node", "node")]
        show(found, as_json, columns, found["items"])


def _path(name: str) -> str:
    return f"/algos/{quote(name, safe='')}"


def _row(line: dict[str, Any]) -> dict[str, Any]:
    fields = " ".join(f"{name}={value}" for name, value in line["fields"].items())
    return {**line, "line": f"{line['text']} {fields}".rstrip()}


def _print(line: dict[str, Any], as_json: bool) -> None:
    if as_json:
        out.print_json(data=line, indent=None)
    else:
        out.print(f"{line['at']} {line['level']:7} {_row(line)['line']}", soft_wrap=True, markup=False, highlight=False)


def _passes(line: dict[str, Any], level: str, text: str) -> bool:
    grave = ("debug", "info", "warning", "error")
    is_grave = not level or grave.index(line["level"]) >= grave.index(level)
    return is_grave and text.lower() in line["text"].lower()


def _since(given: str) -> str | None:
    """A time, or so long ago, as the API takes it."""
    if not given:
        return None
    if given[:-1].isdecimal() and given[-1] in _SECONDS:
        ago = timedelta(seconds=int(given[:-1]) * _SECONDS[given[-1]])
        return (datetime.now(UTC) - ago).isoformat()
    return given
