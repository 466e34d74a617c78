"""Decoding over memories that are read once: transformers' own ``generate``, with memories.

:class:`ReadingGenerationMixin` is what :class:`~weft.model.WeftModel` adds to transformers' ``GenerationMixin``.
Pictures and documents are encoded, read and laid out before the first token; after the prompt everything has been seen,
and needs no mask.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from transformers import Cache, GenerationMixin

from weft.adapters import without_wrapper
from weft.batch import BatchMemory
from weft.body import counted
from weft.errors import WeftError
from weft.static import bucket, is_static

if TYPE_CHECKING:
    from weft.model import WeftModel

_SETTLES_CACHE = {"assistant_model", "cache", "cache_implementation", "past_key_values", "use_cache"}
"""Options with which a caller decides about the cache."""


class ReadingGenerationMixin(GenerationMixin):
    """``generate`` for models that read memories; caches and inputs are the language model's own."""

    @torch.no_grad()
    def generate(self, inputs: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        """As in transformers, with what a processor makes of pictures and documents, or with ``memories``.

        Pictures and documents are encoded, read and laid out once, before the first token; ``top_memory`` is how many
        of them a fusion layer looks at, as for ``forward``.

        Raises:
            WeftError: memories are to be read by transformers' continuous batching (``cache_implementation="paged"``),
                or with drafts that the language model itself makes.
        """
        model = cast("WeftModel", self)
        top = kwargs.pop("top_memory", None)
        seen = model.see(kwargs.pop("pixel_values", None), kwargs.pop("image_positions", None), top)
        ids, mask, positions = (kwargs.pop(f"document_{name}", None) for name in ("ids", "mask", "positions"))
        found = [*(kwargs.pop("memories", None) or ()), seen, model.see_texts(ids, mask, positions, top)]
        memories = [memory for memory in found if memory is not None]
        if model.static is not None and not _SETTLES_CACHE & kwargs.keys():
            kwargs |= model.static.options(model)
        if is_static(kwargs):
            memories = [memory.padded(bucket(memory.owners.shape[1])) for memory in memories]
        if memories and kwargs.get("cache_implementation") == "paged":
            raise WeftError('cache_implementation="paged" has no place for memories; use weft.Engine, or leave it out.')
        if memories:
            kwargs["memories"] = memories
        return super().generate(inputs, *args, **kwargs)

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        memories: Sequence[BatchMemory] = (),
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The language model's own inputs, and the memories as they are seen in this step."""
        language_model = cast("WeftModel", self).language_model
        for name, value in (("cache", cache), ("inputs_embeds", inputs_embeds)):
            if value is not None:
                kwargs[name] = value
        inputs = language_model.prepare_inputs_for_generation(input_ids, **kwargs)
        if memories:
            computed = inputs.get("input_ids") if inputs.get("input_ids") is not None else inputs["inputs_embeds"]
            total = input_ids.shape[1] + (0 if inputs_embeds is None else inputs_embeds.shape[1])
            start = total - computed.shape[1]
            if cache is not None and (inputs_embeds is not None or getattr(cache, "_is_user_defined", False)):
                held = counted(cache)  # the ids are perhaps not all of the text
                start = start if held is None else held
            inputs["columns"] = torch.arange(start, start + computed.shape[1])
            decoding = kwargs.get("next_sequence_length") is not None and not kwargs.get("is_first_iteration")
            inputs["memories"] = [m.after_prompt() for m in memories] if decoding else memories
        return inputs

    def _validate_model_kwargs(self, model_kwargs: dict[str, Any]) -> None:
        """What the language model takes, and memories."""
        others = {name: value for name, value in model_kwargs.items() if name != "memories"}
        without_wrapper(cast("WeftModel", self).language_model)._validate_model_kwargs(others)

    def _prepare_position_ids_for_generation(self, inputs_tensor: Tensor, model_kwargs: dict[str, Any]) -> Any:
        """Positions for a language model that is given any."""
        language_model = without_wrapper(cast("WeftModel", self).language_model)
        if "position_ids" not in inspect.signature(language_model.forward).parameters:
            return None
        return language_model._prepare_position_ids_for_generation(inputs_tensor, model_kwargs)

    def _get_candidate_generator(self, *args: Any, **kwargs: Any) -> Any:
        """An assistant drafts what it can without memories; the draft is checked with them.

        Raises:
            WeftError: the language model's own layers, or heads, are to draft.
        """
        config = kwargs["generation_config"]
        if config.assistant_early_exit is not None or config.use_mtp:
            name = "assistant_early_exit" if config.assistant_early_exit is not None else "use_mtp"
            raise WeftError(f"{name}: a woven model can't draft for itself; give an assistant_model, or leave it out.")
        kwargs["model_kwargs"] = {k: v for k, v in kwargs["model_kwargs"].items() if k != "memories"}
        return super()._get_candidate_generator(*args, **kwargs)

    def _supports_logits_to_keep(self) -> bool:
        return cast("WeftModel", self).language_model._supports_logits_to_keep()

    def _expand_inputs_for_generation(self, expand_size: int = 1, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("memories"):
            kwargs["memories"] = [memory.repeat_rows(expand_size) for memory in kwargs["memories"]]
        return super()._expand_inputs_for_generation(expand_size, *args, **kwargs)

    def _prepare_cache_for_generation(
        self, config: Any, model_kwargs: Any, mode: Any, batch_size: int, max_cache_length: int
    ) -> Any:
        if config.max_cache_len is not None and max_cache_length > config.max_cache_len:
            max_cache_length = bucket(max_cache_length)  # so that a longer text does not bring a length of its own
        language_model = cast("WeftModel", self).language_model
        return language_model._prepare_cache_for_generation(config, model_kwargs, mode, batch_size, max_cache_length)

    def _update_model_kwargs_for_generation(self, *args: Any, **kwargs: Any) -> Any:
        return cast("WeftModel", self).language_model._update_model_kwargs_for_generation(*args, **kwargs)
