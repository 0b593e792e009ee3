"""``demo``: everything at once, on a simulated market."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.live import Live
from rich.text import Text

from cluster.commands.output import err, out, told
from cluster.demo import FEED, Demo
from cluster.live_view import render, snapshot
from trading.errors import TradeError


class _Stop(Exception):
    """Ctrl-C or SIGTERM."""


def _ask_to_stop(*_: object) -> None:
    raise _Stop


def demo(
    seconds: Annotated[float | None, typer.Option(help="End after so long (default: Ctrl-C).", min=1)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="No live view; print one JSON object at the end.")] = False,
    recording: Annotated[Path | None, typer.Option(help="Replay this recording instead of a synthetic market.")] = None,
    speed: Annotated[float, typer.Option(help="Pace of the market; 0 is as fast as it can.", min=0)] = 1.0,
    rate: Annotated[float, typer.Option(help="Synthetic market: ticks a second.", min=1)] = 400.0,
    port: Annotated[int, typer.Option(help="Port of the API; 0 takes any free one.", min=0, max=65535)] = 0,
) -> None:
    """Run everything on this machine for a look: two nodes, a feed, two users, five algos, live."""
    with told():
        signal.signal(signal.SIGTERM, _ask_to_stop)
        signal.signal(signal.SIGINT, _ask_to_stop)
        console = err if as_json else out

        def say(text: str) -> None:
            console.print(Text(text, style="dim"), soft_wrap=True)

        show = Demo(recording=recording, speed=speed, rate=rate, port=port, say=say)
        try:
            show.start()
            _run(show, seconds, live=not as_json)
            totals = show.totals()
            if as_json:
                typer.echo(msgspec.json.encode(totals).decode())
            elif seconds is not None:
                out.print_json(msgspec.json.encode(totals).decode())
        except _Stop:
            say("stopping")
        finally:
            # A second Ctrl-C must not leave processes behind.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            show.stop()


def _run(show: Demo, seconds: float | None, *, live: bool) -> None:
    began = time.monotonic()
    with Live(Text("…"), console=out, refresh_per_second=2, screen=False) if live else _Silent() as view:
        while seconds is None or time.monotonic() - began < seconds:
            for title in show.watch():
                err.print(Text(f"{title} had ended and was started again", style="yellow"))
            if live and show.api is not None:
                try:
                    seen = snapshot(show.api, FEED)
                    view.update(render(seen, show.deck.api_url, show.key, time.monotonic() - began))
                except TradeError as error:
                    view.update(Text(f"the API does not answer just now: {error}", style="yellow"))
            left = 1.0 if seconds is None else max(0.0, min(1.0, seconds - (time.monotonic() - began)))
            time.sleep(left)


class _Silent:
    """Stands in for the live view when only the figures are wanted."""

    def __enter__(self) -> _Silent:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def update(self, _: object) -> None:
        """Show nothing."""
