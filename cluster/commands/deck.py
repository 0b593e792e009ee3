"""``up``, ``down``, ``status``: the deck on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.text import Text

from cluster.children import same_process
from cluster.commands.output import err, out, show, told
from cluster.deck import RESET, Deck, DeckFile, left_running, running_deck
from cluster.joining import own_address
from cluster.launched import Launched
from cluster.ray_store import wipe_store
from cluster.settings import DeckSettings
from trading.errors import NeedsOperator

DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Where everything is kept.", envvar="QUARTERDECK_DATA_DIR")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

START_S = 300.0


def settings_for(data_dir: Path | None, host: str | None = None, port: int | None = None) -> DeckSettings:
    """Settings from the environment and these options."""
    given = {"data_dir": data_dir, "host": host, "api_port": port}
    return DeckSettings(**{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]


def up(
    data_dir: DataDir = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; 0.0.0.0 for all, auto: this machine's own.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port of the API.", min=0, max=65535)] = None,
    ray_port: Annotated[int | None, typer.Option(help="Port of the Ray head.", min=0, max=65535)] = None,
    tls: Annotated[bool, typer.Option("--tls", help="Encrypt Ray's traffic, with certificates made here.")] = False,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay in this terminal; Ctrl-C stops.")] = False,
    unless_up: Annotated[bool, typer.Option("--unless-up", help="Where it is up already, that is well.")] = False,
    autoscaling_config: Annotated[
        Path | None, typer.Option(help="What `ray up` has put here: Ray starts the other machines by it.")
    ] = None,
    pool_token: Annotated[
        Path | None, typer.Option(help="Where to write a token with which any number of machines join.")
    ] = None,
    key_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Bring the deck up: PostgreSQL, Redis, Ray, the API, and everything that should run."""
    with told():
        deck = settings_for(data_dir, host, port)
        if ray_port is not None:
            deck.ray_port = ray_port
        deck.tls = deck.tls or tls
        if deck.host == "auto":
            # On its way to a network that is nobody's (RFC 5737): out of here.
            deck.host = own_address("192.0.2.1", 9)
        launched = Launched(
            autoscaling_config=autoscaling_config and autoscaling_config.expanduser().resolve(),
            pool_token=pool_token and pool_token.expanduser().absolute(),
        )
        if unless_up and (found := running_deck(deck.home)) is not None:
            out.print(f"The deck is up at [bold]{found.api_url}[/]")
        elif foreground:
            _stay(deck, launched, key_fd)
        else:
            _detach(deck, launched)


def _stay(settings: DeckSettings, launched: Launched, key_fd: int | None) -> None:
    deck = Deck(settings, say=_say, launched=launched)
    stop = False

    def ask_to_stop(*_: object) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)
    deck.start()
    try:
        out.print(f"The deck is up at [bold]{deck.api_url}[/]")
        if key_fd is not None:
            # Not to stdout: that is the log, and a key must not be kept.
            os.write(key_fd, (deck.admin_key or "").encode())
            os.close(key_fd)
        else:
            _show_key(deck.admin_key)
        trouble = ""
        while not stop:
            time.sleep(1)
            if not stop and deck.taken_down():
                _say("Ray was stopped by its launcher: letting the other machines leave")
                launched.dismiss(settings.database_url)
                break
            try:
                revived = deck.watch()
            except NeedsOperator as error:
                # What still runs goes on; whoever reads this can mend the rest while it does.
                if str(error) != trouble:
                    err.print(Text(str(error), style="red"))
                trouble = str(error)
                continue
            trouble = ""
            for title in revived:
                err.print(Text(f"{title} had ended and was started again", style="yellow"))
    finally:
        out.print(Text("stopping", style="dim"))
        deck.stop()


def _say(text: str) -> None:
    out.print(Text(text, style="dim"), soft_wrap=True)


def _show_key(key: str | None) -> None:
    if key:
        out.print("Administrator's API key (shown this once, kept only as a hash):")
        out.print(Text(key, style="bold"), soft_wrap=True)
        out.print("To sign in as admin: `quarterdeck user password admin` makes a password for the first time.")


def _detach(settings: DeckSettings, launched: Launched) -> None:
    home = settings.home
    found = running_deck(home)
    if found is not None:
        raise NeedsOperator(f"a deck is running already on {home} ({found.api_url})", "stop it with `quarterdeck down`")
    log = home / "logs" / "deck.log"
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        log.parent.mkdir(exist_ok=True)
        output = log.open("wb")
    except OSError as error:
        raise NeedsOperator(
            f"the data directory {home} cannot be used ({error.strerror})",
            "choose another with --data-dir, or make it writable",
        ) from error
    command = [sys.executable, "-m", "cluster", "up", "--foreground", "--data-dir", str(home)]
    command += ["--host", settings.host, "--port", str(settings.api_port), "--ray-port", str(settings.ray_port)]
    command += ["--tls"] if settings.tls else []
    command += launched.command_options()
    key_end, child_end = os.pipe()
    with output:
        process = subprocess.Popen(
            [*command, "--key-fd", str(child_end)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(child_end,),
            start_new_session=True,
        )
    os.close(child_end)
    deadline = time.monotonic() + START_S
    while (found := running_deck(home)) is None or not _is_ready(found):
        if process.poll() is not None:
            err.print(Text(log.read_text(errors="replace").strip()))
            raise typer.Exit(process.returncode or 1)
        if time.monotonic() > deadline:
            raise NeedsOperator(f"the deck was not up within {START_S:.0f} s", f"read {log}")
        time.sleep(0.2)
    # Written or closed right after the deck's file, so this does not wait long.
    with os.fdopen(key_end) as said:
        key = said.read()
    out.print(Text(log.read_text(errors="replace").strip()))
    _show_key(key)


def _is_ready(deck: DeckFile) -> bool:
    try:
        return httpx.get(f"{deck.api_url}/readyz", timeout=2.0).status_code == 200
    except httpx.HTTPError:
        return False


def down(data_dir: DataDir = None) -> None:
    """Stop the deck.  Data, orders at brokers and what should run all stay as they are."""
    with told():
        home = settings_for(data_dir).home
        found = running_deck(home)
        if found is None:
            if left := left_running(home):
                out.print(f"The deck's own process was killed; ending what it left: {', '.join(left)}")
                Deck(settings_for(data_dir), say=_say).stop_left()
                out.print("The deck is down.")
                return
            raise NeedsOperator(f"no deck is running on {home}", "nothing is to be stopped")
        os.kill(found.pid, signal.SIGTERM)
        deadline = time.monotonic() + 60
        # Its file goes before its process does.
        while running_deck(home) is not None or same_process(found.pid, found.started):
            if time.monotonic() > deadline:
                raise NeedsOperator(f"the deck (process {found.pid}) did not stop within 60 s", "end it with kill")
            time.sleep(0.2)
        out.print("The deck is down.")


def reset_ray(data_dir: DataDir = None) -> None:
    """Forget all that Ray knows, and start what should run anew from PostgreSQL.

    For a control store that is lost or damaged.  Every actor ends, here and on other machines, and comes back from the
    journal; orders rest at their brokers meanwhile.
    """
    with told():
        home = settings_for(data_dir).home
        if running_deck(home) is None:
            if left := left_running(home):
                raise NeedsOperator(
                    f"the deck's own process was killed, and {', '.join(left)} still run",
                    "end them with `quarterdeck down` first",
                )
            out.print("Ray's state is forgotten." if wipe_store(home) else "There was nothing to forget.")
            return
        asked = home / RESET
        asked.touch()
        deadline = time.monotonic() + START_S
        while asked.exists() or (found := running_deck(home)) is None or not _is_ready(found):
            if time.monotonic() > deadline:
                raise NeedsOperator(f"the deck was not up again within {START_S:.0f} s", f"read the logs in {home}")
            time.sleep(0.2)
        out.print("Ray's state is forgotten; everything was started anew.")


def status(
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Show whether the deck is up and what is missing."""
    with told():
        home = settings_for(data_dir).home
        found = running_deck(home)
        if found is None:
            if left := left_running(home):
                raise NeedsOperator(
                    f"the deck's own process on {home} was killed; {', '.join(left)} still run, unwatched",
                    "take over with `quarterdeck up`, or end them with `quarterdeck down`",
                )
            raise NeedsOperator(f"no deck is running on {home}", "start it with `quarterdeck up`")
        try:
            ready = httpx.get(f"{found.api_url}/readyz", timeout=5.0)
            missing = [] if ready.status_code == 200 else ready.json().get("missing", [])
        except (httpx.HTTPError, ValueError) as error:
            missing = [f"the API does not answer ({type(error).__name__})"]
        facts = {
            "api_url": found.api_url,
            "pid": found.pid,
            "ray_address": found.ray_address,
            "data_dir": str(home),
            "ready": not missing,
            "missing": missing,
        }
        show(facts, as_json, [("", "name"), ("", "value")], [{"name": k, "value": v} for k, v in facts.items()])
        if missing:
            raise typer.Exit(3)
