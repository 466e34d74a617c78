"""Seeing: which patches each word looked at, and whether they mattered.

:func:`look` recomputes the attention weights of the words that are asked for, in one pass over a finished text, so
that generation keeps its fast kernel. :func:`faithfulness` takes a word's most-looked-at patches away and measures what
that does to the word, against as many random patches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from weft.errors import WeftError
from weft.images import load_image
from weft.memory import Memory, Picture, Placement, ReadMemory
from weft.rendering import about_a_picture
from weft.responding import score

if TYPE_CHECKING:
    from weft.deletion import Deletion
    from weft.model import WeftModel


@dataclass(frozen=True, eq=False)
class Seen:
    """What the words of a text looked at.

    Attributes:
        words: the words.
        weights: for each word the share of attention on each patch, ``[words, patches]``; rows sum to one.
        source: where in the picture the patches are.
        image: the picture.
    """

    words: tuple[str, ...]
    weights: Float[np.ndarray, "W N"]
    source: Picture
    image: Image.Image

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
        """The picture, dark where the word did not look and tinted where it did.

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
        """The picture and one tile a word, with the word above it.

        Args:
            tile: longer side of a tile in pixels.
        """
        scale = tile / max(self.image.size)
        size = (max(1, round(self.image.width * scale)), max(1, round(self.image.height * scale)))
        small = self.image.resize(size, Image.Resampling.LANCZOS)
        tiles = [("", small)]
        for index, word in enumerate(self.words):
            heat = Image.fromarray((_spread(self.of(index), self.source, size) * 255).astype(np.uint8))
            tiles.append((word, _overlay(small, np.asarray(heat, np.float32) / 255)))
        across = min(len(tiles), max(1, math.ceil(math.sqrt(len(tiles) * size[1] / size[0] * 1.6))))
        label, gap = 26, 6
        cell = (size[0] + gap, size[1] + label + gap)
        sheet = Image.new("RGB", (across * cell[0] + gap, math.ceil(len(tiles) / across) * cell[1] + gap), "white")
        draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=18)
        for index, (word, image) in enumerate(tiles):
            left, top = gap + index % across * cell[0], gap + index // across * cell[1]
            draw.text((left + size[0] / 2, top + label / 2), word, fill="black", font=font, anchor="mm")
            sheet.paste(image, (left, top + label))
        return sheet


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
    """Which patches each word of a finished text looked at.

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
    caught: dict[int, Tensor] = {}
    weave = model.weave(read.weave)
    chosen = range(len(weave.layers)) if layers is None else layers

    def catch(index: int) -> Any:
        def hook(layer: nn.Module, args: tuple) -> None:
            weights = weave.fusion(index).weights(*args)[0].float().cpu()
            caught[index] = (weights if heads is None else weights[list(heads)]).mean(0)

        return hook

    hooks = [weave.fusion(index).register_forward_pre_hook(catch(index)) for index in chosen]
    try:
        placed = model.place(read, Placement.of([[(0, column)]]))
        model(input_ids=torch.tensor([list(tokens)], device=model.device), memories=[placed], use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    weights = torch.stack([caught[index] for index in chosen]).mean(0)
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


@dataclass(frozen=True)
class Faithfulness:
    """What taking patches away did to the words of a text.

    Attributes:
        words: the words.
        looked_at: drop of each word's log-probability without the patches it looked at most (natural logarithm).
        random: the same without as many random patches, averaged over several draws.
    """

    words: tuple[str, ...]
    looked_at: tuple[float, ...]
    random: tuple[float, ...]

    @property
    def gain(self) -> float:
        """Mean drop without the patches looked at, minus that without random ones: above zero, the map tells truth."""
        return float(np.mean(self.looked_at) - np.mean(self.random)) if self.words else 0.0


@torch.no_grad()
def faithfulness(
    model: WeftModel,
    picture: Any,
    text: str | None = None,
    *,
    instruction: str | None = None,
    patches: int = 8,
    draws: int = 8,
    seed: int = 0,
) -> Faithfulness | Deletion:
    """Whether a word's most-looked-at patches matter to it more than random ones do; of an answer with citations,
    whether its cited passages do (:class:`~weft.deletion.Deletion`).

    Each word in turn is scored with ``patches`` of the memory's tokens masked: those it looked at most, and ``draws``
    random choices (deletion, as in Petsiuk et al. 2018).

    Args:
        model: the woven model.
        picture: a picture; or an :class:`~weft.reading.Answer`, of which nothing else needs to be given.
        text: the text whose words are scored; the model's own caption by default.
        instruction: what the text answers; "Describe the picture." by default.
        patches: how many patches are taken away.
        draws: random choices that are averaged.
        seed: decides them.
    """
    from weft.deletion import delete_passages
    from weft.reading import Answer

    if isinstance(picture, Answer):
        return delete_passages(model, picture)
    if model.processor is None:
        raise WeftError("The model has no processor (tokenizer and encoder); set model.processor.")
    text = model.caption(picture).text if text is None else text
    question = about_a_picture(instruction or "Describe the picture.")
    rendered = model.processor.render(question, add_generation_prompt=True)
    prompt, columns, _ = model.processor.tokenize(rendered)
    answer = model.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    memory = model.encode(load_image(picture))
    read = model.read(memory)
    words = words_of(model, answer)
    weights = _weights(model, read, [*prompt, *answer], columns[0], None, None)
    random = np.random.default_rng(seed)
    whole = _log_probabilities(model, memory, [[]], prompt, columns[0], answer)[0]
    looked, drawn = [], []
    for _, begin, end in words:
        most = weights[len(prompt) - 1 + begin : len(prompt) - 1 + end].mean(0).topk(patches).indices.tolist()
        others = [random.choice(memory.features.shape[1], patches, replace=False).tolist() for _ in range(draws)]
        chances = _log_probabilities(model, memory, [most, *others], prompt, columns[0], answer)
        drops = (whole - chances)[:, begin:end].sum(1)
        looked.append(float(drops[0]))
        drawn.append(float(drops[1:].mean()))
    return Faithfulness(tuple(word for word, _, _ in words), tuple(looked), tuple(drawn))


def _log_probabilities(
    model: WeftModel,
    memory: Memory,
    without: Sequence[Sequence[int]],
    prompt: Sequence[int],
    column: int,
    answer: Sequence[int],
) -> Float[Tensor, "V T"]:
    """Log-probability of each token of a text, for each choice of patches taken away."""
    count = len(without)
    mask = torch.ones(count, memory.features.shape[1], dtype=torch.bool)
    for row, gone in zip(mask, without, strict=True):
        row[list(gone)] = False
    varied = replace(memory, features=memory.features.expand(count, -1, -1), mask=mask, sources=memory.sources * count)
    read = model.read(varied)
    return score(model, read, [prompt] * count, [[(row, column)] for row in range(count)], answer)


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
