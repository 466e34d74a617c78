"""Words that were divided at the end of a line, in one piece again.

A hyphen at the end of a line belongs to the word, as in *well-known*, or was put there to divide it, as in *ap-proved*.
:func:`undivided` tells by what else the text says: a word or a compound that stands elsewhere in it is one here too.
"""

from __future__ import annotations

import re

DIVIDED = "\ufffe"
"""A hyphen at the end of a line, as PDFium hands it on; the line's end has gone with it."""

_SEAM = "\ue000"
_DIVIDED = re.compile(
    rf"(?<=\w)(?:(?P<soft>\u00ad)[ \t]*\n\s*|(?:{DIVIDED}\s*|[-\u2010][ \t]*\n(?P<gap>\s*)))(?P<right>[^\W_]+)"
)
_WORDS = re.compile(rf"(?<![\w{_SEAM}])[^\W\d_]+(?:['’-][^\W\d_]+)*(?![\w{_SEAM}])")
_LAST = re.compile(r"[^\W\d_]+$")
_ADDRESS = re.compile(r"[/@\\_]|\.\w")
_LONGEST = 64
"""Characters of a word, at most, that are looked at."""
_JOINING = frozenset("and or to bis oder sowie und beziehungsweise et ou y e o en of och eller i lub og".split())  # noqa: SIM905
"""What may follow the first half of *pre- and postwar*, with its hyphen and a space."""
_SECOND = frozenset("based dependent driven free independent known like oriented related specific style".split())  # noqa: SIM905
"""What is mostly the second half of a compound with a hyphen, behind a word of its own."""


def undivided(text: str) -> str:
    """A text whose words are not divided between lines any more; its other line ends stay."""
    if not _DIVIDED.search(text):
        return text
    known = {word.lower() for word in _WORDS.findall(_DIVIDED.sub(rf"{_SEAM}\g<right>", text))}

    def whole(match: re.Match[str]) -> str:
        right, start = match["right"], match.start()
        left = match.string[max(0, start - _LONGEST) : start].split()[-1]
        last = _LAST.search(left)
        if match["soft"]:
            return right
        if right.lower() in _JOINING and last is not None:
            return f"- {right}"
        if not right[0].islower():
            return match[0] if "\n" in (match["gap"] or "") else f"-{right}"
        if last is None or len(last[0]) == 1 or left.count("-") > 1 or _ADDRESS.search(left):
            return f"-{right}"  # as in 16-year, x-ray, state-of-the-art
        first, second = last[0].lower(), right.lower()
        if first + second in known:
            return right
        compound = f"{first}-{second}" in known or (len(first) > 3 and second in _SECOND)
        halves = len(first) > 3 and len(second) > 3 and first in known and second in known
        return f"-{right}" if compound or halves else right

    # A word may be divided twice, where lines are short: what has been joined is looked at once more.
    joined = _DIVIDED.sub(whole, text)
    return _DIVIDED.sub(whole, joined).replace(DIVIDED, "-")
