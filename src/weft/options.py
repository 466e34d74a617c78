"""Options that people give by name: one that nobody knows is refused, and the near one suggested."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from typing import Any

from weft.errors import WeftError

FEW = 12
"""Names that a message lists; of more it tells only the near one."""


def near(given: object, known: Iterable[object], otherwise: str = "known are:", few: int = FEW) -> str:
    """What somebody may have meant, as the end of a sentence; else all that is known, where that is few enough."""
    names = list(map(str, known))
    found = difflib.get_close_matches(str(given), names, n=1)
    if found:
        return f"did you mean {found[0]!r}?"
    return f"{otherwise} {', '.join(names)}." if len(names) <= few else "leave it out."


def mistyped(given: object, known: Iterable[str]) -> str:
    """The known name that differs from this one by a letter or so; empty where there is none."""
    return next(iter(difflib.get_close_matches(str(given), list(known), n=1, cutoff=0.82)), "")


def check_names(given: Iterable[str], known: Collection[str], where: str, others: Collection[str] = ()) -> None:
    """Refuse names that are not known.

    Args:
        given: the names of options.
        known: those that there are.
        where: what takes them, for the message.
        others: further names that may have been meant.

    Raises:
        WeftError: one is not known.
    """
    for name in given:
        if name not in known:
            raise WeftError(f"{where} takes no option {name!r}; {near(name, sorted({*known, *others} - {name}))}")


def check_value(name: str, given: Any, known: Collection[Any]) -> None:
    """Refuse a value that is not known.

    Raises:
        WeftError: it is not.
    """
    if not any(given is one or (type(given) is type(one) and given == one) for one in known):
        shown = [one for one in known if isinstance(one, str)]
        others = [repr(one) for one in known if not isinstance(one, str)]
        hint = difflib.get_close_matches(str(given), shown, n=1)
        choices = ", ".join([*map(repr, shown), *others])
        said = f"did you mean {hint[0]!r}?" if hint else f"choose {choices}."
        raise WeftError(f"{name}: {given!r:.100} is not known; {said}")


def check_count(name: str, given: Any, least: int = 1) -> None:
    """Refuse what is no whole number from ``least`` on.

    Raises:
        WeftError: it is none.
    """
    if isinstance(given, bool) or not isinstance(given, int) or given < least:
        raise WeftError(f"{name}: {given!r:.100} can't be; give a whole number from {least} on.")
