"""What rows that decode side by side read: each its own memories, which are looked at where they are.

A :class:`Reading` is one text's memories, and how many rows continue it (beams share one copy). :class:`Rows` lets a
batch of such rows look at them: projections are computed for all rows at once, and only attention goes memory by
memory (short ones of the same size together), so that texts with different memories, several or none, share a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from weft.batch import BatchMemory
from weft.decoder import TextCache
from weft.joint import JointFusion
from weft.packed_weave import PackedFusion, PackedJointFusion, PackedWeave, Stacks
from weft.row_texts import RowTexts
from weft.weaving import Weave

Weaves = Mapping[str, Weave | PackedWeave]
"""The weaves of a model by their names, as they are or packed for decoding."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What one text reads.

    Attributes:
        memories: its memories, each laid out for a batch of one row; at most one for each weave.
        rows: neighbouring rows of the batch that continue the text.
    """

    memories: tuple[BatchMemory, ...] = ()
    rows: int = 1

    def after_prompt(self, rows: int) -> Reading:
        """The same for so many rows, each of which has seen all items."""
        return Reading(tuple(memory.after_prompt() for memory in self.memories), rows)


@dataclass(frozen=True, eq=False)
class _Looking:
    """The rows of a batch that look through one weave."""

    weave: Weave | PackedWeave
    memories: list[BatchMemory]
    counts: list[int]
    visible: list[Bool[Tensor, "1 T S"] | None]
    rows: Int[Tensor, " R"] | None
    texts: RowTexts | None
    _stacks: dict[int, Stacks] = field(default_factory=dict)

    def fused(self, index: int, hidden: Float[Tensor, "R T H"]) -> Float[Tensor, "R T H"]:
        """Hidden states of these rows behind one of the weave's fusion layers."""
        fusion, read = self.weave.fusion(index), [memory.layers[index] for memory in self.memories]
        hidden = hidden.to(fusion.q_proj.weight.dtype)
        given = hidden, read, self.counts, self.visible
        if self.texts is not None:
            joint = cast("JointFusion | PackedJointFusion", fusion)
            return joint.forward_each(*given, texts=self.texts.at(index, hidden.shape[1]))
        if not isinstance(fusion, PackedFusion) or len(read) == 1 or not fusion.takes(hidden, read, self.visible):
            return fusion.forward_each(*given)
        if index not in self._stacks:  # kept, since rows stay together for many words
            self._stacks[index] = Stacks(read, self.counts)
        return fusion.forward_each(*given, self._stacks[index])


class Shared(NamedTuple):
    """A memory that all rows of a batch look at, and the weave through which they do."""

    weave: Weave | PackedWeave
    memory: BatchMemory

    @property
    def tokens(self) -> int:
        """Tokens of the memory."""
        return self.memory.layers[0].keys.shape[2]


class Rows:
    """The rows of one call of a decoder, and what they read; a :class:`weft.decoder.Reader`.

    Args:
        weaves: the model's weaves by name.
        readings: the texts, in the order of their rows.
        columns: columns of the text that are being computed: all of a prompt, or one beyond it.
        cache: the text so far, in which joint fusion layers keep what they look at; needed where there are any.
    """

    def __init__(
        self, weaves: Weaves, readings: Sequence[Reading], columns: Int[Tensor, " T"], cache: TextCache | None = None
    ) -> None:
        self._looking: list[_Looking] = []
        self._at: dict[int, list[tuple[_Looking, int]]] = {}
        for name in weaves:
            found: list[tuple[BatchMemory, int]] = []
            rows, start = list[int](), 0
            for reading in readings:
                held = [memory for memory in reading.memories if memory.weave == name]
                found += [(memory, reading.rows) for memory in held]
                rows += range(start, start + reading.rows) if held else ()
                start += reading.rows
            if found:
                weave = weaves[name]
                looking = _Looking(
                    weave,
                    [memory for memory, _ in found],
                    [count for _, count in found],
                    [memory.visible(columns) for memory, _ in found],
                    None if len(rows) == start else torch.tensor(rows),
                    self._texts(weave, rows, found, columns, cache),
                )
                self._looking.append(looking)
                for index, layer in enumerate(weave.config.layers):
                    self._at.setdefault(layer, []).append((looking, index))
        self.layers = frozenset(self._at)

    @staticmethod
    def _texts(
        weave: Weave | PackedWeave,
        rows: Sequence[int],
        found: Sequence[tuple[BatchMemory, int]],
        columns: Int[Tensor, " T"],
        cache: TextCache | None,
    ) -> RowTexts | None:
        """The texts of rows that look through a joint weave."""
        if not weave.config.joint:
            return None
        memories, counts = zip(*found, strict=True)
        rotation = cast("JointFusion | PackedJointFusion", weave.fusion(0)).rotation
        since = [memory.since(columns) for memory in memories]
        return RowTexts(cast(TextCache, cache), weave.name, rows, counts, since, rotation)

    def shared(self) -> Shared | None:
        """The memory that all rows look at whole, if there is no other."""
        if len(self._looking) != 1:
            return None
        (looking,) = self._looking
        if looking.rows is not None or len(looking.memories) > 1 or looking.visible[0] is not None:
            return None
        if looking.memories[0].layers[0].items is not None or looking.weave.config.joint:
            return None
        return Shared(looking.weave, looking.memories[0])

    def look(self, layer: int, hidden: Float[Tensor, "B T H"]) -> Float[Tensor, "B T H"]:
        """Hidden states in front of a decoder layer, the rows that read something there having looked at it."""
        for looking, index in self._at[layer]:
            part = hidden if looking.rows is None else hidden[looking.rows]
            fused = looking.fused(index, part).to(hidden.dtype)
            hidden = fused if looking.rows is None else hidden.index_copy(0, looking.rows, fused)
        return hidden

    def copied(
        self, hidden: Float[Tensor, "B H"], logits: Float[Tensor, "B V"], written: Int[Tensor, " B"]
    ) -> Float[Tensor, "B V"]:
        """Logits of the next words with what the rows copy mixed in.

        Args:
            hidden: hidden states as the language model's head takes them.
            logits: what it made of them.
            written: each row's last token.
        """
        for looking in self._looking:
            gate = looking.weave.copy_gate
            if gate is None:
                continue
            rows = torch.arange(len(hidden)) if looking.rows is None else looking.rows
            parts = zip(rows.split(looking.counts), looking.memories, looking.visible, strict=True)
            for own, memory, visible in parts:
                seen = None if visible is None else visible[:, -1:].expand(len(own), -1, -1)
                mixed = memory.mix(gate, hidden[own][:, None], logits[own][:, None], seen, written[own][:, None])
                logits = logits.index_copy(0, own, mixed[:, 0])
        return logits
