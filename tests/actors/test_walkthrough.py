"""The README's walk-through, run word by word against a deck of two nodes."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable

import pytest

from tests.support.data import ROOT
from tests.support.deck import SECOND_NODE, DeckUnderTest

pytestmark = pytest.mark.cluster


def blocks() -> list[str]:
    """The shell blocks of the walk-through, the one with the exports aside."""
    text = (ROOT / "README.md").read_text()
    section = text.split("## Walk-through", 1)[1].split("\n## ", 1)[0]
    found = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    return [block for block in found if "export API" not in block]


def test_every_command_of_the_readme_works(deck: DeckUnderTest) -> None:
    environment = {**os.environ, "API": deck.deck.api_url, "KEY": deck.key, "SIM": deck.market.url}
    algo = "/algos/walk-maker"

    def spread() -> bool:
        return sum(bool(w["instruments"]) for w in deck.api.get("/feeds/walk")["live"]) == 3

    #: What a reader waits for after each block.
    awaited: list[tuple[str, Callable[[], object]]] = [
        ("three instruments live", lambda: len(deck.live_instruments("walk")) == 3),
        ("five workers, three instruments", lambda: len(deck.api.get("/feeds/walk")["live"]) == 5 and spread()),
        ("the account", lambda: deck.account_view("walker", "walker-paper").get("reconciled")),
        ("orders", lambda: deck.api.get("/orders", algo="walk-maker")["items"]),
        ("it running on the second node", lambda: (deck.api.get(algo)["live"] or {}).get("node") == SECOND_NODE),
        ("the stop", lambda: deck.api.get(algo)["state"] == "stopped"),
    ]
    commands = blocks()
    assert len(commands) == len(awaited)
    said = ""
    for block, (what, ready) in zip(commands, awaited, strict=True):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        said += done.stdout
        deck.wait(what, ready, 60)
    assert '"client_order_id":"walk-maker-' in said.replace(" ", "")
    deck.wait("no open order", lambda: not deck.api.get("/orders", algo="walk-maker", state="submitted")["items"], 20)
    deck.wait("no process", lambda: not any("walk-maker" in a["name"] for a in deck.api.get("/cluster")["actors"]), 40)
