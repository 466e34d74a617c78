"""Things that are kept by id up to a number of bytes; those that were not used for longest go first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Thing = TypeVar("Thing")


class Kept(Generic[Thing]):
    """Things by id.

    Args:
        limit: bytes of all together.
        size: bytes of one.

    Attributes:
        bytes: what they take now.
        dropped: how many have gone.
    """

    def __init__(self, limit: int, size: Callable[[Thing], int]) -> None:
        self.limit, self._size = limit, size
        self.bytes = self.dropped = 0
        self._things: OrderedDict[str, Thing] = OrderedDict()

    def __len__(self) -> int:
        return len(self._things)

    def put(self, id: str, thing: Thing) -> None:
        """Keep a thing; one that is larger than the limit alone is not kept."""
        if id in self._things:
            self.bytes -= self._size(self._things.pop(id))
        self._things[id] = thing
        self.bytes += self._size(thing)
        while self.bytes > self.limit:
            _, gone = self._things.popitem(last=False)
            self.bytes -= self._size(gone)
            self.dropped += 1

    def get(self, id: str) -> Thing | None:
        """A thing by its id, which counts as used now; None if it isn't there."""
        thing = self._things.get(id)
        if thing is not None:
            self._things.move_to_end(id)
        return thing
