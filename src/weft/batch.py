"""How a batch of text reads its memories: which rows read what, laid out once so that no layer has to think about it.

:func:`arrange` is given a :class:`~weft.memory.ReadMemory` and its :class:`~weft.memory.Placement`, and hands on a
:class:`BatchMemory` whose keys and values fit the rows of the batch. Rows that read the same items (beams, samples,
several questions about one picture) share one copy: their tokens are laid end to end into one longer query.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from weft.fusion import GatedCrossAttention
from weft.memory import KeyValues, Placement, ReadMemory, Sees


@dataclass(frozen=True, eq=False)
class BatchMemory:
    """A read memory as the rows of one batch look at it.

    Notation: ``R`` rows that have memory, in ``G`` groups of neighbours that share it; ``S`` memory tokens a group.

    Attributes:
        weave: name of the weave that read the memory.
        layers: keys and values for each fusion layer, ``[G, kv_heads, S, head_dim]``.
        rows: the rows of the batch that have memory, ``[R]``; None when all have.
        placement: which items those rows hold, and from which column on.
        sees: what a text token looks at.
        tokens: tokens of one item.
        mask: True where a memory token is real, ``[G, S]``; None when all are.
        settled: whether all text that is computed stands after all items, as in every step after the prompt.
    """

    weave: str
    layers: tuple[KeyValues, ...]
    rows: Int[Tensor, " R"] | None
    placement: Placement
    sees: Sees
    tokens: int
    mask: Bool[Tensor, "G S"] | None = None
    settled: bool = False

    @property
    def bytes(self) -> int:
        """Memory that keys and values take."""
        return sum(t.numel() * t.element_size() for layer in self.layers for t in (layer.keys, layer.values))

    def repeat_rows(self, times: int) -> BatchMemory:
        """For a batch that holds each row ``times`` times over; keys and values stay as they are."""
        rows = self.rows
        if rows is not None:
            rows = (rows[:, None] * times + torch.arange(times, device=rows.device)).flatten()
        return replace(self, rows=rows, placement=self.placement.repeat_rows(times))

    def after_prompt(self) -> BatchMemory:
        """The same for text that stands after all items."""
        return replace(self, settled=True)

    def visible(self, columns: Int[Tensor, " T"]) -> Bool[Tensor, "R T S"] | None:
        """True where a text token may look at a memory token; None when all may look at all.

        Args:
            columns: the columns of ``input_ids`` that are being computed.
        """
        placement = self.placement
        everything = self.settled and self.mask is None and bool((placement.items >= 0).all())
        if everything and (self.sees == "all" or placement.items.shape[1] == 1):
            return None
        if self.settled:
            columns = torch.full_like(columns, torch.iinfo(torch.long).max)
        visible = placement.visible(columns.to(placement.items.device), self.sees).repeat_interleave(self.tokens, -1)
        if self.mask is None:
            return visible
        return visible & self.mask.repeat_interleave(len(visible) // len(self.mask), 0)[:, None]

    def fuse(
        self,
        layer: GatedCrossAttention,
        index: int,
        hidden: Float[Tensor, "B T H"],
        visible: Bool[Tensor, "R T S"] | None,
    ) -> Float[Tensor, "B T H"]:
        """Let the rows that have memory look at it through one fusion layer; the others pass untouched.

        Args:
            layer: the fusion layer.
            index: which of the weave's fusion layers it is.
            hidden: hidden states in front of a decoder layer.
            visible: what :meth:`visible` gave for these columns.
        """
        keyvalues, rows = self.layers[index], self.rows
        reading = hidden if rows is None else hidden[rows.to(hidden.device)]
        groups = keyvalues.keys.shape[0]
        folded = reading.reshape(groups, -1, hidden.shape[-1])
        if visible is not None:
            visible = visible.to(hidden.device).reshape(groups, -1, visible.shape[-1])
        if not torch.is_autocast_enabled(hidden.device.type):
            folded = folded.to(layer.q_proj.weight.dtype)
        fused = layer(folded, keyvalues, visible).reshape(reading.shape).to(hidden.dtype)
        return fused if rows is None else hidden.index_copy(0, rows.to(hidden.device), fused)


def arrange(read: ReadMemory, placement: Placement, sees: Sees = "all") -> BatchMemory | None:
    """Lay a read memory out for a batch.

    Args:
        read: ``M`` items as a weave has read them.
        placement: which row holds which of them.
        sees: what a text token looks at.

    Returns:
        None when no row holds any item: such a batch computes the language model alone.

    Raises:
        ValueError: a row refers to an item that the memory has not.
    """
    table = placement.items.tolist()
    if any(item >= len(read) for row in table for item in row):
        raise ValueError(f"A row refers to item {max(map(max, table))}, but the memory {read.weave!r} has {len(read)}.")
    reading = [index for index, row in enumerate(table) if any(item >= 0 for item in row)]
    if not reading:
        return None
    device = read.layers[0].keys.device
    rows = None
    if len(reading) < len(table):
        rows = torch.tensor(reading, device=device)
        placement = Placement(placement.items[reading], placement.starts[reading])
        table = [table[index] for index in reading]
    runs = [(items, len(list(run))) for items, run in groupby(map(tuple, table))]
    alike = len({length for _, length in runs}) == 1
    groups = [items for items, _ in runs] if alike else [tuple(row) for row in table]
    items = torch.tensor(groups, device=device)
    layers = tuple(_gather(layer, items) for layer in read.layers)
    mask = layers[0].mask
    return BatchMemory(
        weave=read.weave,
        layers=tuple(replace(layer, mask=None) for layer in layers),
        rows=rows,
        placement=placement.to(device),
        sees=sees,
        tokens=read.tokens,
        mask=mask,
    )


def _gather(layer: KeyValues, items: Int[Tensor, "G I"]) -> KeyValues:
    """The items of each group side by side, ``[G, kv_heads, I·N, head_dim]``; a view where that is all there is."""
    width = items.shape[1]
    device = layer.keys.device
    if width == 1 and items.flatten().tolist() == list(range(len(layer.keys))):
        return layer
    index = items.to(device).clamp(min=0)

    def side_by_side(tensor: Float[Tensor, "M kv_heads N head_dim"]) -> Float[Tensor, "G kv_heads S head_dim"]:
        return tensor[index].transpose(1, 2).flatten(2, 3)

    mask = None if layer.mask is None else layer.mask[index].flatten(1)
    return KeyValues(side_by_side(layer.keys), side_by_side(layer.values), mask)
