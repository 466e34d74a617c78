"""What a text leaned on: for each of its words, how much of its attention went to each token of what it read.

:func:`lean` is given a finished text and the memory that it was written from, and computes it in one pass. A weave that
copies is asked where it would have copied each word from, which is what it was trained to know; of one that does not,
the attention of its fusion layers is averaged. Of passages that stand in the prompt itself the language model's own
heads are asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from weft.heads import looked_at
from weft.hooks import head_inputs, watching
from weft.memory import Excerpt, Placement, ReadMemory
from weft.passages import Span, sentences
from weft.responding import last_logits
from weft.search import Prompt

if TYPE_CHECKING:
    from weft.batch import BatchMemory
    from weft.model import WeftModel
    from weft.responding import Held


@dataclass(frozen=True, eq=False)
class Leaning:
    """What the tokens of a text leaned on.

    Attributes:
        items: for each item that was read, the weights of its tokens, ``[T, N]``; all items of a row sum to one.
        sources: where the tokens of each item came from.
    """

    items: tuple[Float[np.ndarray, "T N"], ...]
    sources: tuple[Any, ...]

    @property
    def shares(self) -> Float[np.ndarray, " M"]:
        """The share of each item in the whole text; they sum to one."""
        if not self.items:
            return np.zeros(0)
        totals = np.array([weights.sum() for weights in self.items])
        return totals / (totals.sum() or 1)

    def sentences(self, item: int) -> list[tuple[Span, float]]:
        """The sentences of a passage, as spans of its document, each with its share of the whole text."""
        source: Excerpt = self.sources[item]
        weights = self.items[item].sum(0)
        total = sum(one.sum() for one in self.items) or 1
        real = source.spans[:, 1] > source.spans[:, 0]
        cut = sentences(source.text)
        # What stands between two sentences belongs to the one before it.
        begins = np.array([begin for begin, _ in cut])
        owners = (np.searchsorted(begins, source.spans.mean(1), side="right") - 1).clip(0)
        found = []
        for number, (begin, end) in enumerate(cut):
            inside = real & (owners == number)
            share = float(weights[: len(inside)][inside].sum() / total)
            found.append(((source.start + begin, source.start + end), share))
        return found


@torch.inference_mode()
def lean(
    model: WeftModel,
    read: ReadMemory,
    held: Held,
    prompt: Sequence[int],
    answer: Sequence[int],
    top_memory: int | None = None,
) -> Leaning:
    """What the tokens of a finished text leaned on.

    Args:
        model: the woven model.
        read: what was read.
        held: the items of it that the prompt holds.
        prompt: tokens before the text.
        answer: tokens of the text.
        top_memory: how many items each fusion layer looked at when the text was written; None for all.
    """
    placed = model.place(read, Placement.of([held]), top_memory)
    if placed is None:
        return Leaning((), ())
    sources = tuple((read.sources[item], place) for place, (item, _) in enumerate(held))
    (leaning,) = lean_on(model, Prompt(prompt, (placed,), (sources,)), answer)
    return leaning


@torch.inference_mode()
def lean_on(model: WeftModel, prompt: Prompt, answer: Sequence[int]) -> list[Leaning]:
    """What the tokens of a finished reply leaned on, for each memory that its prompt reads, and last for the passages
    that stand in it, if any do.

    Args:
        model: the woven model.
        prompt: what was said before, as it was read.
        answer: tokens of the reply.

    Raises:
        WeftError: passages stand in the prompt, and the language model tells no attention.
    """
    if not answer:
        return [Leaning((), ()) for _ in prompt.sources]
    tokens = torch.tensor([[*prompt.tokens, *answer]], device=model.device)
    found = []
    for placed, sources in zip(prompt.memories, prompt.sources, strict=not prompt.quoted):
        if placed.copying is None:
            found_at = _looked(model, prompt.memories, placed, tokens)
        else:
            found_at = _copied(model, prompt.memories, placed, tokens, len(answer) + 1)
        weights = found_at[-len(answer) - 1 : -1].numpy()
        owners = placed.owners[0].cpu().numpy()
        real = np.ones(len(owners), bool) if placed.mask is None else placed.mask[0].cpu().numpy()
        items = tuple(weights[:, real & (owners == place)] for place in range(len(sources)))
        for item, (source, _) in zip(items, sources, strict=True):
            if isinstance(source, Excerpt):
                # A token that stands for no characters, as one that begins every passage, is where attention rests.
                item[:, (source.spans[:, 0] == source.spans[:, 1])[: item.shape[1]]] = 0
        found.append(Leaning(items, tuple(source for source, _ in sources)))
    if prompt.quoted:
        found.append(_leaning_on_quoted(model, prompt, answer))
    return found


def _leaning_on_quoted(model: WeftModel, prompt: Prompt, answer: Sequence[int]) -> Leaning:
    """What a reply leaned on among the passages that stand in its prompt.

    For each word of it the attention of the heads that find things, half from the word itself and half from the
    question behind the passages: heads look for what was asked, and a reply that is wrong looks anywhere.
    """
    sources = tuple(source for source, _ in prompt.sources[-1])
    spans = [slice(first, first + len(one.spans)) for first, one in zip(prompt.quoted, sources, strict=True)]
    behind = max(span.stop for span in spans)
    heads = model.weave_that_reads("texts").config.citing_heads
    looked = looked_at(model, [*prompt.tokens, *answer], behind, heads).numpy()
    inside = np.concatenate([looked[:, span] for span in spans], 1)
    inside /= inside.sum(1, keepdims=True).clip(1e-9)
    said = (inside[-len(answer) :] + inside[: -len(answer)].mean(0)) / 2
    items = np.split(said, np.cumsum([span.stop - span.start for span in spans])[:-1], 1)
    return Leaning(tuple(items), sources)


def _copied(
    model: WeftModel, memories: Sequence[BatchMemory], placed: BatchMemory, tokens: Tensor, last: int
) -> Float[Tensor, "T S"]:
    """Where tokens, the last ones at least, would be copied from: the copy gate's attention without the sentinel."""
    gate = model.weave(placed.weave).copy_gate
    assert gate is not None
    with head_inputs(model.get_output_embeddings()) as given:  # type: ignore[arg-type]
        model(input_ids=tokens, memories=memories, use_cache=False, **last_logits(model, last))
    visible = placed.visible(torch.arange(tokens.shape[1]))
    width = given[-1].shape[1]
    shares, _ = placed.shares(gate, given[-1], None if visible is None else visible[:, -width:], tokens[:, -width:])
    return shares.copied[0].softmax(-1).nan_to_num().float().cpu()


def _looked(
    model: WeftModel, memories: Sequence[BatchMemory], placed: BatchMemory, tokens: Tensor
) -> Float[Tensor, "T S"]:
    """Attention of each token, averaged over fusion layers and heads."""
    weave = model.weave(placed.weave)
    caught: list[Tensor] = []

    def catch(layer: Any, args: tuple) -> None:
        caught.append(layer.weights(*args)[0].float().mean(0).cpu())

    with watching(weave.layers, catch):
        model(input_ids=tokens, memories=memories, use_cache=False, **last_logits(model, 1))
    return torch.stack(caught).mean(0)
