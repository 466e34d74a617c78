"""A queue in which nobody is kept waiting by somebody else's many requests."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """First come, first served within each client; clients take turns."""

    def __init__(self) -> None:
        self._clients: OrderedDict[str, deque[Item]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._clients.values()))

    def push(self, client: str, item: Item) -> None:
        """Add an item behind those of the same client."""
        self._clients.setdefault(client, deque()).append(item)

    def pop(self) -> Item:
        """The next item: the oldest of the client whose turn it is.

        Raises:
            KeyError: there is none.
        """
        client, items = self._clients.popitem(last=False)
        item = items.popleft()
        if items:
            self._clients[client] = items  # behind all other clients
        return item

    def discard(self, item: Item) -> None:
        """Take out an item, if it is there."""
        for client, items in self._clients.items():
            if item in items:
                items.remove(item)
                if not items:
                    del self._clients[client]
                return

    def clear(self) -> list[Item]:
        """Take out all items."""
        items = [item for waiting in self._clients.values() for item in waiting]
        self._clients.clear()
        return items
