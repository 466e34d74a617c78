"""Numbers of list items, notes and headings, as word processors and browsers write them."""

from __future__ import annotations

BY_SIGN = {"1": "decimal", "a": "lowerLetter", "A": "upperLetter", "i": "lowerRoman", "I": "upperRoman"}
"""Kinds of numbers by the first one of each, as HTML and OpenDocument name them."""
_ROMAN = (
    *((1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl"), (10, "x")),
    *((9, "ix"), (5, "v"), (4, "iv"), (1, "i")),
)


def numeral(number: int, kind: str) -> str:
    """A number as one kind of list writes it: 4, 04, d, D, iv or IV.

    Args:
        number: any number; those that a kind can't write are written in digits.
        kind: as OOXML names it: ``decimal``, ``decimalZero``, ``lowerLetter``, ``upperLetter``, ``lowerRoman``,
            ``upperRoman``, or any other for digits.
    """
    if kind == "decimalZero":
        return f"{number:02}"
    if kind.endswith("Letter") and 0 < number <= 26 * 30:
        # Word counts a ... z, aa, bb ... zz, aaa; browsers ab after aa, in lists too long to be lettered.
        written = chr(ord("a") + (number - 1) % 26) * ((number - 1) // 26 + 1)
    elif kind.endswith("Roman") and 0 < number < 4000:
        written = ""
        for value, letters in _ROMAN:
            count, number = divmod(number, value)
            written += letters * count
    else:
        return str(number)
    return written.upper() if kind.startswith("upper") else written
