"""Whether explanations tell the truth: what becomes of words when what they are said to need is taken away.

:func:`faithfulness` takes patches of a picture away that a word's heat map lights, and as many at random;
:func:`delete_passages` takes away the passages that an answer cites, one at a time (deletion, as in Petsiuk et
al. 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from weft.control_tokens import encode_written
from weft.errors import WeftError
from weft.explain import look, needed, words_of
from weft.images import load_image
from weft.memory import Memory, Picture
from weft.passages import Piece
from weft.quoting import quote
from weft.regions import random_window, tokens_of_region
from weft.rendering import about_a_picture
from weft.responding import as_learned, score

if TYPE_CHECKING:
    from weft.model import WeftModel
    from weft.reading import Answer

AT_ONCE = 8
"""Rows that are scored at once."""


@dataclass(frozen=True)
class Faithfulness:
    """What taking patches away did to the words of a text; drops are of log-probabilities (natural logarithm).

    Attributes:
        words: the words.
        matters: for each whether its heat map is lit at all; a sketch by attention always is.
        looked_at: drop of each word without the patches that its heat map lights most.
        random: the same without as many random patches, averaged over several draws.
        regions: the same without as many patches that lie together somewhere, averaged over several draws.
    """

    words: tuple[str, ...]
    matters: tuple[bool, ...]
    looked_at: tuple[float, ...]
    random: tuple[float, ...]
    regions: tuple[float, ...]

    @property
    def gain(self) -> float:
        """Mean drop without what is lit, minus that without random patches: above zero, the map tells the truth."""
        return float(np.mean(self.looked_at) - np.mean(self.random)) if self.words else 0.0

    @property
    def gain_over_regions(self) -> float:
        """The same with random regions in place of random patches: the harder test, for what is lit lies together."""
        return float(np.mean(self.looked_at) - np.mean(self.regions)) if self.words else 0.0


@torch.no_grad()
def faithfulness(
    model: WeftModel,
    picture: Any,
    text: str | None = None,
    *,
    instruction: str | None = None,
    by: Literal["occlusion", "sketch"] = "occlusion",
    patches: int = 8,
    draws: int = 8,
    seed: int = 0,
) -> Faithfulness | Deletion:
    """Whether the patches that a word's heat map lights matter to it more than random ones do; of an answer with
    citations, whether its cited passages do (:class:`Deletion`).

    The text is scored with ``patches`` of the encoder's features masked, before the weave reads them: for each word
    those that are lit most, and ``draws`` random choices of patches and of regions, the same for all words.

    Args:
        model: the woven model.
        picture: a picture; or an :class:`~weft.reading.Answer`, of which nothing else needs to be given.
        text: the text whose words are scored; the model's own caption by default.
        instruction: what the text answers; "Describe the picture." by default.
        by: which heat map: that of what words need, or the sketch of it by attention.
        patches: how many patches are taken away.
        draws: random choices of either kind that are averaged.
        seed: decides them.
    """
    from weft.reading import Answer

    if isinstance(picture, Answer):
        return delete_passages(model, picture)
    if model.processor is None:
        raise WeftError("The model has no processor (tokenizer and encoder); set model.processor.")
    text = model.caption(picture).text if text is None else text
    question = as_learned(model, about_a_picture(instruction or "Describe the picture."))
    prompt, columns, _ = model.processor.tokenize(model.processor.render(question, add_generation_prompt=True))
    answer, _ = encode_written(model.processor.tokenizer, text)
    image = load_image(picture)
    memory = model.encode(image)
    read, source = model.read(memory), cast(Picture, memory.sources[0])
    way = look if by == "sketch" else needed
    seen = way(model, read, prompt, columns[0], answer, image)
    if not seen.words:
        return Faithfulness((), (), (), (), ())
    random = np.random.default_rng(seed)
    count = len(source.rectangles)
    maps = seen.weights if seen.falls is None else seen.falls
    lit = [np.argsort(-weights, kind="stable")[:patches] for weights in maps]
    drawn = [random.choice(count, patches, replace=False) for _ in range(draws)]
    regions = [random_window(source, patches, random) for _ in range(draws)]
    without = [[], *([int(patch) for patch in gone] for gone in (*lit, *drawn, *regions))]
    chances = _log_probabilities(model, memory, without, prompt, columns[0], answer)
    ranges = [(begin, end) for _, begin, end in words_of(model, answer)]
    drops = np.stack([(chances[0] - chances[1:])[:, begin:end].sum(1) for begin, end in ranges], 1)
    each, drawn_drops, region_drops = np.split(drops, [len(lit), len(lit) + draws])
    return Faithfulness(
        seen.words,
        seen.matters,
        tuple(each.diagonal().tolist()),
        tuple(drawn_drops.mean(0).tolist()),
        tuple(region_drops.mean(0).tolist()),
    )


def _log_probabilities(
    model: WeftModel,
    memory: Memory,
    without: Sequence[Sequence[int]],
    prompt: Sequence[int],
    column: int,
    answer: Sequence[int],
) -> Float[np.ndarray, "V T"]:
    """Log-probability of each token of a text, for each choice of patches taken away."""
    found = []
    for start in range(0, len(without), AT_ONCE):
        some = without[start : start + AT_ONCE]
        read = model.read(_lacking(memory, some))
        held = [[(row, column)] for row in range(len(some))]
        found.append(score(model, read, [prompt] * len(some), held, answer))
    return torch.cat(found).numpy()


def _lacking(memory: Memory, without: Sequence[Sequence[int]]) -> Memory:
    """A picture once for each choice of patches taken away, and with them the names of what lies mostly there."""
    (source,), rows, patches = memory.sources, len(without), memory.features.shape[1]
    names = None if memory.names is None else memory.names.map(lambda t: t.expand(rows, *t.shape[1:]).clone())
    mask = torch.ones(rows, patches, dtype=torch.bool)
    for row, gone in enumerate(without):
        region = np.zeros(patches, bool)
        region[list(gone)] = True
        taken = tokens_of_region(cast(Picture, source), region, patches + (0 if names is None else names.ids.shape[1]))
        mask[row] = torch.from_numpy(~taken[:patches])
        if names is not None:
            names.ids[row, torch.from_numpy(taken[patches:])] = -1
    features = memory.features.expand(rows, -1, -1)
    return replace(memory, features=features, mask=mask, sources=memory.sources * rows, names=names)


@dataclass(frozen=True)
class Deletion:
    """What taking each passage away did to an answer.

    Attributes:
        sources: the passages, as the answer cites them, the one with the greatest weight first.
        weights: their weights.
        drops: for each, by how much the answer's log-probability falls without it (natural logarithm).
    """

    sources: tuple[str, ...]
    weights: tuple[float, ...]
    drops: tuple[float, ...]

    @property
    def gain(self) -> float:
        """The drop without the passage cited first, minus the mean drop without one of the others: above zero, the
        citation tells the truth."""
        others = self.drops[1:]
        return self.drops[0] - (sum(others) / len(others) if others else 0.0)


@torch.inference_mode()
def delete_passages(model: WeftModel, answer: Answer) -> Deletion:
    """Score an answer without each of the passages that it cites.

    Args:
        model: the woven model that gave it.
        answer: the answer.

    Raises:
        WeftError: the answer cites nothing.
    """
    if not answer.citations or model.processor is None:
        raise WeftError("The answer cites no passages, so none can be taken away.")
    tokens, _ = encode_written(model.processor.tokenizer, answer.text)
    scored = _in_prompt if answer.reading == "prompt" else _in_memory
    chances = scored(model, answer, [Piece(citation.text) for citation in answer.citations], tokens)
    drops = (chances[0] - chances[1:]).tolist()
    sources = tuple(citation.source for citation in answer.citations)
    return Deletion(sources, tuple(citation.weight for citation in answer.citations), tuple(drops))


def _in_memory(model: WeftModel, answer: Answer, pieces: Sequence[Piece], tokens: Sequence[int]) -> Float[Tensor, " V"]:
    """Log-probability of an answer with all passages in its memory, and without each of them."""
    from weft.reading import prompt_about, read_pieces

    read = read_pieces(model, pieces, answer.question if answer.reading == "careful" else "")
    prompt, held = prompt_about(model, answer.question, range(len(read)))
    without = [held, *([one for one in held if one[0] != gone] for gone in range(len(held)))]
    return score(model, read, [prompt] * len(without), without, tokens).sum(1)


def _in_prompt(model: WeftModel, answer: Answer, pieces: Sequence[Piece], tokens: Sequence[int]) -> Float[Tensor, " V"]:
    """Log-probability of an answer with all passages in its prompt, and without each of them."""
    without = [pieces, *([*pieces[:gone], *pieces[gone + 1 :]] for gone in range(len(pieces)))]
    prompts = [quote(model, kept, answer.question).tokens for kept in without]
    return torch.cat([score(model, None, [prompt], [[]], tokens).sum(1) for prompt in prompts])
