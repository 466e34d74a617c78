"""Questions about something else: a question with a name or a number in it exchanged for another of its kind.

:class:`EntitySwaps` is given the texts that questions are about, and finds their names by rule: words with a capital
amid sentences, and how they are used there. The rules are of English; they know no model and no dictionary.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache

_WORD = r"[A-Z][\w-]*\w"
_NAME = re.compile(rf"(?<![\w'\u2019-]){_WORD}(?: (?:of |of the |the )?{_WORD})*(?![\w-])")
_AMID = re.compile(r"[a-z,;] $")
"""What stands in front of a word that has its capital for being a name, and not for beginning a sentence."""
_THE = re.compile(r"\bthe $", re.IGNORECASE)
_ASKED = re.compile(r"\b(?:did|does|do|was|is|were|will|said|cried|asked|answered|replied) (?:the )?$")
_ACTS = re.compile(r" (?:said|cried|asked|answered|replied|thought|felt|went|saw|took|knew)\b")
_PLACE = re.compile(r"\b(?:in|at|near|into|towards?) (?:the )?$", re.IGNORECASE)
_TITLES = "Mr Mrs Ms Miss Dr Sir Lord Lady St Saint King Queen Prince Princess Old Little".split()  # noqa: SIM905
_TITLE = re.compile(rf"\b(?:{'|'.join(_TITLES)})\.? $")
_PEOPLE = re.compile(r".*(?:ish|ese|ian|ean|ican)")
"""Adjectives of peoples, which are no names by themselves."""
_NO_NAMES = frozenset(
    """I A An The This That These Those It He She They We You My Our His Her Its Their And But Or If Yes No Not O Oh Ah
    What Who Whom Whose Which When Where Why How Now Then So Sunday Monday Tuesday Wednesday Thursday Friday Saturday
    God Lord Sir Madam Heaven Christmas Easter Fill""".split()  # noqa: SIM905
)
_GENDERED = re.compile(r"\b(?:he|him|his|himself|she|her|hers|herself)\b", re.IGNORECASE)
"""Words that a name would have to agree with."""

_CARDINALS = "two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty hundred".split()  # noqa: SIM905
_ORDINALS = "second third fourth fifth sixth seventh eighth ninth tenth".split()  # noqa: SIM905
_YEAR = re.compile(r"(?:1[5-9]|20)\d\d")
_NUMBER = re.compile(rf"(?<![\w.,-])(?:\d+(?:[.,]\d+)*(?![\w-]|[.,]\d)|(?:{'|'.join([*_CARDINALS, *_ORDINALS])})\b)")

Kind = tuple[bool, ...]
"""How a name is used: whether with an article, for a place, for somebody who acts, for several; whether it is an
abbreviation."""


class EntitySwaps:
    """Names of texts, by kind, to be put in the place of those in questions about other texts.

    Args:
        texts: the words of each text, by its name.
    """

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._names = {name: names(text) for name, text in texts.items()}
        self._alike: dict[Kind, list[tuple[str, str]]] = {}
        for text, found in self._names.items():
            for name, kind in found.items():
                self._alike.setdefault(kind, []).append((text, name))

    def question(self, question: str, text: str, documents: Sequence[str], rng: random.Random) -> str | None:
        """The question with one name or number exchanged; None if there is none that can be.

        What is exchanged stands in the documents, since only there can one see that the question is about something
        else; what it is exchanged for does not.

        Args:
            question: what is asked.
            text: the name of the text that it is about.
            documents: what it is asked of.
            rng: makes the choices.
        """
        told = frozenset[str]().union(*map(_words, documents))
        names = [] if _GENDERED.search(question) else self._named(question, text, told)
        numbers = [match[0] for match in _NUMBER.finditer(question) if _words(match[0]) <= told]
        kinds = [kind for kind, found in (("name", names), ("number", numbers)) if found]
        if not kinds:
            return None
        if rng.choice(kinds) == "number":
            old = rng.choice(numbers)
            new = _other_number(old, told | _words(question), rng)
        else:
            old = rng.choice(names)
            new = self._other_name(old, text, told | _words(question), rng)
        return None if new is None else re.sub(rf"(?<![\w.,-]){re.escape(old)}(?![\w-])", lambda _: new, question)

    def _named(self, question: str, text: str, told: Collection[str]) -> list[str]:
        """The names in a question that its documents hold as well; not those that belong to a longer one."""
        known = self._names[text]
        return [name for name in _capitals(question) if name in known and _words(name) <= frozenset(told)]

    def _other_name(self, old: str, text: str, taken: Collection[str], rng: random.Random) -> str | None:
        alike = self._alike[self._names[text][old]]
        free = [name for source, name in alike if source != text and not _words(name) & frozenset(taken)]
        return rng.choice(free) if free else None


def names(text: str) -> dict[str, Kind]:
    """The names in a text that stand there at least twice, with how each is used.

    A word that the text writes without a capital at least as often is no name.
    """
    flat = " ".join(text.split())
    places: dict[str, list[tuple[str, str]]] = {}
    for match in _NAME.finditer(flat):
        before, after = flat[max(0, match.start() - 12) : match.start()], flat[match.end() : match.end() + 12]
        if _AMID.search(before) and not _TITLE.search(before) and not set(match[0].split()) & _NO_NAMES:
            places.setdefault(match[0], []).append((before, after))
    small = Counter(re.findall(r"\b[a-z][\w-]*\b", flat))
    found = {}
    for name, around in places.items():
        kind = _kind(name, around)
        common = " " not in name and small[name.lower()] >= len(around)
        bare = not kind[0] and (name in _TITLES or _PEOPLE.fullmatch(name))
        if len(around) >= 2 and not common and not bare:
            found[name] = kind
    return found


def _kind(name: str, around: Sequence[tuple[str, str]]) -> Kind:
    """How a name is used, by the words before and after it."""
    article = 2 * sum(bool(_THE.search(before)) for before, _ in around) > len(around)
    place = 4 * sum(bool(_PLACE.search(before)) for before, _ in around) > len(around)
    acts = any(_ASKED.search(before) or _ACTS.match(after) for before, after in around)
    last = name.split()[-1]
    several = article and last.endswith("s") and not last.endswith("ss")
    return article, place, acts, several, len(re.findall(r"[A-Z0-9]", last)) > 1


def _capitals(question: str) -> list[str]:
    """What may be a name in a question: words with a capital, unless more of the name follows."""
    found = (
        match for match in _NAME.finditer(question) if not re.match(r"(?:['\u2019]s|\.) [A-Z]", question[match.end() :])
    )
    return list(dict.fromkeys(match[0] for match in found))


def _other_number(old: str, taken: Collection[str], rng: random.Random) -> str | None:
    """A number of the same form."""
    for words in (_CARDINALS, _ORDINALS):
        if old in words:
            free = [word for word in words if word not in taken and abs(words.index(word) - words.index(old)) <= 5]
            return rng.choice(free) if free else None
    for _ in range(20):
        if _YEAR.fullmatch(old):
            new = str(int(old) + rng.choice([-1, 1]) * rng.randint(2, 20))
        else:
            new = re.sub(r"[1-9]", lambda _: str(rng.randint(1, 9)), old)
        if not _words(new) & frozenset(taken):
            return new
    return None


@lru_cache(maxsize=16384)
def _words(text: str) -> frozenset[str]:
    """The words and numbers of a text."""
    return frozenset(re.findall(r"\d+(?:[.,]\d+)*|\w+", text.casefold()))
