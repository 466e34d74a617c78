"""Language models to be woven into: loaded from folders, taken out of checkpoints that hold more, and looked over.

:func:`load_language_model` and :func:`language_model_of` hand on a causal language model, of a multimodal checkpoint
(Gemma 3, LLaVA, ...) the one inside, without its own vision tower. :func:`stream_axis` finds out before anything is
woven whether fusion layers can sit in front of its decoder layers, and what they find there.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    MODEL_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING

from weft.errors import PartError, WeftError
from weft.hooks import states_before
from weft.weaving import decoder_layers
from weft.whole_files import reading


def load_language_model(folder: str | Path, **options: Any) -> PreTrainedModel:
    """The causal language model of a folder; of a multimodal checkpoint the one inside.

    Args:
        folder: what ``save_pretrained`` of transformers wrote.
        **options: for ``from_pretrained`` (``dtype``, ``device_map``, ...).

    Raises:
        PartError: it holds no language model.
        WeftError: its language model can't be taken out of what it holds.
    """
    if not (Path(folder) / "config.json").is_file():
        raise PartError(f"{folder} holds no language model: config.json is missing; give the folder or Hub id of one.")
    with reading(Path(folder), "copy it again, or give another language model."):
        return _loaded(Path(folder), options)


def _loaded(folder: Path, options: dict[str, Any]) -> PreTrainedModel:
    config = AutoConfig.from_pretrained(folder, trust_remote_code=options.get("trust_remote_code"))
    return language_model_of(_class_for(config, folder).from_pretrained(folder, **options))


def _class_for(config: PreTrainedConfig, folder: str | Path) -> Any:
    """The class of transformers that loads the words' side of a checkpoint."""
    kind = type(config)
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING or "AutoModelForCausalLM" in getattr(config, "auto_map", {}):
        return AutoModelForCausalLM
    if kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return AutoModelForImageTextToText
    if kind in MODEL_FOR_MULTIMODAL_LM_MAPPING:
        return AutoModelForMultimodalLM
    looks = kind in MODEL_MAPPING and getattr(MODEL_MAPPING[kind], "main_input_name", "") == "pixel_values"
    what = "a vision model" if looks else "no causal language model"
    hint = "give it as vision=..., and a language model in its place" if looks else "give one that continues texts"
    raise PartError(f"{folder} holds {what} ({config.model_type}); {hint}.")


def language_model_of(model: PreTrainedModel) -> PreTrainedModel:
    """The causal language model that a model is, or has inside; its modules are shared, not copied.

    Raises:
        WeftError: it is none, and has none that works by itself.
    """
    kind, config = type(model).__name__, getattr(model, "config", None)
    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    if config is None or head is None:
        raise WeftError(f"{kind} gives no words; load a causal language model, as AutoModelForCausalLM does.")
    if config.is_encoder_decoder:
        raise WeftError(f"{kind} has an encoder of its own that it looks at; weave a language model that is a decoder.")
    text = config.get_text_config(decoder=True)
    if text is config:
        return model
    decoder = model.get_decoder()
    if decoder.get_output_embeddings() is not None:  # a whole language model within the other
        made = language_model_of(decoder)
    elif type(text) in MODEL_FOR_CAUSAL_LM_MAPPING:
        with torch.device("meta"):
            made = AutoModelForCausalLM.from_config(text)
        if type(made.base_model) is not type(decoder):
            raise WeftError(_NOT_ALONE.format(kind, text.model_type))
        setattr(made, made.base_model_prefix, decoder)
        made.set_output_embeddings(head)
        made.config = decoder.config
    else:
        raise WeftError(_NOT_ALONE.format(kind, text.model_type))
    if any(tensor.is_meta for tensor in chain(made.parameters(), made.buffers())):
        raise WeftError(_NOT_ALONE.format(kind, text.model_type))
    made.generation_config, made.name_or_path = model.generation_config, model.name_or_path
    return made.eval()


_NOT_ALONE = (
    "The language model inside {} ({}) is none that transformers runs by itself as a causal language model; weave a "
    "text-only checkpoint."
)


@torch.no_grad()
def stream_axis(language_model: PreTrainedModel, layers: Sequence[int]) -> int | None:
    """Along which axis of the hidden states in front of some decoder layers several residual streams lie; None where
    there is one stream. Two rows of three tokens are let through to find out.

    Args:
        language_model: the language model.
        layers: the decoder layers.

    Raises:
        WeftError: a fusion layer can't sit there, since something other than hidden states of tokens is handed on.
    """
    kind, decoder = type(language_model).__name__, decoder_layers(language_model)
    width = language_model.config.get_text_config(decoder=True).hidden_size
    device = next(language_model.get_input_embeddings().parameters()).device
    chosen: list[nn.Module] = [decoder[index] for index in layers]
    try:
        found = states_before(language_model, chosen, {"input_ids": torch.ones(2, 3, dtype=torch.long, device=device)})
    except Exception as error:  # whatever a model may say that does not run on plain text
        raise WeftError(f"{kind} can't be woven into: run on six tokens it says {error!r}.") from error
    shapes = {tuple(hidden.shape) for hidden in found}
    for axis in (None, 0, 2):
        if all(_without(shape, axis) == (2, 3, width) for shape in shapes):
            return axis
    raise WeftError(
        f"{kind} can't be woven into: in front of the decoder layers {list(layers)} 2 rows of 3 tokens have the shape "
        f"{' and '.join(map(str, sorted(shapes)))}, which are no hidden states of width {width}; weave another "
        "language model."
    )


def _without(shape: tuple[int, ...], axis: int | None) -> tuple[int, ...]:
    return shape if axis is None else shape[:axis] + shape[axis + 1 :]
