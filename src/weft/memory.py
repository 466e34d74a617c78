"""What a language model can read, as immutable values.

A vision encoder hands on a :class:`Memory` (features of pictures and where in each picture they came from).
A weave reads it once into a :class:`ReadMemory`: keys and values for each of its fusion layers.
:class:`Placement` says which row of a batch holds which items of it, and from which text token on.
Nothing here computes attention; nothing here knows a language model.

Notation: ``M`` items (pictures, passages), ``N`` tokens an item, ``D`` width, ``B`` rows, ``I`` items a row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Sees = Literal["last", "all"]
"""What a text token looks at: the last item placed before it, or all items placed before it."""


@dataclass(frozen=True, eq=False)
class Picture:
    """Where the tokens of one picture came from.

    Attributes:
        size: width and height of the original picture in pixels, after its EXIF orientation.
        rectangles: for every token its ``(left, top, right, bottom)`` in pixels of the original picture, with
            resize, crop and padding undone. They may reach over the edge where the encoder padded the picture.
        name: the file it was read from, or a description of it.
    """

    size: tuple[int, int]
    rectangles: Float[np.ndarray, "N 4"]
    name: str = "picture"


@dataclass(frozen=True, eq=False)
class Memory:
    """An encoded sequence that a language model can read: ``N`` tokens for each of ``M`` items.

    Attributes:
        features: the encoder's output, ``[M, N, D]``.
        sources: where the tokens of each item came from, ``M`` of them.
        mask: True where a token is real and may be looked at, ``[M, N]``; None when all are.
        key: hash of the content and of the encoder that read it; equal keys mean equal features.
    """

    features: Float[Tensor, "M N D"]
    sources: tuple[Picture, ...]
    mask: Bool[Tensor, "M N"] | None = None
    key: str = ""

    def __len__(self) -> int:
        return self.features.shape[0]

    def to(self, *args: Any, **kwargs: Any) -> Memory:
        """The same memory on another device or in another floating-point type (as ``Tensor.to``)."""
        features = self.features.to(*args, **kwargs)
        mask = None if self.mask is None else self.mask.to(features.device)
        return replace(self, features=features, mask=mask)


@dataclass(frozen=True, eq=False)
class KeyValues:
    """A memory as one fusion layer reads it.

    Attributes:
        keys: ``[M, kv_heads, N, head_dim]``.
        values: ``[M, kv_heads, N, head_dim]``.
        mask: True where a token may be looked at, ``[M, N]``; None when all may.
    """

    keys: Float[Tensor, "M kv_heads N head_dim"]
    values: Float[Tensor, "M kv_heads N head_dim"]
    mask: Bool[Tensor, "M N"] | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> KeyValues:
        """Apply ``function`` to each tensor."""
        mask = None if self.mask is None else function(self.mask)
        return KeyValues(function(self.keys), function(self.values), mask)


@dataclass(frozen=True, eq=False)
class ReadMemory:
    """A memory after a weave has read it: keys and values for each of its fusion layers.

    It can be kept, shared between rows, questions and beams, and moved between devices.

    Attributes:
        weave: name of the weave that read it.
        layers: one :class:`KeyValues` for each fusion layer of that weave.
        sources: where the tokens of each item came from.
        key: hash of the content, the encoder and the weave.
    """

    weave: str
    layers: tuple[KeyValues, ...]
    sources: tuple[Picture, ...] = ()
    key: str = ""

    def __len__(self) -> int:
        return self.layers[0].keys.shape[0]

    @classmethod
    def concatenate(cls, reads: Sequence[ReadMemory]) -> ReadMemory:
        """The items of several memories that one weave has read, one after another.

        Raises:
            ValueError: they are of several weaves, or some have masks and some have none.
        """
        first = reads[0]
        if any(
            read.weave != first.weave or (read.layers[0].mask is None) != (first.layers[0].mask is None)
            for read in reads
        ):
            raise ValueError("only memories of one weave, all masked or none, can be laid side by side")
        layers = tuple(
            KeyValues(
                torch.cat([layer.keys for layer in same]),
                torch.cat([layer.values for layer in same]),
                None if same[0].mask is None else torch.cat([layer.mask for layer in same]),
            )
            for same in zip(*(read.layers for read in reads), strict=True)
        )
        sources = tuple(source for read in reads for source in read.sources)
        key = content_hash(*(read.key for read in reads)) if all(read.key for read in reads) else ""
        return cls(first.weave, layers, sources, key)

    def item(self, index: int) -> ReadMemory:
        """One of its items, as a view."""
        layers = tuple(layer.map(lambda tensor: tensor[index : index + 1]) for layer in self.layers)
        key = content_hash(self.key, str(index)) if self.key else ""
        return ReadMemory(self.weave, layers, self.sources[index : index + 1], key)

    @property
    def tokens(self) -> int:
        """Tokens of one item."""
        return self.layers[0].keys.shape[2]

    @property
    def bytes(self) -> int:
        """Memory that keys and values take."""
        return sum(
            tensor.numel() * tensor.element_size() for layer in self.layers for tensor in (layer.keys, layer.values)
        )

    def to(self, *args: Any, **kwargs: Any) -> ReadMemory:
        """The same memory on another device or in another floating-point type (as ``Tensor.to``)."""

        def move(tensor: Tensor) -> Tensor:
            moved = tensor.to(*args, **kwargs)
            return moved if tensor.is_floating_point() else tensor.to(moved.device)

        return replace(self, layers=tuple(layer.map(move) for layer in self.layers))


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


def content_hash(*parts: bytes | str) -> str:
    """A short stable name (32 hex digits of SHA-256) for bytes and strings, order and boundaries included."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:32]
