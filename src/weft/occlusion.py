"""What each word needs of a picture: by how much its log-probability falls when a region is taken away.

:func:`occlude` is given a finished text and the prompt that it follows, and hands on an :class:`Occlusion` for each
picture that the prompt reads (occlusion, Zeiler and Fergus 2014, with regions of the memory for patches of grey). All
regions of all words are rows of a few batches over what was read (:mod:`weft.ablation`); nothing is encoded again.

Notation: ``T`` tokens of the text, ``W`` words, ``R`` regions, ``N`` patches, ``S`` memory tokens.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from weft.ablation import ablation
from weft.errors import WeftError
from weft.memory import Picture
from weft.regions import covered, tokens_of_region, windows
from weft.responding import at_once
from weft.search import Prompt

if TYPE_CHECKING:
    from weft.batch import BatchMemory
    from weft.model import WeftModel

MATTERS = math.log(1.5)
"""A word needs the picture if without some region it is less likely by a third or more. With the weave that ships that
is so of one in ten of the words that any caption may hold (a, in, is), and of seven in ten of the others. The fall
without the whole picture does not tell them apart: a text about nothing hardly begins as a caption does."""
AT_ONCE = 200
"""Tokens that are computed at once, over all rows: few enough that others who use the model hardly wait."""


@dataclass(frozen=True, eq=False)
class Occlusion:
    """By how much the words of a text become less likely without regions of a picture (natural logarithm).

    Attributes:
        source: where in the picture the patches are.
        regions: the regions, for each size those that together cover the picture; True where a patch lies in one.
        falls: for each size the fall of each token's log-probability without each region, ``[R, T]``; below zero where
            the token becomes likelier.
    """

    source: Picture
    regions: tuple[Bool[np.ndarray, "R N"], ...]
    falls: tuple[Float[np.ndarray, "R T"], ...]

    def maps(self, words: Sequence[tuple[str, int, int]]) -> Float[np.ndarray, "W N"]:
        """For each word what each patch takes part in: over the sizes, the sum of the mean falls of the regions around
        it, each spread over its patches. Below zero where the word becomes likelier without them.

        Args:
            words: the words, each with the range of its tokens.
        """
        maps = [
            covered(_of_words(falls, words), regions) for falls, regions in zip(self.falls, self.regions, strict=True)
        ]
        return np.sum(maps, 0).astype(np.float32)

    def greatest(self, words: Sequence[tuple[str, int, int]]) -> Float[np.ndarray, " W"]:
        """For each word the greatest fall without one of the regions."""
        return _of_words(np.concatenate(self.falls), words).max(0)

    def weights(self, words: Sequence[tuple[str, int, int]]) -> Float[np.ndarray, "W N"]:
        """For each word the share of each patch in what :meth:`maps` has above zero; all zeros for a word to which no
        region matters."""
        falls = self.maps(words).clip(min=0) * (self.greatest(words) > MATTERS)[:, None]
        return falls / np.maximum(falls.sum(1, keepdims=True), np.finfo(np.float32).tiny)


def _of_words(falls: Float[np.ndarray, "R T"], words: Sequence[tuple[str, int, int]]) -> Float[np.ndarray, "R W"]:
    """Falls of tokens as those of words."""
    return np.stack([falls[:, begin:end].sum(1) for _, begin, end in words], 1) if words else falls[:, :0]


def occlude(model: WeftModel, prompt: Prompt, answer: Sequence[int]) -> list[Occlusion]:
    """What each token of a finished text needs of each picture that its prompt reads, in the order of the prompt.

    Args:
        model: the woven model.
        prompt: what was said before, as it was read.
        answer: tokens of the text.

    Raises:
        WeftError: a picture's memory has no tokens of its patches (its weave resamples).
    """
    return at_once(occluding(model, prompt, answer))


@torch.inference_mode()
def occluding(model: WeftModel, prompt: Prompt, answer: Sequence[int]) -> Generator[None, None, list[Occlusion]]:
    """The same, with a stop after each batch, for whoever has other work to do meanwhile.

    Arguments, result and errors as for :func:`occlude`.
    """
    found: list[Occlusion] = []
    # Texts that stand in the prompt itself have sources, and no memory.
    for place, (memory, sources) in enumerate(zip(prompt.memories, prompt.sources, strict=False)):
        pictures = [(item, source) for item, (source, _) in enumerate(sources) if isinstance(source, Picture)]
        if not pictures or not answer:
            continue
        if model.weave(memory.weave).config.resample:
            raise WeftError(
                f"The weave {memory.weave!r} resamples its pictures, so that no token of a memory is a patch which "
                "could be taken away; ask for the sketch by attention, or for no explanation."
            )
        text = ablation(model, prompt, answer, place)
        yield
        for item, source in pictures:
            regions = windows(source)
            own = _places(memory, item)
            without = [tokens_of_region(source, region, len(own)) for one in regions for region in one]
            rows = torch.zeros(1 + len(without), memory.owners.shape[1], dtype=torch.bool)
            rows[1:, own] = torch.from_numpy(np.stack(without))
            parts = []
            for gone in rows.split(max(1, AT_ONCE // text.tokens)):
                parts.append(text.score(gone))
                yield
            scores = torch.cat(parts).numpy()
            falls = np.split(scores[0] - scores[1:], np.cumsum([len(one) for one in regions])[:-1])
            found.append(Occlusion(source, tuple(regions), tuple(falls)))
    return found


def _places(memory: BatchMemory, item: int) -> Int[Tensor, " own"]:
    """Where the tokens of an item lie in a memory that is laid out for one row."""
    own = memory.owners[0] == item
    return (own if memory.mask is None else own & memory.mask[0]).nonzero()[:, 0].cpu()
