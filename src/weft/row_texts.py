"""The text that joint fusion layers look at while a plain decoder runs, each row at a length of its own.

:class:`RowTexts` stands for the rows of a batch that look through one joint weave. For each of its fusion layers it
keeps keys and values of the text in the decoder's own cache, beside those of the decoder layers, so that rows that are
selected, repeated or joined bring them along.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from weft.decoder import TextCache
from weft.fusion import Rotation
from weft.joint import TextKeys


@dataclass(frozen=True, eq=False)
class _Step:
    """The newest tokens of the rows, which are the same for all layers of a call.

    Attributes:
        lengths: tokens of each row in front of them.
        tokens: how many they are, ``T``.
        places: where they stand, ``[R, T]``.
        rotation: by how much they are turned.
    """

    lengths: tuple[int, ...]
    tokens: int
    places: Int[Tensor, "R T"]
    rotation: Rotation | None


class RowTexts:
    """The texts of rows that look through one joint weave.

    Args:
        cache: the text so far.
        name: name of the weave.
        rows: the rows, in the order of the batch.
        counts: how many neighbours among them continue one text, text by text.
        since: for each text the column from which on its tokens look at it, ``[1, T]``.
        rotation: by how much tokens that stand somewhere are turned, in any fusion layer of the weave.
    """

    def __init__(
        self,
        cache: TextCache,
        name: str,
        rows: Sequence[int],
        counts: Sequence[int],
        since: Sequence[Int[Tensor, "1 T"]],
        rotation: Callable[[Int[Tensor, "R T"]], Rotation | None],
    ) -> None:
        self.cache, self.name, self.rows, self.counts = cache, name, list(rows), counts
        self.since, self.begins, self.turn = since, [int(one.min()) for one in since], rotation
        self._step: _Step | None = None

    def at(self, layer: int, tokens: int) -> LayerTexts:
        """The texts as one of the weave's fusion layers adds so many tokens to each row."""
        lengths = tuple(self.cache.lengths[row] for row in self.rows)
        step = self._step
        if step is None or step.lengths != lengths or step.tokens != tokens:
            places = torch.tensor(lengths)[:, None] + torch.arange(tokens)
            self._step = step = _Step(lengths, tokens, places, self.turn(places))
        return LayerTexts(self, step, f"{self.name}.{layer}")


@dataclass(frozen=True, eq=False)
class LayerTexts:
    """The same for one fusion layer, in one call of the decoder; a :class:`weft.joint.Texts`."""

    texts: RowTexts
    step: _Step
    name: str

    @property
    def rotation(self) -> Rotation | None:
        """See :class:`weft.joint.Texts`."""
        return self.step.rotation

    def add(
        self, keys: Float[Tensor, "R kv_heads T head_dim"], values: Float[Tensor, "R kv_heads T head_dim"]
    ) -> list[TextKeys]:
        """See :class:`weft.joint.Texts`."""
        texts, step = self.texts, self.step
        kept = texts.cache.other(self.name, keys)
        for block, new in zip(kept, (keys, values), strict=True):
            if len(texts.counts) == 1:  # its rows are neighbours of one length
                first, begin = texts.rows[0], step.lengths[0]
                block[first : first + len(new), :, begin : begin + step.tokens] = new
            else:
                block[torch.tensor(texts.rows)[:, None], :, step.places] = new.transpose(1, 2)
        added, place = [], 0
        for number, count in enumerate(texts.counts):
            first, end = texts.rows[place], step.lengths[place] + step.tokens
            begin = min(texts.begins[number], end)
            own_keys, own_values = (block[first : first + count, :, begin:end] for block in kept)
            turned = step.rotation and (
                step.rotation[0][place : place + count],
                step.rotation[1][place : place + count],
            )
            added.append(TextKeys(own_keys, own_values, self._visible(number, begin, end, count), turned))
            place += count
        return added

    def _visible(self, number: int, begin: int, end: int, count: int) -> Bool[Tensor, "R T N"] | None:
        """What the newest tokens of a text may look at of it; a single one looks at all."""
        tokens = self.step.tokens
        if tokens == 1:
            return None
        held = torch.arange(begin, end)
        seen = (held <= torch.arange(end - tokens, end)[:, None]) & (held >= self.texts.since[number][0, :, None])
        return seen.expand(count, -1, -1)
