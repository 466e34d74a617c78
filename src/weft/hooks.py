"""How fusion layers get in front of decoder layers without replacing them.

A :class:`FusionHook` is a forward pre-hook on a decoder layer. It sees that layer's arguments only, so what a batch has
to read lies in the model's :class:`Slot` for the length of one call. :func:`states_before` and :func:`head_inputs` look
on: at the hidden states in front of some layers, and at those that the language model's head is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, cast

from jaxtyping import Bool, Float
from torch import Tensor, nn

from weft.batch import BatchMemory
from weft.joint import JointFusion, TextKeys
from weft.weaving import Weave

if TYPE_CHECKING:
    from weft.joint_text import Text


class Slot:
    """Where ``WeftModel.forward`` lays what the hooks read. Nothing else writes it; it is empty between calls."""

    def __init__(self) -> None:
        self.memories: dict[str, tuple[BatchMemory, Bool[Tensor, "R T S"] | None]] = {}
        self.text: Text | None = None

    def clear(self) -> None:
        """Empty it."""
        self.memories.clear()
        self.text = None


class FusionHook:
    """Runs a fusion layer in front of its decoder layer, for the rows that have a memory."""

    def __init__(self, slot: Slot, weave: Weave, index: int) -> None:
        self.slot, self.weave, self.index = slot, weave, index

    def __call__(self, decoder_layer: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        found = self.slot.memories.get(self.weave.name)
        if found is None:
            return None
        memory, visible = found
        hidden = args[0] if args else kwargs["hidden_states"]
        text = self._text(hidden, memory, args, kwargs) if self.weave.config.joint else None
        fused = memory.fuse(self.weave.fusion(self.index), self.index, hidden, visible, text)
        return ((fused, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": fused})

    def _text(self, hidden: Float[Tensor, "B T H"], memory: BatchMemory, args: tuple, kwargs: dict) -> TextKeys:
        """The text that a joint fusion layer looks at; what is not computed now is in the decoder layer's cache."""
        assert self.slot.text is not None
        layer, name = cast(JointFusion, self.weave.fusion(self.index)), f"{self.weave.name}.{self.index}"
        return self.slot.text.keys(layer, name, hidden, memory, (*args, *kwargs.values()))


class _Reached(Exception):
    """The last layer that is looked at has been reached; what would follow is not computed."""


def states_before(
    model: nn.Module, layers: Sequence[nn.Module], inputs: dict[str, Any]
) -> list[Float[Tensor, "B T H"]]:
    """The hidden states in front of some of a language model's layers; what comes after the last is not computed.

    Args:
        model: the language model without its head.
        layers: decoder layers, in the order in which they run.
        inputs: what the model is called with.
    """
    found: list[Tensor] = []

    def catch(layer: nn.Module, args: tuple, kwargs: dict) -> None:
        found.append(args[0] if args else kwargs["hidden_states"])
        if layer is layers[-1]:
            raise _Reached

    with ExitStack() as hooks:
        for layer in layers:
            hooks.callback(layer.register_forward_pre_hook(catch, with_kwargs=True, prepend=True).remove)
        try:
            model(**inputs)
        except _Reached:
            return found
    raise RuntimeError("the language model did not run the layers that were found to be its own")


@contextmanager
def head_inputs(head: nn.Module) -> Iterator[list[Float[Tensor, "B T H"]]]:
    """Within it, what a language model's head is given is put into a list."""
    found: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, args: found.append(args[0]))
    try:
        yield found
    finally:
        hook.remove()
