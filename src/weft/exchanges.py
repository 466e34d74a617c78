"""Flickr8k's things under other names: captions in which "dog" is exchanged, or what somebody rides, throws, plays or
carries, together with what a classifier calls it.

A weave that reads names learns from these to say what it is told is there. Where captions say that a dog does what
only animals do, it becomes another animal; where it only sits, lies or stands somewhere, it may become a thing as well.
Of other things see :mod:`weft.kinds`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from weft.caption_words import plural, word_set
from weft.conversations import picture_line, write_lines
from weft.encoders import VisionEncoder
from weft.everyday_words import ANIMALS, THINGS, with_article
from weft.flickr8k import Photo, clean, splits
from weft.instructions import CAPTION
from weft.kinds import KINDS, Kind
from weft.namers import CHANCES, OWN, load_namer

AT_ONCE = 32
"""Photos that are encoded at once."""
SURE = 0.3
"""Confidence with which a photo's dog has to be named, since a name that is not there can't be exchanged."""
SUSPECTED = 0.01
"""Confidence with which another thing has to be named. Where that is too unsure to be read, a weave is told of what
stands for it all the same (:class:`weft.names.Doubt`)."""
OTHER_DOGS = word_set(
    """puppy puppies pup pups greyhound greyhounds terrier retriever labrador lab shepherd collie poodle poodles
    dalmatian dalmation bulldog pitbull hound hounds dachshund doberman husky rottweiler corgi chihuahua pug mutt
    beagle boxer canine canines spaniel schnauzer sheepdog dog's dogs' bark barks barking fetch fetches fetching"""
)
"""Words that would give the exchange away."""
STILL = re.compile(r"\b(sits|sitting|lies|lays|lying|laying|stands|standing|is on|is in|next to|in front of)\b")
LIVELY = re.compile(
    r"\b(mouth|tongue|head|run\w*|jump\w*|play\w*|bit\w*|chas\w*|walk\w*|swim\w*|look\w*|leap\w*|eat\w*|collar|leash|"
    r"leg\w*|ear\w*|catch\w*|paw\w*|fur|furry|teeth|sniff\w*|lick\w*|wear\w*|wet|shak\w*|while|its|it|fluffy|hairy)\b"
)


def exchanged(caption: str, animal: str) -> str | None:
    """A caption with another word for the dog; None where it holds none, or would give the exchange away.

    ``exchanged("A brown dog runs.", "owl")`` is ``"A brown owl runs."``.
    """
    words = set(re.findall(r"[a-z']+", caption.lower()))
    if not words & {"dog", "dogs"} or words & OTHER_DOGS:
        return None
    text = re.sub(r"\bdogs\b", _plural(animal), caption, flags=re.IGNORECASE)
    text = re.sub(r"\b(a|an) dog\b", with_article(animal), text, flags=re.IGNORECASE)
    text = re.sub(r"\bdog\b", animal, text, flags=re.IGNORECASE)
    return text[:1].upper() + text[1:]


def may_be_a_thing(caption: str) -> bool:
    """Whether a caption says nothing of its dog that could not be said of a thing."""
    lower = caption.lower()
    alone = len(re.findall(r"\bdogs?\b", lower)) == 1 and "dogs" not in lower
    return alone and bool(STILL.search(lower)) and not LIVELY.search(lower)


def lines_about_dogs(photo: Photo, picture: str, rng: random.Random) -> Iterator[str]:
    """Conversations about one photo whose dog is called something else.

    Args:
        photo: a photo whose dog is named.
        picture: its file, as lines name it.
        rng: decides what.
    """
    captions = [text for text in map(clean, photo.captions) if text]
    animals = [name for name in ANIMALS if name != "dog"]
    for choices, wanted in ((animals, captions), (THINGS, list(filter(may_be_a_thing, captions)))):
        noun = rng.choice(choices)
        for caption in wanted:
            text = exchanged(caption, noun)
            if text is not None:
                yield picture_line(picture, CAPTION, text, names={"dog": noun})


def lines_about(kind: Kind, names: Collection[str], photo: Photo, picture: str, rng: random.Random) -> Iterator[str]:
    """Conversations about one photo in which a thing of some kind is called something else, in each another.

    Args:
        kind: the kind.
        names: what a classifier names in the photo.
        photo: the photo.
        picture: its file, as lines name it.
        rng: decides what.
    """
    named = sorted(kind.named.intersection(names))
    if not named:
        return
    for caption in filter(None, map(clean, photo.captions)):
        noun = kind.noun_in(caption)
        if noun is not None:
            other = rng.choice([one for one in kind.others if one != noun])
            yield picture_line(picture, CAPTION, kind.exchanged(caption, other), names=dict.fromkeys(named, other))


def flickr8k_exchanged(folder: str | Path, out: str | Path, encoder: VisionEncoder, seed: int = 0) -> dict[str, int]:
    """Write ``exchanged-train.jsonl``, beside what :func:`weft.flickr8k.flickr8k` wrote.

    Args:
        folder: holds ``train.parquet``.
        out: folder to write to.
        encoder: an encoder that has a classifier of its own.
        seed: decides what is exchanged for what.

    Returns:
        Conversations of each file.
    """
    namer = load_namer(OWN, encoder)
    photos = next(photos for split, photos in splits(folder) if split == "train")
    lines: list[str] = []
    telling = [photo for photo in photos if any(map(_tells_of_things, photo.captions))]
    for start in range(0, len(telling), AT_ONCE):
        some = telling[start : start + AT_ONCE]
        features = encoder.encode([photo.file for photo in some]).features
        for photo, names in zip(some, namer.name(features, (), (), least=SUSPECTED, most=CHANCES), strict=True):
            sure = {name.text: name.confidence for name in names}
            picture, rng = f"pictures/{photo.name}", random.Random(f"{seed} {photo.name}")
            if sure.get("dog", 0.0) >= SURE:
                lines += lines_about_dogs(photo, picture, rng)
            for kind in KINDS:
                lines += lines_about(kind, sure, photo, picture, rng)
    return write_lines(out, {"exchanged-train": lines})


def _tells_of_things(caption: str) -> bool:
    text = caption.lower()
    return bool(re.search(r"\bdogs?\b", text)) or any(kind.noun_in(text) for kind in KINDS)


def _plural(noun: str) -> str:
    *before, last = noun.split()
    known = {"wolf": "wolves", "mouse": "mice", "goose": "geese", "deer": "deer", "buffalo": "buffalo"}
    return " ".join([*before, known.get(last, plural(last))])
