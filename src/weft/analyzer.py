"""What a search looks for: the terms of a text, made alike of what is indexed and of what is asked.

:func:`terms` is given a text and hands on words as a search compares them: composed, folded (``Straße`` as ``strasse``,
``résumé`` as ``resume``), without what can't be seen. Words that hang together (``AB-1234/5``, ``e-mail``) are found
whole and in parts; scripts that don't divide words are found by pairs of characters, as in Lucene's CJKAnalyzer. Stems
of English words are left to the index, which makes them on both sides.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from itertools import pairwise

import regex

_STOP_WORDS = (
    "i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers herself "
    "it its itself they them their theirs themselves what which who whom this that these those am is are was were be "
    "been being have has had having do does did doing a an the and but if or because as until while of at by for with "
    "about against between into through during before after above below to from up down in out on off over under "
    "again further then once here there when where why how all any both each few more most other some such no nor not "
    "only own same so than too very s t can will just don should now d ll m o re ve y ain aren couldn didn doesn hadn "
    "hasn haven isn ma mightn mustn needn shan shouldn wasn weren won wouldn arent cant couldnt didnt doesnt dont "
    "hadnt hasnt havent hes im isnt ive shes shouldnt thats theres theyre theyve wasnt werent whats whos wont wouldnt "
    "youre youve"
)
STOP_WORDS = frozenset(_STOP_WORDS.split())
"""Words that questions are made of: they are looked for only where a question has no others. (NLTK's list, and its
contractions without their apostrophes.)"""
PARTS = 8
"""Parts of a word that hangs together, at most, for it to be a term as a whole: longer ones are paths and the like."""

_UNDIVIDED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Hangul}\p{Yi}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー"
_WORD = rf"[[\p{{L}}\p{{M}}\p{{N}}]--[{_UNDIVIDED}]]+"
_TERM = regex.compile(
    rf"(?P<run>[[{_UNDIVIDED}]&&[\p{{L}}\p{{M}}\p{{N}}]]+)"
    rf"|(?P<word>{_WORD}(?:(?:[-_./\\@:&+=,'’·]|-[ \t]*\n[ \t]*){_WORD})*)(?P<sign>\+\+|\#)?"
    r"|(?P<symbol>[\p{So}\p{Sc}])",
    regex.VERSION1,
)
_PART = regex.compile(_WORD, regex.VERSION1)
_CHARACTER = regex.compile(r"\p{Thai}\p{M}*|\p{Lao}\p{M}*|\p{Khmer}\p{M}*|\p{Myanmar}\p{M}*|.")
_MEASURE = regex.compile(r"(\d+)(\p{L}+)|(\p{L}+)(\d+)")
_GROUPED = regex.compile(r"\d{1,3}(?:[.,'’]\d{3})+")
_HYPHENS = regex.compile(r"\p{Pd}")
_DASHES = "—―"
_INVISIBLE = regex.compile(r"[\p{Cf}\p{Variation_Selector}]")


def terms(text: str) -> list[str]:
    """What a text is indexed by.

    Args:
        text: any text.
    """
    return _terms(text, units=True)


def asked(question: str) -> list[str]:
    """What a question looks for: its terms without stop words, or all where there are no others.

    Args:
        question: words, or a question.
    """
    found = _terms(question, units=False)
    return [term for term in found if term not in STOP_WORDS] or found


def folded(text: str) -> str:
    """A text as it is compared: compatible characters as one (NFKC), in lower case, without accents, points and what
    can't be seen.

    Vowel signs of Indic and Thai scripts are kept, and so are the marks that make other letters in Japanese.
    """
    if text.isascii():
        return text.lower()
    apart = unicodedata.normalize("NFKD", _INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).casefold())
    kept = apart if apart.isascii() else "".join(character for character in apart if not _is_accent(character))
    return _HYPHENS.sub(lambda dash: " " if dash[0] in _DASHES else "-", unicodedata.normalize("NFKC", kept))


def _is_accent(character: str) -> bool:
    """Whether a character stands above or below a letter of Latin, Greek or Cyrillic, or points Hebrew or Arabic."""
    kind = unicodedata.combining(character)
    return 10 <= kind <= 36 or kind >= 200


def _terms(text: str, units: bool) -> list[str]:
    """The terms of a text.

    Args:
        text: any text.
        units: whether single characters of a script that does not divide words are terms where others stand beside
            them: they are indexed so that they can be asked for alone.
    """
    found: list[str] = []
    for run, word, sign, symbol in _TERM.findall(folded(text)):
        if word:
            found += _of_word(word, sign)
        elif run:
            characters = _CHARACTER.findall(run)
            if units or len(characters) == 1:
                found += characters
            found += map("".join, pairwise(characters))
        else:
            found.append(symbol)
    return found


@lru_cache(maxsize=2**14)
def _of_word(word: str, sign: str) -> tuple[str, ...]:
    """A word whole and in parts: ``ab-1234/5`` as ``ab``, ``1234``, ``5``, ``ab12345``, ``ab1234`` and ``12345``;
    ``2.13.0`` as it stands and as its numbers; ``50kg`` also as ``50`` and ``kg``; ``c++`` also as ``c``."""
    parts: list[str] = _PART.findall(word)
    found = list(parts)
    for part in parts:
        measure = _MEASURE.fullmatch(part)
        if measure:
            found += filter(None, measure.groups())
    if sign and parts[-1].isalpha():
        found.append(parts[-1] + sign)
    if 1 < len(parts) <= PARTS:
        number = word.removeprefix("v")
        if all(part.isdecimal() for part in _PART.findall(number)):  # a version, a date, a price
            found.append(number)
            if _GROUPED.fullmatch(number):
                found.append("".join(parts))
        else:
            found.append("".join(parts))
            if len(parts) > 2:
                found += map("".join, pairwise(parts))
    return tuple(found)
