"""One training step's loss as a module, so that Accelerate can wrap it for several processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from weft.batch import BatchMemory
from weft.data import Batch
from weft.fastpath import HiddenStore, Vocabulary, own_attention
from weft.memory import Memory, Placement
from weft.model import WeftModel


class StepLoss(nn.Module):
    """Cross-entropy of what the assistant says, the rows having looked at their pictures.

    Args:
        model: the woven model.
        weave: name of the weave that learns.
        label_smoothing: share of each target spread over the vocabulary.

    Attributes:
        hidden: stored hidden states to start from; None to run the whole language model.
        vocabulary: the words that a step chooses among; None for all.
    """

    def __init__(self, model: WeftModel, weave: str, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.model, self.weave, self.label_smoothing = model, weave, label_smoothing
        self.hidden: HiddenStore | None = None
        self.vocabulary: Vocabulary | None = None
        self.head = cast(nn.Linear, model.get_output_embeddings())

    def forward(
        self,
        batch: Batch,
        features: Float[Tensor, "M N D"],
        weights: Sequence[float] | None = None,
        full: bool = False,
    ) -> Float[Tensor, ""]:
        """The loss, summed over the batch's learned tokens.

        Args:
            batch: the rows.
            features: features of their pictures, in order.
            weights: what each learned token counts, smoothing left out; its rows are none of the stored ones.
            full: compute the whole vocabulary, without smoothing, as for evaluation.
        """
        states = self._states(batch, features, stored=weights is None)
        smoothing = 0.0 if full or weights is not None else self.label_smoothing
        if states is not None and self.vocabulary is not None and not full:
            if weights is None:
                return self.vocabulary.loss(states, batch.targets, self.head, smoothing)
            each = self.vocabulary.each_loss(states, batch.targets, self.head)
        else:
            logits = self._logits(batch, features) if states is None else self.head(states).float()
            each = F.cross_entropy(logits, batch.targets, reduction="none", label_smoothing=smoothing)
        return each.sum() if weights is None else (each * torch.tensor(weights, device=each.device)).sum()

    def _states(self, batch: Batch, features: Float[Tensor, "M N D"], stored: bool) -> Float[Tensor, "L H"] | None:
        """The last hidden states at the places that predict, by the fast way; None where there is none."""
        if self.hidden is None:
            return None
        lower = self.hidden.get(batch) if stored else self.hidden.stack.lower(batch)
        columns = torch.arange(batch.input_ids.shape[1])
        with (
            self.model.looking_at(self._memories(batch, features), columns),
            self.hidden.stack.starting_from(lower.to(batch.input_ids.device)),
            own_attention(self.model.language_model),
        ):
            states = self.model.language_model.base_model(**batch.inputs).last_hidden_state
        return states.flatten(0, 1)[batch.predicting].to(self.head.weight.dtype)

    def _logits(self, batch: Batch, features: Float[Tensor, "M N D"]) -> Float[Tensor, "L V"]:
        """The logits at the places that predict, by the plain way."""
        logits = self.model(**batch.inputs, memories=self._memories(batch, features)).logits
        return logits.flatten(0, 1)[batch.predicting].float()

    def _memories(self, batch: Batch, features: Float[Tensor, "M N D"]) -> list[BatchMemory]:
        if not len(features):
            return []
        counts = iter(range(len(features)))
        placement = Placement.of([[(next(counts), column) for column in row.columns] for row in batch.rows])
        placed = self.model.place(self.model.weave(self.weave).read(Memory(features, ())), placement)
        return [] if placed is None else [placed]
