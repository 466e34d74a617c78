"""What learns in a run: a weave, and adapters in the language model that want gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from weft.adapters import adapter_config, adapter_names, adapter_parameters, add_lora, use_adapters
from weft.errors import RecipeError, WeftError
from weft.model import WeftModel
from weft.text_encoders import LanguageModelEncoder
from weft.weaving import decoder_layers

ADAPTER = "adapter."
"""What stands in front of the names of an adapter's parameters among all that learn."""


def learned_parameters(model: WeftModel, name: str) -> dict[str, nn.Parameter]:
    """The parameters that learn, by name, in float32 and wanting gradients; no others of the model want them.

    Args:
        model: the woven model.
        name: the weave that learns.

    Raises:
        WeftError: weights want gradients that would not be learned, or not be saved.
    """
    adapters = adapter_parameters(model.language_model)
    if not adapters:
        _refuse(
            model.language_model, "the language model", "give it an adapter, or freeze it with requires_grad_(False)"
        )
    for reader, encoder in model.encoders.items():
        if not isinstance(encoder, LanguageModelEncoder):
            _refuse(encoder, f"the encoder of the weave {reader!r}", "freeze it with requires_grad_(False)")
    weave = model.weave(name)
    model.weaves.requires_grad_(False)
    weave.float().requires_grad_(True)
    for parameter in adapters.values():
        parameter.data = parameter.data.float()
    found = dict(weave.named_parameters())
    return found | {f"{ADAPTER}{key}": parameter for key, parameter in adapters.items()}


def _refuse(part: nn.Module, what: str, instead: str) -> None:
    """Refuse weights that want gradients and would get none.

    Raises:
        WeftError: there are such.
    """
    wanting = [name for name, parameter in part.named_parameters() if parameter.requires_grad]
    if wanting:
        raise WeftError(
            f"{len(wanting)} tensors of {what} want gradients ({wanting[0]}, ...), but training learns weaves and "
            f"adapters alone; {instead}."
        )


def frozen_layers(model: WeftModel) -> int | None:
    """How many decoder layers compute the same throughout a run; None where not even the embeddings do."""
    decoder = decoder_layers(model.language_model)
    first = min(layer for name in model.weaves for layer in model.weave(name).config.layers)
    adapted = [number for number, layer in enumerate(decoder) if _learns(layer)]
    above = {id(p) for layer in decoder for p in layer.parameters()}
    above |= {id(p) for p in getattr(model.get_output_embeddings(), "parameters", list)()}
    below = [p for p in model.language_model.parameters() if p.requires_grad and id(p) not in above]
    return None if below else min([first, *adapted])


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def about_adapters(model: WeftModel) -> str:
    """A sentence about the adapters in the language model; empty where there are none."""
    if not (names := adapter_names(model.language_model)):
        return ""
    learns = adapter_parameters(model.language_model)
    which = f"The language model's adapters ({', '.join(names)})"
    if learns:
        return f"{which} learn with the weave: {sum(p.numel() for p in learns.values()):,} parameters."
    return f"{which} stay as they are: none of their tensors wants gradients."


def add_lora_of(language_model: Any, lora: Mapping[str, Any]) -> list[str]:
    """Put the adapter of a recipe in place, or let the one learn on that is there; returns the names of what is new.

    Raises:
        RecipeError: there is another one, or it does not fit the language model.
        WeftError: PEFT is not installed.
    """
    if names := adapter_names(language_model):
        config = adapter_config(language_model, names[0])
        if len(names) > 1 or getattr(config, "r", None) != lora["rank"]:
            raise RecipeError(
                f"lora: the initial weights have an adapter of rank {getattr(config, 'r', None)} already; give that "
                "rank to go on with it, or leave 'lora' out to keep it as it is."
            )
        use_adapters(language_model, names)
        return []
    add_lora(language_model, **lora)
    return list(adapter_parameters(language_model))
