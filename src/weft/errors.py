"""Errors that are meant for the person who uses Weft: one sentence that names the input and says what to do."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches


class WeftError(Exception):
    """Base of all errors that Weft raises for its user; the command line prints them and exits with code 1."""


class PartError(WeftError):
    """A frozen part can't be found, fetched, or isn't the one that was trained on."""


class PictureError(WeftError, ValueError):
    """A picture can't be read."""


class DataError(WeftError, ValueError):
    """A data set can't be used as it is."""


class RecipeError(WeftError, ValueError):
    """A training recipe says something that can't be done."""


def check_options(where: str, given: Iterable[str], known: Collection[str]) -> None:
    """Refuse options by names that nobody knows, and suggest a name that was perhaps meant.

    Args:
        where: what was called.
        given: the names.
        known: those that there are.

    Raises:
        WeftError: one is not known.
    """
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, 1)
            meant = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}."
            raise WeftError(f"{where} takes no option {name!r}; {meant}")
