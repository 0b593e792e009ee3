"""Recorded data beside the repository; tests that need it are skipped where it is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
USDM_RECORDING = DATA / "market" / "crypto_binance_raw_ws" / "examples_usdm_btcusdt_20240808.gz"


def needs(path: Path) -> Path:
    """``path``, or a skip that says what is missing."""
    if not path.exists():
        pytest.skip(f"recorded data is not here: {path.relative_to(ROOT.parent)}")
    return path
