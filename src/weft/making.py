"""How woven models come about: :func:`weave` makes a new one, :func:`load` gives one that has been trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedModel

from weft.config import WeftConfig
from weft.encoders import VisionEncoder, load_vision_encoder
from weft.model import WeftModel
from weft.parts import resolve
from weft.processing import WeftProcessor
from weft.shipped import woven_folder
from weft.weaving import Initial, WeaveConfig, choose_layers


def load(name_or_path: str | Path | None = None, *, dtype: torch.dtype | None = None, **options: Any) -> WeftModel:
    """A model that is ready to be asked.

    Args:
        name_or_path: a shipped weave (``"photos"``, the default), a folder that ``save_pretrained`` wrote, or a Hub id.
        dtype: floating-point type; by default the one it was saved in.
        **options: for ``WeftModel.from_pretrained`` (``device_map``, ...).

    Raises:
        PartError: the weave or a frozen part can't be found.
    """
    return WeftModel.from_pretrained(woven_folder(name_or_path), dtype=dtype, **options)


def weave(
    language_model: PreTrainedModel | WeftModel | str | Path,
    *,
    vision: VisionEncoder | PreTrainedModel | str | Path = "efficientnet-lite2",
    name: str = "photos",
    every: int | None = None,
    start: int | None = None,
    layers: Sequence[int] | None = None,
    initial: Initial = "identity",
    dtype: torch.dtype | None = None,
    **options: Any,
) -> WeftModel:
    """Give a language model eyes.

    Args:
        language_model: a loaded model, a woven one (which gets one more weave), a local folder, a part or a Hub id.
        vision: the encoder: loaded, a local folder, a part or a Hub id.
        name: the weave's name.
        every: put a fusion layer in front of every so many decoder layers ...
        start: ... from this one on; by default every second one of the upper third.
        layers: or these decoder layers.
        initial: ``"identity"``, or ``"self-attention"`` to start as copies of the decoder's own attention.
        dtype: floating-point type of the weave, and of a language model that is loaded here; float32 by default, or
            that of the loaded language model.
        **options: further fields of :class:`~weft.weaving.WeaveConfig` (``feed_forward``, ``sees``, ``resample``, ...).

    Returns:
        The woven model: frozen parts, and one weave that learns. With ``initial="identity"`` it computes exactly what
        the language model does.

    Example:
        >>> model = weave("HuggingFaceTB/SmolLM2-360M-Instruct", vision="google/siglip2-base-patch16-224", every=4)
    """
    if isinstance(language_model, (str, Path)):
        part = resolve(language_model)
        language_model = AutoModelForCausalLM.from_pretrained(part.path, dtype=dtype or torch.float32)
        language_model.weft_part = {"id": part.id, "sha256": part.sha256}
    encoder = vision if isinstance(vision, VisionEncoder) else load_vision_encoder(vision)
    if not isinstance(language_model, WeftModel):
        stands_on = WeftConfig(language_model.config, dict(getattr(language_model, "weft_part", {})))
        language_model = WeftModel(stands_on, language_model)
    text = language_model.config.get_text_config(decoder=True)
    chosen = choose_layers(text.num_hidden_layers, every=every, start=start, layers=layers)
    memory_tokens = options.pop("memory_tokens", encoder.tokens or 0)
    fields = {**_geometry(text), "connector_heads": _heads(text.hidden_size), **options}
    config = WeaveConfig(
        layers=chosen,
        memory_size=encoder.width,
        memory_tokens=memory_tokens,
        encoder={"id": encoder.id, "sha256": encoder.sha256},
        initial=initial,
        **fields,
    )
    language_model.add_weave(name, config, encoder).to(dtype=dtype or language_model.language_model.dtype)
    if language_model.processor is None:
        language_model.processor = _processor(language_model.language_model.name_or_path, encoder)
    return language_model


def _processor(folder: str, encoder: VisionEncoder) -> WeftProcessor | None:
    """The processor of a language model that was loaded from a folder with a tokenizer in it."""
    if not (Path(folder) / "tokenizer_config.json").is_file():
        return None
    return WeftProcessor(AutoTokenizer.from_pretrained(folder), encoder)


def _geometry(text: PreTrainedConfig) -> dict[str, int]:
    """Heads of a fusion layer: the language model's own, or heads of 64 where it has none."""
    heads = getattr(text, "num_attention_heads", None) or _heads(text.hidden_size)
    return {
        "hidden_size": text.hidden_size,
        "heads": heads,
        "kv_heads": getattr(text, "num_key_value_heads", None) or heads,
        "head_dim": getattr(text, "head_dim", None) or text.hidden_size // heads,
    }


def _heads(width: int) -> int:
    """Heads of about 64 that divide a width."""
    return next(heads for heads in range(max(1, width // 64), 0, -1) if width % heads == 0)
