"""How much longer than on a machine that does nothing else tests wait before they give up."""

from __future__ import annotations

from typing import Final

#: Waits name what a quiet machine takes at most; a slow or busy one gets so many times as long.
PATIENCE: Final = 3
