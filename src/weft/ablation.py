"""What a finished text would have been worth to a model that lacks parts of what it reads.

:func:`ablation` is given a prompt whose memories have been read, and a text that follows it, and hands on an
:class:`Ablation`, which scores the text in many rows at once, each without other tokens of one memory. Nothing is
encoded or read again: rows share keys and values, and differ in what they may look at. What no row's memory bears on,
the decoder layers below the first fusion layer and (over a plain decoder) the prompt before the memory, is computed
once for all of them.

Notation: ``R`` rows, ``T`` tokens of the text, ``S`` memory tokens.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from weft.batch import BatchMemory
from weft.decoder import Decoder, TextCache
from weft.hooks import watching
from weft.plain import may_be_plain
from weft.responding import last_logits
from weft.search import Prompt
from weft.weaving import Weave, decoder_layers

if TYPE_CHECKING:
    from weft.model import WeftModel

AGREEMENT = 0.05
"""By how much the mean log-probability of a token may differ between two ways of computing it, in bfloat16."""
_REPLAYING = threading.Lock()
"""Held by the one thread whose layers hand on what they did before."""


class Ablation(Protocol):
    """A text after a prompt, to be scored without some of what the prompt reads."""

    @property
    def tokens(self) -> int:
        """Tokens that are computed for each row."""
        ...

    def score(self, gone: Bool[Tensor, "R S"]) -> Float[Tensor, "R T"]:
        """Log-probability (natural) of each token of the text, in each row.

        Args:
            gone: True where a row is not to have a memory token. A row that has none left is one without this memory.
        """
        ...


@torch.inference_mode()
def ablation(model: WeftModel, prompt: Prompt, answer: Sequence[int], place: int = 0) -> Ablation:
    """A text after a prompt, to be scored without parts of one of the memories that the prompt reads.

    Args:
        model: the woven model.
        prompt: what was said before, as it was read.
        answer: tokens of the text, one at least.
        place: which of the prompt's memories is to lack parts.
    """
    joint = any(model.weave(memory.weave).config.joint for memory in prompt.memories)
    if may_be_plain(model) and not joint:
        return PlainAblation(model, prompt, answer, place)
    return TransformersAblation(model, prompt, answer, place)


class PlainAblation:
    """The same over a plain decoder; arguments as for :func:`ablation`.

    It takes the language model's weights as they are, which for so many rows are faster than packed ones.
    """

    def __init__(self, model: WeftModel, prompt: Prompt, answer: Sequence[int], place: int) -> None:
        self.memories, self.place, self.answer = prompt.memories, place, torch.tensor(list(answer))
        self.weaves = {memory.weave: model.weave(memory.weave) for memory in prompt.memories}
        config = model.config.get_text_config(decoder=True).to_dict()
        self.decoder = Decoder(config, model.language_model.state_dict())
        # Tokens before the memory are the same in every row; the one that predicts the first of the text is not kept
        # in a cache, wherever it stands.
        start = min(int(prompt.memories[place].placement.starts.min()), len(prompt.tokens) - 1)
        tokens = torch.tensor([[*prompt.tokens, *answer[:-1]]])
        self.written = tokens[:, -len(answer) :]
        before, after = F.embedding(tokens, self.decoder.embeddings).tensor_split((start,), 1)
        self.cache = TextCache(self.decoder, 1)
        layers, first = len(self.decoder.layers), first_layer(self.weaves.values())
        if start:
            self._run(range(layers), before, self.cache, prompt.memories)
            self.cache.lengths = [start]
        self.hidden = self._run(range(first), after, self.cache, ())
        self.upper = range(first, layers)

    @property
    def tokens(self) -> int:
        """See :class:`Ablation`."""
        return self.hidden.shape[1]

    def score(self, gone: Bool[Tensor, "R S"]) -> Float[Tensor, "R T"]:
        """See :class:`Ablation`."""
        rows = len(gone)
        memories = _ablated(self.memories, self.place, gone)
        hidden = self.hidden.expand(rows, -1, -1)
        hidden = self._run(self.upper, hidden, self.cache.repeat(rows, self.upper), memories)
        hidden = self.decoder.norm(hidden[:, -len(self.answer) :])
        logits = self.decoder.logits(hidden)
        for memory in memories:
            gate = self.weaves[memory.weave].copy_gate
            if gate is not None:
                visible = memory.visible(self._columns(hidden.shape[1]))
                logits = memory.mix(gate, hidden, logits, visible, self.written.expand(rows, -1))
        return _of_tokens(logits, self.answer)

    def _run(
        self, layers: range, hidden: Float[Tensor, "B T H"], cache: TextCache, memories: Sequence[BatchMemory]
    ) -> Float[Tensor, "B T H"]:
        columns = torch.arange(cache.lengths[0], cache.lengths[0] + hidden.shape[1])
        reader = _Reader(self.weaves, memories, columns)
        return self.decoder.run(layers, hidden, self.decoder.step(hidden.shape[1], cache), cache.blocks, reader)

    def _columns(self, last: int) -> Int[Tensor, " T"]:
        end = self.cache.lengths[0] + self.hidden.shape[1]
        return torch.arange(end - last, end)


class _Reader:
    """What rows read, all of them the same memories; a :class:`weft.decoder.Reader`."""

    def __init__(
        self, weaves: Mapping[str, Weave], memories: Sequence[BatchMemory], columns: Int[Tensor, " T"]
    ) -> None:
        self._at: dict[int, list[Any]] = {}
        for memory in memories:
            weave, visible = weaves[memory.weave], memory.visible(columns)
            for index, layer in enumerate(weave.config.layers):
                self._at.setdefault(layer, []).append((memory, weave.fusion(index), index, visible))
        self.layers = frozenset(self._at)

    def look(self, layer: int, hidden: Float[Tensor, "B T H"]) -> Float[Tensor, "B T H"]:
        for memory, fusion, index, visible in self._at[layer]:
            hidden = memory.fuse(fusion, index, hidden, visible)
        return hidden


class TransformersAblation:
    """The same for every language model, by its own ``forward``; arguments as for :func:`ablation`."""

    def __init__(self, model: WeftModel, prompt: Prompt, answer: Sequence[int], place: int) -> None:
        self.model, self.memories, self.place = model, prompt.memories, place
        self.answer = torch.tensor(list(answer), device=model.device)
        self.ids = torch.tensor([[*prompt.tokens, *answer[:-1]]], device=model.device)
        first = first_layer(model.weave(memory.weave) for memory in prompt.memories)
        self.lower = decoder_layers(model.language_model)[:first]
        with recorded(self.lower) as self.outputs:
            whole = self._score(prompt.memories, 1)
        self.skips = len(self.outputs) == len(self.lower) > 0 and self._can_skip(whole)

    @property
    def tokens(self) -> int:
        """See :class:`Ablation`."""
        return self.ids.shape[1]

    def score(self, gone: Bool[Tensor, "R S"]) -> Float[Tensor, "R T"]:
        """See :class:`Ablation`."""
        memories = _ablated(self.memories, self.place, gone)
        if not self.skips:
            return self._score(memories, len(gone))
        with replayed(self.lower, self.outputs, len(gone)):
            return self._score(memories, len(gone))

    def _score(self, memories: Sequence[BatchMemory], rows: int) -> Float[Tensor, "R T"]:
        options = last_logits(self.model, len(self.answer))
        logits = self.model(input_ids=self.ids.expand(rows, -1), memories=memories, use_cache=False, **options).logits
        return _of_tokens(logits[:, -len(self.answer) :], self.answer)

    def _can_skip(self, whole: Float[Tensor, "1 T"]) -> bool:
        """Whether the upper layers take nothing from the lower ones but their hidden states."""
        try:
            with replayed(self.lower, self.outputs, 2):
                found = self._score([memory.repeat_rows(2) for memory in self.memories], 2)
        except (LookupError, RuntimeError, TypeError, ValueError):  # whatever a model makes of layers that do not run
            return False
        return bool((found.mean() - whole.mean()).abs() < AGREEMENT)


@contextmanager
def recorded(layers: nn.ModuleList) -> Iterator[list[Any]]:
    """Within it, what layers hand on is put into a list."""
    outputs: list[Any] = []
    with watching(layers, lambda *called: outputs.append(called[-1]), outputs=True):
        yield outputs


@contextmanager
def replayed(layers: nn.ModuleList, outputs: Sequence[Any], rows: int) -> Iterator[None]:
    """Within it, layers are not computed but hand on what they did for one row, for each of so many rows. What other
    threads compute goes through the layers as ever; one that wants to replay as well waits."""
    thread = threading.get_ident()

    def instead_of(forward: Callable[..., Any], output: Any) -> Callable[..., Any]:
        def replay(*args: Any, **kwargs: Any) -> Any:
            return _for_rows(output, rows) if threading.get_ident() == thread else forward(*args, **kwargs)

        return replay

    with _REPLAYING:
        own = [vars(layer).get("forward") for layer in layers]
        for layer, output in zip(layers, outputs, strict=True):
            layer.forward = instead_of(layer.forward, output)
        try:
            yield
        finally:
            for layer, forward in zip(layers, own, strict=True):
                del layer.forward
                if forward is not None:
                    layer.forward = forward


def _for_rows(output: Any, rows: int) -> Any:
    if isinstance(output, tuple):
        return tuple(_for_rows(one, rows) for one in output)
    return output.expand(rows, *output.shape[1:]) if isinstance(output, Tensor) else output


def first_layer(weaves: Iterable[Weave]) -> int:
    """The first decoder layer in front of which one of some weaves reads."""
    return min(layer for weave in weaves for layer in weave.config.layers)


def _ablated(memories: Sequence[BatchMemory], place: int, gone: Bool[Tensor, "R S"]) -> list[BatchMemory]:
    """A prompt's memories for rows that each lack some tokens of one of them."""
    rows = len(gone)
    return [
        memory.ablated(gone) if index == place else memory.repeat_rows(rows) for index, memory in enumerate(memories)
    ]


def _of_tokens(logits: Float[Tensor, "R T V"], tokens: Int[Tensor, " T"]) -> Float[Tensor, "R T"]:
    """Log-probability of each token under the logits at its place."""
    logits = logits.float()
    chosen = logits.gather(-1, tokens.expand(len(logits), -1)[..., None])[..., 0]
    return (chosen - logits.logsumexp(-1)).cpu()
