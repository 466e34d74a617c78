"""Scaled dot-product attention, as a function and as layers: the formulas of the papers, and every rule about masks.

Given tensors of queries, keys and values, and a mask of what each query may look at, it hands on what the queries
found. It knows nothing of language models, pictures, caches or gates; the fusion layers build on it.

    attention(Q, K, V) = softmax(Q Kᵀ / √d_k) V        (Vaswani et al. 2017, "Attention is all you need", eq. 1)

Each step is a function: :func:`similarities` is ``Q Kᵀ / √d_k``, :func:`scores` the softmax over what may be looked at,
:func:`weighted_values` the product with ``V``. :func:`attention` gives the same result by PyTorch's fused kernel.

Notation, used throughout: ``T`` queries, ``N`` keys (and values), ``d_k`` width of a query and of a key, ``d_v`` width
of a value. **A mask is boolean, and True means "may look".** It is anything that broadcasts to ``[..., T, N]``, or None
where all may be looked at. A query that may look at nothing finds exactly zeros, and its gradients are zero.
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias, overload

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

_FEW_SCORES = 256 * 512

Query: TypeAlias = Float[Tensor, "... T d_k"]
Key: TypeAlias = Float[Tensor, "... N d_k"]
Value: TypeAlias = Float[Tensor, "... N d_v"]
Scores: TypeAlias = Float[Tensor, "... T N"]
Found: TypeAlias = Float[Tensor, "... T d_v"]
Mask: TypeAlias = Bool[Tensor, "*#mask"] | None


def similarities(query: Query, key: Key) -> Scores:
    """``Q Kᵀ / √d_k``: how well each key answers each query, in float32 at least (as fused kernels do inside)."""
    wide = torch.promote_types(query.dtype, torch.float32)
    return query.to(wide) @ key.to(wide).mT / math.sqrt(query.shape[-1])


def scores(similarities: Scores, mask: Mask = None) -> Scores:
    """Softmax over the keys that a query may look at; each row sums to one, or is zero if it may look at none."""
    if mask is None:
        return similarities.softmax(-1)
    looking, sees = _open_blind_rows(mask)
    return similarities.masked_fill(~looking, -math.inf).softmax(-1).masked_fill(~sees, 0)


def weighted_values(scores: Scores, value: Value) -> Found:
    """Scores times values: what each query found, computed in the type of the scores, handed on in the values' type."""
    return (scores @ value.to(scores.dtype)).to(value.dtype)


@overload
def attention(
    query: Query, key: Key, value: Value, mask: Mask = ..., *, dropout: float = ..., need_weights: Literal[False] = ...
) -> Found: ...
@overload
def attention(
    query: Query, key: Key, value: Value, mask: Mask = ..., *, dropout: float = ..., need_weights: Literal[True]
) -> tuple[Found, Scores]: ...
def attention(
    query: Query, key: Key, value: Value, mask: Mask = None, *, dropout: float = 0, need_weights: bool = False
) -> Found | tuple[Found, Scores]:
    """``softmax(Q Kᵀ / √d_k) V`` over the keys that the mask lets each query look at.

    Leading dimensions broadcast. Where keys and values have fewer heads (dimension -3) than the queries have, and
    a whole fraction of them, neighbouring query heads share one: query head ``h`` of ``H`` looks at key/value head
    ``h // (H / kv_heads)`` (grouped-query attention, Ainslie et al. 2023).

    Args:
        query, key, value: ``[..., T, d_k]``, ``[..., N, d_k]`` and ``[..., N, d_v]``.
        mask: True where a query may look at a key, broadcastable to ``[..., T, N]``; None when all may be looked at.
        dropout: probability with which a score is dropped; the rest grow to make up for it. Give 0 outside training.
        need_weights: return the scores as well. They are then computed step by step, which takes more memory.

    Returns:
        What the queries found, ``[..., T, d_v]``, with zeros for a query that may look at nothing. With
        ``need_weights`` a pair of it and the scores, ``[..., T, N]``, before dropout and in float32 at least.

    Raises:
        ValueError: shapes don't fit, or the mask isn't boolean.
    """
    lead, grouped = _leading_dimensions(query, key, value)
    _check_mask(mask, (*lead, query.shape[-2], key.shape[-2]))
    if need_weights or _steps_are_faster(query, key, value):
        if grouped:
            key, value = (rows.repeat_interleave(query.shape[-3] // rows.shape[-3], -3) for rows in (key, value))
        with torch.autocast(query.device.type, enabled=False):  # it would compute the steps in less than float32
            weights = scores(similarities(query, key), mask)
            found = weighted_values(F.dropout(weights, dropout), value)
        return (found, weights) if need_weights else found

    key_lead = (*lead[:-1], key.shape[-3]) if grouped else lead
    query = query.expand(*lead, *query.shape[-2:])
    key, value = (tensor.expand(*key_lead, *tensor.shape[-2:]) for tensor in (key, value))
    looking, sees = (None, None) if mask is None else _open_blind_rows(torch.atleast_2d(mask))
    found = F.scaled_dot_product_attention(query, key, value, looking, dropout, enable_gqa=grouped)
    return found if sees is None else found.masked_fill(~sees, 0)


def _steps_are_faster(query: Query, key: Key, value: Value) -> bool:
    """Whether to compute step by step what nobody wants to see: on a CPU the fused kernel is slow backwards.

    Captions that look at patches, forward and backward, took it three to six times as long (2 cores, bfloat16). It
    stays in use where the scores would be large.
    """
    learns = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad)
    return learns and query.device.type == "cpu" and query.shape[-2] * key.shape[-2] <= _FEW_SCORES


def _open_blind_rows(mask: Bool[Tensor, "*mask"]) -> tuple[Bool[Tensor, "*mask"], Bool[Tensor, "*rows"]]:
    """The mask with rows that see nothing opened, and which rows do see something, ``[..., T, 1]``.

    A softmax over nothing is not a number, nor is its gradient, so a blind row looks at everything, to be zeroed later.
    """
    sees = mask.any(-1, keepdim=True)
    return mask | ~sees, sees


def _leading_dimensions(query: Tensor, key: Tensor, value: Tensor) -> tuple[tuple[int, ...], bool]:
    """Leading dimensions of the result, and whether query heads share key/value heads; refuses what doesn't fit."""
    shapes = f"query {tuple(query.shape)}, key {tuple(key.shape)}, value {tuple(value.shape)}"
    if min(query.ndim, key.ndim, value.ndim) < 2:
        raise ValueError(f"attention needs [..., T, d_k], [..., N, d_k] and [..., N, d_v], but was given {shapes}")
    if query.shape[-1] != key.shape[-1]:
        raise ValueError(f"queries and keys need the same width (last dimension), but were given as {shapes}")
    if key.shape[-2] != value.shape[-2]:
        raise ValueError(f"there must be one value for each key (dimension -2), but they were given as {shapes}")
    heads, kv_heads = query.shape[-3:-2].numel(), key.shape[-3:-2].numel()  # 1 where there is no such dimension
    grouped = 1 < kv_heads < heads and heads % kv_heads == 0 and key.shape[-3] == value.shape[-3:-2].numel()
    lead = _broadcast([tensor.shape[: -3 if grouped else -2] for tensor in (query, key, value)], shapes)
    return ((*lead, query.shape[-3]) if grouped else lead), grouped


def _broadcast(leads: list[torch.Size], shapes: str) -> tuple[int, ...]:
    if all(lead == leads[0] for lead in leads):
        return tuple(leads[0])  # the usual case; PyTorch's function would import a computer algebra system
    try:
        return tuple(torch.broadcast_shapes(*leads))
    except RuntimeError as error:
        raise ValueError(f"the leading dimensions of {shapes} don't broadcast to one shape") from error


def _check_mask(mask: Mask, shape: tuple[int, ...]) -> None:
    if mask is None:
        return
    if mask.dtype != torch.bool:
        raise ValueError(f"the mask of shape {tuple(mask.shape)} is {mask.dtype}; give booleans, True = may look")
    # Each comparison for itself: compiled, a size may be a symbol, which "in" a tuple would tell from its own value.
    sizes = zip(mask.shape[::-1], shape[::-1], strict=False)
    if mask.ndim > len(shape) or any(size != 1 and size != wanted for size, wanted in sizes):
        raise ValueError(f"the mask of shape {tuple(mask.shape)} doesn't broadcast to [..., T, N] = {shape}")


class Attention(nn.Module):
    """Multi-head attention, ``[head_1, ..., head_H] W^O`` with ``head_h = attention(q W_h^Q, k W_h^K, v W_h^V)``.

    As in Vaswani et al. 2017, section 3.2.2, except that queries, keys and values may each have a width of their own
    (there all are ``d_model``). No projection has a bias, so a query that may look at nothing still gives zeros.

    Args:
        d_q: width of a query row as it comes in.
        d_k: width of a key row as it comes in.
        d_v: width of a value row as it comes in.
        heads: how many times to look, each with projections of its own (``H``).
        d_model: width inside, all heads together; ``d_q`` by default. Each head has ``d_model / heads``.
        d_out: width of a row that goes out; ``d_v`` by default, the width that the formula gives.
        dropout: probability with which a score is dropped while training.

    Raises:
        ValueError: ``d_model`` isn't a multiple of ``heads``.
    """

    def __init__(
        self,
        d_q: int,
        d_k: int,
        d_v: int,
        *,
        heads: int = 1,
        d_model: int | None = None,
        d_out: int | None = None,
        dropout: float = 0,
    ) -> None:
        super().__init__()
        d_model = d_q if d_model is None else d_model
        if heads < 1 or d_model % heads:
            raise ValueError(f"d_model={d_model} can't be split into heads={heads}; choose a divisor of {d_model}")
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(d_q, d_model, bias=False)
        self.key = nn.Linear(d_k, d_model, bias=False)
        self.value = nn.Linear(d_v, d_model, bias=False)
        self.output = nn.Linear(d_model, d_v if d_out is None else d_out, bias=False)

    def forward(
        self,
        q: Float[Tensor, "... T d_q"],
        k: Float[Tensor, "... N d_k"],
        v: Float[Tensor, "... N d_v"],
        mask: Mask = None,
        need_weights: bool = False,
    ) -> Float[Tensor, "... T d_out"] | tuple[Float[Tensor, "... T d_out"], Float[Tensor, "... heads T N"]]:
        """What each query row found among the values.

        Args:
            q: rows that ask, ``[..., T, d_q]``.
            k: rows that are compared with, ``[..., N, d_k]``.
            v: rows that are handed on, ``[..., N, d_v]``.
            mask: True where a query may look at a key, in every head; broadcastable to ``[..., T, N]``.
            need_weights: return a pair of the result and the scores of each head, ``[..., heads, T, N]``.

        Raises:
            ValueError: a width isn't the one the layer was made for, or the mask doesn't fit.
        """
        query = self._heads("q", q, self.query)
        key = self._heads("k", k, self.key)
        value = self._heads("v", v, self.value)
        shapes = f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
        _check_mask(mask, (*_broadcast([q.shape[:-2], k.shape[:-2], v.shape[:-2]], shapes), q.shape[-2], k.shape[-2]))
        if mask is not None and mask.ndim > 2:
            mask = mask.unsqueeze(-3)  # the same for every head
        dropout = self.dropout if self.training else 0
        if need_weights:
            found, weights = attention(query, key, value, mask, dropout=dropout, need_weights=True)
            return self._join(found), weights
        return self._join(attention(query, key, value, mask, dropout=dropout))

    def _heads(self, name: str, rows: Tensor, projection: nn.Linear) -> Float[Tensor, "... heads rows head_dim"]:
        if rows.ndim < 2 or rows.shape[-1] != projection.in_features:
            expected = f"[..., rows, {projection.in_features}]"
            raise ValueError(f"{name} has shape {tuple(rows.shape)}, but this layer was made for {expected}")
        return projection(rows).unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def _join(self, found: Float[Tensor, "... heads T head_dim"]) -> Float[Tensor, "... T d_out"]:
        return self.output(found.transpose(-3, -2).flatten(-2))


class CrossAttention(nn.Module):
    """Visual rows that read text: ``softmax(v qᵀ / √d_v) t``, with learned projections and any number of heads.

    Identical to :class:`Attention` with ``v`` asking, ``q`` as keys and ``t`` as values, except in its letters, which
    are those of the two modalities. With several heads the similarities are divided by ``√(d_v / heads)``.

    Example:
        >>> patches, words = torch.randn(2, 81, 32), torch.randn(2, 7, 16)
        >>> CrossAttention(d_v=32, d_t=16, heads=4)(patches, words).shape
        torch.Size([2, 81, 16])

    Args:
        d_v: width of the visual rows.
        d_t: width of the textual rows, and of the result.
        heads: number of heads; a divisor of ``d_v``.
        dropout: probability with which a score is dropped while training.
    """

    def __init__(self, d_v: int, d_t: int, *, heads: int = 1, dropout: float = 0) -> None:
        super().__init__()
        self.attention = Attention(d_v, d_t, d_t, heads=heads, dropout=dropout)

    def forward(
        self,
        v: Float[Tensor, "... V d_v"],
        t: Float[Tensor, "... N d_t"],
        q: Float[Tensor, "... N d_t"] | None = None,
        mask: Mask = None,
        need_weights: bool = False,
    ) -> Float[Tensor, "... V d_t"] | tuple[Float[Tensor, "... V d_t"], Float[Tensor, "... heads V N"]]:
        """For each visual row the text it was drawn to, ``[..., V, d_t]``.

        Args:
            v: visual rows, which ask, ``[..., V, d_v]``.
            t: textual rows that are handed on, ``[..., N, d_t]``.
            q: textual rows that are compared with, ``[..., N, d_t]``; ``t`` by default.
            mask: True where a visual row may look at a textual one, broadcastable to ``[..., V, N]``.
            need_weights: return a pair of the result and the scores of each head, ``[..., heads, V, N]``.
        """
        return self.attention(v, t if q is None else q, t, mask, need_weights)


class CoAttention(nn.Module):
    """Both directions at once: text rows look at the image while patches read the text (ViLBERT, Lu et al. 2019).

    Two :class:`Attention` layers side by side, each with its own projections. Every row keeps its width, so that the
    results can be added to what went in.

    Args:
        d_v: width of the visual rows (patches).
        d_t: width of the textual rows (words).
        heads: number of heads in each direction.
        d_model: width inside, all heads together; ``d_t`` by default.
        dropout: probability with which a score is dropped while training.
    """

    def __init__(self, d_v: int, d_t: int, *, heads: int = 1, d_model: int | None = None, dropout: float = 0) -> None:
        super().__init__()
        d_model = d_t if d_model is None else d_model
        self.text_to_image = Attention(d_t, d_v, d_v, heads=heads, d_model=d_model, d_out=d_t, dropout=dropout)
        self.image_to_text = Attention(d_v, d_t, d_t, heads=heads, d_model=d_model, d_out=d_v, dropout=dropout)

    def forward(
        self,
        v: Float[Tensor, "... V d_v"],
        t: Float[Tensor, "... T d_t"],
        mask: Mask = None,
        need_weights: bool = False,
    ) -> tuple[Any, Any]:
        """Text rows that have looked at the image, ``[..., T, d_t]``, and patches that have read the text.

        Args:
            v: visual rows, ``[..., V, d_v]``.
            t: textual rows, ``[..., T, d_t]``.
            mask: True where a textual and a visual row may look at each other, broadcastable to ``[..., T, V]``.
            need_weights: give each of the two as a pair with the scores of each head, ``[..., heads, T, V]`` and
                ``[..., heads, V, T]``.
        """
        back = None if mask is None else torch.atleast_2d(mask).mT
        return self.text_to_image(t, v, v, mask, need_weights), self.image_to_text(v, t, t, back, need_weights)
