"""Seeing: which patches of a picture each word needs, or looked at, as arrays and pictures.

:func:`needed` takes regions away and measures what that does to each word (:mod:`weft.occlusion`): the explanation.
:func:`look` recomputes the attention weights of the words in one pass: a quick sketch of it. Both are given a finished
text, so that generation keeps its fast kernel. :mod:`weft.deletion` measures whether they tell the truth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from weft.errors import WeftError
from weft.hooks import watching
from weft.memory import Picture, Placement, ReadMemory
from weft.occlusion import MATTERS, Occlusion, occlude
from weft.search import Prompt

if TYPE_CHECKING:
    from weft.model import WeftModel


@dataclass(frozen=True, eq=False)
class Seen:
    """What the words of a text need of a picture, or looked at there.

    Attributes:
        words: the words.
        weights: for each word the share of each patch, ``[words, patches]``: of the fall of its log-probability when
            regions are taken away, or, in a sketch, of attention. Rows sum to one, or are zero for a word to which no
            region matters.
        source: where in the picture the patches are.
        image: the picture.
        falls: what the shares are of, signed: below zero where a word becomes likelier without the regions around a
            patch (natural logarithm, ``[words, patches]``); None in a sketch.
        greatest: for each word the greatest fall without one of the regions; None in a sketch.
    """

    words: tuple[str, ...]
    weights: Float[np.ndarray, "W N"]
    source: Picture
    image: Image.Image
    falls: Float[np.ndarray, "W N"] | None = None
    greatest: Float[np.ndarray, " W"] | None = None

    @property
    def matters(self) -> tuple[bool, ...]:
        """For each word whether some region of the picture matters to it; a sketch can't tell, and says so of all."""
        return (True,) * len(self.words) if self.greatest is None else tuple((self.greatest > MATTERS).tolist())

    def of(self, word: str | int) -> Float[np.ndarray, " N"]:
        """The weights of a word, given as such or by its index.

        Raises:
            WeftError: the text has no such word.
        """
        if isinstance(word, str):
            plain = [_plain(one) for one in self.words]
            if _plain(word) not in plain:
                raise WeftError(f"The text has no word {word!r}; its words are: {', '.join(self.words)}.")
            word = plain.index(_plain(word))
        return self.weights[word]

    def map(self, word: str | int) -> Float[np.ndarray, "height width"]:
        """The weights of a word as a map over the picture, from 0 to 1, as large as the picture."""
        return _spread(self.of(word), self.source)

    def heatmap(self, word: str | int, longest: int | None = None) -> Image.Image:
        """The picture, tinted where it matters to the word and dark elsewhere; all dark for a word to which no region
        matters.

        Args:
            word: the word, or its index.
            longest: pixels that its longer side has at most; None to leave it as large as it is.
        """
        if longest is None or max(self.image.size) <= longest:
            return _overlay(self.image, self.map(word))
        small = self.image.copy()
        small.thumbnail((longest, longest))
        return _overlay(small, _spread(self.of(word), self.source, small.size))

    def sheet(self, tile: int = 224) -> Image.Image:
        """The picture and one tile a word, with the word above it, in grey if no region of the picture matters to it.

        Args:
            tile: longer side of a tile in pixels.
        """
        scale = tile / max(self.image.size)
        size = (max(1, round(self.image.width * scale)), max(1, round(self.image.height * scale)))
        small = self.image.resize(size, Image.Resampling.LANCZOS)
        tiles = [("attention (a sketch)" if self.falls is None else "lit: what it needs", small, "grey")]
        for index, (word, matters) in enumerate(zip(self.words, self.matters, strict=True)):
            heat = Image.fromarray((_spread(self.of(index), self.source, size) * 255).astype(np.uint8))
            overlaid = _overlay(small, np.asarray(heat, np.float32) / 255)
            tiles.append((word, overlaid, "black" if matters else "grey"))
        across = min(len(tiles), max(1, math.ceil(math.sqrt(len(tiles) * size[1] / size[0] * 1.6))))
        label, gap = 26, 6
        cell = (size[0] + gap, size[1] + label + gap)
        sheet = Image.new("RGB", (across * cell[0] + gap, math.ceil(len(tiles) / across) * cell[1] + gap), "white")
        draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=18)
        for index, (label_text, image, colour) in enumerate(tiles):
            left, top = gap + index % across * cell[0], gap + index // across * cell[1]
            draw.text((left + size[0] / 2, top + label / 2), label_text, fill=colour, font=font, anchor="mm")
            sheet.paste(image, (left, top + label))
        return sheet


def needed(
    model: WeftModel,
    read: ReadMemory,
    prompt: Sequence[int],
    column: int,
    answer: Sequence[int],
    image: Image.Image,
) -> Seen:
    """What each word of a finished text needs of a picture: the falls of its log-probability without regions of it.

    Args:
        model: the woven model.
        read: the picture's memory, one item.
        prompt: tokens before the text.
        column: the column from which on the picture may be seen.
        answer: tokens of the text.
        image: the picture.

    Raises:
        WeftError: the memory has no tokens of the picture's patches (its weave resamples).
    """
    source = cast(Picture, read.sources[0])
    placed = model.place(read, Placement.of([[(0, column)]]))
    assert placed is not None
    occlusions = occlude(model, Prompt(prompt, (placed,), (((source, 0),),)), answer)
    if not occlusions:
        return Seen((), np.zeros((0, len(source.rectangles)), np.float32), source, image)
    return seen_without(occlusions[0], words_of(model, answer), image)


def seen_without(occlusion: Occlusion, words: Sequence[tuple[str, int, int]], image: Image.Image) -> Seen:
    """What words need of a picture, as it was found out by taking regions away.

    Args:
        occlusion: the falls of the words' tokens.
        words: the words, each with the range of its tokens.
        image: the picture.
    """
    named = tuple(word for word, _, _ in words)
    falls, greatest = occlusion.maps(words), occlusion.greatest(words)
    return Seen(named, occlusion.weights(words), occlusion.source, image, falls, greatest)


@torch.no_grad()
def look(
    model: WeftModel,
    read: ReadMemory,
    prompt: Sequence[int],
    column: int,
    answer: Sequence[int],
    image: Image.Image,
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
) -> Seen:
    """Which patches each word of a finished text looked at: a sketch of what it needs.

    A word is credited with the weights at the places from which its tokens were predicted, averaged over its tokens,
    the chosen layers and the chosen heads.

    Args:
        model: the woven model.
        read: the picture's memory, one item.
        prompt: tokens before the text.
        column: the column from which on the picture may be seen.
        answer: tokens of the text.
        image: the picture.
        layers: indices of the fusion layers to average over; all by default.
        heads: heads to average over; all by default.
    """
    weights = _weights(model, read, [*prompt, *answer], column, layers, heads)
    words = words_of(model, answer)
    start = len(prompt) - 1
    rows = [weights[start + begin : start + end].mean(0) for _, begin, end in words]
    table = torch.stack(rows).numpy() if rows else np.zeros((0, read.tokens), np.float32)
    return Seen(tuple(word for word, _, _ in words), table, cast(Picture, read.sources[0]), image)


def _weights(
    model: WeftModel,
    read: ReadMemory,
    tokens: Sequence[int],
    column: int,
    layers: Sequence[int] | None,
    heads: Sequence[int] | None,
) -> Float[Tensor, "T N"]:
    """Attention of each token on each patch, averaged."""
    caught: list[Tensor] = []
    weave = model.weave(read.weave)
    chosen = range(len(weave.layers)) if layers is None else layers

    def catch(layer: Any, args: tuple) -> None:
        weights = layer.weights(*args)[0].float().cpu()
        caught.append((weights if heads is None else weights[list(heads)]).mean(0))

    placed = model.place(read, Placement.of([[(0, column)]]))
    with watching([weave.fusion(index) for index in chosen], catch):
        model(input_ids=torch.tensor([list(tokens)], device=model.device), memories=[placed], use_cache=False)
    weights = torch.stack(caught).mean(0)
    if weave.config.joint:  # whose layers have given the rest of their attention to the text
        weights = weights / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
    return weights


def words_of(model: WeftModel, tokens: Sequence[int]) -> list[tuple[str, int, int]]:
    """Words of a text, each with the range of its tokens; punctuation belongs to the word before it."""
    assert model.processor is not None
    words: list[tuple[str, int, int]] = []
    start = 0
    for end in range(1, len(tokens) + 1):
        text = model.processor.decode(list(tokens[start:end]))
        if "\ufffd" in text and end < len(tokens):  # a character of several tokens
            continue
        if words and not text[:1].isspace():
            word, begin, _ = words[-1]
            words[-1] = (word + text, begin, end)
        else:
            words.append((text.strip(), start, end))
        start = end
    return [word for word in words if word[0]]


def _spread(
    weights: Float[np.ndarray, " N"], source: Picture, size: tuple[int, int] | None = None
) -> Float[np.ndarray, "height width"]:
    """Weights painted into their rectangles, smoothed to the size of a patch, and scaled to a maximum of one."""
    width, height = size or source.size
    scale = np.array([width / source.size[0], height / source.size[1]] * 2)
    total = np.zeros((height, width), np.float32)
    for weight, rectangle in zip(weights, source.rectangles, strict=True):
        left, top, right, bottom = np.round(rectangle * scale).astype(int)
        total[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] += weight
    patch = (source.rectangles[0] * scale).reshape(2, 2)
    across, down = np.maximum(patch[1] - patch[0], 1)
    coarse = Image.fromarray(total).resize(
        (max(1, round(width / across)), max(1, round(height / down))), Image.Resampling.BOX
    )
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).clip(min=0)
    return smooth / (smooth.max() or 1)


def _overlay(image: Image.Image, heat: Float[np.ndarray, "height width"]) -> Image.Image:
    """A picture dimmed where heat is low and tinted orange where it is high."""
    pixels = np.asarray(image.convert("RGB"), np.float32)
    heat = heat[..., None]
    tint = np.array([255, 140, 0], np.float32)
    lit = pixels * (0.35 + 0.65 * heat)
    return Image.fromarray((lit * (1 - 0.35 * heat) + tint * 0.35 * heat).clip(0, 255).astype(np.uint8))


def _plain(word: str) -> str:
    return word.strip(".,;:!?\"'()").lower()
