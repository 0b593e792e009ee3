"""``join`` and ``leave``: this machine becomes part of a cluster, and is no more."""

from __future__ import annotations

import getpass
import os
import platform
import signal
import subprocess
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.text import Text

from cluster import children, joining, membership, tls
from cluster.commands.deck import settings_for
from cluster.commands.output import err, out, told
from cluster.commands.resources import pairs
from cluster.joining import Head
from cluster.membership import REMOVED, Membership
from trading.errors import NeedsOperator, Refused, Unreachable
from trading.ids import name as checked_name

NodeDir = Annotated[
    Path, typer.Option("--data-dir", help="Where this machine keeps what it was given.", envvar="QUARTERDECK_DATA_DIR")
]
_HOME = Path("~/.quarterdeck-node")
UNIT = Path("/etc/systemd/system/quarterdeck-node.service")
#: Ray must be up after so long, and stay so for these half seconds.
START_S = 90.0
STEADY = 5


def join(
    head: Annotated[str, typer.Argument(help="Address of the head's API; none: as when it joined before.")] = "",
    token: Annotated[str, typer.Option(help="Join token.", envvar="QUARTERDECK_JOIN_TOKEN")] = "",
    name: Annotated[str, typer.Option(help="Name of this machine (default: its host name).")] = "",
    label: Annotated[list[str] | None, typer.Option(help="key=value; may be repeated.")] = None,
    node_ip: Annotated[str, typer.Option(help="Address under which the head reaches this machine.")] = "",
    token_file: Annotated[
        Path | None, typer.Option(help="Read the token from there; not needed where this machine is a member already.")
    ] = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the head, and for the token's file.", min=0)] = 0.0,
    data_dir: NodeDir = _HOME,
    check_only: Annotated[bool, typer.Option("--check", help="Only look whether it could join.")] = False,
    install_service: Annotated[bool, typer.Option("--install-service", help="Run as a systemd unit.")] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Stay in the background; where it runs already, that is well.")
    ] = False,
) -> None:
    """Check this machine, join a cluster, and stay in it until it is removed or this ends (Ctrl-C)."""
    with told():
        home = settings_for(data_dir).home
        given = joining.kept(home)
        if detach and given is not None and membership.runs(home):
            out.print(f"node {given.node} runs already")
            return
        if token_file is not None:
            until = time.monotonic() + wait
            if given is not None and not _is_member(given, head, until):
                joining.forget(home)
                given = None
            if given is None:
                token = _read_token(token_file.expanduser(), until)
                _wait_for(head, token, until)
        if token or check_only:
            if given is not None and not check_only:
                raise NeedsOperator(
                    f"this machine is node {given.node} of {given.api_url} already",
                    "start it with `quarterdeck join`, or end that with `quarterdeck leave`",
                )
            given = _join(home, head, token, name, label or [], node_ip, check_only)
            if given is None:
                return
        elif given is None:
            raise NeedsOperator(
                "this machine has not joined a cluster", "run the command that came with the join token"
            )
        if install_service:
            _install(home)
        elif detach:
            _detach(home, given)
        else:
            _stay(home, given, node_ip)


def _is_member(given: joining.Given, url: str, until: float) -> bool:
    """Whether what this machine was given is still good at this head."""
    if url and given.api_url != url.rstrip("/"):
        return False
    try:
        _wait_for(given.api_url, given.token, until)
    except Refused as error:
        # That it runs elsewhere too is said when it starts.
        return error.code not in REMOVED
    return True


def _wait_for(url: str, token: str, until: float) -> None:
    """Wait until a head answers.  Raises `Unreachable` where it does not, `Refused` where it refuses the token."""
    head = Head(url, token)
    try:
        while True:
            try:
                head.look()
                return
            except Unreachable:
                if time.monotonic() > until:
                    raise
            time.sleep(0.5)
    finally:
        head.close()


def _read_token(path: Path, until: float) -> str:
    while True:
        try:
            if text := path.read_text().strip():
                return text
            trouble = "is empty"
        except OSError as error:
            trouble = f"cannot be read ({error.strerror})"
        if time.monotonic() > until:
            raise NeedsOperator(f"{path} {trouble}", "`quarterdeck up --pool-token` writes it on the head")
        time.sleep(0.5)


def _join(
    home: Path, url: str, token: str, name: str, labels: list[str], node_ip: str, check_only: bool
) -> joining.Given | None:
    head = Head(url, token)
    try:
        facts = head.look()
        address = node_ip or joining.own_address(head.host, head.port)
        failed = 0
        deck = settings_for(home)
        for check in (*joining.checks(head, facts, address), *joining.tls_checks(facts, deck)):
            mark, style = ("ok", "green") if check.ok else ("FAILED", "bold red")
            out.print(Text.assemble((f"{mark:>6} ", style), f"{check.title}: {check.detail}"), soft_wrap=True)
            if not check.ok:
                failed += 1
                out.print(Text(f"       {check.remedy}", style="yellow"), soft_wrap=True)
        if failed:
            raise NeedsOperator(f"{failed} of these must be mended first", "the token is still good: run this again")
        if check_only:
            out.print("This machine can join.")
            return None
        node = checked_name(facts.node or name or _host_name(), "--name")
        own = {
            "os": platform.system(),
            "arch": platform.machine(),
            **{k: str(v) for k, v in pairs(labels, "--label").items()},
        }
        request = tls.make_request(deck.made_tls_files, node) if facts.tls == "deck" else ""
        given = msgspec.structs.replace(
            head.join(node, own, address, request),
            api_url=head.url,
            # One that was found is found again at each start: it may be another then.
            node_ip=node_ip,
            own_tls_cert=str(Path(deck.tls_cert).resolve()) if facts.tls == "own" else "",
            own_tls_key=str(Path(deck.tls_key).resolve()) if facts.tls == "own" else "",
        )
    finally:
        head.close()
    joining.keep(home, given)
    shown = ", ".join(f"{key}={value}" for key, value in given.labels.items())
    out.print(f"This machine is node [bold]{given.node}[/] of cluster {given.cluster} ({shown})")
    return given


def _host_name() -> str:
    """The host's name as a node may be called."""
    plain = "".join(c if c.isalnum() else "-" for c in platform.node().partition(".")[0].lower()).strip("-")
    return plain[:30] or "node"


def _stay(home: Path, given: joining.Given, node_ip: str) -> None:
    stop = False

    def ask_to_stop(*_: object) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)
    lock = membership.only_one(home)
    try:
        out.print(f"node {given.node} runs; Ctrl-C ends it, `quarterdeck join` starts it again")
        membership.run(
            Membership(home, given, node_ip), lambda: stop, lambda text: err.print(Text(text, style="yellow"))
        )
    except Refused as error:
        joining.forget(home)
        out.print(f"This machine is not part of the cluster any more: {error.detail}")
    finally:
        lock.close()


def _detach(home: Path, given: joining.Given) -> None:
    """Run the machine in the background; returns once Ray runs there."""
    log = home / "logs" / "join.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            membership.command_line(home),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_S
    steady = 0
    # One that Ray's head refuses ends within a second.
    while steady < STEADY:
        if process.poll() is not None:
            raise NeedsOperator(f"node {given.node} ended while starting", f"read {log} and {home}/logs/node.log")
        if time.monotonic() > deadline:
            raise NeedsOperator(
                f"Ray was not up on node {given.node} within {START_S:.0f} s", f"read {home}/logs/node.log"
            )
        time.sleep(0.5)
        steady = steady + 1 if "raylet" in children.names(process.pid) else 0
    out.print(f"node {given.node} runs (process {process.pid})")


def _install(home: Path) -> None:
    """Write the unit and start it.  Raises `NeedsOperator` where this user may not."""
    unit = membership.unit_of(membership.command_line(home), home, getpass.getuser())
    if os.geteuid() != 0:
        raise NeedsOperator(
            f"only root may write {UNIT}", f"run this with sudo, or write there yourself what follows:\n{unit}"
        )
    try:
        UNIT.write_text(unit)
        for words in (["daemon-reload"], ["enable", "--now", UNIT.name]):
            subprocess.run(["systemctl", *words], check=True, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        raise NeedsOperator(
            f"systemd did not take {UNIT}: {said.strip()}", "run it in the foreground instead"
        ) from error
    out.print(f"{UNIT.name} runs; `systemctl status {UNIT.name}` shows how it goes")


def leave(data_dir: NodeDir = _HOME) -> None:
    """Forget the cluster that this machine joined; end `join` first, drain it before that."""
    with told():
        home = settings_for(data_dir).home
        given = joining.kept(home)
        if given is None:
            raise NeedsOperator("this machine has not joined a cluster", "nothing is to be done")
        membership.only_one(home).close()
        joining.forget(home)
        out.print(f"Forgotten. On the head: quarterdeck nodes remove {given.node}")
