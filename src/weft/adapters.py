"""Adapters in a language model (LoRA and its kin): which there are, which have a say, and what it is without them.

PEFT puts them in place, and does all that they compute; a model without them never imports it. :func:`own_tensors`
gives what a language model holds apart from them. :mod:`weft.adapter_files` keeps them beside a weave.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from weft.errors import RecipeError, WeftError
from weft.hashes import content_hash

DEFAULT = "default"
"""What PEFT calls an adapter that nobody has named."""
_KEPT = ("base_layer", "original_module", "token_adapter")
"""Where a layer that PEFT has put in place keeps the one that was there."""


def without_wrapper(language_model: Any) -> Any:
    """The language model in which adapters are, for one that was given inside PEFT's own model.

    Raises:
        WeftError: the adapter is none that can be put in place, as those of learned prompts.
    """
    if not _peft() or not isinstance(language_model, _peft().PeftModel):
        return language_model
    if language_model.active_peft_config.is_prompt_learning:
        kind = language_model.active_peft_config.peft_type.value
        raise WeftError(f"An adapter of type {kind} stands in front of a prompt, not in the language model; use LoRA.")
    return language_model.get_base_model()


def adapter_names(language_model: nn.Module) -> list[str]:
    """The adapters that are in place, by their names."""
    return list(dict.fromkeys(name for layer in _layers(language_model) for name in _names(layer)))


def active_adapters(language_model: nn.Module) -> list[str]:
    """Those of them that have a say.

    Raises:
        WeftError: in some layers they have, and in others not.
    """
    layers = list(_tuners(language_model))
    active = list(dict.fromkeys(name for layer in layers for name in layer.active_adapters if name in _names(layer)))
    uneven = any(
        set(active) & set(_names(layer)) != set(layer.active_adapters) & set(_names(layer)) for layer in layers
    )
    if uneven or len({layer.disable_adapters for layer in layers}) > 1:
        raise WeftError("Some layers of the language model use an adapter that others do not; set one for all of them.")
    return [] if any(layer.disable_adapters for layer in layers) else active


def adapter_parameters(language_model: nn.Module) -> dict[str, nn.Parameter]:
    """What learns of a language model with adapters: all that wants gradients, by name."""
    if not adapter_names(language_model):
        return {}
    return {name: parameter for name, parameter in language_model.named_parameters() if parameter.requires_grad}


def adapters_hash(language_model: nn.Module) -> str:
    """A name for what all adapters hold, and which have a say; empty where there are none."""
    if not (names := adapter_names(language_model)):
        return ""
    parts = [repr(active_adapters(language_model))]
    for name in names:
        parts.append(json.dumps(adapter_config(language_model, name).to_dict(), sort_keys=True, default=sorted))
        for key, tensor in sorted(adapter_tensors(language_model, name).items()):
            parts += [key, str(tensor.detach().double().sum().item()), str(tensor.detach().double().norm().item())]
    return content_hash(*parts)


def own_tensors(language_model: nn.Module) -> dict[str, Tensor]:
    """What a language model holds without adapters, under the names that it has without them."""
    state = language_model.state_dict()
    wrapped = {name for name, module in language_model.named_modules() if _is_layer(module)}
    if not wrapped:
        return state
    named = {_own_name(key, wrapped): tensor for key, tensor in state.items()}
    return {name: tensor for name, tensor in named.items() if name}


def _own_name(key: str, wrapped: set[str]) -> str:
    """The name of a tensor without PEFT's layers around it; empty for one of an adapter."""
    kept: list[str] = []
    parts = key.split(".")
    for at, part in enumerate(parts):
        if ".".join(parts[:at]) not in wrapped:
            kept.append(part)
        elif part not in _KEPT:
            return ""
    return ".".join(kept)


def check_unmerged(language_model: nn.Module) -> None:
    """Refuse adapters that are folded into the weights in a way that can still be undone.

    Raises:
        WeftError: there are such.
    """
    if any(layer.merged_adapters for layer in _tuners(language_model)):
        raise WeftError(
            "An adapter is folded into the language model's weights and still in place; call unmerge_adapter() of "
            "PEFT's model to keep it apart, or merge_and_unload() and save_pretrained(..., merge=True)."
        )


def use_adapters(language_model: nn.Module, names: Sequence[str]) -> None:
    """Let some adapters have a say, and no others.

    Raises:
        WeftError: there is none of this name.
    """
    for name in names:
        _check_name(language_model, name)
    for layer in _layers(language_model):
        own = [name for name in names if name in _names(layer)]
        if own or isinstance(layer, _tuner_layer()):
            layer.set_adapter(own)


def switch_adapters(language_model: nn.Module, on: bool) -> None:
    """Compute with adapters, or without; they stay in place."""
    for layer in _layers(language_model):
        layer.enable_adapters(on)


def remove_adapter(language_model: Any, name: str) -> None:
    """Take an adapter away.

    Raises:
        WeftError: there is none of this name.
    """
    _check_name(language_model, name)
    for layer in _layers(language_model):
        if name in _names(layer):
            layer.delete_adapter(name)
    del language_model.peft_config[name]


def _check_name(language_model: nn.Module, name: str) -> None:
    names = adapter_names(language_model)
    if name not in names:
        has = ", ".join(names) or "none"
        raise WeftError(f"The language model has no adapter named {name!r}; it has: {has}.")


def add_lora(
    language_model: nn.Module, *, rank: int, alpha: float | None = None, target_modules: Sequence[str] | None = None
) -> None:
    """Put a new low-rank adapter (Hu et al. 2021) in place, to be learned; it changes nothing yet.

    Args:
        language_model: the language model.
        rank: its rank.
        alpha: by what its product is multiplied, over the rank; the rank by default.
        target_modules: ends of the names of the matrices that get one; by default what PEFT knows for the family.

    Raises:
        RecipeError: no matrix is called so, or PEFT knows nothing of the family.
        WeftError: PEFT is not installed.
    """
    config = imported_peft().LoraConfig(
        r=rank,
        lora_alpha=rank if alpha is None else alpha,
        target_modules=None if target_modules is None else list(target_modules),
        task_type="CAUSAL_LM",
        base_model_name_or_path=getattr(language_model, "name_or_path", None) or None,
    )
    try:
        put_new_adapter(language_model, config)
    except WeftError as error:
        raise RecipeError(f"lora: {error}") from None


def put_new_adapter(language_model: nn.Module, config: Any, name: str = DEFAULT) -> None:
    """Put a new adapter in place, to be learned.

    Args:
        language_model: the language model.
        config: PEFT's configuration of it.
        name: what to call it.

    Raises:
        WeftError: the language model can't have it, there is one of this name, or PEFT is not installed.
    """
    if name in adapter_names(language_model):
        raise WeftError(f"The language model has an adapter named {name!r} already; choose another name.")
    try:
        imported_peft().inject_adapter_in_model(config, language_model, name)
    except ValueError as error:
        says = " ".join(str(error).split())
        raise WeftError(f"The language model can't have this adapter: {says}") from None


def adapted_modules(language_model: nn.Module, name: str) -> list[str]:
    """The names of the modules that an adapter changes."""
    return [
        key
        for key, module in language_model.named_modules()
        if isinstance(module, _tuner_layer()) and name in _names(module)
    ]


def freeze(language_model: nn.Module) -> None:
    """Let nothing of a language model or its adapters want gradients."""
    language_model.requires_grad_(False)


def adapter_config(language_model: Any, name: str) -> Any:
    """PEFT's configuration of an adapter."""
    return language_model.peft_config[name]


def adapter_tensors(language_model: nn.Module, name: str) -> dict[str, Tensor]:
    """What an adapter holds, under the names of PEFT's files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # says that it saves embeddings where they are adapted
        return imported_peft().get_peft_model_state_dict(language_model, adapter_name=name)


def _peft() -> Any:
    """PEFT, if anybody has imported it; otherwise nothing of it can be in a model."""
    return sys.modules.get("peft")


def imported_peft() -> Any:
    """PEFT.

    Raises:
        WeftError: it is not installed.
    """
    try:
        import peft
    except ImportError:
        raise WeftError("Adapters need PEFT, which is not installed; run `pip install weft[lora]`.") from None
    return peft


def _tuners(model: nn.Module) -> Iterator[Any]:
    """The layers of adapters, which have a say in what a module computes."""
    if _peft():
        yield from (module for module in model.modules() if isinstance(module, _tuner_layer()))


def _layers(model: nn.Module) -> Iterator[Any]:
    """The same, and copies that learn in a module's place."""
    if _peft():
        yield from (module for module in model.modules() if _is_layer(module))


def _is_layer(module: nn.Module) -> bool:
    if not _peft():
        return False
    from peft.utils.other import AuxiliaryTrainingWrapper

    return isinstance(module, (_tuner_layer(), AuxiliaryTrainingWrapper))


def _tuner_layer() -> type:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return BaseTunerLayer


def _names(layer: Any) -> list[str]:
    """The adapters that a layer belongs to."""
    own = getattr(layer, "_adapters", None)
    if own is not None:
        return sorted(own)
    held = (getattr(layer, name, ()) for name in layer.adapter_layer_names)
    return list(dict.fromkeys(key for one in held if hasattr(one, "keys") for key in one))
