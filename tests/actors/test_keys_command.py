"""A key made on the deck's own machine opens the API."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from cluster.client import ApiClient
from tests.support.deck import DeckUnderTest

pytestmark = pytest.mark.cluster


def test_a_lost_administrators_key_is_replaced_on_the_decks_machine(deck: DeckUnderTest) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cluster", "keys", "new", "--data-dir", str(deck.home)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = re.search(r"qd_[\w-]+", done.stdout)
    assert found, done.stdout
    api = ApiClient(deck.deck.api_url, found[0])
    try:
        assert api.get("/me")["user"] == "admin"
    finally:
        api.close()


def test_a_key_of_nobody_is_refused(deck: DeckUnderTest) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cluster", "keys", "new", "--user", "nobody", "--data-dir", str(deck.home)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "nobody" in done.stderr
