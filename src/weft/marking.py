"""A text as a page on which the sentences that a summary leaned on are marked."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weft.reading import Summary

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="generator" content="Weft">
<title>{title}</title>
<style>
body {{ font: 1.05rem/1.6 Georgia, serif; max-width: 42rem; margin: 2rem auto; padding: 0 1rem; }}
.summary {{ font-weight: bold; border-left: .3rem solid #e69f00; padding-left: 1rem; white-space: pre-wrap; }}
.text {{ white-space: pre-wrap; }}
mark {{ color: inherit; border-radius: .2rem; }}
footer {{ color: #666; font-size: .85rem; margin-top: 2rem; }}
</style>
<h1>{title}</h1>
<p class="summary">{summary}</p>
<div class="text">{text}</div>
<footer>The darker a sentence is marked, the more the words above lean on it; point at one to see its share.
{read} of {passages} passages were read.</footer>
</html>
"""


def marked(summary: Summary) -> str:
    """A summary and the text that it is of, as HTML.

    Raises:
        WeftError: the summary does not know what it leaned on.
    """
    shares: dict[tuple[int, int], float] = {}
    for span, share in summary.sentences():
        shares[span] = shares.get(span, 0.0) + share
    most = max(shares.values(), default=0.0) or 1.0
    pieces, place = [], 0
    for (begin, end), share in sorted(shares.items()):
        if begin < place:  # a sentence that two passages share in part
            continue
        pieces.append(escape(summary.article[place:begin]))
        sentence = escape(summary.article[begin:end])
        strength = round(0.75 * share / most, 2)
        style = f'style="background: rgba(230, 159, 0, {strength})" title="{share:.1%}"'
        pieces.append(f"<mark {style}>{sentence}</mark>" if strength >= 0.05 else sentence)
        place = end
    pieces.append(escape(summary.article[place:]))
    return PAGE.format(
        title=escape(summary.name),
        summary=escape(summary.text),
        text="".join(pieces),
        read=summary.read[0],
        passages=summary.read[1],
    )
