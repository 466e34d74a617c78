"""Looking at the most promising items of a long memory only.

Each fusion layer chooses for itself, at each text token: an item is as promising as the greatest score that any of its
tokens could reach, which follows from the elementwise greatest and least of its keys (Quest, Tang et al. 2024). So a
text token compares itself with one summary an item, and then with the tokens of a few. :func:`with_items` is given keys
and values as they lie for a batch and adds the summaries; :func:`look` finds what queries find in memories of either
kind.

Notation: ``G`` groups of rows that share a memory, ``T`` text tokens, ``S`` memory tokens, ``I`` items, ``K`` chosen.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from weft.attention import attention
from weft.errors import WeftError
from weft.memory import ItemKeys, KeyValues


def check_top(top: int | None) -> None:
    """Refuse a number of items that nobody can look at.

    Raises:
        WeftError: it is below one.
    """
    if top is not None and top < 1:
        raise WeftError(f"top_memory={top}: give at least 1 item to look at, or None for all.")


def with_items(
    keyvalues: KeyValues, owners: Int[Tensor, "G S"], mask: Bool[Tensor, "G S"] | None, count: int, top: int
) -> KeyValues:
    """The same keys and values, of whose items a text token looks at the most promising.

    Args:
        keyvalues: keys and values of each group; its items lie one behind the other, padding behind the last.
        owners: for each memory token the place of its item among its group's.
        mask: True where a memory token is real; None when all are.
        count: items a group, ``I``.
        top: how many of them a text token looks at.
    """
    keys = keyvalues.keys
    owners = owners.to(keys.device)
    real = torch.ones_like(owners) if mask is None else mask.to(keys.device, owners.dtype)
    lengths = owners.new_zeros(len(owners), count).scatter_add(1, owners, real)
    firsts = lengths.cumsum(1) - lengths
    items = ItemKeys(top, keys.new_empty(0), owners, firsts, lengths, int(lengths.max()))
    each = torch.arange(count, device=keys.device).expand(len(owners), 1, -1)
    places, _ = _places(items, each)
    keys = _taken(keys, places).unflatten(2, (count, -1))
    bounds = torch.cat((keys.amax(3), keys.amin(3)), -1)
    wide = torch.promote_types(bounds.dtype, torch.float32)
    return replace(keyvalues, items=replace(items, bounds=bounds.to(wide)))


def look(
    queries: Float[Tensor, "G heads T head_dim"], keyvalues: KeyValues, visible: Bool[Tensor, "G T S"] | None = None
) -> Float[Tensor, "G heads T head_dim"]:
    """What queries find in a memory, or in its most promising items.

    Args:
        queries: a fusion layer's queries.
        keyvalues: the memory.
        visible: True where a text token may look at a memory token; None when all may look at all. Of items among
            which is chosen each may be seen as a whole or not at all.
    """
    items = keyvalues.items
    if items is None or queries.shape[2] * items.top * items.longest > keyvalues.keys.shape[2]:
        mask = narrowed(queries, keyvalues, visible)
        return attention(queries, keyvalues.keys, keyvalues.values, None if mask is None else mask[:, None])
    # The queries together look at no more tokens than there are, so what they look at is gathered.
    groups, heads, tokens, width = queries.shape
    chosen, seen = _chosen(queries, items, visible)
    places, real = _places(items, chosen)
    keys, values = (_taken(tensor, places) for tensor in (keyvalues.keys, keyvalues.values))
    # Heads that share keys ask as if they were tokens.
    asking = queries.transpose(1, 2).flatten(0, 1).unflatten(1, (keys.shape[1], -1))
    mask = (real & seen[..., None]).view(groups * tokens, 1, 1, -1)
    return attention(asking, keys, values, mask).reshape(groups, tokens, heads, width).transpose(1, 2)


def narrowed(
    queries: Float[Tensor, "G heads T head_dim"], keyvalues: KeyValues, visible: Bool[Tensor, "G T S"] | None
) -> Bool[Tensor, "G T S"] | None:
    """True where a text token looks at a memory token: what it may look at, in the items that it has chosen."""
    items = keyvalues.items
    if items is None:
        return visible
    chosen, seen = _chosen(queries, items, visible)
    shape = (*chosen.shape[:2], items.lengths.shape[1])
    taken = torch.zeros(shape, dtype=torch.bool, device=chosen.device).scatter(2, chosen, seen)
    tokens = taken.gather(2, items.owners[:, None].expand(-1, shape[1], -1))
    return tokens if visible is None else tokens & visible


def _chosen(
    queries: Float[Tensor, "G heads T head_dim"], items: ItemKeys, visible: Bool[Tensor, "G T S"] | None
) -> tuple[Int[Tensor, "G T K"], Bool[Tensor, "G T K"]]:
    """The items that each text token looks at, and which of them it may see: one that sees fewer has some to spare."""
    asking = queries.to(items.bounds.dtype).unflatten(1, (items.bounds.shape[1], -1))
    # The greatest that q·k can be: where q is positive times the greatest key, where it is negative times the least.
    signed = torch.cat((asking.clamp(min=0), asking.clamp(max=0)), -1)
    scores = (signed.flatten(2, 3) @ items.bounds.mT).unflatten(2, signed.shape[2:4]).flatten(1, 2)
    promise = scores.sum(1)
    seen = (items.lengths > 0)[:, None].expand(promise.shape)
    if visible is not None:
        firsts = items.firsts.clamp(max=visible.shape[-1] - 1)
        seen = seen & visible.gather(2, firsts[:, None].expand(promise.shape))
    chosen = promise.masked_fill(~seen, -torch.inf).topk(items.top, -1).indices
    return chosen, seen.gather(2, chosen)


def _places(items: ItemKeys, chosen: Int[Tensor, "G T K"]) -> tuple[Int[Tensor, "G T KN"], Bool[Tensor, "G T K N"]]:
    """Where the tokens of items lie, each item with its last token repeated up to the longest; True where it is not."""
    firsts, lengths = (
        tensor[:, None].expand(-1, chosen.shape[1], -1).gather(2, chosen)[..., None]
        for tensor in (items.firsts, items.lengths)
    )
    steps = torch.arange(items.longest, device=chosen.device)
    places = firsts + steps.minimum(lengths - 1)
    return places.clamp(min=0).flatten(2), steps < lengths


def _taken(
    tensor: Float[Tensor, "G kv_heads S head_dim"], places: Int[Tensor, "G T P"]
) -> Float[Tensor, "GT kv_heads P head_dim"]:
    """Keys or values at some places, for each text token its own."""
    groups, _, tokens, _ = tensor.shape
    flat = places + tokens * torch.arange(groups, device=places.device)[:, None, None]
    taken = tensor.transpose(1, 2).flatten(0, 1).index_select(0, flat.flatten())
    return taken.unflatten(0, (-1, places.shape[2])).transpose(1, 2)
