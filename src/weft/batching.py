"""The texts that an engine decodes, one more word of each at a time.

:class:`SideBySide` computes all of them together, over a language model that :mod:`weft.decoder` knows; what is known
of a prompt's beginning is not computed again. :class:`InTurn` takes any other model, on any device, and lets
transformers compute one text after another. :func:`texts_of` chooses.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache

from weft.decoder import Decoder, TextCache
from weft.rows import Reading, Rows
from weft.search import Prompt, read_prompt

if TYPE_CHECKING:
    from weft.model import WeftModel

PREFIXES = 8
"""Beginnings of prompts that are kept."""
SHORTEST_PREFIX = 8
"""Tokens below which a common beginning is not worth keeping."""


class Texts(Protocol):
    """Texts that are being continued, in the order in which they joined."""

    def read(self, prompt: Prompt) -> tuple[Any, Float[Tensor, "1 V"]]:
        """Compute a prompt: what :meth:`join` wants, and the logits of its first word."""
        ...

    def join(self, read: Any) -> None:
        """Add a text whose prompt has been computed."""
        ...

    def step(self, tokens: list[int]) -> Float[Tensor, "B V"]:
        """Logits of the next word of each text, its last one given."""
        ...

    def keep(self, kept: list[int]) -> None:
        """Keep some of the texts."""
        ...


def texts_of(model: WeftModel) -> Texts:
    """What continues texts with a model, as fast as that model allows."""
    decoder = model.plain.get()
    return InTurn(model) if decoder is None else SideBySide(model, decoder)


class SideBySide:
    """Texts over a plain decoder, in one batch.

    The beginning of a prompt is computed in pieces, cut at 8, 16, 32, ... tokens, and kept. Since every prompt is cut
    at the same places, a beginning that is known is bit for bit what would be computed anew: what is replied does not
    depend on what was asked before.

    Args:
        model: the woven model.
        decoder: its decoder.
    """

    def __init__(self, model: WeftModel, decoder: Decoder) -> None:
        self._decoder, self._weaves = decoder, model.plain.weaves()
        self._cache = TextCache(decoder)
        self._prompts: list[Prompt] = []
        self._rows: Rows | None = None
        self._prefixes: OrderedDict[tuple[int, ...], TextCache] = OrderedDict()

    def read(self, prompt: Prompt) -> tuple[tuple[Prompt, TextCache], Float[Tensor, "1 V"]]:
        """See :class:`Texts`."""
        own = self._beginning(prompt)
        return (prompt, own), read_prompt(self._decoder, self._weaves, prompt, own)

    def join(self, read: tuple[Prompt, TextCache]) -> None:
        """See :class:`Texts`."""
        prompt, own = read
        self._cache.append(own)
        self._prompts, self._rows = [*self._prompts, prompt], None

    def step(self, tokens: list[int]) -> Float[Tensor, "B V"]:
        """See :class:`Texts`."""
        if self._rows is None:
            readings = [Reading(prompt.memories).after_prompt(1) for prompt in self._prompts]
            self._rows = Rows(self._weaves, readings, torch.zeros(1, dtype=torch.long), self._cache)
        written = torch.tensor(tokens)
        hidden = self._decoder(written[:, None], self._cache, self._rows)
        return self._rows.copied(hidden, self._decoder.logits(hidden), written)

    def keep(self, kept: list[int]) -> None:
        """See :class:`Texts`."""
        self._prompts, self._rows = [self._prompts[row] for row in kept], None
        if kept:
            self._cache.select(kept)
        else:
            self._cache = TextCache(self._decoder)

    def _beginning(self, prompt: Prompt) -> TextCache:
        """A cache that holds a prompt's beginning, as far as that goes in whole pieces."""
        head = _before_memories(prompt)[: len(prompt.tokens) - 1]
        cuts = (SHORTEST_PREFIX << power for power in range(32))
        beginnings = [head[:cut] for cut in cuts if cut <= len(head)]
        own = TextCache(self._decoder, 1)
        for beginning in reversed(beginnings):
            holder = next((one for one in self._prefixes if one[: len(beginning)] == beginning), None)
            if holder is not None:
                self._prefixes.move_to_end(holder)
                own = self._prefixes[holder].first(len(beginning))
                break
        missing = [one for one in beginnings if len(one) > own.lengths[0]]
        for beginning in missing:
            self._decoder(torch.tensor([beginning[own.lengths[0] :]]), own)
        if missing:
            self._prefixes[missing[-1]] = own.first(len(missing[-1]))
            while len(self._prefixes) > PREFIXES:
                self._prefixes.popitem(last=False)
        return own


def _before_memories(prompt: Prompt) -> tuple[int, ...]:
    """The tokens of a prompt that stand in front of everything that it reads, and depend on each other alone."""
    first = len(prompt.tokens)
    for memory in prompt.memories:
        starts = memory.placement.starts[memory.placement.items >= 0]
        first = min([first, *starts.tolist()])
    return tuple(prompt.tokens[:first])


@dataclass(eq=False)
class _Text:
    """A text on its way: its tokens, and what transformers' ``generate`` would carry from step to step."""

    ids: Tensor
    carried: dict[str, Any]


class InTurn:
    """Texts over any language model of transformers, one after another.

    Args:
        model: the woven model.
    """

    def __init__(self, model: WeftModel) -> None:
        self._model = model
        self._texts: list[_Text] = []

    def read(self, prompt: Prompt) -> tuple[_Text, Float[Tensor, "1 V"]]:
        """See :class:`Texts`."""
        ids = torch.tensor([list(prompt.tokens)], device=self._model.device)
        carried = {"attention_mask": torch.ones_like(ids), "use_cache": True, "memories": list(prompt.memories)}
        if self._model.language_model._supports_default_dynamic_cache():
            carried["cache"] = DynamicCache(config=self._model.config.get_text_config(decoder=True))
        text = _Text(ids, carried)
        return text, self._compute(text, is_first_iteration=True)

    def join(self, read: _Text) -> None:
        """See :class:`Texts`."""
        self._texts.append(read)

    def step(self, tokens: list[int]) -> Float[Tensor, "B V"]:
        """See :class:`Texts`."""
        logits = []
        for text, token in zip(self._texts, tokens, strict=True):
            text.ids = torch.cat((text.ids, text.ids.new_tensor([[token]])), 1)
            logits.append(self._compute(text, next_sequence_length=1))
        return torch.cat(logits)

    def keep(self, kept: list[int]) -> None:
        """See :class:`Texts`."""
        self._texts = [self._texts[row] for row in kept]

    def _compute(self, text: _Text, **step: Any) -> Float[Tensor, "1 V"]:
        """Logits of the next word, by the steps of transformers' ``generate``."""
        inputs = self._model.prepare_inputs_for_generation(text.ids, **step, **text.carried)
        output = self._model(**inputs, return_dict=True)
        text.carried = self._model._update_model_kwargs_for_generation(output, text.carried, is_encoder_decoder=False)
        return output.logits[:, -1].float().cpu()
