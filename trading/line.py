"""A line of numbered updates, read by any number of readers at their own pace: newest wins, what is skipped is counted.

An update belongs to a key and replaces the one of that key before it; only the last few keys are kept.  A reader is no
more than the number up to which it has read, so one that does not read costs nothing and holds up nobody.
"""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class News(NamedTuple, Generic[V]):
    """What a reader gets: updates with their numbers, oldest first; how many others it does not see any more."""

    updates: list[tuple[int, V]]
    skipped: int


class Line(Generic[K, V]):
    """The last ``keep`` keys with their newest update; ``first`` is the number before the first update.

    Numbers rise by one for each update, also for those that several updates are put in as one.
    """

    __slots__ = ("_kept", "first", "keep", "newest")

    def __init__(self, keep: int = 1, first: int = 0) -> None:
        self.keep = keep
        self.first = first
        self.newest = first
        self._kept: dict[K, tuple[int, V]] = {}

    def __repr__(self) -> str:
        return f"<Line {len(self._kept)} of {self.keep} newest={self.newest}>"

    def put(self, key: K, value: V, count: int = 1) -> None:
        """Take an update, the last of ``count`` that came together."""
        self.newest += count
        # Anew at the end, so that the order is that of the numbers.
        self._kept.pop(key, None)
        self._kept[key] = (self.newest, value)
        if len(self._kept) > self.keep:
            del self._kept[next(iter(self._kept))]

    def get(self, key: K) -> V | None:
        """The newest update of a key, if it is kept."""
        found = self._kept.get(key)
        return None if found is None else found[1]

    def after(self, place: int | None) -> News[V]:
        """What came after ``place``, as far as it is kept.

        None begins with all that is kept and counts nothing as skipped; so does a place that is not of this line.
        """
        if place is None or not self.first <= place <= self.newest:
            return News(list(self._kept.values()), 0)
        if place == self.newest:
            return News([], 0)
        fresh = [each for each in self._kept.values() if each[0] > place]
        return News(fresh, self.newest - place - len(fresh))
