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
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from weft.choosing import look
from weft.copying import CopyGate
from weft.decoder import Norm
from weft.fusion import GatedCrossAttention, RMSNorm, Rotation, rotated
from weft.joint import JointFusion, TextKeys, Texts
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


class PackedJointFusion(PackedFusion):
    """A joint fusion layer for decoding.

    Args:
        layer: the layer; its weights are copied in eight bits.
    """

    def __init__(self, layer: JointFusion) -> None:
        super().__init__(layer)
        self.joint = layer
        self.k_norm = _norm(layer.k_norm) if isinstance(layer.k_norm, RMSNorm) else None
        self.key_value = pack(torch.cat((layer.k_proj.weight, layer.v_proj.weight)), "int8", torch.bfloat16)

    def rotation(self, positions: Int[Tensor, "R T"]) -> Rotation | None:
        """As :meth:`weft.joint.JointFusion.rotation`."""
        return self.joint.rotation(positions)

    def forward_each(
        self,
        hidden: Float[Tensor, "R T H"],
        memories: Sequence[KeyValues],
        counts: Sequence[int],
        visible: Sequence[Bool[Tensor, "1 T S"] | None],
        stacks: Stacks | None = None,
        texts: Texts | None = None,
    ) -> Float[Tensor, "R T H"]:
        """As :meth:`weft.joint.JointFusion.forward_each`."""
        if texts is None:
            return super().forward_each(hidden, memories, counts, visible, stacks)
        partial = any(sees is not None or one.items is not None for sees, one in zip(visible, memories, strict=True))
        if hidden.shape[1] > 1 or len(hidden) > FEW or partial:
            return self.joint.forward_each(hidden, memories, counts, visible, texts)
        both = self.key_value(self.hidden_norm(hidden[:, 0].to(torch.bfloat16))).view(
            len(hidden), -1, self.joint.head_dim
        )
        keys, values = both.chunk(2, 1)
        keys = (keys if self.k_norm is None else self.k_norm(keys))[:, :, None]
        keys = keys if texts.rotation is None else rotated(keys, texts.rotation)
        added = texts.add(keys.to(hidden.dtype), values[:, :, None].to(hidden.dtype))

        def looking(queries: Tensor) -> Tensor:
            parts = zip(queries.split(counts), memories, added, strict=True)
            return torch.cat([find_jointly(own, memory, text) for own, memory, text in parts])

        return self.step(hidden, looking)


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


def find_jointly(
    queries: Float[Tensor, "R heads width"], memory: KeyValues, text: TextKeys
) -> Float[Tensor, "R inner"]:
    """What rows that share a memory find there and in their texts, all of which they may look at."""
    if queries.dtype != memory.keys.dtype:
        return find_jointly(queries.to(memory.keys.dtype), memory, text).to(queries.dtype)
    (rows, heads, width), kv_heads = queries.shape, memory.keys.shape[1]
    turned = queries if text.rotation is None else rotated(queries[:, :, None], text.rotation)[:, :, 0]
    asking = queries.view(rows, kv_heads, -1, width).transpose(0, 1)  # heads that share keys ask as if they were tokens
    on_memory = asking.flatten(1, 2) @ memory.keys[0].mT
    on_text = turned.view(rows, kv_heads, -1, width) @ text.keys.mT
    on_memory = on_memory.view(kv_heads, rows, heads // kv_heads, -1).transpose(0, 1)
    weights = torch.cat((on_memory, on_text), -1).float().mul_(1 / math.sqrt(width)).softmax(-1).to(queries.dtype)
    on_memory, on_text = weights.tensor_split((memory.keys.shape[2],), -1)
    found = (on_memory.transpose(0, 1).flatten(1, 2) @ memory.values[0]).view(kv_heads, rows, -1, width).transpose(0, 1)
    return (found + on_text @ text.values).reshape(rows, -1)


class PackedWeave:
    """A weave as :class:`weft.rows.Rows` asks for it, with packed fusion layers.

    Args:
        weave: the weave, on a CPU.
    """

    def __init__(self, weave: Weave) -> None:
        self.name: str = weave.name
        self.config: WeaveConfig = weave.config
        self.copy_gate: CopyGate | None = weave.copy_gate
        layers = [weave.fusion(index) for index in range(len(weave.layers))]
        self._layers = [PackedJointFusion(one) if isinstance(one, JointFusion) else PackedFusion(one) for one in layers]

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
