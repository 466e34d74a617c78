"""Names of what pictures show, as tokens of a picture's memory.

:func:`with_names` is given a memory and what a :mod:`namer <weft.namers>` found in its pictures, and hands on the
memory with the names spelled out behind the patches. :class:`Doubt` is how a weave learns not to believe every name:
while training, some are left out, some of those that are not sure are given more credit than they deserve, and those
that a data set exchanges are exchanged.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from weft.memory import Memory, Name, NameTokens, Picture, content_hash
from weft.namers import LEAST, MOST

Spell = Callable[[str], list[int]]
"""Makes tokens of a name as it stands in the middle of a sentence."""
Embed = Callable[[Int[Tensor, "M K"]], Float[Tensor, "M K H"]]
"""The language model's input embeddings of tokens."""


def speller(tokenize: Callable[[str], list[int]]) -> Spell:
    """Spells names with a space before them, as they stand in the middle of a sentence.

    Args:
        tokenize: makes tokens of a text, and adds none.
    """
    known: dict[str, list[int]] = {}

    def spell(text: str) -> list[int]:
        if text not in known:
            known[text] = tokenize(f" {text}")
        return known[text]

    return spell


def with_names(memory: Memory, found: Sequence[Sequence[Name]], spell: Spell, embed: Embed) -> Memory:
    """A memory of pictures with names behind their patches.

    Args:
        memory: ``M`` pictures.
        found: for each of them what is seen in it.
        spell: makes tokens of names.
        embed: makes features of tokens.
    """
    spelled = [[spell(name.text) for name in names] for names in found]
    width = max((sum(map(len, names)) for names in spelled), default=0)
    if not width:
        return memory
    count, patches = memory.features.shape[:2]
    ids = torch.full((count, width), -1)
    begins = torch.zeros(count, width, dtype=torch.bool)
    confidence = torch.zeros(count, width)
    places = torch.zeros(count, width, patches)
    told: list[tuple[Name, ...]] = []
    for row, (names, tokens) in enumerate(zip(found, spelled, strict=True)):
        at, placed = 0, []
        for name, own in zip(names, tokens, strict=True):
            span = slice(at, at + len(own))
            ids[row, span] = torch.tensor(own, dtype=torch.long)
            begins[row, at] = True
            confidence[row, span] = name.confidence
            places[row, span] = torch.from_numpy(np.asarray(name.place, np.float32))
            placed.append(replace(name, tokens=range(patches + at, patches + span.stop)))
            at = span.stop
        told.append(tuple(placed))
    spelled_out = NameTokens(ids, embed(ids.clamp(min=0)), begins, confidence, places)
    sources = tuple(
        replace(source, names=names) if isinstance(source, Picture) else source
        for source, names in zip(memory.sources, told, strict=False)
    )
    said = [f"{name.text} {name.confidence!r}" for names in found for name in names]
    key = content_hash(memory.key, *said) if memory.key else ""
    device = memory.features.device
    return replace(memory, names=spelled_out.map(lambda tensor: tensor.to(device)), sources=sources, key=key)


@dataclass(frozen=True)
class Doubt:
    """What becomes of the names of a picture while a weave learns.

    Attributes:
        forget: probability with which a name is left out.
        mistake: probability with which one of the names that are too unsure to be read is read all the same, as sure
            as one that may be true.
        fade: probability with which the confidence of all names is lowered.
    """

    forget: float = 0.0
    mistake: float = 0.0
    fade: float = 0.0

    def __call__(
        self, names: Sequence[Name], exchanged: Mapping[str, str | None], chance: random.Random
    ) -> tuple[Name, ...]:
        """The names that are read.

        Args:
            names: all that are worth anything, the surest first.
            exchanged: names that stand for others in this row; None for one that is left out. What stands for a name
                that is too unsure to be read is read all the same: the row tells of it.
            chance: decides.
        """
        sure = [name for name in names if name.confidence >= LEAST][:MOST]
        unsure = [name for name in names if name.confidence < LEAST]
        given = {
            text: replace(name, text=text)
            for name in reversed(sure)
            if (text := exchanged.get(name.text, name.text)) is not None
        }
        for name in unsure:
            text = exchanged.get(name.text)
            if text is not None and text not in given:
                given[text] = replace(name, text=text, confidence=_raised(chance))
        kept = [name for name in given.values() if chance.random() >= self.forget]
        if self.fade and chance.random() < self.fade:
            share = chance.uniform(0.15, 0.9)
            kept = [replace(name, confidence=max(LEAST, name.confidence * share)) for name in kept]
        if unsure and chance.random() < self.mistake:
            wrong = chance.choice(unsure)
            text = exchanged.get(wrong.text, wrong.text)
            if text is not None and text not in given:
                kept.append(replace(wrong, text=text, confidence=_raised(chance)))
        return tuple(sorted(kept, key=lambda name: -name.confidence)[:MOST])


def _raised(chance: random.Random) -> float:
    """The confidence of a name that is too unsure to be read and is read all the same."""
    return LEAST + 0.34 * chance.random() ** 2
