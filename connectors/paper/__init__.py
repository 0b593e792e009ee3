"""The paper broker: orders meet the live market's quotes and trades, and nobody's money."""

from connectors.paper.broker import PaperBroker
from connectors.paper.ledger import PaperLedger

__all__ = ["PaperBroker", "PaperLedger"]
