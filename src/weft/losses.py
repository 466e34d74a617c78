"""One training step's loss as a module, so that Accelerate can wrap it for several processes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from weft.batch import BatchMemory
from weft.copying import FLOOR, target_losses
from weft.data import Batch, Row
from weft.fastpath import HiddenStore, Vocabulary, own_attention
from weft.hooks import head_inputs
from weft.memory import Memory, Placement
from weft.model import WeftModel
from weft.narrow_head import narrowed


class StepLoss(nn.Module):
    """Cross-entropy of what the assistant says, the rows having looked at what they hold.

    Args:
        model: the woven model.
        weave: name of the weave that learns.
        label_smoothing: share of each target spread over the vocabulary, where nothing is copied.
        citing: what it counts, in losses of a word, that copying looks at the passages that hold the answer.

    Attributes:
        hidden: stored hidden states to start from; None to run the whole language model.
        vocabulary: the words that a step chooses among; None for all.
    """

    def __init__(self, model: WeftModel, weave: str, label_smoothing: float = 0.0, citing: float = 0.0) -> None:
        super().__init__()
        self.model, self.weave, self.label_smoothing, self.citing = model, weave, label_smoothing, citing
        self.hidden: HiddenStore | None = None
        self.vocabulary: Vocabulary | None = None
        self.head = cast(nn.Linear, model.get_output_embeddings())

    def forward(
        self,
        batch: Batch,
        memory: Memory,
        placement: Placement,
        weights: Sequence[float] | None = None,
        full: bool = False,
    ) -> Float[Tensor, ""]:
        """The loss, summed over the batch's learned tokens; arguments as for :meth:`each`."""
        losses = self.each(batch, memory, placement, weights, full)
        total = losses.sum() if weights is None else (losses * torch.tensor(weights, device=losses.device)).sum()
        if torch.is_grad_enabled() and not (len(memory) and total.requires_grad):
            # None of the rows holds anything: the weave learns nothing, but the step is taken, in every process.
            learned = self.model.weave(self.weave).parameters()
            total = total + 0 * torch.stack([parameter.sum() for parameter in learned]).sum()
        return total

    def each(
        self,
        batch: Batch,
        memory: Memory,
        placement: Placement,
        weights: Sequence[float] | None = None,
        full: bool = False,
    ) -> Float[Tensor, " L"]:
        """The loss of each of the batch's learned tokens.

        Args:
            batch: the rows.
            memory: what they hold.
            placement: which of it each row holds.
            weights: what each learned token counts, smoothing left out; its rows are none of the stored ones.
            full: compute the whole vocabulary, without smoothing or what citing counts, as for evaluation.
        """
        placed = None
        if len(memory):
            placed = self.model.place(self.model.weave(self.weave).read(memory), placement)
        copies = placed is not None and placed.copying is not None
        smoothing = 0.0 if full or copies or weights is not None else self.label_smoothing
        if self.hidden is None:
            states, losses = self._plainly(batch, placed, smoothing)
        else:
            words = None if self.vocabulary is None or full else self.vocabulary
            states, losses = self._fast(batch, placed, self.hidden, words, smoothing, sampled=weights is not None)
        if placed is not None and copies:
            copying = _Copying.of(self.model, placed, states, batch)
            losses = copying.losses(losses, batch.targets) if self.hidden is not None else losses
            if self.citing and not full:
                losses = losses + self.citing * copying.missed(batch.rows)
        return losses

    def _plainly(
        self, batch: Batch, placed: BatchMemory | None, smoothing: float
    ) -> tuple[Float[Tensor, "B T H"], Float[Tensor, " L"]]:
        """Last hidden states, and the loss of each target, copying included, by way of the whole model."""
        with head_inputs(self.head) as given:
            logits = self.model(**batch.inputs, memories=[] if placed is None else [placed]).logits
        logits = logits.flatten(0, 1)[batch.predicting].float()
        return given[-1], F.cross_entropy(logits, batch.targets, reduction="none", label_smoothing=smoothing)

    def _fast(
        self,
        batch: Batch,
        placed: BatchMemory | None,
        hidden: HiddenStore,
        vocabulary: Vocabulary | None,
        smoothing: float,
        *,
        sampled: bool,
    ) -> tuple[Float[Tensor, "B T H"], Float[Tensor, " L"]]:
        """Last hidden states, and what the language model loses on each target, from stored hidden states; of rows of
        sampled answers none are stored, and they are learned among the words that they were sampled from."""
        lower = hidden.stack.lower(batch) if sampled else hidden.get(batch)
        columns = torch.arange(batch.input_ids.shape[1])
        device, words = batch.input_ids.device, None
        if vocabulary is not None:
            words = vocabulary.seen.to(device) if sampled else vocabulary.draw(device)
        with (
            self.model.looking_at([] if placed is None else [placed], columns, batch.inputs),
            hidden.stack.starting_from(lower.to(device)),
            own_attention(self.model.language_model),
            narrowed(self.model.language_model, batch.predicting, words) as head,
        ):
            logits = self.model.language_model(**batch.inputs).logits[0].float()
        assert head.states is not None
        if vocabulary is None:
            losses = F.cross_entropy(logits, batch.targets, reduction="none", label_smoothing=smoothing)
        elif sampled:
            losses = vocabulary.losses_among_seen(logits, batch.targets)
        else:
            losses = vocabulary.losses(logits, batch.targets, smoothing)
        return head.states, losses


@dataclass(frozen=True, eq=False)
class _Copying:
    """What may be copied at the places that predict; only those in rows that hold something.

    Attributes:
        reading: the targets, of all ``L``, that stand in rows that hold something, ``[C]``.
        rows: for each of them its row in the batch, ``[C]``.
        copied: shares of the memory tokens, ``[C, S]``.
        generated: what is left to the language model, ``[C]``.
        ids: the memory's tokens, ``[C, S]``.
        owners: for each memory token the place of its item among its row's, ``[C, S]``.
    """

    reading: Int[Tensor, " C"]
    rows: Int[Tensor, " C"]
    copied: Float[Tensor, "C S"]
    generated: Float[Tensor, " C"]
    ids: Int[Tensor, "C S"]
    owners: Int[Tensor, "C S"]
    targets: int

    @classmethod
    def of(cls, model: WeftModel, placed: BatchMemory, states: Float[Tensor, "B T H"], batch: Batch) -> _Copying:
        """What a placed memory's copy gate makes of last hidden states."""
        gate = model.weave(placed.weave).copy_gate
        assert gate is not None
        width = states.shape[1]
        shares, ids = placed.shares(gate, states, placed.visible(torch.arange(width)), batch.input_ids)
        places = torch.full((len(states),), -1, device=states.device)
        held = torch.arange(len(states), device=states.device) if placed.rows is None else placed.rows
        places[held] = torch.arange(len(held), device=states.device)
        row, column = batch.predicting // width, batch.predicting % width
        reading = (places[row] >= 0).nonzero()[:, 0]
        at, column = places[row][reading], column[reading]
        owners = placed.owners.repeat_interleave(len(held) // len(placed.owners), 0)
        return cls(
            reading,
            row[reading],
            shares.copied[at, column],
            shares.generated[at, column],
            ids[at],
            owners[at],
            len(batch.targets),
        )

    def losses(self, losses: Float[Tensor, " L"], targets: Int[Tensor, " L"]) -> Float[Tensor, " L"]:
        """The losses of targets that may be said or copied."""
        matches = self.ids == targets[self.reading][:, None]
        found = target_losses(losses[self.reading], self.copied, self.generated, matches)
        return losses.index_copy(0, self.reading, found)

    def missed(self, rows: Sequence[Row]) -> Float[Tensor, " L"]:
        """How little of what is copied comes from passages that hold the answer: the logarithm of its share, negated;
        0 for the targets of a row of which no passage, or every one, does."""
        width = max(len(row.passages) for row in rows)
        flags = [[passage.supports for passage in row.passages] for row in rows]
        telling = torch.tensor([any(row) and not all(row) for row in flags], device=self.rows.device)
        supports = torch.tensor([row + [False] * (width - len(row)) for row in flags], device=self.rows.device)
        right = supports[self.rows].gather(1, self.owners)
        chosen = (telling[self.rows] & (self.copied > -math.inf).any(-1)).nonzero()[:, 0]
        copied, right = self.copied[chosen], right[chosen]
        share = copied.logsumexp(-1) - copied.masked_fill(~right, math.log(FLOOR)).logsumexp(-1)
        return torch.zeros(self.targets, device=share.device).index_copy(0, self.reading[chosen], share)
