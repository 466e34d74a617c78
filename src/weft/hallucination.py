"""What captions name of a picture's objects, and what they name that is not there: CHAIR (Rohrbach et al. 2018).

:class:`ObjectWords` finds the objects that a text mentions, among COCO's 80 categories (:mod:`weft.coco_objects`) and
whatever other objects are named. :func:`chair_i` and :func:`named` are given captions and what is annotated in each
picture, and hand on figures. Nothing here knows a model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from weft.caption_words import BOUNDS, COLOURS, DETERMINERS, plural
from weft.coco_objects import COMPOUND_HEADS, KINDS, NAMES, NO_COMPOUNDS, NO_OBJECT, OTHER_ANIMALS, QUALIFIERS
from weft.errors import DataError
from weft.metrics import check_rows

_IRREGULAR = {
    "calf": "calves",
    "child": "children",
    "fish": "fishes",
    "foot": "feet",
    "goose": "geese",
    "knife": "knives",
    "leaf": "leaves",
    "loaf": "loaves",
    "mouse": "mice",
    "ox": "oxen",
    "person": "people",
    "scarf": "scarves",
    "shelf": "shelves",
    "thief": "thieves",
    "tooth": "teeth",
    "wife": "wives",
    "wolf": "wolves",
}
_PART = 3
"""Letters that a part of a compound has at least: "her on" is no heron."""


@dataclass(frozen=True)
class Mention:
    """An object that a text speaks of.

    Attributes:
        words: as the text has them, in lower case.
        objects: what is thereby said to be there: an object, and the category that it belongs to.
    """

    words: str
    objects: frozenset[str]


class ObjectWords:
    """The words for objects: for COCO's 80 categories, and for others that a data set names.

    An object is mentioned by its name as whole words, singular or plural, written as one word, as several or with
    hyphens ("hot dog", "hotdog"); where one name holds another, by the longer. A category of COCO is mentioned by its
    further names and kinds as well ("sofa", "armchair"), and an object of a few that closed compounds are made with by
    these ("goldfish" for fish). As in the paper, "baby" is no person in "a baby elephant", a toilet's seat is no chair,
    and home plate is no plate; and an orange shirt holds no fruit.

    Example:
        >>> words = ObjectWords(["fish", "teapot"])
        >>> [sorted(mention.objects) for mention in words.mentions("A goldfish looks at two men on a sofa.")]
        [['fish'], ['person'], ['couch']]

    Args:
        objects: further objects. One that is a further name of a category of COCO is that category; one that is a kind
            of it ("duck") is an object of its own, whose mention is one of the category too.

    Raises:
        DataError: an object has neither letters nor digits.
    """

    def __init__(self, objects: Iterable[str] = ()) -> None:
        self._longest = 1
        self._names: dict[str, str] = {}  # the object that is called so, by the letters of each form
        self._mentioned: dict[str, frozenset[str]] = {}  # what a form mentions, by its words and by its letters
        for name in NO_OBJECT:
            self._add(name, is_name=False)
        for category in NAMES:
            for name in (category, *NAMES[category]):
                self._add(name, category)
            for kind in KINDS[category]:
                self._add(kind, category, is_name=False)
        own = sorted({one for one in objects if _letters(one) not in self._names})
        if nameless := [one for one in own if not _words(one)]:
            raise DataError(f"{nameless[0]!r} is no name of an object; write it in letters.")
        # What an object is a kind of is read of COCO's words alone, so that the order of objects doesn't matter.
        broader = {one: self._broader(one) for one in own}
        for one in own:
            self._add(one, one, *broader[one])

    def _add(self, name: str, *objects: str, is_name: bool = True) -> None:
        """Learn an expression for objects; as a name it is the first one's."""
        self._longest = max(self._longest, 1 + len(_words(name)))  # by one, as a compound may be written apart
        for words in map(_words, forms(name.lower())):
            for form in {" ".join(words), "".join(words)}:
                self._mentioned[form] = self._mentioned.get(form, frozenset()).union(objects)
            if is_name:
                self._names.setdefault("".join(words), objects[0])

    def called(self, name: str) -> str:
        """The object of a name: ``"couch"`` for ``"sofa"``; the name itself, where there is none."""
        return self._names.get(_letters(name), name)

    def mentions(self, text: str) -> list[Mention]:
        """The objects that a text speaks of, in order; one that it speaks of twice is there twice."""
        found = [mention for phrase in _phrases(text) for mention in self._of_phrase(phrase)]
        if any("toilet" in mention.objects for mention in found):
            return [mention for mention in found if mention.words not in ("seat", "seats")]
        return found

    def said(self, texts: Iterable[str]) -> frozenset[str]:
        """All objects that texts speak of."""
        return frozenset[str]().union(*(mention.objects for text in texts for mention in self.mentions(text)))

    def _broader(self, name: str) -> frozenset[str]:
        """The category of the noun that a name ends in: sports ball for ``"golf ball"``."""
        found, words = self.mentions(name), _words(name)
        return found[-1].objects if found and found[-1].words.split()[-1] == words[-1] else frozenset()

    def _of_phrase(self, words: Sequence[str]) -> Iterator[Mention]:
        at = 0
        while at < len(words):
            size, objects = self._at(words, at)
            is_colour = words[at : at + size] == ["orange"] and _is_colour(words[:at], words[at + 1 :])
            if objects and not (is_colour or self._is_adjective(words, at)):
                yield Mention(" ".join(words[at : at + size]), objects)
            at += size

    def _at(self, words: Sequence[str], at: int) -> tuple[int, frozenset[str]]:
        """How many words from a place on name objects, and which; of none, one word and no object."""
        for size in range(min(self._longest, len(words) - at), 1, -1):
            window = words[at : at + size]
            objects = self._mentioned.get(" ".join(window))
            if objects is None and min(map(len, window)) >= _PART:
                objects = self._mentioned.get("".join(window))
            if objects is not None:
                return size, objects
        return 1, self._mentioned.get(words[at], frozenset()) | self._compounded(words[at])

    def _compounded(self, word: str) -> frozenset[str]:
        """What a word is a kind of, if it is a compound that ends in a noun for it."""
        if not word.endswith(_COMPOUND_ENDS):
            return frozenset()
        for form, head in _COMPOUND_FORMS.items():
            front = word.removesuffix(form)
            if _PART <= len(front) < len(word) and front + head not in NO_COMPOUNDS:
                return self._mentioned.get(head, frozenset())
        return frozenset()

    def _is_adjective(self, words: Sequence[str], at: int) -> bool:
        """Whether a word for people stands right before another object or animal."""
        if words[at] not in QUALIFIERS or at + 1 == len(words):
            return False
        return words[at + 1] in _OTHER_ANIMALS or bool(self._at(words, at + 1)[1])


def chair_i(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    objects: Sequence[Sequence[str]],
    words: ObjectWords,
) -> float:
    """CHAIRi: of all mentions of objects in captions, the share of those that are not in the picture, from 0 to 1.

    In a picture is what is annotated and, as annotations leave things out, what its reference captions speak of. The
    figure is as good as both together: with one object a picture annotated, much that is there counts as invented. It
    is 0 where nothing is mentioned.

    Args:
        predictions: one caption a row.
        references: one or more right captions for each row.
        objects: what is annotated in each row's picture.
        words: finds mentions.

    Raises:
        DataError: rows differ in number, there are none, or one has no reference.
    """
    check_rows(predictions, references)
    _check_objects(predictions, objects)
    mentioned = invented = 0
    for prediction, right, annotated in zip(predictions, references, objects, strict=True):
        there = {words.called(one) for one in annotated} | words.said([*annotated, *right])
        found = words.mentions(prediction)
        mentioned += len(found)
        invented += sum(there.isdisjoint(mention.objects) for mention in found)
    return invented / mentioned if mentioned else 0.0


def named(predictions: Sequence[str], objects: Sequence[Sequence[str]], words: ObjectWords) -> float:
    """The share of pictures of which the caption names at least one annotated object, from 0 to 1.

    A word for a kind of the object names it, one for something that it is a kind of doesn't: "man" names a person, and
    "bird" does not name a duck. With one object a picture it is the share whose main thing is named.

    Args:
        predictions: one caption a row.
        objects: what is annotated in each row's picture.
        words: finds mentions.

    Raises:
        DataError: rows differ in number, or there are none.
    """
    _check_objects(predictions, objects)
    rows = zip(predictions, objects, strict=True)
    hits = [not words.said([text]).isdisjoint(map(words.called, annotated)) for text, annotated in rows]
    return sum(hits) / len(hits)


def _check_objects(predictions: Sequence[str], objects: Sequence[Sequence[str]]) -> None:
    if not predictions or len(predictions) != len(objects):
        raise DataError(f"there are {len(predictions)} predictions for the objects of {len(objects)} pictures.")


def forms(name: str) -> frozenset[str]:
    """An expression that ends in a noun, in the singular and in the plural, however that is written."""
    many = {name + end for end in ("s", "es") if end == "s" or name.endswith("o")}
    irregular = {name.removesuffix(one) + several for one, several in _IRREGULAR.items() if name.endswith(one)}
    return frozenset({name, plural(name), *many, *irregular})


_COMPOUND_FORMS = {form: head for head in sorted(COMPOUND_HEADS) for form in sorted(forms(head))}
_COMPOUND_ENDS = tuple(_COMPOUND_FORMS)
_OTHER_ANIMALS = frozenset(form for animal in OTHER_ANIMALS for form in forms(animal))


def _words(text: str) -> list[str]:
    """The words of a text, in lower case; a hyphen and an apostrophe end one."""
    return re.findall(r"[^\W_]+", text.lower())


def _letters(name: str) -> str:
    """The letters of a name alone, the same whether it is written as one word or as several."""
    return "".join(_words(name))


def _phrases(text: str) -> Iterator[list[str]]:
    """The words between two punctuation marks, over which no name goes."""
    return map(_words, re.split(r"[^\w\s'\N{RIGHT SINGLE QUOTATION MARK}-]", text))


def _is_colour(before: Sequence[str], after: Sequence[str]) -> bool:
    """Whether "orange" is a colour. A fruit follows a determiner, with a word between at most, and ends its phrase."""
    has_determiner = not DETERMINERS.isdisjoint(before[-2:])
    among_colours = after[:1] == ["and"] and not COLOURS.isdisjoint(after[1:2])
    ends = not after or after[0] in BOUNDS or after[0].endswith("ing")
    return among_colours or not (has_determiner and ends)
