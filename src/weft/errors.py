"""Errors that are meant for the person who uses Weft: one sentence that names the input and says what to do."""

from __future__ import annotations


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
