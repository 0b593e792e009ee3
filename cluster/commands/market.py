"""``simulate`` and ``record``: markets to try things on."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from cluster.commands.output import err, out, told
from connectors.alpaca.simulator import AlpacaSimulator, SimulatedAccount
from connectors.alpaca.venue_hours import weekdays
from connectors.binance.simulator import BinanceSimulator
from connectors.binance.source import RecordingSource, Source
from connectors.binance.synthetic import SyntheticSettings, SyntheticSource
from connectors.binance.tick_source import TickFileSource
from connectors.kite.simulated_login import App
from connectors.kite.simulator import KiteSimulator
from connectors.recordings import Progress, RecordableMarket
from connectors.recordings import record as record_feed
from connectors.registry import market_data, providers
from connectors.tick_files import is_tick_file
from trading.amounts import FORM, is_amount
from trading.errors import BadInput
from trading.ids import InstrumentId, Nanos, instrument_id

simulators = typer.Typer(help="Servers that speak a broker's wire.", no_args_is_help=True)


@simulators.callback()
def _simulators() -> None:
    """Servers that speak a broker's wire."""


@simulators.command("binance")
def simulate_binance(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes any free one.", min=0, max=65535)] = 9443,
    recording: Annotated[Path | None, typer.Option(help="Replay this recording.")] = None,
    speed: Annotated[float, typer.Option(help="Pace of the replay; 0 is as fast as it can.", min=0)] = 1.0,
    symbols: Annotated[int, typer.Option(help="Synthetic market: how many symbols.", min=1, max=500)] = 20,
    rate: Annotated[float, typer.Option(help="Synthetic market: ticks a second, all symbols together.")] = 400.0,
    seed: Annotated[int, typer.Option(help="Synthetic market: same seed, same market.")] = 1,
    futures: Annotated[bool, typer.Option("--futures", help="Synthetic market: USD-M futures.")] = False,
    hold: Annotated[bool, typer.Option("--hold", help="Send nothing before POST /simulator/start.")] = False,
) -> None:
    """Serve Binance's market data wire: a recording, or a market made from a seed."""
    with told():
        source: Source
        if recording is not None:
            source = TickFileSource(recording) if is_tick_file(recording) else RecordingSource(recording)
        else:
            source = SyntheticSource(SyntheticSettings(seed=seed, symbols=symbols, ticks_per_s=rate, futures=futures))
        simulator = BinanceSimulator(source, host, port, speed or None, hold=hold)
        asyncio.run(_serve(simulator, source))


@simulators.command("alpaca")
def simulate_alpaca(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes any free one.", min=0, max=65535)] = 9444,
    accounts: Annotated[
        list[str] | None, typer.Option("--account", help="KEY:SECRET[:NUMBER[:CASH]]; may be given several times.")
    ] = None,
    symbols: Annotated[int, typer.Option(help="How many symbols, AAPL the first.", min=1, max=5000)] = 5,
    rate: Annotated[float, typer.Option(help="Synthetic ticks a second, all symbols together.", min=0)] = 50.0,
    seed: Annotated[int, typer.Option(help="Same seed, same prices.")] = 1,
    hold: Annotated[bool, typer.Option("--hold", help="Prices stand still until POST /simulator/start.")] = False,
    hours: Annotated[bool, typer.Option("--hours", help="New York's trading hours, not day and night.")] = False,
    limit: Annotated[int, typer.Option(help="Requests a minute per account; 0 is no limit.", min=0)] = 200,
    lenient: Annotated[
        bool, typer.Option("--lenient", help="Take orders on both sides at once, and ones that turn a position.")
    ] = False,
) -> None:
    """Serve Alpaca's wire: trading, its order stream, and market data, with prices made from a seed."""
    with told():
        simulator = AlpacaSimulator(
            [_alpaca_account(text, n) for n, text in enumerate(accounts or [], 1)] or [SimulatedAccount()],
            host,
            port,
            symbols=symbols,
            seed=seed,
            ticks_per_s=rate,
            hold=hold,
            hours=weekdays(Nanos(time.time_ns()), 366) if hours else None,
            requests_per_minute=limit or None,
            lenient=lenient,
        )
        asyncio.run(_serve_alpaca(simulator))


@simulators.command("kite")
def simulate_kite(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes any free one.", min=0, max=65535)] = 9555,
    apps: Annotated[
        list[str] | None, typer.Option("--app", help="API_KEY:API_SECRET; may be given several times.")
    ] = None,
    shares: Annotated[int, typer.Option(help="How many shares, INFY the first.", min=1, max=20_000)] = 5,
    rate: Annotated[float, typer.Option(help="Changes a second, all instruments together.", min=0)] = 50.0,
    frames: Annotated[float, typer.Option(help="Frames a second to each ticker.", min=0.1, max=1000)] = 5.0,
    seed: Annotated[int, typer.Option(help="Same seed, same prices.")] = 1,
    hold: Annotated[bool, typer.Option("--hold", help="Prices stand still until POST /simulator/start.")] = False,
    unlimited: Annotated[bool, typer.Option("--unlimited", help="No limit of requests a second.")] = False,
) -> None:
    """Serve Kite's market data wire: log-in, lists, quotes, candles and the ticker, with prices made from a seed."""
    with told():
        simulator = KiteSimulator(
            [_kite_app(text) for text in apps or []] or [App()],
            host,
            port,
            shares=shares,
            seed=seed,
            ticks_per_s=rate,
            frames_per_s=frames,
            hold=hold,
            limits=not unlimited,
        )
        asyncio.run(_serve_kite(simulator))


def _kite_app(text: str) -> App:
    key, _, secret = text.partition(":")
    if not key or not secret:
        raise BadInput("app", f"{text[:60]!r}: write API_KEY:API_SECRET")
    return App(api_key=key, api_secret=secret)


async def _serve_kite(simulator: KiteSimulator) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await simulator.start()
    # One line for programs that wait for it; each app is logged in to once, so that nobody has to.
    tokens = {key: simulator.credentials(key)["access_token"] for key in simulator.log_ins}
    typer.echo(json.dumps({"url": simulator.url, "provider": "kite", "access_tokens": tokens}))
    await stop.wait()
    await simulator.stop()


def _alpaca_account(text: str, number: int) -> SimulatedAccount:
    key, _, rest = text.partition(":")
    secret, _, rest = rest.partition(":")
    name, _, cash = rest.partition(":")
    if not key or not secret:
        raise BadInput("account", f"{text[:60]!r}: write KEY:SECRET, KEY:SECRET:NUMBER or KEY:SECRET:NUMBER:CASH")
    if cash and not is_amount(cash):
        raise BadInput("account", f"{cash[:20]!r} is no amount of cash; {FORM}")
    money = Decimal(cash or 100_000)
    return SimulatedAccount(key=key, secret=secret, number=name or f"PA{number:07d}", cash=money)


async def _serve_alpaca(simulator: AlpacaSimulator) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await simulator.start()
    # One line for programs that wait for it.
    numbers = [account.number for account in simulator.accounts.values()]
    typer.echo(json.dumps({"url": simulator.url, "provider": "alpaca", "accounts": numbers}))
    await stop.wait()
    await simulator.stop()


async def _serve(simulator: BinanceSimulator, source: Source) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await simulator.start()
    if isinstance(source, RecordingSource | TickFileSource):
        for problem in source.problems.found:
            err.print(Text(f"recording: {problem}", style="yellow"), soft_wrap=True)
        if source.problems.count > len(source.problems.found):
            err.print(Text(f"recording: {source.problems.count} problems in all", style="yellow"), soft_wrap=True)
    # One line for programs that wait for it.
    typer.echo(json.dumps({"url": simulator.url, "provider": simulator.product.provider}))
    await stop.wait()
    await simulator.stop()


def record(
    provider: Annotated[str, typer.Argument(help="Whose feed: " + ", ".join(providers()))],
    instruments: Annotated[list[str], typer.Argument(help="Instruments, such as BINANCE:BTCUSDT.")],
    to: Annotated[Path, typer.Option("--to", help="File to append to (.gz is compressed).")],
    channels: Annotated[str, typer.Option(help="Comma-separated: trade, quote, depth, bar.")] = "trade,quote",
    seconds: Annotated[float | None, typer.Option(help="Stop after so long (default: Ctrl-C).", min=0.1)] = None,
    base_url: Annotated[str, typer.Option(help="A simulator's address instead of the public servers.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write a live feed's raw messages to a file, to be replayed later."""
    with told():
        wanted = [instrument_id(text) for text in instruments]
        result = asyncio.run(
            _record(provider, wanted, tuple(c.strip() for c in channels.split(",")), to, seconds, base_url)
        )
        if as_json:
            out.print_json(json.dumps(result))
        else:
            out.print(f"{result['lines']} messages, {result['bytes']} bytes in {to}")


async def _record(
    provider: str,
    wanted: list[InstrumentId],
    channels: tuple[str, ...],
    to: Path,
    seconds: float | None,
    base_url: str,
) -> dict[str, int]:
    market = market_data(provider, {"base_url": base_url} if base_url else {})
    if not isinstance(market, RecordableMarket):
        raise BadInput("provider", f"{provider} cannot be recorded raw")
    counts = {"lines": 0, "bytes": 0}

    def progress(now: Progress) -> None:
        counts.update(lines=now.lines, bytes=now.bytes)
        state = "" if now.connected else f", not connected: {now.note}"
        err.print(Text(f"{now.seconds:6.0f} s  {now.lines} messages{state}"), end="\r")

    work = asyncio.ensure_future(record_feed(market, wanted, channels, to, seconds, progress))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, work.cancel)
    try:
        return dict(await work)
    except asyncio.CancelledError:
        return counts
    finally:
        await market.close()
