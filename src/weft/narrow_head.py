"""A language model's head for a few places and a few words, with whatever its family does to logits behind it.

Families cap logits, divide or multiply them after the projection. Within :func:`narrowed`, the language model's own
forward computes all that as ever, and its head sees only the hidden states, and gives only the words, that are wanted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel


class NarrowHead(nn.Module):
    """Stands in for a language model's head.

    Args:
        head: the head.
        places: places in the flattened ``[B·T]`` whose logits are wanted, ``[L]``.
        words: the words whose logits are wanted, ``[W]``; None for all.

    Attributes:
        states: the hidden states that the head was given, ``[B, T, H]``.
    """

    def __init__(self, head: nn.Module, places: Int[Tensor, " L"], words: Int[Tensor, " W"] | None) -> None:
        super().__init__()
        self.head, self.places, self.words = (head,), places, words  # a tuple hides it: it stays where it was
        self.states: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        """The head's own, for a forward that asks for its type."""
        return cast(nn.Linear, self.head[0]).weight

    def forward(self, hidden: Float[Tensor, "B T H"]) -> Float[Tensor, "1 L W"]:
        self.states = hidden
        chosen = hidden.flatten(0, 1)[self.places][None]
        if self.words is None:
            return self.head[0](chosen)
        return F.linear(chosen, *head_of(cast(nn.Linear, self.head[0]), self.words))


@contextmanager
def narrowed(
    language_model: PreTrainedModel, places: Int[Tensor, " L"], words: Int[Tensor, " W"] | None = None
) -> Iterator[NarrowHead]:
    """Within it, a language model's logits are ``[1, L, W]``: those of some places and some words alone."""
    head = language_model.get_output_embeddings()
    parent, name = next(
        (module, name)
        for module in language_model.modules()
        for name, child in module.named_children()
        if child is head
    )
    stand_in = NarrowHead(head, places, words)
    setattr(parent, name, stand_in)
    try:
        yield stand_in
    finally:
        setattr(parent, name, head)


def may_be_narrowed(head: nn.Module) -> bool:
    """Whether some words of a head can be computed without the others: it is a plain projection, without adapters."""
    return type(head) is nn.Linear


def head_of(head: nn.Linear, words: Int[Tensor, " W"]) -> tuple[Float[Tensor, "W H"], Float[Tensor, " W"] | None]:
    """Weight and bias of a projection onto the vocabulary, for some of its words."""
    return head.weight[words], None if head.bias is None else head.bias[words]
