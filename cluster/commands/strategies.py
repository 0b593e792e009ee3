"""``strategies``: submit code, look at its versions; ``algos upgrade`` and ``rollback``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from cluster.commands.algos import algos
from cluster.commands.deck import DataDir, Json
from cluster.commands.output import out, show, told
from cluster.commands.resources import Key, Url, api_for, pairs
from trading.errors import BadInput

strategies = typer.Typer(help="Strategies: submit, compare, deprecate versions.", no_args_is_help=True)

Set = Annotated[list[str] | None, typer.Option("--set", help="name=value; may be given again.")]

#: Resolving and fetching requirements, then trying: as long as the API may take for it.
_SUBMIT_S: Final = 420.0
_COLUMNS: Final = [
    ("version", "short"),
    ("kind", "kind"),
    ("entry", "entry"),
    ("requires", "requirements"),
    ("by", "submitted_by"),
    ("at", "submitted_at"),
    ("deprecated", "deprecated.because"),
]


@strategies.command("list")
def list_strategies(url: Url = "", key: Key = "", data_dir: DataDir = None, as_json: Json = False) -> None:
    """Strategies and the version that a new algo takes."""
    with told():
        found = api_for(url, key, data_dir).get("/strategies", limit=1000)
        rows = [{**each, "short": "built in" if each["builtin"] else each["version"][:12]} for each in found["items"]]
        show(found, as_json, [("strategy", "name"), ("version", "short"), ("entry", "entry")], rows)


@strategies.command("submit")
def submit(
    path: Annotated[Path, typer.Argument(help="A .py, .zip or .whl file.")],
    name: Annotated[str, typer.Option("--name", help="Name of the strategy (default: the file's).")] = "",
    entry: Annotated[str, typer.Option("--entry", help="module:Class, a module, or a class.")] = "",
    requirements: Annotated[
        Path | None, typer.Option("--requirements", help="File with a requirement a line, such as scipy>=1.14.")
    ] = None,
    parameter: Annotated[list[str] | None, typer.Option("--set", help="name=value to try it with.")] = None,
    instrument: Annotated[list[str] | None, typer.Option(help="Instrument to try it with.")] = None,
    smoke: Annotated[bool, typer.Option("--smoke/--no-smoke", help="Try it over a made-up market.")] = True,
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Submit a strategy: a new one, or another version of one that is there."""
    with told():
        query: dict[str, Any] = {"file": path.name, "smoke": smoke, "requirement": _requirements(requirements)}
        query |= {"instrument": instrument or [], "entry": entry or None}
        query["parameters"] = json.dumps(pairs(parameter or [], "--set")) if parameter else None
        title = name or path.name.partition("-" if path.suffix == ".whl" else ".")[0].replace("_", "-").lower()
        api = api_for(url, key, data_dir)
        made = api.upload(f"/strategies/{quote(title, safe='')}/versions", _bytes(path), _SUBMIT_S, **query)
        show(made, as_json, [("strategy", "strategy"), *_COLUMNS], [_row(made)])


@strategies.command("versions")
def versions(name: str, url: Url = "", key: Key = "", data_dir: DataDir = None, as_json: Json = False) -> None:
    """Versions of a strategy, newest first."""
    with told():
        found = api_for(url, key, data_dir).get(f"/strategies/{quote(name, safe='')}/versions", limit=1000)
        show(found, as_json, _COLUMNS, [_row(each) for each in found["items"]])


@strategies.command("show")
def show_version(
    name: str, version: str, url: Url = "", key: Key = "", data_dir: DataDir = None, as_json: Json = False
) -> None:
    """One version: what it needs, how it was tried, which algos pin it."""
    with told():
        found = api_for(url, key, data_dir).get(_path(name, version))
        rows = [{"name": key, "value": _text(value)} for key, value in found.items() if key != "parameters"]
        show(found, as_json, [("", "name"), ("", "value")], rows)


@strategies.command("diff")
def diff(
    name: str, before: str, after: str, url: Url = "", key: Key = "", data_dir: DataDir = None, as_json: Json = False
) -> None:
    """What differs between two versions."""
    with told():
        path = f"/strategies/{quote(name, safe='')}/diff"
        found = api_for(url, key, data_dir).get(path, **{"from": before, "to": after})
        if as_json:
            show(found, True, [], [])
        else:
            # As it is: a diff may be given to a program.
            typer.echo(found["diff"], nl=False)


@strategies.command("deprecate")
def deprecate(
    name: str,
    version: str,
    because: Annotated[str, typer.Option(help="Why no new algo may take it.")],
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Let no new algo take a version; those that run it go on."""
    with told():
        found = api_for(url, key, data_dir).post(f"{_path(name, version)}/deprecate", {"because": because})
        show(found, as_json, [*_COLUMNS, ("algos that run it", "algos")], [_row(found)])


@strategies.command("reinstate")
def reinstate(
    name: str, version: str, url: Url = "", key: Key = "", data_dir: DataDir = None, as_json: Json = False
) -> None:
    """Take a deprecation back."""
    with told():
        found = api_for(url, key, data_dir).post(f"{_path(name, version)}/reinstate")
        show(found, as_json, _COLUMNS, [_row(found)])


@strategies.command("delete")
def delete(
    name: str,
    version: Annotated[str, typer.Argument(help="Only this version; none: the strategy with all of them.")] = "",
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
) -> None:
    """Delete a version that no algo pins, or a strategy that no algo uses."""
    with told():
        path = _path(name, version) if version else f"/strategies/{quote(name, safe='')}"
        api_for(url, key, data_dir).delete(path)
        out.print(f"{f'version {version} of ' if version else ''}{name} is deleted")


@algos.command("upgrade")
def upgrade(
    name: str,
    version: str,
    parameter: Set = None,
    url: Url = "",
    key: Key = "",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Let an algo go to another version of its strategy; with --set, with these parameters and no others."""
    with told():
        body = {"version": version, "parameters": pairs(parameter, "--set") if parameter else None}
        found = api_for(url, key, data_dir).post(f"/algos/{quote(name, safe='')}/upgrade", body)
        show(found, as_json, _ALGO_COLUMNS, [found])


@algos.command("rollback")
def roll_back(name: str, url: Url = "", key: Key = "", data_dir: DataDir = None, as_json: Json = False) -> None:
    """Let an algo go back to the version and the parameters that it had before its last upgrade."""
    with told():
        found = api_for(url, key, data_dir).post(f"/algos/{quote(name, safe='')}/rollback")
        show(found, as_json, _ALGO_COLUMNS, [found])


_ALGO_COLUMNS: Final = [
    ("algo", "id"),
    ("strategy", "strategy"),
    ("version", "strategy_version"),
    ("before", "previous_version"),
    ("state", "state"),
    ("reason", "reason"),
]


def _path(name: str, version: str) -> str:
    return f"/strategies/{quote(name, safe='')}/versions/{quote(version, safe='')}"


def _row(version: dict[str, Any]) -> dict[str, Any]:
    return {**version, "short": version["version"][:12]}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput("PATH", f"{path} cannot be read: {error.strerror}") from error


def _requirements(path: Path | None) -> list[str]:
    """The requirements of a file; options of pip are refused: the index is this deck's to choose."""
    if path is None:
        return []
    lines = [line.partition(" #")[0].strip() for line in _bytes(path).decode("utf-8", "replace").splitlines()]
    found = [line for line in lines if line and not line.startswith("#")]
    for line in found:
        if line.startswith("-"):
            raise BadInput("--requirements", f"{line!r} is an option of pip: give requirements only")
    return found
