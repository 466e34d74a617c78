"""How fusion layers get in front of decoder layers without replacing them.

A :class:`FusionHook` is a forward pre-hook on a decoder layer. It sees that layer's arguments only, so what a batch has
to read lies in the model's :class:`Slot` for the length of one call.
"""

from __future__ import annotations

from jaxtyping import Bool
from torch import Tensor, nn

from weft.batch import BatchMemory
from weft.weaving import Weave


class Slot:
    """Where ``WeftModel.forward`` lays what the hooks read. Nothing else writes it; it is empty between calls."""

    def __init__(self) -> None:
        self.memories: dict[str, tuple[BatchMemory, Bool[Tensor, "R T S"] | None]] = {}


class FusionHook:
    """Runs a fusion layer in front of its decoder layer, for the rows that have a memory."""

    def __init__(self, slot: Slot, weave: Weave, index: int) -> None:
        self.slot, self.weave, self.index = slot, weave, index

    def __call__(self, decoder_layer: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        found = self.slot.memories.get(self.weave.name)
        if found is None:
            return None
        memory, visible = found
        layer = self.weave.fusion(self.index)
        if args:
            return (memory.fuse(layer, self.index, args[0], visible), *args[1:]), kwargs
        hidden = memory.fuse(layer, self.index, kwargs["hidden_states"], visible)
        return args, {**kwargs, "hidden_states": hidden}
