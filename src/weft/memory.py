"""What a language model can read, as immutable values.

An encoder hands on a :class:`Memory` (features of pictures or passages, and where in each of them they came from).
A weave reads it once into a :class:`ReadMemory`: keys and values for each of its fusion layers.
:class:`Placement` says which row of a batch holds which items of it, and from which text token on.
Nothing here computes attention; nothing here knows a language model.

Notation: ``M`` items (pictures, passages), ``N`` tokens an item, ``D`` width, ``B`` rows, ``I`` items a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from weft.hashes import content_hash

Sees = Literal["last", "all"]
"""What a text token looks at: the last item placed before it, or all items placed before it."""


@dataclass(frozen=True, eq=False)
class Name:
    """What something in a picture is called, by whoever names what pictures show.

    Attributes:
        text: the name, as plain words.
        confidence: how sure that is, from 0 to 1.
        place: where in the picture it is: a share for each patch; they sum to one.
        tokens: the tokens of the picture's memory that spell it.
    """

    text: str
    confidence: float
    place: Float[np.ndarray, " N"]
    tokens: range = range(0)


@dataclass(frozen=True, eq=False)
class Picture:
    """Where the tokens of one picture came from: those of its patches, and behind them those that name what it shows.

    Attributes:
        size: width and height of the original picture in pixels, after its EXIF orientation.
        rectangles: for every patch its ``(left, top, right, bottom)`` in pixels of the original picture, with
            resize, crop and padding undone. They may reach over the edge where the encoder padded the picture.
        name: the file it was read from, or a description of it.
        names: what is seen in it.
    """

    size: tuple[int, int]
    rectangles: Float[np.ndarray, "N 4"]
    name: str = "picture"
    names: tuple[Name, ...] = ()


@dataclass(frozen=True, eq=False)
class Excerpt:
    """Where the tokens of one passage came from.

    Attributes:
        text: the passage.
        spans: for every token its first character in the text and the one after its last, ``[N, 2]``; an empty span
            for a token that stands for none, as one that begins every passage.
        name: what to call the passage: its document, or its id.
        start: the character of the document at which the passage begins.
    """

    text: str
    spans: Int[np.ndarray, "N 2"]
    name: str = "text"
    start: int = 0


Source = Picture | Excerpt
"""Where an item's tokens came from."""


@dataclass(frozen=True, eq=False)
class NameTokens:
    """The names of what pictures show, as tokens of the language model's own vocabulary.

    Attributes:
        ids: the tokens, ``[M, K]``; -1 where a picture has fewer.
        features: their input embeddings, ``[M, K, H]``.
        begins: True where a token is the first of its name, ``[M, K]``.
        confidence: of the name that a token belongs to, ``[M, K]``, above 0 where there is one.
        places: where in its picture that is, as shares of the patches, ``[M, K, N]``.
    """

    ids: Int[Tensor, "M K"]
    features: Float[Tensor, "M K H"]
    begins: Bool[Tensor, "M K"]
    confidence: Float[Tensor, "M K"]
    places: Float[Tensor, "M K N"]

    def map(self, function: Callable[[Tensor], Tensor]) -> NameTokens:
        """Apply ``function`` to each tensor."""
        tensors = (self.ids, self.features, self.begins, self.confidence, self.places)
        return NameTokens(*(function(tensor) for tensor in tensors))


@dataclass(frozen=True, eq=False)
class Memory:
    """An encoded sequence that a language model can read: ``N`` tokens for each of ``M`` items.

    Attributes:
        features: the encoder's output, ``[M, N, D]``.
        sources: where the tokens of each item came from, ``M`` of them.
        mask: True where a token is real and may be looked at, ``[M, N]``; None when all are. Items begin at their first
            token and are padded behind their last.
        key: hash of the content and of the encoder that read it; equal keys mean equal features.
        ids: the tokens in the language model's own vocabulary, ``[M, N]``, -1 where one can't be copied; None for what
            is not text of that vocabulary.
        names: of a picture, what is seen in it; these tokens follow those of the patches. None where nobody has named
            anything.
    """

    features: Float[Tensor, "M N D"]
    sources: tuple[Source, ...]
    mask: Bool[Tensor, "M N"] | None = None
    key: str = ""
    ids: Int[Tensor, "M N"] | None = None
    names: NameTokens | None = None

    def __len__(self) -> int:
        return self.features.shape[0]

    def to(self, *args: Any, **kwargs: Any) -> Memory:
        """The same memory on another device or in another floating-point type (as ``Tensor.to``)."""

        def move(tensor: Tensor) -> Tensor:
            moved = tensor.to(*args, **kwargs)
            return moved if tensor.is_floating_point() else tensor.to(moved.device)

        features = move(self.features)
        mask = None if self.mask is None else move(self.mask)
        ids = None if self.ids is None else move(self.ids)
        names = None if self.names is None else self.names.map(move)
        return replace(self, features=features, mask=mask, ids=ids, names=names)

    def some(self, items: Sequence[int]) -> Memory:
        """Some of its items, in a given order, without where they came from."""
        chosen = torch.tensor(list(items), dtype=torch.long, device=self.features.device)
        mask = None if self.mask is None else self.mask[chosen]
        ids = None if self.ids is None else self.ids[chosen]
        names = None if self.names is None else self.names.map(lambda tensor: tensor[chosen])
        return Memory(self.features[chosen], (), mask, ids=ids, names=names)


@dataclass(frozen=True, eq=False)
class ItemKeys:
    """The items of memories as a fusion layer chooses among them, laid out for ``G`` groups of rows.

    Attributes:
        top: how many items a text token looks at.
        bounds: of each item the elementwise greatest and, beside them, least of its keys,
            ``[G, kv_heads, I, 2 * head_dim]``.
        owners: for each memory token the place of its item among its group's, ``[G, S]``.
        firsts: where the first token of each item lies, ``[G, I]``; the others follow it.
        lengths: tokens of each item, ``[G, I]``; 0 where there is none.
        longest: tokens of the longest one.
    """

    top: int
    bounds: Float[Tensor, "G kv_heads I bounds"]
    owners: Int[Tensor, "G S"]
    firsts: Int[Tensor, "G I"]
    lengths: Int[Tensor, "G I"]
    longest: int


@dataclass(frozen=True, eq=False)
class KeyValues:
    """A memory as one fusion layer reads it.

    Attributes:
        keys: ``[M, kv_heads, N, head_dim]``.
        values: ``[M, kv_heads, N, head_dim]``.
        mask: True where a token may be looked at, ``[M, N]``; None when all may.
        items: what the most promising items are chosen by, once they are laid out for a batch; None to look at all.
    """

    keys: Float[Tensor, "M kv_heads N head_dim"]
    values: Float[Tensor, "M kv_heads N head_dim"]
    mask: Bool[Tensor, "M N"] | None = None
    items: ItemKeys | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> KeyValues:
        """Apply ``function`` to each tensor."""
        mask = None if self.mask is None else function(self.mask)
        return KeyValues(function(self.keys), function(self.values), mask)

    def padded(self, more: int) -> KeyValues:
        """The same with so many tokens more, of zeros; masks and items are left to who knows what they are to say."""
        return replace(self, keys=F.pad(self.keys, (0, 0, 0, more)), values=F.pad(self.values, (0, 0, 0, more)))


@dataclass(frozen=True, eq=False)
class CopyKeys:
    """The tokens of a memory as a copy gate finds them.

    Attributes:
        keys: ``[M, N, width]``.
        ids: the tokens in the language model's vocabulary, ``[M, N]``; -1 where one can't be copied.
        after: the token that has to be the last one written where one is copied, ``[M, N]``, -1 where any may be: a
            name goes on only where it was begun. None where any may be for all of them.
    """

    keys: Float[Tensor, "M N width"]
    ids: Int[Tensor, "M N"]
    after: Int[Tensor, "M N"] | None = None

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors."""
        return [self.keys, self.ids, *([] if self.after is None else [self.after])]

    def map(self, function: Callable[[Tensor], Tensor]) -> CopyKeys:
        """Apply ``function`` to each tensor."""
        return CopyKeys(*map(function, self.tensors))

    def padded(self, more: int) -> CopyKeys:
        """The same with so many tokens more, which can't be copied."""
        keys, *tokens = self.tensors
        return CopyKeys(F.pad(keys, (0, 0, 0, more)), *(F.pad(one, (0, more), value=-1) for one in tokens))

    @classmethod
    def concatenate(cls, parts: Sequence[CopyKeys]) -> CopyKeys:
        """The items of several, one after another; all of them have ``after``, or none."""
        return cls(*(torch.cat(same) for same in zip(*(part.tensors for part in parts), strict=True)))


@dataclass(frozen=True, eq=False)
class ReadMemory:
    """A memory after a weave has read it: keys and values for each of its fusion layers.

    It can be kept, shared between rows, questions and beams, and moved between devices.

    Attributes:
        weave: name of the weave that read it.
        layers: one :class:`KeyValues` for each fusion layer of that weave.
        sources: where the tokens of each item came from.
        key: hash of the content, the encoder and the weave.
        copying: its tokens, for a weave that copies; None for one that does not.
    """

    weave: str
    layers: tuple[KeyValues, ...]
    sources: tuple[Source, ...] = ()
    key: str = ""
    copying: CopyKeys | None = None

    def __len__(self) -> int:
        return self.layers[0].keys.shape[0]

    @classmethod
    def concatenate(cls, reads: Sequence[ReadMemory]) -> ReadMemory:
        """The items of several memories that one weave has read, one after another; short ones are padded and masked.

        Raises:
            ValueError: they are of several weaves.
        """
        first = reads[0]
        if len(reads) == 1:
            return first
        if any(read.weave != first.weave or (read.copying is None) != (first.copying is None) for read in reads):
            raise ValueError("only memories of one weave can be laid side by side")
        width = max(read.tokens for read in reads)
        padded = [read._padded(width) for read in reads]
        layers = tuple(
            KeyValues(
                torch.cat([layer.keys for layer in same]),
                torch.cat([layer.values for layer in same]),
                _joined_masks(same),
            )
            for same in zip(*(read.layers for read in padded), strict=True)
        )
        sources = tuple(source for read in reads for source in read.sources)
        key = content_hash(*(read.key for read in reads)) if all(read.key for read in reads) else ""
        held = [read.copying for read in padded if read.copying is not None]
        copying = CopyKeys.concatenate(held) if held else None
        return cls(first.weave, layers, sources, key, copying)

    def _padded(self, width: int) -> ReadMemory:
        """The same with items of ``width`` tokens, those behind the last one masked."""
        more = width - self.tokens
        if not more:
            return self
        layers = []
        for layer in self.layers:
            real = torch.ones(len(self), self.tokens, dtype=torch.bool, device=layer.keys.device)
            layers.append(
                replace(layer.padded(more), mask=F.pad(real if layer.mask is None else layer.mask, (0, more)))
            )
        copying = None if self.copying is None else self.copying.padded(more)
        return replace(self, layers=tuple(layers), copying=copying)

    def item(self, index: int) -> ReadMemory:
        """One of its items, as a view without the padding behind it."""
        mask = self.layers[0].mask
        tokens = self.tokens if mask is None else int(mask[index].sum()) and int(mask[index].nonzero().max()) + 1
        whole = mask is None or bool(mask[index, :tokens].all())
        layers = tuple(
            KeyValues(
                layer.keys[index : index + 1, :, :tokens],
                layer.values[index : index + 1, :, :tokens],
                None if whole or layer.mask is None else layer.mask[index : index + 1, :tokens],
            )
            for layer in self.layers
        )
        key = content_hash(self.key, str(index)) if self.key else ""
        copying = None if self.copying is None else self.copying.map(lambda t: t[index : index + 1, :tokens])
        return ReadMemory(self.weave, layers, self.sources[index : index + 1], key, copying)

    def apart(self) -> list[ReadMemory]:
        """Its items, each in storage of its own, so that one can be kept without the others."""

        def owned(item: ReadMemory) -> ReadMemory:
            copying = None if item.copying is None else item.copying.map(torch.clone)
            return replace(item, layers=tuple(layer.map(torch.clone) for layer in item.layers), copying=copying)

        return [self] if len(self) == 1 else [owned(self.item(index)) for index in range(len(self))]

    @property
    def tokens(self) -> int:
        """Tokens of one item, padding counted."""
        return self.layers[0].keys.shape[2]

    @property
    def bytes(self) -> int:
        """Memory that keys and values take."""
        tensors = [tensor for layer in self.layers for tensor in (layer.keys, layer.values)]
        tensors += [] if self.copying is None else self.copying.tensors
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def to(self, *args: Any, **kwargs: Any) -> ReadMemory:
        """The same memory on another device or in another floating-point type (as ``Tensor.to``)."""

        def move(tensor: Tensor) -> Tensor:
            moved = tensor.to(*args, **kwargs)
            return moved if tensor.is_floating_point() else tensor.to(moved.device)

        copying = None if self.copying is None else self.copying.map(move)
        return replace(self, layers=tuple(layer.map(move) for layer in self.layers), copying=copying)


def _joined_masks(layers: Sequence[KeyValues]) -> Bool[Tensor, "M N"] | None:
    """The masks of several memories, one after another; None where none has any."""
    if all(layer.mask is None for layer in layers):
        return None
    return torch.cat(
        [
            torch.ones(len(layer.keys), layer.keys.shape[2], dtype=torch.bool, device=layer.keys.device)
            if layer.mask is None
            else layer.mask
            for layer in layers
        ]
    )


@dataclass(frozen=True, eq=False)
class Placement:
    """Which items each row of a batch holds, and where they stand in its text.

    Attributes:
        items: index of each row's items in the memory, ``[B, I]``, in the order of the text; -1 where a row has fewer.
        starts: the column of ``input_ids`` (padding counted) from which on an item may be seen, ``[B, I]``.
    """

    items: Int[Tensor, "B I"]
    starts: Int[Tensor, "B I"]

    @classmethod
    def of(cls, rows: Sequence[Iterable[tuple[int, int]]]) -> Placement:
        """From a list of ``(item, start)`` pairs for each row."""
        pairs = [list(row) for row in rows]
        width = max([len(row) for row in pairs], default=0) or 1
        padded = [row + [(-1, 0)] * (width - len(row)) for row in pairs]
        table = torch.tensor(padded, dtype=torch.long).reshape(len(pairs), width, 2)
        return cls(items=table[..., 0].contiguous(), starts=table[..., 1].contiguous())

    def to(self, device: torch.device | str) -> Placement:
        """The same placement on another device."""
        return Placement(self.items.to(device), self.starts.to(device))

    def repeat_rows(self, times: int) -> Placement:
        """Each row ``times`` times over, next to one another (as beam search and sampling lay them)."""
        return Placement(self.items.repeat_interleave(times, 0), self.starts.repeat_interleave(times, 0))

    def visible(self, columns: Int[Tensor, " T"], sees: Sees = "all") -> Bool[Tensor, "B T I"]:
        """True where the token in a column may look at an item of its row.

        Args:
            columns: columns of ``input_ids`` that are being computed, ``[T]``.
            sees: ``"all"`` items that stand before a token, or only the ``"last"`` one.
        """
        begun = (self.items >= 0)[:, None, :] & (self.starts[:, None, :] <= columns[None, :, None])
        if sees == "all":
            return begun
        later = begun[..., 1:].flip(-1).cumsum(-1).flip(-1) > 0
        last = begun.clone()
        last[..., :-1] &= ~later
        return last
