"""The command line, ``quarterdeck``."""

from __future__ import annotations

import typer

from cluster.commands import breaks, deck, exports, market, resources
from cluster.commands.algos import algos
from cluster.commands.audit import audit
from cluster.commands.demo import demo
from cluster.commands.history import history
from cluster.commands.join import join, leave
from cluster.commands.keys import keys
from cluster.commands.nodes import nodes
from cluster.commands.risk import kill, risk
from cluster.commands.strategies import strategies
from cluster.commands.users import user

app = typer.Typer(
    name="quarterdeck",
    help="Run trading algos on any machine, command them from one deck.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
app.command()(deck.up)
app.command()(deck.down)
app.command()(deck.status)
app.command()(deck.reset_ray)
app.command()(join)
app.command()(leave)
app.command()(demo)
app.command()(market.record)
app.add_typer(market.simulators, name="simulate")
app.add_typer(nodes, name="nodes")
app.add_typer(algos, name="algos")
app.add_typer(strategies, name="strategies")
app.add_typer(resources.feeds, name="feeds")
resources.orders.command("export")(exports.export_orders)
app.add_typer(resources.orders, name="orders")
app.add_typer(exports.fills, name="fills")
app.add_typer(breaks.breaks, name="breaks")
app.add_typer(keys, name="keys")
app.add_typer(user, name="user")
app.add_typer(risk, name="risk")
app.add_typer(audit, name="audit")
app.command()(kill)
app.command()(history)
app.command()(resources.positions)
app.command()(breaks.reconcile)
app.command()(breaks.reconciliations)


def main() -> None:
    """Entry point of the command."""
    app()
