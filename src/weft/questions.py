"""Questions about a picture, made from its captions by rules, as COCO-QA was (Ren et al. 2015, arXiv:1505.02074).

:func:`questions` is given the captions of one picture and hands on every question that they answer. They are read by
:mod:`weft.caption_reading`; what several of them agree on is an answer. Which of the questions to ask, so that they
can't be answered blindly, :mod:`weft.picture_questions` says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from weft.caption_reading import Caption, Subject, one_person, said_by, subjects
from weft.caption_words import (
    ALWAYS_PLURAL,
    BEASTS,
    BEINGS,
    COLOURS,
    HUMANS,
    MASS_NOUNS,
    NUMBERS,
    SAID_AS,
    WHEREABOUTS,
    WORN,
    plural,
)
from weft.question_words import (
    ACTIVITIES,
    ASKED_WHO,
    COLOURED,
    INSTEAD,
    NEAR,
    OUTFITS,
    RELATIONS,
    SIMILAR,
    SPORTS,
    TAKES_ON,
    THEMES,
    TOGETHER,
    UNSURE,
    WEARS,
)

Kind = Literal["what", "how many", "colour", "where", "yes-no"]
"""What a question asks for."""


@dataclass(frozen=True)
class Question:
    """What is asked, and its answer: one or two words in lower case, among them ``"yes"`` and ``"no"``."""

    text: str
    answer: str
    kind: Kind


def agreed(votes: Iterable[Iterable[str]], least: int = 1) -> str | None:
    """What all votes name, if at least so many do and none names anything else. Empty votes don't count."""
    cast = [set(vote) for vote in votes if vote]
    named = set[str]().union(*cast)
    return named.pop() if len(cast) >= least and len(named) == 1 else None


def leading(votes: Iterable[Iterable[str]]) -> str | None:
    """What at least two votes name, if that is more than half of all that is named."""
    counts = Counter(name for vote in votes for name in set(vote))
    name, count = max(counts.items(), key=lambda item: item[1], default=("", 0))
    return name if count >= 2 and 2 * count > sum(counts.values()) else None


def questions(captions: Sequence[str]) -> list[Question]:
    """All questions that the captions of one picture answer.

    Of each thing, activity, place and colour that they agree on it is asked whether it is so; and of many others that
    no caption names, which can't be there as well or would not have been left out.

    Args:
        captions: the captions of one picture, about five.

    Returns:
        Questions in a fixed order, each text once. Most of them are answered "no":
        :func:`weft.picture_questions.balanced` chooses from them.
    """
    read = one_person([Caption.of(text) for text in captions])
    asked = [*_things(read), *_animals(read), *_sports(read), *_numbers(read), *_colours(read), *_whos(read)]
    for subject in subjects(read):
        asked += [*_deeds(read, subject), *_objects(read, subject), *_clothes(read, subject), *_places(read, subject)]
    return list({question.text: question for question in asked}.values())


def _all_said(captions: Sequence[Caption]) -> frozenset[str]:
    return frozenset[str]().union(*(caption.said for caption in captions))


def _a(name: str) -> str:
    return name if name in MASS_NOUNS | ALWAYS_PLURAL else f"a {name}"


def _in(place: str) -> str:
    return f"{'on' if place in TAKES_ON else 'in'} the {place}"


def _yes_no(text: str, yes: bool) -> Question:
    return Question(text, "yes" if yes else "no", "yes-no")


def _things(captions: Sequence[Caption]) -> Iterator[Question]:
    """Is there a dog in the picture? No, where what it could be mistaken for is, and no word hints at it."""
    present, said = said_by(captions, 2), _all_said(captions)
    for name in sorted(frozenset[str]().union(*THEMES)):
        text = f"Is there {_a(name)} in the picture?"
        plausible = any(name in theme and theme & present for theme in THEMES)
        if name in present:
            yield _yes_no(text, True)
        elif plausible and not said & (UNSURE.get(name, frozenset()) | {name}):
            yield _yes_no(text, False)


def _animals(captions: Sequence[Caption]) -> Iterator[Question]:
    """What animal is in the picture?"""
    if animal := agreed((caption.names & BEASTS for caption in captions), least=2):
        yield Question("What animal is in the picture?", animal, "what")


def _sports(captions: Sequence[Caption]) -> Iterator[Question]:
    """What sport is being played? A ball alone does not say: dogs run after tennis balls."""
    votes = [
        {word for word, after in pairwise((*caption.words, "")) if word in SPORTS and after not in ("ball", "balls")}
        for caption in captions
    ]
    if (sport := agreed(votes, least=2)) and _all_said(captions) & HUMANS:
        yield Question("What sport is being played?", sport, "what")


def _numbers(captions: Sequence[Caption]) -> Iterator[Question]:
    """How many dogs are in the picture? And how many people, whatever they are called."""
    kinds = {plural(name): frozenset({name}) for name in sorted(said_by(captions, 1) & BEINGS)} | {"people": HUMANS}
    for word, kind in kinds.items():
        totals = [caption.total(kind) for caption in captions]
        told = {total for total in totals if total}
        number = told.pop() if len(told) == 1 else 0
        # A caption that does not count speaks of several, which agrees with any number but one.
        if 0 < number < len(NUMBERS) and totals.count(number) >= 2 and (number > 1 or None not in totals):
            yield Question(f"How many {word} are in the picture?", NUMBERS[number], "how many")


def _colours(captions: Sequence[Caption]) -> Iterator[Question]:
    """What colour is the dog? Is it red? Asked of what no caption has two of."""
    said, people = _all_said(captions), said_by(captions, 1) & HUMANS
    owners = [one for one in subjects(captions) if {one.name} == people and not one.many]
    for name in sorted(said_by(captions, 1) & COLOURED):
        if any(caption.total({name}) not in (0, 1) for caption in captions):
            continue
        votes = [caption.colours(noun) for caption in captions for noun in caption.called({name})]
        colour = agreed(votes)
        if colour is None or colour == "pattern" or 3 * sum(map(bool, votes)) < len(votes):
            continue
        owned = name in WORN | {"hair"} and name not in ("collar", "harness", "muzzle")
        if name == "hair" and not owners:
            continue
        thing = f"{owners[0].who}'s" if owned and owners else "the"
        verb, thing = "are" if name in ALWAYS_PLURAL else "is", f"{thing} {SAID_AS.get(name, name)}"
        yield Question(f"What colour {verb} {thing}?", colour, "colour")
        for other in sorted(COLOURS):
            if other == colour or (other not in said and colour not in SIMILAR.get(other, ())):
                yield _yes_no(f"{verb.capitalize()} {thing} {other}?", other == colour)


def _whos(captions: Sequence[Caption]) -> Iterator[Question]:
    """Who is running? Who is in the water? Asked where no caption tells it of anybody else."""
    told = {subject.answer for subject in subjects(captions) if subject.name in ASKED_WHO}
    for ask, votes in _doers(captions).items():
        if (who := agreed(votes, least=2)) in told:
            yield Question(f"Who is {ask}?", who, "what")


def _doers(captions: Sequence[Caption]) -> dict[str, list[set[str]]]:
    """Who does a thing, and who is at a place, by caption."""
    doers: dict[str, list[set[str]]] = {}
    for caption in captions:
        found = {(verb, noun.answer) for noun, verb in caption.deeds if verb in ACTIVITIES}
        found |= {(_in(link.place), link.owner.answer) for link in caption.links if link.place}
        for ask in sorted({ask for ask, _ in found}):
            doers.setdefault(ask, []).append({name for asked, name in found if asked == ask})
    return doers


def _deeds(captions: Sequence[Caption], subject: Subject) -> Iterator[Question]:
    """What is the dog doing? Is it running? No, where it does what rules that out."""
    votes = [{verb for noun, verb in caption.deeds if subject.includes(noun)} & ACTIVITIES for caption in captions]
    if chosen := leading(votes):
        yield Question(f"What {subject.verb} {subject.who} doing?", chosen, "what")
    counts = Counter(verb for vote in votes for verb in vote)
    done = {verb for verb, count in counts.items() if count >= 2}
    said = _all_said(captions)
    for verb in sorted(ACTIVITIES):
        text = f"{subject.verb.capitalize()} {subject.who} {verb}?"
        if verb in done:
            yield _yes_no(text, True)
        elif done and not said & TOGETHER.get(verb, frozenset({verb})):
            yield _yes_no(text, False)


def _objects(captions: Sequence[Caption], subject: Subject) -> Iterator[Question]:
    """What is the man holding, riding, climbing, wearing on the head?"""
    for relation in RELATIONS:
        if subject.name in relation.of and not (subject.many and "{who}'s" in relation.text):
            votes = [
                {
                    link.noun.answer
                    for link in caption.links
                    if subject.includes(link.owner)
                    and link.noun.name != subject.name
                    and link.by in relation.by
                    and link.noun.name in relation.nouns
                }
                for caption in captions
            ]
            if chosen := agreed(votes):
                yield Question(relation.text.format(**{"is": subject.verb, "who": subject.who}), chosen, "what")


def _clothes(captions: Sequence[Caption], subject: Subject) -> Iterator[Question]:
    """What is the girl wearing? Is she wearing a hat? No, where it is a helmet."""
    if subject.name not in HUMANS:
        return
    votes = [
        {link.noun.name for link in caption.links if subject.includes(link.owner) and link.by in WEARS} & WORN
        for caption in captions
    ]
    if chosen := leading(vote & OUTFITS for vote in votes):
        yield Question(f"What {subject.verb} {subject.who} wearing?", chosen, "what")
    worn, said = frozenset[str]().union(*votes), _all_said(captions)
    for name in sorted(INSTEAD):
        text = f"{subject.verb.capitalize()} {subject.who} wearing {_a(name)}?"
        if sum(name in vote for vote in votes) >= 2:
            yield _yes_no(text, True)
        elif name not in said and not subject.many and INSTEAD[name] & worn:
            yield _yes_no(text, False)


def _places(captions: Sequence[Caption], subject: Subject) -> Iterator[Question]:
    """Where is the dog? Is it in the water? No, where it is elsewhere, and no caption speaks of water."""
    votes = [
        {link.place for link in caption.links if subject.includes(link.owner) and link.place} for caption in captions
    ]
    place, said = leading(votes) or agreed(votes), _all_said(captions)
    if place is None or place not in said_by(captions, 2):
        return
    yield Question(f"Where {subject.verb} {subject.who}?", place, "where")
    for other in sorted(WHEREABOUTS):
        if other == place or not said & NEAR.get(other, frozenset({other})):
            yield _yes_no(f"{subject.verb.capitalize()} {subject.who} {_in(other)}?", other == place)
