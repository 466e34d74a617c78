"""A weave for decoding a few rows on a CPU: its fusion layers over packed weights, in few calls.

A decoded token meets each fusion layer with one row of a matrix, where PyTorch's calls cost more than their work and
reading weights more than multiplying them. :class:`PackedFusion` keeps a layer's matrices in eight bits, gates
multiplied in, and computes what the layer computes; prompts, many rows, and rows that see a part of their memory only
take the layer itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from weft.choosing import look
from weft.copying import CopyGate
from weft.decoder import Norm
from weft.fusion import GatedCrossAttention, RMSNorm
from weft.memory import KeyValues
from weft.packing import FEW, pack
from weft.weaving import Weave, WeaveConfig

MANY_KEYS = 2048
"""Keys from which on two products are faster for a few queries than PyTorch's fused attention."""
STACKED = 512
"""Tokens up to which memories are copied to lie together; looking at longer ones takes longer than a call."""


class PackedFusion:
    """A fusion layer for decoding.

    Args:
        layer: the layer; its weights are copied in eight bits.
    """

    def __init__(self, layer: GatedCrossAttention) -> None:
        self.layer, self.q_proj = layer, layer.q_proj
        dtype = torch.bfloat16
        self.hidden_norm = _norm(layer.hidden_norm)
        self.q_norm = _norm(layer.q_norm) if isinstance(layer.q_norm, RMSNorm) else None
        self.query = pack(layer.q_proj.weight, "int8", dtype)
        self.output = pack(layer.o_proj.weight * layer.attention_gate, "int8", dtype)
        network = layer.feed_forward
        if network is not None:
            self.feed_forward_norm = _norm(layer.feed_forward_norm)
            both = torch.cat((network.gate_proj.weight, network.up_proj.weight))
            self.gate_up = pack(both, "int8", dtype)
            self.down = pack(network.down_proj.weight * layer.feed_forward_gate, "int8", dtype)

    def forward_each(
        self,
        hidden: Float[Tensor, "R T H"],
        memories: Sequence[KeyValues],
        counts: Sequence[int],
        visible: Sequence[Bool[Tensor, "1 T S"] | None],
        stacks: Stacks | None = None,
    ) -> Float[Tensor, "R T H"]:
        """As :meth:`weft.fusion.GatedCrossAttention.forward_each`.

        Args:
            hidden: hidden states.
            memories: what the rows look at.
            counts: how many neighbouring rows look at each.
            visible: what they may look at.
            stacks: the memories as they lie together, made here if need be.
        """
        if not self.takes(hidden, memories, visible):
            return self.layer.forward_each(hidden, memories, counts, visible)
        if len(memories) == 1:
            return self.step(hidden, lambda queries: find(queries, memories[0]))
        return self.step(hidden, (stacks or Stacks(memories, counts)).find)

    def takes(
        self,
        hidden: Float[Tensor, "R T H"],
        memories: Sequence[KeyValues],
        visible: Sequence[Bool[Tensor, "1 T S"] | None],
    ) -> bool:
        """Whether it computes this itself: one token of each of a few rows, which see all of their memories."""
        partial = any(sees is not None or one.mask is not None for sees, one in zip(visible, memories, strict=True))
        return hidden.shape[1] == 1 and len(hidden) <= FEW and not partial

    def step(self, hidden: Float[Tensor, "R 1 H"], looking: Callable[[Tensor], Tensor]) -> Float[Tensor, "R 1 H"]:
        """One token of each row.

        Args:
            hidden: hidden states.
            looking: what queries, ``[R, heads, width]``, find in their memories, ``[R, heads · width]``.
        """
        layer, x = self.layer, hidden[:, 0].to(torch.bfloat16)
        queries = self.query(self.hidden_norm(x)).view(x.shape[0], -1, layer.head_dim)
        if self.q_norm is not None:
            queries = self.q_norm(queries)
        x = x + self.output(looking(queries))
        if layer.feed_forward is not None:
            gate, up = self.gate_up(self.feed_forward_norm(x)).chunk(2, -1)
            x = x + self.down(F.silu(gate) * up)
        return x[:, None]


def _norm(norm: RMSNorm) -> Norm:
    assert norm.eps is not None
    return Norm(norm.weight.to(torch.bfloat16), norm.eps)


class Stacks:
    """Memories of several texts, short ones of the same size side by side, so that one call looks at all of them.

    What a row finds is the same, bit for bit, whichever rows are beside it.

    Args:
        memories: one item each.
        counts: how many neighbouring rows look at each.
    """

    def __init__(self, memories: Sequence[KeyValues], counts: Sequence[int]) -> None:
        alike: dict[tuple[int, ...], list[tuple[Tensor, KeyValues]]] = {}
        rows = torch.arange(sum(counts)).split(list(counts))
        for place, (own, memory) in enumerate(zip(rows, memories, strict=True)):
            tokens = memory.keys.shape[2]
            alone = len(own) > 1 or tokens > STACKED or memory.items is not None
            alike.setdefault((tokens, place) if alone else (tokens,), []).append((own, memory))
        self._stacks = [
            (torch.cat([own for own, _ in stack]), _stacked([memory for _, memory in stack]))
            for stack in alike.values()
        ]

    def find(self, queries: Float[Tensor, "R heads width"]) -> Float[Tensor, "R inner"]:
        """What the rows find, each in its own memory."""
        if len(self._stacks) == 1:
            return find(queries, self._stacks[0][1])
        found = queries.new_empty(len(queries), queries.shape[1] * queries.shape[2])
        for rows, memory in self._stacks:
            found[rows] = find(queries[rows], memory)
        return found


def _stacked(memories: Sequence[KeyValues]) -> KeyValues:
    if len(memories) == 1:
        return memories[0]
    return KeyValues(torch.cat([one.keys for one in memories]), torch.cat([one.values for one in memories]))


def find(queries: Float[Tensor, "R heads width"], memory: KeyValues) -> Float[Tensor, "R inner"]:
    """What rows find in a memory that they share, or each in its own item of it.

    Query heads that share keys ask as if they were tokens.
    """
    if queries.dtype != memory.keys.dtype:
        return find(queries.to(memory.keys.dtype), memory).to(queries.dtype)
    if memory.items is not None:
        return look(queries.transpose(0, 1)[None], memory)[0].transpose(0, 1).flatten(1)
    rows, heads, width = queries.shape
    kv_heads = memory.keys.shape[1]
    apart = memory.keys.shape[0] == rows
    if apart:
        asking = queries.view(rows, kv_heads, -1, width)
    else:
        asking = queries.view(rows, kv_heads, -1, width).transpose(0, 1).flatten(1, 2)[None]
    if memory.keys.shape[2] < MANY_KEYS:
        found = F.scaled_dot_product_attention(asking, memory.keys, memory.values)
    else:
        scores = (asking @ memory.keys.mT).float().mul_(1 / math.sqrt(width)).softmax(-1)
        found = scores.to(memory.values.dtype) @ memory.values
    if apart:
        return found.reshape(rows, -1)
    return found.view(kv_heads, rows, heads // kv_heads, width).transpose(0, 1).reshape(rows, -1)


class PackedWeave:
    """A weave as :class:`weft.rows.Rows` asks for it, with packed fusion layers.

    Args:
        weave: the weave, on a CPU.
    """

    def __init__(self, weave: Weave) -> None:
        self.name: str = weave.name
        self.config: WeaveConfig = weave.config
        self.copy_gate: CopyGate | None = weave.copy_gate
        self._layers = [PackedFusion(weave.fusion(index)) for index in range(len(weave.layers))]

    def fusion(self, index: int) -> PackedFusion:
        """One of its fusion layers."""
        return self._layers[index]


def can_be_packed(module: nn.Module, narrow: bool = False) -> bool:
    """Whether all of a module's weights are bfloat16 on a CPU, as the kernels for packed weights want them.

    Args:
        module: what is to be packed.
        narrow: take weights in float32 as well.
    """
    types = (torch.bfloat16, torch.float32) if narrow else (torch.bfloat16,)
    return all(p.dtype in types and p.device.type == "cpu" for p in module.parameters())
