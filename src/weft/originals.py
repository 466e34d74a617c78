"""Whether a frozen part still is what its files hold: a saved weave names its parts, and would get back what they hold.

Tensors are compared one by one where they lie in the files, so that little memory is needed. What transformers renames
or puts together on loading is loaded once more, and compared with that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from weft.adapters import own_tensors
from weft.language_models import load_language_model
from weft.whole_files import reading

_IDLE = {
    "architectures",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "quantization_config",
    "return_dict",
    "tie_word_embeddings",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}
"""Settings on which no logits depend, or that show in the tensors."""


def changed(language_model: PreTrainedModel, folder: Path) -> str:
    """What of a language model, adapters aside, is no longer what loading its folder gives; empty where nothing is.

    Args:
        language_model: the language model; tensors that are quantized, or elsewhere than in memory, count as unchanged.
        folder: where it was loaded from.
    """
    if setting := _changed_setting(language_model, folder):
        return f"the setting {setting}"
    tensors = {name: tensor for name, tensor in own_tensors(language_model).items() if tensor.device.type != "meta"}
    if getattr(language_model, "hf_quantizer", None) is not None:
        tensors = {name: tensor for name, tensor in tensors.items() if _is_weight(tensor)}
        return _differing(tensors, folder, strict=False)

    def again() -> Mapping[str, Tensor]:
        return load_language_model(folder, dtype=language_model.dtype).state_dict()

    return changed_tensor(tensors, folder, again)


def changed_tensor(tensors: Mapping[str, Tensor], folder: Path, again: Callable[[], Mapping[str, Tensor]]) -> str:
    """The first of a part's tensors that is not the one in its files; empty where all are.

    Args:
        tensors: the part's tensors by name.
        folder: its files.
        again: loads it once more, for parts whose files use other names.
    """
    if not _differing(tensors, folder):
        return ""
    loaded = again()
    for name in sorted(tensors.keys() ^ loaded.keys()):
        return name
    return next((name for name, tensor in tensors.items() if not _same(loaded[name], tensor)), "")


def changed_encoder_tensor(
    tensors: Mapping[str, Tensor], folder: Path, again: Callable[[], Mapping[str, Tensor]]
) -> str:
    """The same of an encoder, which may have more than its files hold (a pooler that nobody trained) and less."""
    suspect = _differing(tensors, folder, strict=False)
    return suspect if suspect and not _same(again()[suspect], tensors[suspect]) else ""


def _differing(tensors: Mapping[str, Tensor], folder: Path, strict: bool = True) -> str:
    """The first tensor that differs from the one of its name in the files, or, if strict, has none there."""
    left = dict(tensors)
    seen: set[int] = set()
    for file in sorted(folder.glob("*.safetensors")):
        with reading(file, "fetch it again."), safe_open(file, framework="pt") as stored:
            for name, key in _matching(left, stored.keys(), strict):
                tensor = left.pop(name)
                if not strict and list(stored.get_slice(key).get_shape()) != list(tensor.shape):
                    continue
                if not _same(stored.get_tensor(key), tensor):
                    return name
                seen.add(tensor.data_ptr())
    # What shares its memory with another tensor, as a tied head does, is not written twice.
    return next((name for name, tensor in left.items() if strict and tensor.data_ptr() not in seen), "")


def _matching(tensors: Mapping[str, Tensor], stored: Iterable[str], strict: bool) -> list[tuple[str, str]]:
    """Names of tensors, and those that they have in a file: the same, or, unless strict, with something in front."""
    if strict:
        return [(name, name) for name in stored if name in tensors]
    ends = {
        ".".join(parts[start:]): key for key in stored for parts in (key.split("."),) for start in range(len(parts))
    }
    return [(name, ends[name]) for name in tensors if name in ends]


def _same(stored: Tensor, tensor: Tensor) -> bool:
    return stored.shape == tensor.shape and torch.equal(stored.to(tensor.device, tensor.dtype), tensor)


def _is_weight(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.element_size() > 1


def _changed_setting(language_model: PreTrainedModel, folder: Path) -> str:
    """The first setting of a language model that its folder says otherwise."""
    own = _settings(language_model.config)
    stored = AutoConfig.from_pretrained(folder)
    if stored.model_type != language_model.config.model_type:  # a multimodal checkpoint, of which this is the inside
        stored = stored.get_text_config(decoder=True)
    if not (differing := _names(own, _settings(stored))):
        return ""
    with torch.device("meta"):  # some settings are set by the model itself
        made = AutoModelForCausalLM.from_config(stored)
    return next((name for name in _names(own, _settings(made.config)) if name in differing), "")


def _names(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return [name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)]


def _settings(config: PreTrainedConfig) -> dict[str, Any]:
    return _active(config.to_dict())


def _active(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _active(value) if isinstance(value, dict) else value
        for name, value in fields.items()
        if name not in _IDLE and not str(name).startswith("_")
    }
