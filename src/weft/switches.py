"""Weaves that are switched off for a while, by one thread or task and for nobody else.

:class:`Switches` belongs to a model. What is switched off lies in a context variable, so that it holds for what the
same thread, or the same asyncio task, computes, and ends with the ``with`` block that began it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_off: ContextVar[tuple[tuple[Switches, str], ...]] = ContextVar("weft_switched_off", default=())


class Switches:
    """Which weaves of a model are switched off.

    Attributes:
        used: whether anybody has switched one off at the moment, which compiled code can ask: it can't ask a context
            variable, and need not as long as this is False.
    """

    def __init__(self) -> None:
        self.used = False
        self._users = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Switches], tuple[()]]:
        return Switches, ()  # of a copied model no weave is switched off

    def off(self) -> frozenset[str]:
        """The weaves that are switched off here."""
        return frozenset(name for switches, name in _off.get() if switches is self) if self.used else frozenset()

    @contextmanager
    def without(self, names: Iterable[str]) -> Iterator[None]:
        """Within it, some weaves are switched off, beside those that are already."""
        token = _off.set((*_off.get(), *((self, name) for name in names)))
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)
            _off.reset(token)

    def _count(self, change: int) -> None:
        with self._lock:
            self._users += change
            self.used = self._users > 0
