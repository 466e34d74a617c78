"""Kinds of things that may stand in each other's place in a caption: what is ridden, thrown, played, carried, sat on.

Where a caption tells of a thing, and a classifier sees one of its kind, both may be told of another of that kind: "A
boy rides a bicycle" of a tractor. A weave learns from it to put what it reads into sentences about people.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from weft.caption_words import plural
from weft.everyday_words import ANIMALS, with_article, words


@dataclass(frozen=True)
class Kind:
    """Things of one kind.

    Attributes:
        said: what captions call them.
        named: what a classifier may call them.
        others: what may be said and named instead.
    """

    said: tuple[str, ...]
    named: frozenset[str]
    others: tuple[str, ...]

    @classmethod
    def of(cls, said: str, named: str, others: str) -> Kind:
        """From lists of words."""
        return cls(words(said), frozenset(words(named)), words(others))

    def noun_in(self, caption: str) -> str | None:
        """What a caption calls the one thing of this kind that it tells of, in the singular; None where there is none,
        or more than one."""
        found = self._pattern.findall(caption.lower())
        return self._singular(found[0]) if len(found) == 1 else None

    def exchanged(self, caption: str, other: str) -> str:
        """A caption that tells of one thing of this kind, with another word for it.

        ``"A boy on a bike."`` is ``"A boy on an elephant."``.
        """
        pattern = self._pattern.pattern
        text = re.sub(
            rf"\b(an?) {pattern}",
            lambda found: plural(other) if self._is_plural(found[2]) else with_article(other),
            caption,
            flags=re.IGNORECASE,
        )
        text = re.sub(
            pattern, lambda found: plural(other) if self._is_plural(found[1]) else other, text, flags=re.IGNORECASE
        )
        return text[:1].upper() + text[1:]

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest_first = sorted({form for word in self.said for form in (word, plural(word))}, key=len, reverse=True)
        return re.compile(rf"\b({'|'.join(map(re.escape, longest_first))})\b(?!-)", re.IGNORECASE)

    def _singular(self, form: str) -> str:
        return next(word for word in self.said if form in (word, plural(word)))

    def _is_plural(self, form: str) -> bool:
        return form.lower() not in self.said


KINDS = (
    Kind.of(
        "bike, bicycle, mountain bike, dirt bike, motorbike, motorcycle, scooter, unicycle, tricycle, horse",
        "mountain bike, tandem bicycle, unicycle, tricycle, moped, motor scooter, crash helmet, horse",
        """bicycle, motorcycle, motor scooter, tricycle, moped, donkey, camel, elephant, skateboard, snowmobile,
        tractor, unicycle, horse, golf cart, cow, llama, ostrich, wheelbarrow, zebra, scooter""",
    ),
    Kind.of(
        "ball, soccer ball, tennis ball, basketball, baseball, football, volleyball, golf ball, beach ball, frisbee",
        """soccer ball, tennis ball, basketball, baseball, rugby ball, volleyball ball, croquet ball, golf ball,
        ping-pong ball, balloon""",
        """frisbee, balloon, pumpkin, orange, apple, teddy bear, bottle, banana, pillow, hat, pineapple, watermelon,
        umbrella, loaf of bread, shoe, tennis ball, soccer ball, basketball, baseball, toy, cabbage, cushion""",
    ),
    Kind.of(
        "bench, park bench, couch, sofa, chair, swing, stool, hammock, folding chair, rocking chair",
        "park bench, couch, folding chair, rocking chair, barber chair, swing, throne, four-poster bed",
        """bench, couch, bed, table, suitcase, crate, rocking chair, park bench, throne, cardboard box, chair, barrel,
        sofa, desk, trunk, staircase, boat, motorcycle""",
    ),
    Kind.of(
        "boat, kayak, canoe, raft, sailboat, surfboard, rowboat, motorboat",
        """lifeboat, motorboat, gondola, catamaran, trimaran, yawl, schooner, kayak, paddle, fireboat,
        boathouse""",
        """boat, canoe, kayak, sailboat, ship, surfboard, raft, ferry, submarine, speedboat, gondola, bathtub, duck,
        swan, whale, barge""",
    ),
    Kind.of(
        "car, race car, truck, jeep, van, sports car, pickup truck, bus, train, vehicle, taxi, tractor",
        """race car, sports car, pickup truck, jeep, minivan, minibus, taxicab, tow truck, go-kart, convertible,
        limousine, station wagon, tractor, trolleybus, tram, school bus, fire truck, ambulance, semi-trailer truck""",
        """bus, train, truck, taxi, tram, fire truck, ambulance, school bus, tractor, limousine, trolleybus, airplane,
        garbage truck, pickup truck, convertible, double-decker bus, steam locomotive, van, forklift, tank""",
    ),
    Kind.of(
        "guitar, electric guitar, violin, drum, accordion, saxophone, flute, trumpet, trombone, cello, piano, banjo",
        """acoustic guitar, electric guitar, violin, drum, accordion, saxophone, flute, trombone, cello, banjo,
        grand piano, microphone, steel drum""",
        """guitar, violin, drum, accordion, saxophone, flute, trumpet, trombone, cello, banjo, harp, piano, harmonica,
        bassoon, oboe, tuba""",
    ),
    Kind.of(
        "umbrella, backpack, purse, bucket, bag, camera, stick, sign, shovel, microphone, cellphone, cup, flag, bottle",
        """umbrella, backpack, purse, bucket, plastic bag, shopping basket, reflex camera, polaroid camera, shovel,
        microphone, water bottle, messenger bag, plunger, paddle, broom, beer bottle, tea cup""",
        """suitcase, basket, tray, teapot, lamp, broom, plate, cake, pizza, guitar, laptop computer, telephone, bowl,
        banana, sandwich, vase, clock, book, remote control, cup, wine glass, hammer, knife, toothbrush, camera, tennis
        racket, baseball bat, kite, teddy bear, newspaper, donut, hot dog, umbrella, backpack, handbag, bucket""",
    ),
    Kind.of(
        "bird, cat, cow, sheep, duck, camel, monkey, squirrel, elephant, goat, animal",
        ", ".join(name for name in ANIMALS if name not in ("dog", "horse")),
        ", ".join(name for name in ANIMALS if name != "dog"),
    ),
)
"""What may be exchanged in captions, together with what a classifier calls it."""
