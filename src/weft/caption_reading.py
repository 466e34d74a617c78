"""Reading a caption: its nouns, what those do, what governs them, and their colours.

:meth:`Caption.of` is given the text of a caption. It is read as nouns, as what those do (:meth:`Caption.deeds`), and as
links between a noun and what governs it, as "holding" does in "holding a red ball" (:meth:`Caption.links`).
:func:`one_person` and :func:`subjects` compare all captions of one picture. The words are :mod:`weft.caption_words`'s;
what is asked, :mod:`weft.questions` decides.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from weft.caption_words import (
    ALIVE,
    ALSO_VERBS,
    ARTICLES,
    BARE_FORMS,
    BEHIND_MODIFIERS,
    BEINGS,
    BOUNDS,
    COLOURS,
    CROWDS,
    DETERMINERS,
    HUMANS,
    ING_FORMS,
    LOCATING,
    NUMBERS,
    PATTERNS,
    PHRASES,
    PLURAL,
    PREPOSITIONS,
    S_FORMS,
    SAID_AS,
    SENDING,
    SINGULAR,
    TAKES_AT,
    WHEREABOUTS,
    WORN,
    plural,
)


@dataclass(frozen=True)
class Noun:
    """A noun that stands for a thing: what it is called, whether it is several, and which word of the caption."""

    name: str
    many: bool
    at: int

    @property
    def answer(self) -> str:
        """As it is said in an answer."""
        return plural(self.name) if self.many else SAID_AS.get(self.name, self.name)


@dataclass(frozen=True)
class Link:
    """A noun and what governs it: ``"the man sits on a bench"`` links man and bench by "sitting on".

    Attributes:
        owner: the being that the verb or preposition tells of.
        by: the verb, if there is one, and the preposition, if there is one; ``"in mouth"`` of what is held there.
        noun: the noun that is governed.
    """

    owner: Noun
    by: str
    noun: Noun

    @property
    def place(self) -> str | None:
        """The place where its owner is, if it says so."""
        verb, _, preposition = self.by.rpartition(" ")
        inside = preposition in LOCATING or (preposition == "at" and self.noun.name in TAKES_AT)
        return self.noun.name if inside and self.noun.name in WHEREABOUTS and verb not in SENDING else None


@dataclass(frozen=True)
class Caption:
    """A caption in words, and its nouns in order."""

    words: tuple[str, ...]
    nouns: tuple[Noun, ...]

    @classmethod
    def of(cls, text: str) -> Caption:
        """Read a caption."""
        text = text.lower().replace("-", " ")
        for pattern, word in PHRASES.items():
            text = re.sub(rf"\b(?:{pattern})\b", word, text)
        words = tuple(re.findall(r"[a-z]+|'s|[,.;]", text))
        nouns = (_noun(words, at) for at in range(len(words)))
        return cls(words, tuple(noun for noun in nouns if noun))

    @cached_property
    def names(self) -> frozenset[str]:
        """What its nouns are called."""
        return frozenset(noun.name for noun in self.nouns)

    @cached_property
    def said(self) -> frozenset[str]:
        """All that it speaks of in any role, of a dog in "dog house" too: things, activities, and its words."""
        tables = (SINGULAR, PLURAL, ING_FORMS, S_FORMS, BARE_FORMS)
        return frozenset(self.words) | {table[word] for table in tables for word in self.words if word in table}

    def called(self, names: Iterable[str]) -> list[Noun]:
        """Its nouns of these names."""
        return [noun for noun in self.nouns if noun.name in names]

    def total(self, names: Iterable[str]) -> int | None:
        """How many things of these names it speaks of; None where it speaks of several and does not count them."""
        total = 0
        for noun in self.called(names):
            phrase = self.words[self._governor(noun) + 1 : noun.at]
            number = next((NUMBERS.index(word) for word in phrase if word in NUMBERS), None)
            if noun.many and number is None:
                return None
            total += number if noun.many and number else 1
        return None if total == 1 and {"another", "other", "both"} & set(self.words) else total

    @cached_property
    def deeds(self) -> frozenset[tuple[Noun, str]]:
        """Who does what, by the form of the verb in -ing."""
        return frozenset(self._deeds())

    @cached_property
    def links(self) -> tuple[Link, ...]:
        """Nouns with what governs them, and whose they are."""
        return tuple(self._links())

    def _deeds(self) -> Iterator[tuple[Noun, str]]:
        for at in range(1, len(self.words)):
            owner, verb, before = self._subject(at), self._verb(at), self.words[at - 1]
            # "a running dog", "shoes for running", "wearing running shoes"
            modifier = before in DETERMINERS | COLOURS | PREPOSITIONS | {"'s"} | ING_FORMS.keys()
            if owner and verb and not modifier:
                yield owner, verb

    def _links(self) -> Iterator[Link]:
        last: Link | None = None
        for noun in self.nouns:
            at = self._governor(noun)
            word = self.words[at] if at >= 0 else ""
            if word in ("and", ",") and last and {last.noun.name, noun.name} <= WORN:
                last = replace(last, noun=noun)
                yield last
                continue
            while at > 0 and self.words[at] in PREPOSITIONS:
                at -= 1
            verb = self._verb(at)
            owner = self._subject(at if verb else at + 1)
            by = " ".join(part for part in (verb, word if word in PREPOSITIONS else "") if part)
            following = self.words[noun.at + 1 : noun.at + 4]
            if following[:1] == ("in",) and {"mouth", "mouths"} & set(following):
                by = "in mouth"
            if owner and owner is not noun:
                last = Link(owner, by, noun)
                yield last

    def colours(self, noun: Noun) -> frozenset[str]:
        """The colours that stand before a noun, and "pattern" if it has one."""
        words = self.words[self._governor(noun) + 1 : noun.at]
        # Behind the last article: what comes before one is a verb that we don't know, as in "in red dribbles the ball".
        first = max((at for at, word in enumerate(words) if word in ARTICLES), default=-1) + 1
        words = words[first:]
        return frozenset(word if word in COLOURS else "pattern" for word in words if word in COLOURS | PATTERNS)

    def _governor(self, noun: Noun) -> int:
        """Where the verb, preposition or other noun stands that comes before a noun and its adjectives; -1 if none."""
        at = noun.at - 1
        while at >= 0 and (self._joins(at) or not self._stops(at)):
            at -= 1
        return at

    def _joins(self, at: int) -> bool:
        """Whether an "and" or a comma stands between two colours."""
        around = {self.words[at - 1], self.words[at + 1]} if 0 < at < len(self.words) - 1 else {""}
        return self.words[at] in ("and", ",") and around <= COLOURS | PATTERNS | {"and", ","}

    def _stops(self, at: int) -> bool:
        """Whether no adjective of a later noun stands before a word."""
        word = self.words[at]
        return word in BOUNDS or word.endswith("ing") or bool(self._verb(at)) or self._is_noun(at)

    def _is_noun(self, at: int) -> bool:
        return any(noun.at == at for noun in self.nouns)

    def _verb(self, at: int) -> str:
        """The verb of which a word is a form, or nothing; a bare form is one only behind a plural."""
        word = self.words[at] if at >= 0 else ""
        bare = word in BARE_FORMS and any(noun.many and noun.at == at - 1 for noun in self.nouns)
        third = word in S_FORMS and not self._is_noun(at)
        return ING_FORMS.get(word, "") or (S_FORMS[word] if third else "") or (BARE_FORMS[word] if bare else "")

    def _subject(self, at: int) -> Noun | None:
        """Of whom a verb tells: the nearest being before it. After "and" that may be another, and nobody is named."""
        alive = [noun for noun in self.nouns if noun.name in BEINGS and noun.at < at]
        before = self.words[at - 1] if at > 0 else ""
        if before in ("and", "or", "but", ",", "as", "while") and len({noun.name for noun in alive}) > 1:
            return alive[0] if before == "while" else None
        return alive[-1] if alive else None


def _noun(words: Sequence[str], at: int) -> Noun | None:
    """The noun at a place, unless it is a modifier, an owner, or a verb that looks like one."""
    word, before = words[at], words[at - 1] if at else ""
    following = words[at + 1] if at + 1 < len(words) else ""
    name, many = PLURAL.get(word) or SINGULAR.get(word), word in PLURAL
    if name is None or following == "'s" or (word in CROWDS and following == "of"):
        return None
    does = word in ALIVE and PLURAL.get(following) in ALSO_VERBS
    if (not many or word in CROWDS) and following in BEHIND_MODIFIERS and not does:
        return None
    of_subject = before in ALIVE or PLURAL.get(before) in BEINGS or before.endswith("ly")
    if name in ALSO_VERBS and (of_subject or before in ("and", "who", "that", "to", "he", "she", "it", "they")):
        return None
    return Noun(name, many, at)


def one_person(captions: Sequence[Caption]) -> list[Caption]:
    """Where every caption speaks of one person at most, give that person one name.

    It is what most captions say, if none contradicts it; else ``"child"`` or ``"person"``.
    """
    people = [caption.called(HUMANS) for caption in captions]
    names = Counter(noun.name for nouns in people for noun in nouns)
    if len(names) < 2 or any(len(nouns) > 1 or any(noun.many for noun in nouns) for nouns in people):
        return list(captions)
    (name, count), *_ = sorted(names.items(), key=lambda item: (-item[1], item[0] in ("person", "child"), item[0]))
    contradicted = names.keys() & {"man", "boy"} and names.keys() & {"woman", "girl"}
    if contradicted or 2 * count < sum(names.values()):
        name = "child" if names.keys() <= {"boy", "girl", "child", "baby"} else "person"
    return [
        replace(
            caption,
            nouns=tuple(replace(noun, name=name) if noun.name in HUMANS else noun for noun in caption.nouns),
        )
        for caption in captions
    ]


@dataclass(frozen=True)
class Subject:
    """One being, or all of its kind, that can be asked about: "the dog" or "the dogs"."""

    name: str
    many: bool

    @property
    def answer(self) -> str:
        """In an answer."""
        return plural(self.name) if self.many else self.name

    @property
    def who(self) -> str:
        """In a question."""
        return f"the {self.answer}"

    @property
    def verb(self) -> str:
        """Is or are."""
        return "are" if self.many else "is"

    def includes(self, noun: Noun) -> bool:
        """Whether a noun stands for it. One of several does not: what "one dog" does is not what the dogs do."""
        return noun.name == self.name and noun.many == self.many


def subjects(captions: Sequence[Caption]) -> list[Subject]:
    """Beings of which at least two captions tell, and all either of one or of several."""
    found = []
    for name in sorted(said_by(captions, 1) & BEINGS):
        several = {
            caption.total({name}) != 1 or bool({"another", "other"} & set(caption.words))
            for caption in captions
            if name in caption.names
        }
        if name in said_by(captions, 2) and len(several) == 1:
            found.append(Subject(name, several.pop()))
    return found


def said_by(captions: Sequence[Caption], least: int) -> frozenset[str]:
    """Names of what at least so many captions speak of."""
    counts = Counter(name for caption in captions for name in caption.names)
    return frozenset(name for name, count in counts.items() if count >= least)
