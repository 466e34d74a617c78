"""How fusion layers get in front of decoder layers without replacing them.

A :class:`FusionHook` is a forward pre-hook on a decoder layer. It sees that layer's arguments only, so what a batch has
to read lies in the model's :class:`Slot` for the length of one call, each thread's call for itself.
:func:`states_before` and :func:`head_inputs` look on: at the hidden states in front of some layers, and at those that
the language model's head is given. Whatever looks on through :func:`watching` sees its own thread's calls alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from jaxtyping import Bool, Float
from torch import Tensor, nn

from weft.batch import BatchMemory
from weft.joint import JointFusion, TextKeys
from weft.weaving import Weave

if TYPE_CHECKING:
    from weft.joint_text import Text


class Looked(NamedTuple):
    """A memory that one call looks at, the weave through which it does, and what its tokens may see of it."""

    weave: Weave
    memory: BatchMemory
    visible: Bool[Tensor, "R T S"] | None


@dataclass(frozen=True, eq=False)
class Looking:
    """What one call of the language model looks at.

    Attributes:
        memories: by the names of their weaves.
        text: the text, for joint fusion layers; None where there are none.
    """

    memories: Mapping[str, Looked]
    text: Text | None = None


class Slot(threading.local):
    """Where ``WeftModel.forward`` lays what the hooks read, for each thread apart. Nothing else writes it; it is empty
    between calls.

    It is no context variable, since those can't be traced by ``torch.compile``. No call of a language model stops
    half-way for another of its thread but one that it makes itself, after which it finds its own again.
    """

    def __init__(self) -> None:
        self.looking: Looking | None = None

    def __reduce__(self) -> tuple[type[Slot], tuple[()]]:
        return Slot, ()  # copied or pickled it is another, with nothing in it

    @contextmanager
    def holding(self, looking: Looking) -> Iterator[None]:
        """Within it, this thread's calls look at something."""
        before, self.looking = self.looking, looking
        try:
            yield
        finally:
            self.looking = before


class FusionHook:
    """Runs a fusion layer in front of its decoder layer, for the rows that have a memory.

    Args:
        slot: where what is looked at lies.
        weave: name of the weave.
        index: which of its fusion layers.
    """

    def __init__(self, slot: Slot, weave: str, index: int) -> None:
        self.slot, self.weave, self.index = slot, weave, index

    def __call__(self, decoder_layer: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        looking = self.slot.looking
        found = None if looking is None else looking.memories.get(self.weave)
        if looking is None or found is None:
            return None
        weave, memory, visible = found
        hidden = args[0] if args else kwargs["hidden_states"]
        axis = weave.config.stream_axis
        read = hidden if axis is None else hidden.mean(axis)
        text = self._text(looking, weave, read, memory, (*args, *kwargs.values())) if weave.config.joint else None
        fused = memory.fuse(weave.fusion(self.index), self.index, read, visible, text)
        if axis is not None:
            fused = hidden + (fused - read).unsqueeze(axis)  # what is added is exactly zero where nothing is looked at
        return ((fused, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": fused})

    def _text(
        self, looking: Looking, weave: Weave, hidden: Float[Tensor, "B T H"], memory: BatchMemory, given: Sequence[Any]
    ) -> TextKeys:
        """The text that a joint fusion layer looks at; what is not computed now is in the decoder layer's cache."""
        assert looking.text is not None
        layer, name = cast(JointFusion, weave.fusion(self.index)), f"{self.weave}.{self.index}"
        return looking.text.keys(layer, name, hidden, memory, given)


class _Watching(threading.local):
    """The hooks with which this thread looks on."""

    def __init__(self) -> None:
        self.hooks: tuple[WatchingHook, ...] = ()


_watching = _Watching()


class WatchingHook:
    """A hook that looks on at what one thread computes; others pass it by. See :func:`watching`."""

    def __init__(self, look: Callable[..., Any]) -> None:
        self.look = look

    def __call__(self, *called: Any) -> Any:
        for hook in _watching.hooks:
            if hook is self:
                return self.look(*called)
        return None


@contextmanager
def watching(
    modules: Iterable[nn.Module], look: Callable[..., Any], *, outputs: bool = False, **options: Any
) -> Iterator[None]:
    """Within it, ``look`` is a hook of some modules, for what this thread computes.

    Args:
        modules: the modules.
        look: takes what a forward pre-hook takes; or, with ``outputs``, a forward hook.
        outputs: look at what the modules hand on, not at what they are given.
        **options: for the hook's registration (``prepend``, ``with_kwargs``).
    """
    hook, before = WatchingHook(look), _watching.hooks
    handles = [
        module.register_forward_hook(hook, **options) if outputs else module.register_forward_pre_hook(hook, **options)
        for module in modules
    ]
    _watching.hooks = (*before, hook)
    try:
        yield
    finally:
        _watching.hooks = before
        for handle in handles:
            handle.remove()


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

    with watching(layers, catch, with_kwargs=True, prepend=True):
        try:
            model(**inputs)
        except _Reached:
            return found
    raise RuntimeError("the language model did not run the layers that were found to be its own")


@contextmanager
def head_inputs(head: nn.Module) -> Iterator[list[Float[Tensor, "B T H"]]]:
    """Within it, what a language model's head is given is put into a list."""
    found: list[Tensor] = []
    with watching([head], lambda _, args: found.append(args[0])):
        yield found
