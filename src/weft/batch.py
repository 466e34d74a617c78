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
from torch.nn import functional as F

from weft.choosing import check_top, with_items
from weft.copying import CopyGate, Shares, mixed
from weft.fusion import GatedCrossAttention
from weft.joint import TextKeys
from weft.memory import CopyKeys, KeyValues, Placement, ReadMemory, Sees


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
        owners: for each memory token the place of its item among its row's, ``[G, S]``.
        mask: True where a memory token is real, ``[G, S]``; None when all are.
        copying: the tokens as a copy gate finds them, ``[G, S, width]``; None for a weave that does not copy.
        settled: whether all text that is computed stands after all items, as in every step after the prompt.
        ready: what such text sees, ``[R, 1, S]``, for memories in shapes that never change; None to find it out.
    """

    weave: str
    layers: tuple[KeyValues, ...]
    rows: Int[Tensor, " R"] | None
    placement: Placement
    sees: Sees
    owners: Int[Tensor, "G S"]
    mask: Bool[Tensor, "G S"] | None = None
    copying: CopyKeys | None = None
    settled: bool = False
    ready: Bool[Tensor, "R 1 S"] | None = None

    @property
    def bytes(self) -> int:
        """Memory that keys and values take."""
        return sum(t.numel() * t.element_size() for layer in self.layers for t in (layer.keys, layer.values))

    def repeat_rows(self, times: int) -> BatchMemory:
        """For a batch that holds each row ``times`` times over; keys and values stay as they are."""
        rows = self.rows
        if rows is not None:
            rows = (rows[:, None] * times + torch.arange(times, device=rows.device)).flatten()
        ready = None if self.ready is None else self.ready.repeat_interleave(times, 0)
        return replace(self, rows=rows, placement=self.placement.repeat_rows(times), ready=ready)

    def padded(self, tokens: int) -> BatchMemory:
        """The same with so many tokens a group, those behind the last one masked, and what is seen of it laid ready."""
        groups, held = self.owners.shape
        more = tokens - held
        real = torch.ones(groups, held, dtype=torch.bool, device=self.owners.device) if self.mask is None else self.mask
        layers = tuple(
            replace(
                layer.padded(more),
                items=layer.items and replace(layer.items, owners=F.pad(layer.items.owners, (0, more))),
            )
            for layer in self.layers
        )
        copying = None if self.copying is None else self.copying.padded(more)
        owners, mask = F.pad(self.owners, (0, more)), F.pad(real, (0, more))
        padded = replace(self, layers=layers, owners=owners, mask=mask, copying=copying)
        first = torch.zeros(1, dtype=torch.long, device=mask.device)
        return replace(padded, ready=padded.after_prompt().visible(first))

    def ablated(self, gone: Bool[Tensor, "R S"]) -> BatchMemory:
        """For rows that continue the one it was laid out for, each without some of the tokens; keys and values are
        shared, and every text token looks at all items that are left to it.

        Args:
            gone: True where a row is not to have a memory token.
        """
        rows = len(gone)

        def shared(tensor: Tensor) -> Tensor:
            return tensor.expand(rows, *tensor.shape[1:])

        real = ~gone.to(self.owners.device)
        return replace(
            self,
            layers=tuple(KeyValues(shared(layer.keys), shared(layer.values)) for layer in self.layers),
            placement=self.placement.repeat_rows(rows),
            owners=shared(self.owners),
            mask=real if self.mask is None else real & self.mask,
            copying=None if self.copying is None else self.copying.map(shared),
        )

    def after_prompt(self) -> BatchMemory:
        """The same for text that stands after all items."""
        return replace(self, settled=True)

    def visible(self, columns: Int[Tensor, " T"]) -> Bool[Tensor, "R T S"] | None:
        """True where a text token may look at a memory token; None when all may look at all.

        Args:
            columns: the columns of ``input_ids`` that are being computed.
        """
        if self.settled and self.ready is not None:
            return self.ready
        placement = self.placement
        real = self.mask is None and self.owners.numel() > 0
        everything = self.settled and real and bool((placement.items >= 0).all())
        if everything and (self.sees == "all" or placement.items.shape[1] == 1):
            return None
        if self.settled:
            columns = torch.full_like(columns, torch.iinfo(torch.long).max)
        begun = placement.visible(columns.to(placement.items.device), self.sees)
        times = len(begun) // len(self.owners)
        visible = begun.gather(-1, self.owners.repeat_interleave(times, 0)[:, None].expand(-1, len(columns), -1))
        if self.mask is None:
            return visible
        return visible & self.mask.repeat_interleave(times, 0)[:, None]

    def since(self, columns: Int[Tensor, " T"]) -> Int[Tensor, "R T"]:
        """The column from which on a text token may see the first of the items that it looks at: where the text begins
        that joint fusion layers look at. A column beyond all text for a token that looks at none.

        Args:
            columns: the columns of ``input_ids`` that are being computed.
        """
        starts, never = self.placement.starts, torch.iinfo(torch.long).max
        columns = columns.to(starts.device)
        begun = self.placement.visible(torch.full_like(columns, never) if self.settled else columns, self.sees)
        return starts[:, None].masked_fill(~begun, never).amin(-1)

    def fuse(
        self,
        layer: GatedCrossAttention,
        index: int,
        hidden: Float[Tensor, "B T H"],
        visible: Bool[Tensor, "R T S"] | None,
        text: TextKeys | None = None,
    ) -> Float[Tensor, "B T H"]:
        """Let the rows that have memory look at it through one fusion layer; the others pass untouched.

        Args:
            layer: the fusion layer.
            index: which of the weave's fusion layers it is.
            hidden: hidden states in front of a decoder layer.
            visible: what :meth:`visible` gave for these columns.
            text: the text that rows with memory look at as well, where the layer is a joint one.
        """
        keyvalues, rows = self.layers[index], self.rows
        reading = hidden if rows is None else hidden[rows.to(hidden.device)]
        if text is None:
            folded, visible = self._folded(reading, visible, layer.q_proj.weight.dtype)
            fused = layer(folded, keyvalues, visible).reshape(reading.shape)
        else:
            fused = layer(_typed(reading, layer.q_proj.weight.dtype), keyvalues, visible, text)
        fused = fused.to(hidden.dtype)
        return fused if rows is None else hidden.index_copy(0, rows.to(hidden.device), fused)

    def shares(
        self,
        gate: CopyGate,
        hidden: Float[Tensor, "B T H"],
        visible: Bool[Tensor, "R T S"] | None,
        written: Int[Tensor, "B T"] | None,
    ) -> tuple[Shares, Int[Tensor, "R S"]]:
        """How the rows that have memory divide their next words, and the tokens that they may copy.

        Args:
            gate: the weave's copy gate.
            hidden: the language model's last hidden states.
            visible: what :meth:`visible` gave for these columns.
            written: the text's tokens in these columns; None where they are not known.
        """
        assert self.copying is not None
        hidden = hidden if self.rows is None else hidden[self.rows.to(hidden.device)]
        if written is not None:
            written = written if self.rows is None else written[self.rows.to(written.device)]
            written = written.reshape(len(self.owners), -1)
        folded, visible = self._folded(hidden, visible, gate.q_proj.weight.dtype)
        shares = gate(folded, self.copying, visible, written)
        rows, tokens = hidden.shape[:2]
        ids = self.copying.ids.repeat_interleave(rows // len(self.copying.ids), 0)
        return Shares(shares.copied.reshape(rows, tokens, ids.shape[1]), shares.generated.reshape(rows, tokens)), ids

    def _folded(
        self, reading: Float[Tensor, "R T H"], visible: Bool[Tensor, "R T S"] | None, dtype: torch.dtype
    ) -> tuple[Float[Tensor, "G RT H"], Bool[Tensor, "G RT S"] | None]:
        """Rows that share memory laid end to end into one, in the type of the layer that is to look at it."""
        folded = reading.reshape(len(self.owners), -1, reading.shape[-1])
        if visible is not None:
            visible = visible.to(reading.device).reshape(*folded.shape[:2], visible.shape[-1])
        return _typed(folded, dtype), visible

    def mix(
        self,
        gate: CopyGate,
        hidden: Float[Tensor, "B T H"],
        logits: Float[Tensor, "B T V"],
        visible: Bool[Tensor, "R T S"] | None,
        written: Int[Tensor, "B T"] | None,
    ) -> Float[Tensor, "B T V"]:
        """Logits with what is copied mixed in, for the rows that have memory; the others pass untouched."""
        shares, ids = self.shares(gate, hidden, visible, written)
        if self.rows is None:
            return mixed(logits, shares, ids)
        rows = self.rows.to(logits.device)
        return logits.index_copy(0, rows, mixed(logits[rows], shares, ids))


def _typed(hidden: Float[Tensor, "*rows H"], dtype: torch.dtype) -> Float[Tensor, "*rows H"]:
    """Hidden states in the type of the layer that is to look; mixed precision takes them as they are."""
    return hidden if torch.is_autocast_enabled(hidden.device.type) else hidden.to(dtype)


def arrange(read: ReadMemory, placement: Placement, sees: Sees = "all", top: int | None = None) -> BatchMemory | None:
    """Lay a read memory out for a batch.

    Args:
        read: ``M`` items as a weave has read them.
        placement: which row holds which of them.
        sees: what a text token looks at.
        top: how many of a row's items each fusion layer looks at, at each text token the most promising ones; None for
            all. Copy gates look at all.

    Returns:
        None when no row holds any item: such a batch computes the language model alone.

    Raises:
        ValueError: a row refers to an item that the memory has not.
        WeftError: ``top`` is below one.
    """
    check_top(top)
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
    order = _Order.of(read, items)
    layers = tuple(replace(order.keyvalues(layer), mask=None) for layer in read.layers)
    if top is not None and top < items.shape[1] and sees == "all" and order.owners.numel():
        layers = tuple(with_items(layer, order.owners, order.mask, items.shape[1], top) for layer in layers)
    return BatchMemory(
        weave=read.weave,
        layers=layers,
        rows=rows,
        placement=placement.to(device),
        sees=sees,
        owners=order.owners,
        mask=order.mask,
        copying=None if read.copying is None else read.copying.map(order.lay),
    )


@dataclass(frozen=True, eq=False)
class _Order:
    """Where the tokens of each group's items come to lie: one item behind the other, padding left out.

    Attributes:
        places: for each token to be laid its place among the memory's ``M·N``, ``[G, S]``; None to take them as they
            are.
        owners: the place of its item among the group's, ``[G, S]``.
        mask: True where it is real, ``[G, S]``; None when all are.
    """

    places: Int[Tensor, "G S"] | None
    owners: Int[Tensor, "G S"]
    mask: Bool[Tensor, "G S"] | None

    @classmethod
    def of(cls, read: ReadMemory, items: Int[Tensor, "G I"]) -> _Order:
        (groups, width), tokens, mask = items.shape, read.tokens, read.layers[0].mask
        owners = torch.arange(width, device=items.device).repeat_interleave(tokens).expand(groups, -1)
        if width == 1 and items.flatten().tolist() == list(range(len(read))):
            return cls(None, owners, mask)
        held = items.clamp(min=0)
        places = (held[..., None] * tokens + torch.arange(tokens, device=items.device)).flatten(1)
        real = (items >= 0).repeat_interleave(tokens, 1)
        if mask is not None:
            real = real & mask.to(items.device)[held].flatten(1)
        if bool(real.all()):
            return cls(places, owners, None)
        order = real.int().argsort(dim=1, descending=True, stable=True)[:, : int(real.sum(1).max())]
        kept = real.gather(1, order)
        return cls(places.gather(1, order), owners.gather(1, order), None if bool(kept.all()) else kept)

    def lay(self, tensor: Tensor) -> Tensor:
        """``[M, N, ...]`` as ``[G, S, ...]``; as it is where that is all there is."""
        if self.places is None:
            return tensor
        flat = tensor.flatten(0, 1).index_select(0, self.places.flatten().to(tensor.device))
        return flat.unflatten(0, self.places.shape)

    def keyvalues(self, layer: KeyValues) -> KeyValues:
        """Keys and values of each group, ``[G, kv_heads, S, head_dim]``."""
        if self.places is None:
            return layer
        keys, values = (self.lay(tensor.transpose(1, 2)).transpose(1, 2) for tensor in (layer.keys, layer.values))
        return KeyValues(keys, values)
