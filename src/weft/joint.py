"""Joint attention: a fusion layer whose text tokens look at a memory and at the text since it, in one softmax.

:class:`JointFusion` is given hidden states, what it has read of a memory, and :class:`TextKeys`: keys and values that
the layer itself makes of the hidden states of the text. Where the memory has nothing to say, a token falls back on the
text: a gate that needs no learning (CASA, Böhle et al. 2025, arXiv 2512.19535). Which text is to be looked at, and
where its keys are kept while decoding, is known to :mod:`weft.joint_text` and :mod:`weft.rows`.

Notation: as in :mod:`weft.fusion`; ``R`` rows in ``G`` groups of neighbours that share a memory of ``S`` tokens, each
row with a text of ``N`` tokens, of which the last ``T`` look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from weft.attention import scores, similarities
from weft.choosing import narrowed
from weft.fusion import GatedCrossAttention, Rotation, rotated, rotation
from weft.memory import KeyValues


@dataclass(frozen=True, eq=False)
class TextKeys:
    """The text on which ``T`` tokens of each row may fall back, as one fusion layer looks at it.

    Attributes:
        keys: ``[R, kv_heads, N, head_dim]``, turned by their positions where the layer has rotary ones.
        values: ``[R, kv_heads, N, head_dim]``.
        visible: True where a token may look at another, or at itself, ``[R, T, N]``; None when all may look at all.
        rotation: of the tokens that look; None where nothing is turned.
    """

    keys: Float[Tensor, "R kv_heads N head_dim"]
    values: Float[Tensor, "R kv_heads N head_dim"]
    visible: Bool[Tensor, "R T N"] | None = None
    rotation: Rotation | None = None


class Texts(Protocol):
    """The texts of rows that decode side by side, to which a fusion layer adds what it makes of their newest tokens."""

    @property
    def rotation(self) -> Rotation | None:
        """Of the tokens that are added; None where nothing is turned."""
        ...

    def add(
        self, keys: Float[Tensor, "R kv_heads T head_dim"], values: Float[Tensor, "R kv_heads T head_dim"]
    ) -> Sequence[TextKeys]:
        """Keep keys and values of these tokens; returns the text of the rows of each memory, these tokens included."""
        ...


class JointFusion(GatedCrossAttention):
    """A fusion layer in which a text token looks at its memory and at the text since, in one softmax.

    Identical to :class:`~weft.fusion.GatedCrossAttention`, parameters included, except that the keys and values that
    ``k_proj`` and ``v_proj`` make of the text's normalized hidden states stand beside those of the memory:

    .. math::
        \\mathrm{softmax}\\big([\\,q K_x^T,\\; \\tilde q \\tilde K_h^T\\,] / \\sqrt{d}\\big)\\,[V_x; V_h]

    with x the memory and h the text. With rotary positions (a tilde) a text token looks at another by the distance
    between them, while every memory item stands right before whoever reads, as always. Without, text has no positions.

    Raises:
        ValueError: the memory is not as wide as the hidden states, so that no projection serves both.
    """

    def __init__(self, hidden_size: int, memory_size: int, **options: Any) -> None:
        super().__init__(hidden_size, memory_size, **options)
        if hidden_size != memory_size:
            raise ValueError(
                f"A joint fusion layer reads text and memory by the same projections: a memory of width {memory_size} "
                f"does not go with hidden states of width {hidden_size}; put a connector in front of it."
            )

    def rotation(self, positions: Int[Tensor, "R T"]) -> Rotation | None:
        """By how much text that stands there is turned; None where the layer has no rotary positions."""
        return rotation(positions, self.head_dim, self.rotary_theta) if self.rotary_theta else None

    def read_text(
        self, hidden: Float[Tensor, "R T H"], rotation: Rotation | None = None
    ) -> tuple[Float[Tensor, "R kv_heads T head_dim"], Float[Tensor, "R kv_heads T head_dim"]]:
        """Keys and values of text.

        Args:
            hidden: its hidden states in front of the layer.
            rotation: what :meth:`rotation` gave for its positions.
        """
        hidden = self.hidden_norm(hidden)
        keys = self.k_norm(self._split(self.k_proj(hidden)))
        return keys if rotation is None else rotated(keys, rotation), self._split(self.v_proj(hidden))

    def forward(
        self,
        hidden: Float[Tensor, "R T H"],
        keyvalues: KeyValues,
        visible: Bool[Tensor, "R T S"] | None = None,
        text: TextKeys | None = None,
    ) -> Float[Tensor, "R T H"]:
        """Let each text token look at its row's memory and at the text.

        Args:
            hidden: hidden states, ``[R, T, H]``.
            keyvalues: what :meth:`read` returned, an item for each group of neighbouring rows.
            visible: True where a text token may look at a memory token, ``[R, T, S]``; None when all see all that the
                memory's own mask allows. A token that may look at no memory keeps its hidden state, bit for bit.
            text: the text; None to look at the memory alone, one item a row, as any fusion layer does.
        """
        if text is None:
            return super().forward(hidden, keyvalues, visible)
        visible = _with_own_mask(visible, keyvalues, hidden)
        looked, _ = self.look(self._queries(hidden), keyvalues, visible, text)
        fused = self._taken_up(hidden, looked)
        return fused if visible is None else torch.where(visible.any(-1, keepdim=True), fused, hidden)

    def forward_each(
        self,
        hidden: Float[Tensor, "R T H"],
        memories: Sequence[KeyValues],
        counts: Sequence[int],
        visible: Sequence[Bool[Tensor, "1 T S"] | None],
        texts: Texts | None = None,
    ) -> Float[Tensor, "R T H"]:
        """As :meth:`weft.fusion.GatedCrossAttention.forward_each`, each memory's rows with a text of their own length.

        Args:
            hidden: hidden states, ``[R, T, H]``.
            memories: what :meth:`read` returned, one item each.
            counts: how many neighbouring rows look at each; their sum is ``R``.
            visible: for each what the tokens of its rows may look at; None when all may look at all.
            texts: the rows' texts, to which these tokens are added; None to look at memories alone.
        """
        if texts is None:
            return super().forward_each(hidden, memories, counts, visible)
        added = texts.add(*self.read_text(hidden, texts.rotation))
        parts = zip(self._queries(hidden).split(counts), memories, visible, added, strict=True)
        looked = torch.cat([self.look(own, memory, sees, text)[0] for own, memory, sees, text in parts])
        return self._where_seen(self._taken_up(hidden, looked), hidden, counts, visible)

    def look(
        self,
        queries: Float[Tensor, "R heads T head_dim"],
        keyvalues: KeyValues,
        visible: Bool[Tensor, "#R T S"] | None,
        text: TextKeys,
    ) -> tuple[Float[Tensor, "R heads T head_dim"], Float[Tensor, "R heads T S"]]:
        """What queries find, and how much of their attention went to each memory token; the rest went to the text.

        Memories are looked at where they are: rows that share one ask as if they were tokens of one row.
        """
        rows, memory = queries.shape[0], keyvalues.keys.shape[0]
        visible = _chosen(queries, keyvalues, visible)
        with torch.autocast(queries.device.type, enabled=False):  # it would compute the steps in less than float32
            asked = similarities(_folded(queries, keyvalues.keys), keyvalues.keys)
            turned = queries if text.rotation is None else rotated(queries, text.rotation)
            recalled = similarities(_folded(turned, text.keys), text.keys)
            both = torch.cat((_unfolded(asked, queries, memory), _unfolded(recalled, queries, rows)), -1)
            weights = scores(both, _joined(visible, text.visible, both))
            on_memory, on_text = weights.tensor_split((keyvalues.keys.shape[2],), -1)
            found = _folded(on_memory, keyvalues.keys) @ keyvalues.values.to(weights.dtype)
            said = _folded(on_text, text.keys) @ text.values.to(weights.dtype)
            whole = _unfolded(found, queries, memory) + _unfolded(said, queries, rows)
        return whole.to(keyvalues.values.dtype), on_memory

    def weights(
        self,
        hidden: Float[Tensor, "R T H"],
        keyvalues: KeyValues,
        visible: Bool[Tensor, "R T S"] | None = None,
        text: TextKeys | None = None,
    ) -> Float[Tensor, "R heads T S"]:
        """The attention weights with which :meth:`forward` looks at the memory; with what went to the text, they sum
        to one."""
        if text is None:
            return super().weights(hidden, keyvalues, visible)
        return self.look(self._queries(hidden), keyvalues, _with_own_mask(visible, keyvalues, hidden), text)[1]


def _with_own_mask(
    visible: Bool[Tensor, "R T S"] | None, keyvalues: KeyValues, hidden: Float[Tensor, "R T H"]
) -> Bool[Tensor, "R T S"] | None:
    if keyvalues.mask is None:
        return visible
    rows, tokens = hidden.shape[:2]
    mask = keyvalues.mask.repeat_interleave(rows // len(keyvalues.mask), 0)[:, None].expand(-1, tokens, -1)
    return mask if visible is None else visible & mask


def _folded(
    asking: Float[Tensor, "R heads T width"], keys: Float[Tensor, "groups kv_heads N head_dim"]
) -> Float[Tensor, "groups kv_heads asking width"]:
    """Rows that share a memory, and heads that share keys, laid end to end as if they were tokens."""
    parts = asking.unflatten(0, (keys.shape[0], -1)).unflatten(2, (keys.shape[1], -1))
    return parts.permute(0, 2, 1, 3, 4, 5).flatten(2, 4)


def _unfolded(
    found: Float[Tensor, "groups kv_heads asking width"], asking: Float[Tensor, "R heads T head_dim"], groups: int
) -> Float[Tensor, "R heads T width"]:
    """The way back from :func:`_folded`."""
    rows, heads, tokens = asking.shape[:3]
    parts = found.unflatten(2, (rows // groups, heads // found.shape[1], tokens))
    return parts.permute(0, 2, 1, 3, 4, 5).reshape(rows, heads, tokens, found.shape[-1])


def _chosen(
    queries: Float[Tensor, "R heads T head_dim"], keyvalues: KeyValues, visible: Bool[Tensor, "#R T S"] | None
) -> Bool[Tensor, "#R T S"] | None:
    """What a text token looks at of its memory where it looks at the most promising items only."""
    if keyvalues.items is None:
        return visible
    (rows, _, tokens, _), groups = queries.shape, keyvalues.keys.shape[0]
    folded = queries.unflatten(0, (groups, -1)).transpose(1, 2).flatten(2, 3)
    if visible is not None:
        visible = visible.expand(rows, -1, -1).reshape(groups, -1, visible.shape[-1])
    mask = narrowed(folded, keyvalues, visible)
    return None if mask is None else mask.reshape(rows, tokens, -1)


def _joined(
    memory: Bool[Tensor, "#R T S"] | None, text: Bool[Tensor, "R T N"] | None, both: Float[Tensor, "R heads T SN"]
) -> Bool[Tensor, "R 1 T SN"] | None:
    """One mask of two."""
    if memory is None and text is None:
        return None
    (rows, _, tokens, width), device = both.shape, both.device
    if memory is None:
        assert text is not None
        memory = torch.ones(rows, tokens, width - text.shape[-1], dtype=torch.bool, device=device)
    if text is None:
        text = torch.ones(rows, tokens, width - memory.shape[-1], dtype=torch.bool, device=device)
    return torch.cat((memory.to(device).expand(rows, -1, -1), text.to(device)), -1)[:, None]
