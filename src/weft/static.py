"""Decoding in shapes that never change, so that it is compiled once and for all questions.

:class:`StaticDecoding` gives transformers' ``generate`` a cache of fixed length and compiles its steps with
``torch.compile``; on a GPU they are recorded as CUDA graphs. Memories are padded to :func:`bucket` sizes, and what a
row sees of its memory is laid ready beforehand, so that neither the next picture nor the next question compiles again.
What was compiled is kept on disk by PyTorch, in Weft's cache folder, and found there by the next process.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch._dynamo.exc import TorchDynamoException
from torch._inductor.exc import InductorError
from torch._inductor.runtime.cache_dir_utils import default_cache_dir
from transformers import CompileConfig, PreTrainedModel
from transformers.generation.configuration_utils import STATIC_CACHE_IMPLEMENTATIONS

from weft.batch import BatchMemory
from weft.catalog import weft_home
from weft.memory import CopyKeys, KeyValues, ReadMemory
from weft.weaving import Weave

if TYPE_CHECKING:
    from weft.model import WeftModel

SMALLEST = 64
"""Tokens of the smallest bucket."""


def bucket(tokens: int) -> int:
    """The size to which a sequence of so many tokens is padded: a power of two, so that there are few of them."""
    return max(SMALLEST, 1 << (tokens - 1).bit_length())


def is_static(options: dict[str, Any]) -> bool:
    """Whether options for ``generate`` ask for a cache of fixed length."""
    return options.get("cache_implementation") in STATIC_CACHE_IMPLEMENTATIONS


def may_be_static(language_model: PreTrainedModel) -> bool:
    """Whether a language model's state fits a cache of fixed length, and transformers compiles it once for all steps.

    Where attention slides, transformers' cache counts its steps in numbers that a compiled step would be bound to.
    """
    config = language_model.config.get_text_config(decoder=True)
    slides = any("sliding" in kind for kind in getattr(config, "layer_types", None) or ())
    return language_model._can_compile_fullgraph and not language_model._is_stateful and not slides


def decode_two(
    model: WeftModel, rows: int, *, memories: Sequence[BatchMemory] = (), beams: int = 1, **options: Any
) -> None:
    """Decode two tokens of some rows, of which the second is computed as all that would follow.

    Args:
        model: the woven model.
        rows: rows of the batch.
        memories: what they read.
        beams: beams of each row.
        **options: for ``generate``.
    """
    ids = torch.zeros(rows, 1, dtype=torch.long, device=model.device)
    lengths = {"max_new_tokens": 2, "min_new_tokens": 2, "do_sample": False, "num_beams": beams, "pad_token_id": 0}
    model.generate(ids, attention_mask=torch.ones_like(ids), memories=memories, **lengths, **options)


def empty_memory(weave: Weave, items: int, tokens: int) -> ReadMemory:
    """A memory of nothing but zeros, as a weave would read so many items of so many tokens."""
    config = weave.config
    zeros = weave.fusion(0).q_proj.weight.new_zeros
    shape = (items, config.kv_heads, tokens, config.head_dim)
    layers = tuple(KeyValues(zeros(shape), zeros(shape)) for _ in config.layers)
    copying = None
    if config.copy_width:
        ids = torch.zeros(items, tokens, dtype=torch.long, device=layers[0].keys.device)
        after = torch.full_like(ids, -1) if config.labels else None
        copying = CopyKeys(zeros(items, tokens, config.copy_width), ids, after)
    return ReadMemory(weave.name, layers, copying=copying)


@dataclass
class StaticDecoding:
    """How a model's ``generate`` is compiled.

    Attributes:
        tokens: tokens that the cache holds; longer texts get one that is a power of two.
        backend: what compiles, as for ``torch.compile``.
        works: whether this model could be compiled here; None before it was tried.
    """

    tokens: int = 1024
    backend: str = "inductor"
    works: bool | None = None

    def options(self, model: WeftModel) -> dict[str, Any]:
        """Options for ``generate``; none where the model can't be compiled, which is found out the first time."""
        if self.works is None:
            self.works = may_be_static(model.language_model) and self._try(model)
        return self._chosen(model) if self.works else {}

    def anew(self) -> StaticDecoding:
        """The same for another model."""
        return StaticDecoding(self.tokens, self.backend)

    def _chosen(self, model: WeftModel) -> dict[str, Any]:
        mode = "default" if model.device.type == "cpu" else "reduce-overhead"
        config = CompileConfig(dynamic=False, backend=self.backend, mode=mode)
        config._compile_all_devices = True
        return {"cache_implementation": "static", "max_cache_len": self.tokens, "compile_config": config}

    def _try(self, model: WeftModel) -> bool:
        """Whether two tokens can be decoded so."""
        try:
            decode_two(model, 1, **self._chosen(model))
        except (TorchDynamoException, InductorError) as error:
            say_not_compiled(error)
            return False
        return True


def keep_compiled() -> None:
    """Have PyTorch keep what it compiles in Weft's cache folder, unless someone has told it where to; by itself it
    takes one for temporary files, which may not outlive the next start of the machine."""
    if os.environ.get("TORCHINDUCTOR_CACHE_DIR", default_cache_dir()) == default_cache_dir():
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(weft_home() / "compiled")


def say_not_compiled(error: Exception) -> None:
    """Warn that decoding goes on without being compiled."""
    reason = " ".join(str(error).split("\n")[:2])
    warnings.warn(f"Decoding goes on as before, since it can't be compiled here: {reason}", stacklevel=3)
