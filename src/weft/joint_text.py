"""The text that joint fusion layers look at while a language model of transformers runs.

:class:`Text` is what one call of the language model knows of its text: which columns are computed, what may look at
what, and where tokens stand. For a joint fusion layer it hands on :class:`~weft.joint.TextKeys`. What was computed by
earlier calls is kept in the language model's own cache, in layers behind its own, so that beams, crops and repeated
rows are followed as they are there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from transformers.cache_utils import Cache, DynamicLayer, StaticLayer

from weft.batch import BatchMemory
from weft.errors import WeftError
from weft.joint import JointFusion, TextKeys


class _Kept(DynamicLayer):
    """Keys and values of the text, as one joint fusion layer reads it, from the column ``begin`` on."""

    def __init__(self, name: str, begin: int) -> None:
        super().__init__()
        self.name, self.begin = name, begin


class _KeptStatic(StaticLayer):
    """The same in a cache of fixed length, from the first column on."""

    def __init__(self, name: str, max_cache_len: int) -> None:
        super().__init__(max_cache_len)
        self.name, self.begin = name, 0


@dataclass(frozen=True, eq=False)
class Text:
    """What one call of a language model knows of its text.

    Attributes:
        columns: the columns of the text that are computed, ``[T]``.
        depth: decoder layers of the language model.
        mask: the attention mask that the language model is given: of tokens that are no padding, ``[B, N]``; of what a
            token may look at, ``[B, heads, T, N]``, boolean or to be added; None when there is none.
        positions: where tokens stand, ``[B, T]``; None where they stand in their columns.
    """

    columns: Int[Tensor, " T"]
    depth: int
    mask: Tensor | None = None
    positions: Int[Tensor, "B T"] | None = None

    @classmethod
    def of(cls, columns: Int[Tensor, " T"], depth: int, inputs: Mapping[str, Any]) -> Text:
        """The text of a call.

        Args:
            columns: the columns that are computed.
            depth: decoder layers of the language model.
            inputs: what the language model is called with.
        """
        mask, positions = inputs.get("attention_mask"), inputs.get("position_ids")
        if isinstance(mask, Mapping):
            mask = mask.get("full_attention")
        return cls(columns, depth, mask, positions if positions is not None and positions.ndim == 2 else None)

    def keys(
        self, layer: JointFusion, name: str, hidden: Float[Tensor, "B T H"], memory: BatchMemory, given: Sequence[Any]
    ) -> TextKeys:
        """The text as a joint fusion layer looks at it, for the rows that have memory.

        Args:
            layer: the layer.
            name: its name in the cache.
            hidden: hidden states in front of it, of all rows.
            memory: what the rows read.
            given: what the decoder layer is called with, the language model's cache perhaps among it; what is computed
                now is added to that.

        Raises:
            WeftError: earlier text is nowhere to be found, or only a part of it, or the cache has no place for it.
        """
        rows = None if memory.rows is None else memory.rows.to(hidden.device)
        positions = self._positions(len(hidden), hidden.device)
        if rows is not None:
            reading, positions = hidden[rows], positions[rows]
        else:
            reading = hidden
        if not torch.is_autocast_enabled(hidden.device.type):
            reading = reading.to(layer.q_proj.weight.dtype)
        rotation = layer.rotation(positions)
        keys, values = layer.read_text(reading, rotation)
        cache, begin = next((one for one in given if isinstance(one, Cache)), None), 0
        if cache is not None:
            kept = self._kept(cache, name)
            keys, values = kept.update(_spread(keys, rows, len(hidden)), _spread(values, rows, len(hidden)))
            begin = kept.begin
            if rows is not None:
                keys, values = keys[rows], values[rows]
        elif not torch.compiler.is_compiling() and int(self.columns[0]) > 0:
            raise WeftError(
                "A joint weave looks at the text since the picture, which this language model does not keep in a cache "
                "of transformers; give use_cache=False."
            )
        return TextKeys(keys, values, self._visible(memory, rows, keys, begin), rotation)

    def _kept(self, cache: Cache, name: str) -> _Kept | _KeptStatic:
        """The layer of a cache that keeps the text for a joint fusion layer; added when it is first asked for."""
        for layer in cache.layers:
            if isinstance(layer, _KeptStatic) and layer.name == name:
                return layer
            if isinstance(layer, _Kept) and layer.name == name:
                if not torch.compiler.is_compiling() and layer.begin + layer.get_seq_length() != int(self.columns[0]):
                    raise WeftError(
                        "Some of the text in the cache was computed without the memories of its joint weave; give them "
                        "with every part of the text."
                    )
                return layer
        while cache.layer_class_to_replicate is not None and len(cache.layers) < self.depth:
            cache.layers.append(cache.layer_class_to_replicate())  # so that ours comes behind the language model's own
        static = [layer for layer in cache.layers if isinstance(layer, StaticLayer)]
        if any(layer.is_sliding for layer in static):
            raise WeftError("A joint weave needs a cache in which nothing slides; leave out cache_implementation.")
        made: _Kept | _KeptStatic = (
            _KeptStatic(name, static[0].max_cache_len) if static else _Kept(name, int(self.columns[0]))
        )
        cache.layers.append(made)
        return made

    def _positions(self, rows: int, device: torch.device) -> Int[Tensor, "B T"]:
        positions = self.columns[None] if self.positions is None else self.positions
        return positions.to(device).expand(rows, -1)

    def _visible(
        self,
        memory: BatchMemory,
        rows: Int[Tensor, " R"] | None,
        keys: Float[Tensor, "R kv_heads N head_dim"],
        begin: int,
    ) -> Bool[Tensor, "R T N"]:
        """True where a token may look at another: at those before it, from its row's first picture or passage on.

        ``begin`` is the column of the first key.
        """
        device, end, mask = keys.device, begin + keys.shape[2], self.mask
        places = torch.arange(begin, end, device=device)
        seen = places >= memory.since(self.columns).to(device)[..., None]
        if mask is not None and mask.ndim == 4:
            allowed = (mask if mask.dtype == torch.bool else mask >= 0)[:, 0, :, begin:end].to(device)
            return seen & (allowed if rows is None or len(allowed) == 1 else allowed[rows])
        seen = seen & (places <= self.columns.to(device)[:, None])
        if mask is None:
            return seen
        real = F.pad(mask.to(device).bool(), (0, max(0, end - mask.shape[1])))[:, begin:end]
        return seen & (real if rows is None or len(real) == 1 else real[rows])[:, None]


def _spread(
    tensor: Float[Tensor, "R kv_heads T head_dim"], rows: Int[Tensor, " R"] | None, count: int
) -> Float[Tensor, "B kv_heads T head_dim"]:
    """What belongs to some rows of a batch as it lies in the cache, with zeros for the others."""
    return tensor if rows is None else tensor.new_zeros(count, *tensor.shape[1:]).index_copy(0, rows, tensor)
