"""The demo's live view: nodes, feed workers, algos, orders and profit in a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cluster.client import ApiClient

_STATE_STYLE = {"running": "green", "paused": "cyan", "failed": "bold red", "waiting": "yellow", "starting": "yellow"}


def snapshot(api: ApiClient, feed: str) -> dict[str, Any]:
    """Everything the view shows, by REST."""
    return {
        "nodes": api.get("/nodes")["items"],
        "feed": api.get(f"/feeds/{feed}"),
        "algos": api.get("/algos")["items"],
        "orders": api.get("/orders", limit=8)["items"],
        "portfolio": api.get("/portfolios", limit=20)["items"],
        "risk": api.get("/risk/exposure"),
    }


def render(seen: dict[str, Any], url: str, key: str, elapsed: float) -> Group:
    """The view of one snapshot."""
    head = Text.assemble(
        ("Quarterdeck demo ", "bold"),
        f" {elapsed:.0f} s   API ",
        (url, "cyan"),
        "   Ctrl-C ends\nkey ",
        (key, "cyan"),
    )
    return Group(
        head,
        _nodes(seen["nodes"]),
        _workers(seen["feed"]),
        _algos(seen["algos"]),
        _orders(seen["orders"]),
        _profit(seen["portfolio"], seen["risk"]),
    )


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim", expand=True, box=None)
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    return table


def _nodes(nodes: list[dict[str, Any]]) -> Table:
    table = _table("Nodes", "node", "health", "cpu %", "memory", "processes", "algos")
    for node in nodes:
        facts = node.get("facts") or {}
        table.add_row(
            node["name"],
            Text(node["health"], {"ok": "green", "degraded": "yellow"}.get(node["health"], "red")),
            _number(facts.get("cpu_percent"), 0),
            f"{facts.get('memory_used_mb', 0):,} of {facts.get('memory_total_mb', 0):,} MB",
            str(len(facts.get("processes", []))),
            ", ".join(algo["id"] for algo in node["algos"]),
        )
    return table


def _workers(feed: dict[str, Any]) -> Table:
    table = _table(
        f"Feed {feed['id']} ({feed['provider']})", "worker", "state", "instruments", "ticks", "per s", "oldest"
    )
    for worker in feed["live"]:
        ages = [i["age_s"] for i in worker.get("instruments", []) if i.get("age_s") is not None]
        table.add_row(
            str(worker["shard"]),
            Text("live", "green") if worker.get("connected") else Text(worker.get("reason") or "not there", "yellow"),
            str(len(worker.get("instruments", []))),
            f"{worker.get('ticks', 0):,}",
            _number(worker.get("rate"), 0),
            f"{max(ages):.1f} s" if ages else "",
        )
    return table


def _algos(algos: list[dict[str, Any]]) -> Table:
    table = _table(
        "Algos",
        "algo",
        "strategy",
        "account",
        "node",
        "state",
        "ticks",
        "intents",
        "fills",
        "position",
        "tick→strategy p50",
    )
    for algo in algos:
        live = algo.get("live") or {}
        latency = (live.get("tick_to_strategy_ms") or {}).get("p50")
        table.add_row(
            algo["id"],
            algo["strategy"],
            algo["account"],
            live.get("node", ""),
            Text(
                algo["state"] + (f" ({algo['reason']})" if algo["reason"] else ""), _STATE_STYLE.get(algo["state"], "")
            ),
            f"{live.get('ticks', 0):,}",
            str(live.get("intents", "")),
            str(live.get("fills", "")),
            ", ".join(f"{q} {i.partition(':')[2]}" for i, q in (live.get("positions") or {}).items()),
            f"{latency:.2f} ms" if latency is not None else "",
        )
    return table


def _orders(orders: list[dict[str, Any]]) -> Table:
    table = _table("Newest orders", "key", "instrument", "side", "type", "quantity", "limit", "filled", "state")
    for order in orders:
        table.add_row(
            order["client_order_id"],
            order["instrument"],
            Text(order["side"], "green" if order["side"] == "buy" else "red"),
            order["type"],
            order["quantity"],
            order.get("limit_price") or "",
            order["filled_quantity"],
            order["state"],
        )
    return table


def _profit(portfolios: list[dict[str, Any]], risk: dict[str, Any]) -> Panel:
    lines = []
    for portfolio in portfolios:
        for account in portfolio["accounts"]:
            if account["profit"] is None:
                lines.append(Text(f"{account['account']:14} amounts in {', '.join(account['currencies'])} have no sum"))
                continue
            profit = float(account["profit"])
            lines.append(
                Text.assemble(
                    f"{account['account']:14} profit ",
                    (f"{profit:+,.2f} {account['currency']}", "green" if profit >= 0 else "red"),
                    f"   exposure {float(account['gross_exposure']):,.2f}   open orders {account['open_orders']}"
                    f"   breaks {account['open_breaks']}",
                )
            )
    for line in risk.get("exposure", []):
        if line["scope"] == "cluster" and line["limit"] is not None:
            lines.append(
                Text(
                    f"cluster {line['kind']}: {float(line['used']):,.2f} used, {float(line['lent']):,.2f} lent of "
                    f"{float(line['limit']):,.0f}"
                )
            )
    return Panel(Group(*lines), title="Profit and risk", title_align="left")


def _number(value: Any, digits: int) -> str:
    return "" if value is None else f"{float(value):,.{digits}f}"
