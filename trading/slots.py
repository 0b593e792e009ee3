"""Instrument numbers, made dense: state per instrument lives in arrays, and a batch finds its rows in one step."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

#: No list of instruments is as long; a number beyond it is a bug that must not become gigabytes.
_LARGEST: Final = 1 << 24

SlotArray = npt.NDArray[np.int32]


class Slots:
    """Gives each instrument number a slot, 0, 1, 2 … in order of first use, for good."""

    def __init__(self) -> None:
        self._of = np.full(64, -1, dtype=np.int32)
        self._numbers: list[int] = []
        #: The same again, quicker for one number.
        self._by_number: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def __repr__(self) -> str:
        return f"<Slots {len(self._numbers)}>"

    def get(self, number: int) -> int | None:
        """The slot of an instrument, None where it never came."""
        return self._by_number.get(number)

    def number(self, slot: int) -> int:
        """Whose slot it is."""
        return self._numbers[slot]

    def one(self, number: int) -> int:
        """The slot of an instrument, new where it never came.  ValueError for a number that cannot be one."""
        slot = self._by_number.get(number)
        return self._add(number) if slot is None else slot

    def many(self, numbers: npt.NDArray[np.int32]) -> SlotArray:
        """The slots of a batch, new ones included.  ValueError for a number that cannot be one."""
        if not len(numbers):
            return np.empty(0, dtype=np.int32)
        if int(numbers.min()) < 0 or int(numbers.max()) >= len(self._of):
            for number in (int(numbers.min()), int(numbers.max())):
                self._reach(number)
        found: SlotArray = self._of[numbers]
        if found.min() < 0:
            for number in dict.fromkeys(numbers[found < 0].tolist()):
                self._add(number)
            found = self._of[numbers]
        return found

    def _reach(self, number: int) -> None:
        if not 0 <= number < _LARGEST:
            raise ValueError(f"{number} cannot be the number of an instrument")
        if number >= len(self._of):
            more = np.full(max(number + 1, 2 * len(self._of)) - len(self._of), -1, dtype=np.int32)
            self._of = np.concatenate([self._of, more])

    def _add(self, number: int) -> int:
        self._reach(number)
        slot = len(self._numbers)
        self._of[number] = slot
        self._by_number[number] = slot
        self._numbers.append(number)
        return slot
