"""Summaries of several lengths, made by rule from one that takes whole sentences from its text.

:func:`extracts` is given an article and such a summary, and hands on sentences of the article; nothing is written anew.
"""

from __future__ import annotations

import re

from weft.instructions import Length
from weft.passages import sentences

SHORT, MEDIUM = 250, 450
"""Characters of a summary in one sentence, and in a few."""

_REFERS = re.compile(
    r"""["'(]*(?:but|and|he|she|it|they|this|that|these|those|his|her|its|their|however|meanwhile|so|also|both|one
    |another|such|then|there|we|i|you|our|my|instead|nevertheless|in\ addition)\b""",
    re.IGNORECASE | re.VERBOSE,
)
"""How a sentence begins that leans on the one before it."""


def extracts(text: str, title: str, summary: str) -> dict[Length, str]:
    """Summaries of three lengths, made of sentences that a given summary takes from its text.

    Those that stand on their own come first: that open and close their quotation marks, and do not begin by referring
    to what was said before. Among them those are best that have most words in common with title and summary.

    Args:
        text: an article.
        title: its title.
        summary: some of its sentences, in any order, with or without space between them.

    Returns:
        ``long``: all these sentences; ``medium``: up to three, :data:`MEDIUM` characters together; ``short``: one of at
        most :data:`SHORT` characters, or the shortest. In the text's order; empty if the summary holds no sentence of
        the text.
    """
    glued = re.sub(r"\s+", "", summary)
    chosen = [text[begin:end] for begin, end in sentences(text) if re.sub(r"\s+", "", text[begin:end]) in glued]
    if not chosen:
        return {}

    def rank(place: int) -> tuple[bool, float]:
        own = set(_words(chosen[place]))
        rest = {word for index, other in enumerate(chosen) if index != place for word in _words(other)}
        named = set(_words(title))
        alone = chosen[place].count('"') % 2 == 0 and not _REFERS.match(chosen[place])
        shared = 2 * len(own & rest) / max(1, len(own) + len(rest))
        return alone, shared + len(own & named) / max(1, len(named))

    best = sorted(range(len(chosen)), key=rank, reverse=True)
    picked: list[int] = []
    for place in best:
        if len(picked) < 3 and sum(len(chosen[index]) + 1 for index in [*picked, place]) <= MEDIUM + 1:
            picked.append(place)
    short = next((chosen[place] for place in best if len(chosen[place]) <= SHORT), min(chosen, key=len))
    medium = " ".join(chosen[place] for place in sorted(picked)) or short
    return {"short": short, "medium": medium, "long": " ".join(chosen)}


def _words(text: str) -> list[str]:
    """The words that say something: without the short ones."""
    return [word for word in re.findall(r"\w+", text.casefold()) if len(word) > 3 or word.isdigit()]
