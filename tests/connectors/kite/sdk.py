"""The official SDK for tests, which are skipped where it cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.kite_sdk import make_environment, python_of


def python_with_sdk() -> Path:
    """The interpreter of an environment with the SDK; skips the test where it cannot be made."""
    try:
        return python_of(make_environment())
    except RuntimeError as error:
        pytest.skip(str(error))
