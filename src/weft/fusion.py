"""The woven layers: what is learned while the language model and the encoders stay as they are.

:class:`Connector` brings an encoder's features to the language model's width. :class:`GatedCrossAttention` is the
fusion layer: it reads a memory once into keys and values, and then lets hidden states look at them, as often as they
like, with no work on the memory left. :class:`Resampler` turns any number of memory tokens into a fixed number.
They are plain modules that know neither a language model nor a picture, and can be imported on their own.

Notation: ``G`` rows, ``T`` text tokens, ``H`` hidden size, ``M`` items, ``N`` memory tokens, ``D`` memory width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from weft.attention import attention
from weft.choosing import look, narrowed
from weft.memory import KeyValues, NameTokens


class RMSNorm(nn.RMSNorm):
    """``torch.nn.RMSNorm`` that computes in the type of its input, so mixed precision keeps the fused kernel."""

    def forward(self, x: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class FeedForward(nn.Module):
    """The gated feed-forward network of Llama: ``down(silu(gate(x)) * up(x))`` (Shazeer 2020, SwiGLU)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class GatedCrossAttention(nn.Module):
    """A fusion layer: hidden states look at a memory and take up what they find there, as far as two gates let it.

    .. math::
        h' = h + g_a W_o \\, \\mathrm{attention}(W_q \\hat h, W_k \\hat x, W_v \\hat x), \\qquad
        h'' = h' + g_f \\, \\mathrm{FFN}(\\hat h')

    with x the memory and a hat for RMS normalization; queries and keys are normalized per head as well
    (Henry et al. 2020). After Flamingo (Alayrac et al. 2022), except that the gates are plain scales which start at
    one, with output projections which start at zero: a new layer is the identity just as well, and learns sooner than
    behind a tanh gate that has to open first.

    Args:
        hidden_size: width ``H`` of the hidden states.
        memory_size: width ``D`` of the memory.
        heads: query heads.
        kv_heads: key/value heads, a divisor of ``heads`` (grouped-query attention).
        head_dim: width of a head.
        feed_forward: inner width of the feed-forward network; 0 for none.
        qk_norm: whether queries and keys are normalized per head.
        dropout: probability with which what a layer adds is dropped while training, element by element.
        rotary_theta: base of rotary positions (Su et al. 2021) of the memory's tokens, as if each item stood right
            before the text that reads it; 0 for none.
        eps: epsilon of the norms.

    Example:
        >>> layer = GatedCrossAttention(hidden_size=64, memory_size=32, heads=4, kv_heads=2, head_dim=16)
        >>> patches = torch.randn(1, 81, 32)
        >>> read = layer.read(patches)              # once for a picture
        >>> hidden = layer(torch.randn(1, 7, 64), read)   # for every text that looks at it
    """

    def __init__(
        self,
        hidden_size: int,
        memory_size: int,
        *,
        heads: int,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        feed_forward: int = 0,
        qk_norm: bool = True,
        dropout: float = 0.0,
        rotary_theta: float = 0.0,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        kv_heads = kv_heads or heads
        if heads % kv_heads:
            raise ValueError(f"{heads} query heads can't share {kv_heads} key/value heads evenly.")
        self.head_dim = head_dim or hidden_size // heads
        self.rotary_theta = rotary_theta
        self.hidden_norm = RMSNorm(hidden_size, eps=eps)
        self.memory_norm = RMSNorm(memory_size, eps=eps)
        self.q_proj = nn.Linear(hidden_size, heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(memory_size, kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(memory_size, kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(heads * self.head_dim, hidden_size, bias=False)
        self.q_norm = RMSNorm(self.head_dim, eps=eps) if qk_norm else nn.Identity()
        self.k_norm = RMSNorm(self.head_dim, eps=eps) if qk_norm else nn.Identity()
        self.attention_gate = nn.Parameter(torch.ones(()))
        nn.init.zeros_(self.o_proj.weight)
        self.feed_forward: FeedForward | None = None
        if feed_forward:
            self.feed_forward_norm = RMSNorm(hidden_size, eps=eps)
            self.feed_forward = FeedForward(hidden_size, feed_forward)
            self.feed_forward_gate = nn.Parameter(torch.ones(()))
            nn.init.zeros_(self.feed_forward.down_proj.weight)
        self.dropout = nn.Dropout(dropout)

    def read(self, features: Float[Tensor, "M N D"], mask: Bool[Tensor, "M N"] | None = None) -> KeyValues:
        """Project a memory to keys and values: all the work on the memory that this layer ever does.

        Args:
            features: the memory, ``[M, N, D]``.
            mask: True where a token may be looked at, ``[M, N]``; None when all may.
        """
        distances = _distances(features, mask) if self.rotary_theta else None
        both = project_real(self._keys_and_values, features, mask)
        keys, values = both.tensor_split((self.k_proj.out_features,), -1)
        keys = self.k_norm(self._split(keys))
        if distances is not None:
            keys = rotated(keys, rotation(distances, self.head_dim, self.rotary_theta))
        return KeyValues(keys, self._split(values), mask)

    def _keys_and_values(self, features: Float[Tensor, "R D"]) -> Float[Tensor, "R width"]:
        features = self.memory_norm(features)
        return torch.cat((self.k_proj(features), self.v_proj(features)), -1)

    def forward(
        self,
        hidden: Float[Tensor, "G T H"],
        keyvalues: KeyValues,
        visible: Bool[Tensor, "G T N"] | None = None,
    ) -> Float[Tensor, "G T H"]:
        """Let each text token look at its row's memory.

        Args:
            hidden: hidden states, ``[G, T, H]``.
            keyvalues: what :meth:`read` returned, one item a row.
            visible: True where a text token may look at a memory token, ``[G, T, N]``; None when all see all that the
                memory's own mask allows. A token that may look at nothing keeps its hidden state, bit for bit.
        """
        visible = _with_own_mask(visible, keyvalues, hidden.shape[1])
        looked = look(self._queries(hidden), keyvalues, visible)
        fused = self._taken_up(hidden, looked)
        return fused if visible is None else torch.where(visible.any(-1, keepdim=True), fused, hidden)

    def forward_each(
        self,
        hidden: Float[Tensor, "R T H"],
        memories: Sequence[KeyValues],
        counts: Sequence[int],
        visible: Sequence[Bool[Tensor, "1 T S"] | None],
    ) -> Float[Tensor, "R T H"]:
        """Let rows look at memories of their own, of any number of tokens: what :meth:`forward` does for each alone.

        Projections are computed for all rows together; memories are looked at where they are, and not copied.

        Args:
            hidden: hidden states, ``[R, T, H]``.
            memories: what :meth:`read` returned, one item each.
            counts: how many neighbouring rows look at each; their sum is ``R``.
            visible: for each what the tokens of its rows may look at; None when all may look at all.
        """
        tokens, looked = hidden.shape[1], []
        for queries, keyvalues, sees in zip(self._queries(hidden).split(counts), memories, visible, strict=True):
            # Rows that share a memory, and heads that share keys, ask as if they were tokens: nothing is repeated.
            kv_heads = keyvalues.keys.shape[1]
            mask = _with_own_mask(sees, keyvalues, tokens)
            if keyvalues.items is not None:
                mask = None if mask is None else mask.expand(len(queries), -1, -1).flatten(0, 1)[None]
                found = look(queries.transpose(0, 1).flatten(1, 2)[None], keyvalues, mask)[0]
                looked.append(found.unflatten(1, (-1, tokens)).transpose(0, 1))
                continue
            folded = queries.unflatten(1, (kv_heads, -1)).permute(1, 2, 0, 3, 4)
            if mask is not None:
                mask = mask.expand(len(queries), -1, -1).flatten(0, 1).repeat(folded.shape[1], 1)[None, None]
            found = attention(folded.flatten(1, 3)[None], keyvalues.keys, keyvalues.values, mask)
            looked.append(found.view(folded.shape).permute(2, 0, 1, 3, 4).flatten(1, 2))
        return self._where_seen(self._taken_up(hidden, torch.cat(looked)), hidden, counts, visible)

    def _where_seen(
        self,
        fused: Float[Tensor, "R T H"],
        hidden: Float[Tensor, "R T H"],
        counts: Sequence[int],
        visible: Sequence[Bool[Tensor, "1 T S"] | None],
    ) -> Float[Tensor, "R T H"]:
        """What has been found, where a token may look at anything; elsewhere its hidden state as it was."""
        if all(sees is None for sees in visible):
            return fused
        sees_some = [
            torch.ones(count, hidden.shape[1], 1, dtype=torch.bool)
            if sees is None
            else sees.any(-1, keepdim=True).expand(count, -1, -1)
            for sees, count in zip(visible, counts, strict=True)
        ]
        return torch.where(torch.cat(sees_some).to(hidden.device), fused, hidden)

    def _taken_up(
        self, hidden: Float[Tensor, "G T H"], looked: Float[Tensor, "G heads T head_dim"]
    ) -> Float[Tensor, "G T H"]:
        """Hidden states with what they have found, and with the feed-forward network behind it."""
        update = self.o_proj(looked.transpose(1, 2).flatten(2))
        fused = hidden + self.dropout(self.attention_gate * update)
        if self.feed_forward is not None:
            update = self.feed_forward(self.feed_forward_norm(fused))
            fused = fused + self.dropout(self.feed_forward_gate * update)
        return fused

    def weights(
        self,
        hidden: Float[Tensor, "G T H"],
        keyvalues: KeyValues,
        visible: Bool[Tensor, "G T N"] | None = None,
    ) -> Float[Tensor, "G heads T N"]:
        """The attention weights with which :meth:`forward` looks, for those who want to see them."""
        visible = _with_own_mask(visible, keyvalues, hidden.shape[1])
        queries = self._queries(hidden)
        mask = narrowed(queries, keyvalues, visible)
        _, weights = attention(queries, keyvalues.keys, keyvalues.values, _per_head(mask), need_weights=True)
        return weights

    def _queries(self, hidden: Float[Tensor, "G T H"]) -> Float[Tensor, "G heads T head_dim"]:
        return self.q_norm(self._split(self.q_proj(self.hidden_norm(hidden))))

    def _split(self, x: Float[Tensor, "G T width"]) -> Float[Tensor, "G heads T head_dim"]:
        return x.unflatten(-1, (x.shape[-1] // self.head_dim, self.head_dim)).transpose(1, 2)


def _with_own_mask(
    visible: Bool[Tensor, "G T N"] | None, keyvalues: KeyValues, rows: int
) -> Bool[Tensor, "G T N"] | None:
    if keyvalues.mask is None:
        return visible
    mask = keyvalues.mask[:, None, :]
    return mask.expand(-1, rows, -1) if visible is None else visible & mask


def project_real(
    projection: Callable[[Tensor], Tensor], features: Float[Tensor, "M N D"], mask: Bool[Tensor, "M N"] | None
) -> Float[Tensor, "M N width"]:
    """A projection of the tokens that are real, with zeros for the others: padding is not worth projecting."""
    if mask is None:
        return projection(features)
    places = mask.flatten().nonzero()[:, 0]
    real = projection(features.flatten(0, 1).index_select(0, places))
    empty = real.new_zeros(mask.numel(), real.shape[-1])
    return empty.index_copy(0, places, real).view(*mask.shape, -1)


def _distances(features: Float[Tensor, "M N D"], mask: Bool[Tensor, "M N"] | None) -> Float[Tensor, "M N"]:
    """Where each token stands when the one that reads is at 0: the last of an item at -1, those before it below.

    Rotary scores depend on distances alone, so keys that are turned by these need no turning of the queries, and what
    an item is to a text depends neither on its neighbours nor on where it stands.
    """
    places = torch.arange(features.shape[1], device=features.device, dtype=torch.float32)
    lengths = torch.full((len(features), 1), features.shape[1], device=features.device)
    if mask is not None:
        lengths = ((places + 1) * mask).amax(1, keepdim=True)
    return places - lengths


Rotation = tuple[Float[Tensor, "M 1 N half"], Float[Tensor, "M 1 N half"]]
"""Cosines and sines of the angles by which tokens are turned."""


def rotation(positions: Float[Tensor, "M N"] | Int[Tensor, "M N"], width: int, theta: float) -> Rotation:
    """By how much rotary positions turn the tokens that stand there, in heads of a width."""
    half = width // 2
    frequencies = theta ** -(torch.arange(half, device=positions.device, dtype=torch.float32) / half)
    angles = (positions[:, None, :, None] * frequencies).float()
    return angles.cos(), angles.sin()


def rotated(heads: Float[Tensor, "M heads N head_dim"], rotation: Rotation) -> Float[Tensor, "M heads N head_dim"]:
    """Queries or keys turned by their positions, in the halves that Llama's rotary embedding pairs."""
    cos, sin = (one.to(heads.dtype) for one in rotation)
    first, second = heads.chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


def _per_head(visible: Bool[Tensor, "G T N"] | None) -> Bool[Tensor, "G 1 T N"] | None:
    return None if visible is None else visible[:, None]


class SelfAttentionLayer(nn.Module):
    """One pre-norm transformer layer in which the tokens of an item look at each other, in all directions."""

    def __init__(self, width: int, *, heads: int, feed_forward: int, dropout: float = 0.0, eps: float = 1e-6) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"a width of {width} can't be split into {heads} heads; choose a divisor of it")
        self.head_dim = width // heads
        self.norm = RMSNorm(width, eps=eps)
        self.qkv_proj = nn.Linear(width, 3 * width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)
        self.feed_forward_norm = RMSNorm(width, eps=eps)
        self.feed_forward = FeedForward(width, feed_forward)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "M N H"], mask: Bool[Tensor, "M N"] | None = None) -> Float[Tensor, "M N H"]:
        """``mask`` is True where a token may be looked at."""
        query, key, value = (
            part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for part in self.qkv_proj(self.norm(x)).chunk(3, -1)
        )
        looked = attention(query, key, value, None if mask is None else mask[:, None, None, :])
        x = x + self.dropout(self.o_proj(looked.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))


class NameEmbedding(nn.Module):
    """Tokens that name what is seen in a picture, as the connector takes them in among the patches.

    A token is the sum of what it says (its input embedding, projected), how sure that is (the confidence and its
    logarithm, projected) and what is seen at its place (the patches there), so that a name can be held against the
    picture before it is believed.

    Args:
        embedding_size: width ``E`` of the language model's input embeddings.
        hidden_size: width ``H`` of what is handed on.
    """

    def __init__(self, embedding_size: int, hidden_size: int) -> None:
        super().__init__()
        self.norm = RMSNorm(embedding_size, eps=1e-6)
        self.proj = nn.Linear(embedding_size, hidden_size, bias=False)
        self.confidence = nn.Linear(2, hidden_size)

    def forward(self, names: NameTokens, patches: Float[Tensor, "M N H"]) -> Float[Tensor, "M K H"]:
        """``patches`` are the picture's, projected and told their place."""
        weight = self.proj.weight
        sure = names.confidence.clamp(min=1e-3).to(weight.device)
        scales = torch.stack((sure, sure.log()), -1).to(weight.dtype)
        said = self.proj(self.norm(names.features.to(weight.device, weight.dtype)))
        return said + self.confidence(scales) + names.places.to(patches.device, patches.dtype) @ patches


class Connector(nn.Module):
    """Brings an encoder's features to the fusion layers' width, tells them their place, and lets them see each other.

    Args:
        memory_size: width ``D`` of the encoder's features.
        hidden_size: width ``H`` of what is handed on.
        tokens: tokens ``N`` an item, each with a learned position embedding; 0 for none (items of any length).
        layers: self-attention layers over the tokens of an item.
        heads: heads of those layers.
        feed_forward: inner width of their feed-forward network.
        dropout: probability with which features and what the layers add are dropped while training.
        embedding_size: width of the language model's input embeddings, for items in which names are seen; 0 for none.
    """

    def __init__(
        self,
        memory_size: int,
        hidden_size: int,
        *,
        tokens: int = 0,
        layers: int = 0,
        heads: int = 8,
        feed_forward: int = 0,
        dropout: float = 0.0,
        embedding_size: int = 0,
    ) -> None:
        super().__init__()
        self.norm = RMSNorm(memory_size, eps=1e-6)
        self.proj = nn.Linear(memory_size, hidden_size, bias=False)
        self.positions = nn.Parameter(torch.randn(tokens, hidden_size) * 0.02) if tokens else None
        self.names = NameEmbedding(embedding_size, hidden_size) if embedding_size else None
        self.layers = nn.ModuleList(
            SelfAttentionLayer(hidden_size, heads=heads, feed_forward=feed_forward or 2 * hidden_size, dropout=dropout)
            for _ in range(layers)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        features: Float[Tensor, "M N D"],
        mask: Bool[Tensor, "M S"] | None = None,
        names: NameTokens | None = None,
    ) -> Float[Tensor, "M S H"]:
        """Features as the fusion layers read them, ``N`` of patches or words and behind them ``K`` of names.

        Args:
            features: what the encoder made of the items.
            mask: True where a token is real, names among them.
            names: what is seen in the items; None where nothing is.

        Raises:
            ValueError: where the items have another number of tokens than there are position embeddings.
        """
        x = self.proj(self.dropout(self.norm(features)))
        if self.positions is not None:
            if len(self.positions) != x.shape[1]:
                raise ValueError(
                    f"The connector knows {len(self.positions)} positions and was given items of {x.shape[1]} tokens; "
                    "encode pictures at the size that the weave was made for."
                )
            x = x + self.positions.to(x.dtype)
        if names is not None and self.names is not None:
            x = torch.cat((x, self.names(names, x)), 1)
        for layer in self.layers:
            x = layer(x, mask)
        return x


class Resampler(nn.Module):
    """Learned queries read an item of any number of tokens and hand on a fixed number (Perceiver, Jaegle et al. 2021).

    Args:
        width: width of the memory, ``D``.
        tokens: how many tokens to hand on, ``K``.
        layers: times that the queries look.
        heads: heads of each look.
        feed_forward: inner width of the feed-forward networks.

    Example:
        >>> Resampler(32, tokens=8, heads=4)(torch.randn(2, 1000, 32)).shape
        torch.Size([2, 8, 32])
    """

    def __init__(self, width: int, *, tokens: int, layers: int = 2, heads: int = 8, feed_forward: int = 0) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.layers = nn.ModuleList(
            GatedCrossAttention(width, width, heads=heads, feed_forward=feed_forward or 2 * width)
            for _ in range(layers)
        )
        for name, parameter in self.layers.named_parameters():
            # A resampler has no language model to leave undisturbed, so its layers start open.
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.xavier_uniform_(parameter)
        self.norm = RMSNorm(width, eps=1e-6)

    def forward(
        self, features: Float[Tensor, "M N D"], mask: Bool[Tensor, "M N"] | None = None
    ) -> Float[Tensor, "M K D"]:
        """``mask`` is True where a token is real; an item without any hands on its queries alone."""
        x = self.queries.expand(len(features), -1, -1)
        for layer in cast(Iterable[GatedCrossAttention], self.layers):
            x = layer(x, layer.read(features, mask))
        return self.norm(x)
