"""Whether citations tell the truth: what becomes of an answer when a passage is taken away.

:func:`delete_passages` is given an answer and scores it again without each of its passages (deletion, as in Petsiuk et
al. 2018, with passages for patches).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from weft.errors import WeftError
from weft.quoting import quote
from weft.responding import score
from weft.text_encoders import Piece

if TYPE_CHECKING:
    from weft.model import WeftModel
    from weft.reading import Answer


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
    tokens = model.processor.tokenizer(answer.text, add_special_tokens=False)["input_ids"]
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
