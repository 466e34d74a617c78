"""One form for each character: text as people see it, so that what looks the same is the same.

:func:`as_seen` is given the text of a document, from whatever format, and hands on the text that passages, citations
and searches refer to. Characters are composed (NFC), ligatures and presentation forms become letters, what nobody sees
goes, and every space between words is the ordinary one. What is invisible but carries meaning stays: joiners in
Persian, in Indian scripts and in emoji, word boundaries in Thai and Khmer, direction marks beside Arabic and Hebrew.
"""

from __future__ import annotations

import re
import unicodedata

RIGHT_TO_LEFT = "\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc"
"""Hebrew, Arabic and their kin, as the inside of a set of characters."""
_JOINING = "\u0600-\u08ff\u0900-\u0dff\u1000-\u109f\u1780-\u17ff\u1800-\u18af\U00010d00-\U00010fff\U00011000-\U00011fff"
"""Scripts in which (non-)joiners choose the shape of a letter: Arabic and its kin, Indian scripts, Khmer, Mongolian."""
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\ua9e0-\ua9ff\uaa60-\uaadf"
"""Scripts that put no space between words, so that a zero-width one tells where they end: Thai, Lao, Khmer, ..."""
_PICTURED = "\u00a9\u00ae\u200d\u203c-\u3299\ufe0f\U0001f000-\U0001faff\U000e007f"
"""What emoji are made of."""

_UNSEEN = re.compile(
    "[\0-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u034f\u115f\u1160\u2060-\u2064\u206a-\u206f\u3164\ufeff\uffa0"
    "\ufff9-\ufffb\ufdd0-\ufdef\ufffe\uffff]+"
)
"""Controls, soft hyphens, fillers, invisible operators, marks of annotations, what is no character."""
_NOT_JOINING = re.compile(
    f"(?<![{_JOINING}])\u200c|\u200c(?![{_JOINING}])"
    f"|(?<![{_JOINING}{_PICTURED}])\u200d|\u200d(?![{_JOINING}{_PICTURED}])"
    f"|(?<![{_UNSPACED}])\u200b|\u200b(?![{_UNSPACED}])"
)
_TAGS = re.compile("(\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f)|[\U000e0000-\U000e007f]")
"""Tag characters: the flags of England and its like, or text that nobody sees."""
_DIRECTIONS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_FORMS = re.compile(
    "[\ufb00-\ufb06\ufb13-\ufb17\ufb50-\ufdcf\ufdf0-\ufdfc\ufe70-\ufefc\u2e80-\u2fd5\U0001d400-\U0001d7ff]+"
)
"""Latin and Armenian ligatures, Arabic presentation forms, radicals in place of Chinese characters, letters in the
typefaces of formulas."""
_PLAIN = {
    **dict.fromkeys(
        "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\ufffc", " "
    ),
    **dict.fromkeys("\u2010\u2011", "-"),
    **dict.fromkeys("\r\x0b\x85\u2028", "\n"),
    **dict.fromkeys("\x0c\u2029", "\n\n"),
}
_SPECIAL = re.compile(f"[{''.join(_PLAIN)}]")
_SUPERSCRIPTS = str.maketrans("0123456789+-−=()ni", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁼⁽⁾ⁿⁱ")


def as_seen(text: str) -> str:
    """A text as people see it: a word is found however its file spells it. Doing it again changes nothing.

    Halves of surrogate pairs, which no file can hold, become pairs where they belong together and U+FFFD elsewhere.
    """
    text = _UNSEEN.sub("", _SPECIAL.sub(lambda match: _PLAIN[match[0]], text.replace("\r\n", "\n")))
    if text.isascii():
        return text
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    text = _TAGS.sub(lambda match: match[1] or "", text)
    if not re.search(f"[{RIGHT_TO_LEFT}]", text):
        text = _DIRECTIONS.sub("", text)
    if re.search("[\u200b-\u200d]", text):
        text = _NOT_JOINING.sub("", text)
    return unicodedata.normalize("NFC", _FORMS.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text))


def superscript(text: str, before: str) -> str:
    """A raised text behind others: 10⁶ and m², never 106; a note's number stands apart from the word before it.

    Args:
        text: what is raised.
        before: the text in front of it.
    """
    if not text.strip() or not all(ord(character) in _SUPERSCRIPTS for character in text.strip()):
        return text
    raised = text.strip().translate(_SUPERSCRIPTS)
    return f" {raised}" if re.search(r"[^\W\d_]{3}$", before) else raised
