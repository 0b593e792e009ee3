"""``nodes``: machines, how they are and were, and what is done with them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from cluster.commands.deck import DataDir, Json
from cluster.commands.output import out, show, told
from cluster.commands.resources import Key, Url, api_for, pairs
from trading.errors import BadInput

nodes = typer.Typer(help="Machines: how they are and were, and what is done with them.")


@nodes.callback(invoke_without_command=True)
def how_they_are(context: typer.Context, url: Url = "", key: Key = "", data_dir: DataDir = None) -> None:
    """Machines: how they are and were, and what is done with them.  Without a command: as `list`."""
    if context.invoked_subcommand is None:
        list_nodes(url, key, data_dir, False)
        return
    for parameter in ("url", "key", "data_dir"):
        # It would not reach the command.  (By name: which click is typer's own business.)
        source = context.get_parameter_source(parameter)
        if source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(f"write it after `{context.invoked_subcommand}`", context, param_hint=parameter)


@nodes.command("list")
def list_nodes(url: Url = "", key: Key = "", data_dir: DataDir = None, as_json: Json = False) -> None:
    """Machines, how they are, and if not well, why."""
    with told():
        found = api_for(url, key, data_dir).get("/nodes", limit=1000)
        columns = [
            ("node", "name"),
            ("health", "health"),
            ("load", "load"),
            ("cpu %", "facts.cpu_percent"),
            ("memory MB", "memory"),
            ("disk free MB", "facts.disk_free_mb"),
            ("clock ms", "facts.clock.skew_ms"),
            ("algos", "algos"),
            ("why", "why"),
        ]
        show(found, as_json, columns, [_row(node) for node in found["items"]])


def _row(node: dict[str, Any]) -> dict[str, Any]:
    facts = node["facts"] or {}
    marks = [mark for mark in ("cordoned", "draining") if node[mark]]
    return {
        **node,
        "load": (facts.get("load") or [None])[0],
        "memory": f"{facts['memory_used_mb']} of {facts['memory_total_mb']}" if facts else None,
        "why": "; ".join([*node["reasons"], *marks]),
    }


@nodes.command("show")
def show_node(name: str, url: Url = "", key: Key = "", data_dir: DataDir = None, as_json: Json = False) -> None:
    """One machine: its facts, and our processes there by kind."""
    with told():
        found = api_for(url, key, data_dir).get(f"/nodes/{quote(name, safe='')}")
        if as_json:
            show(found, True, [], [])
            return
        show(found, False, [("", "what"), ("", "value")], [{"what": k, "value": v} for k, v in _described(found)])
        kinds = (found["facts"] or {}).get("kinds", {})
        columns = [("process", "kind"), ("count", "count"), ("memory MB", "memory_mb"), ("cpu %", "cpu_percent")]
        show(found, False, [*columns, ("descriptors", "descriptors")], [{"kind": k, **v} for k, v in kinds.items()])


def _described(node: dict[str, Any]) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = [
        ("health", "; ".join([node["health"], *node["reasons"]])),
        ("labels", ", ".join(f"{key}={value}" for key, value in node["labels"].items())),
        ("algos", ", ".join(each["id"] for each in node["algos"])),
    ]
    facts = node["facts"]
    if facts is None:
        return rows
    rows += [
        ("host", f"{facts['host']} ({facts['platform']})"),
        ("cores, load", f"{facts['cpus']}, {' '.join(f'{each:.2f}' for each in facts['load'])}"),
        ("memory MB", f"{facts['memory_used_mb']} of {facts['memory_total_mb']}, swap {facts['swap_used_mb']}"),
        ("disk MB free", f"{facts['disk_free_mb']} of {facts['disk_total_mb']}"),
    ]
    if facts["clock"] is not None:
        skew, error = facts["clock"]["skew_ms"], facts["clock"]["error_ms"]
        rows.append(("clock", f"{skew:+.1f} ms from the database's (± {error:.1f})"))
    if facts["temperature"] is not None:
        rows.append(("temperature", f"{facts['temperature']['celsius']:.0f} °C ({facts['temperature']['sensor']})"))
    if facts["egress"] is not None:
        rows.append(("egress", f"{facts['egress']['address']} (says {facts['egress']['told_by']})"))
    for each in facts["network"]:
        rates = f"{each['received_bytes_s'] / 1e3:.1f} kB/s in, {each['sent_bytes_s'] / 1e3:.1f} out"
        rows.append((each["name"], f"{rates}, {each['errors']} errors, {each['drops']} drops"))
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    return [*rows, ("Python", facts["python"]), ("code", facts["code"]), ("packages", packages)]


@nodes.command("history")
def node_history(
    name: str,
    metric: Annotated[list[str] | None, typer.Option(help="May be repeated; none: the usual ones.")] = None,
    since: Annotated[str, typer.Option(help="Time with offset; none: a day ago.")] = "",
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """How a machine was, minute by minute, for a day."""
    with told():
        wanted = metric or ["cpu_percent", "load_1", "memory_used_mb", "disk_free_mb", "algos"]
        query: dict[str, Any] = {"metric": wanted, **({"since": since} if since else {})}
        found = api_for(url, key, data_dir).get(f"/nodes/{quote(name, safe='')}/history", **query)
        rows = [{"at": each["at"], **each["metrics"]} for each in found["items"]]
        show(found, as_json, [("minute", "at"), *((each, each) for each in wanted)], rows)


def _change_node(
    name: str, change: dict[str, Any], url: str, key: str, data_dir: Path | None, as_json: bool, *, force: bool = False
) -> None:
    with told():
        path = f"/nodes/{quote(name, safe='')}" + ("?force=true" if force else "")
        found = api_for(url, key, data_dir).patch(path, change)
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
    force: Annotated[bool, typer.Option("--force", help="Even where algos can go nowhere else.")] = False,
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Move a machine's algos to others, and put no new ones there."""
    _change_node(name, {"draining": not off}, url, key, data_dir, as_json, force=force)


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
