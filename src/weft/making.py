"""How woven models come about: :func:`weave` makes a new one, :func:`load` gives one that has been trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import (
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from weft.adapters import without_wrapper
from weft.catalog import file_sha256
from weft.checkpoint import own_encoder
from weft.config import WeftConfig
from weft.encoders import VisionEncoder, load_vision_encoder
from weft.errors import WeftError
from weft.language_models import language_model_of, load_language_model, stream_axis
from weft.model import WeftModel
from weft.namers import Namer, load_namer
from weft.packing import multiplies_bfloat16
from weft.parts import WEIGHTS, resolve
from weft.plain import PlainDecoder, WeightsFile
from weft.processing import WeftProcessor
from weft.shipped import SHIPPED, shipped, woven_folder
from weft.tensor_file import file_identity, widened
from weft.text_encoders import OWN, TextEncoder, load_text_encoder
from weft.weave_options import check_divides, check_places, check_weave_name, check_weave_options, dtype_of
from weft.weaving import Initial, WeaveConfig, choose_layers, normalizes_heads


def load(
    name_or_path: str | Path | None = None,
    *,
    dtype: torch.dtype | None = None,
    quantize: Literal["auto", "int8", "int4"] | None = "auto",
    **options: Any,
) -> WeftModel:
    """A model that is ready to be asked.

    Args:
        name_or_path: a shipped weave (``"photos"``, ``"reader"``), a folder that ``save_pretrained`` wrote, or a Hub
            id; by default all shipped weaves on one language model.
        dtype: floating-point type; by default the one it was saved in, or float32 in place of bfloat16 on a CPU that
            has no instructions for that, where it takes many times as long.
        quantize: bits in which a CPU keeps the language model's matrices to decode a few rows with; ``"auto"``, the
            default, for four bits where that loses nothing. It needs bfloat16 and a language model that
            :mod:`weft.decoder` knows; for a GPU give transformers' ``quantization_config`` instead.
        **options: for ``WeftModel.from_pretrained`` (``device_map``, ...).

    Raises:
        PartError: the weave or a frozen part can't be found.
        WeftError: the model can't be quantized so.
    """
    folder = shipped(SHIPPED[0]) if name_or_path is None else woven_folder(name_or_path)
    model = WeftModel.from_pretrained(folder, dtype=dtype, **options)
    if name_or_path is None:
        for name in SHIPPED[1:]:
            model.load_weaves(shipped(name))
    file = None if "language_model" in options else _weights_of(model)
    # Four-bit kernels take bfloat16 alone, and are quick on every CPU: what they decode stays in it.
    narrow = dtype is None and model.dtype == torch.bfloat16 and not multiplies_bfloat16(model.device)
    if narrow:
        ships = SHIPPED if name_or_path is None else [name for name in SHIPPED if folder == shipped(name)]
        _widen(model, file, [shipped(name) for name in ships])
    model.plain = PlainDecoder(model.eval(), quantize, narrow=narrow, file=file)
    if quantize in ("int8", "int4"):
        model.plain.check()
    return model


def _weights_of(model: WeftModel) -> WeightsFile | None:
    """The file in which a language model lies that has just been loaded; None where there is no one such file."""
    path = Path(model.language_model.name_or_path) / WEIGHTS
    identity = model.config.language_model.get("sha256")
    return WeightsFile(path, file_identity(path, identity)) if identity and path.is_file() else None


def _widen(model: WeftModel, file: WeightsFile | None, weaves: Sequence[Path]) -> None:
    """Put a model into float32. Its language model, and weaves that ship with Weft, come from copies on disk, so that
    what is not needed takes no memory."""
    if file is not None and (wide := widened(file.path, file.identity)):
        model.language_model.load_state_dict(wide, strict=False, assign=True)
        model.language_model.tie_weights()
    for folder in weaves:
        if wide := widened(folder / WEIGHTS, file_sha256(folder / WEIGHTS)):
            learned = {name.removeprefix("weaves."): tensor for name, tensor in wide.items()}
            model.weaves.load_state_dict(learned, strict=False, assign=True)
    model.to(torch.float32)


def weave(
    language_model: PreTrainedModel | WeftModel | str | Path,
    *,
    vision: VisionEncoder | PreTrainedModel | str | Path | None = None,
    text: TextEncoder | str | Path | None = None,
    name: str | None = None,
    every: int | None = None,
    start: int | None = None,
    layers: Sequence[int] | None = None,
    initial: Initial = "identity",
    labels: PreTrainedModel | str | Path | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    dtype: torch.dtype | str | None = None,
    **options: Any,
) -> WeftModel:
    """Give a language model eyes, or texts to read.

    Args:
        language_model: a loaded model, a woven one (which gets one more weave), a local folder, a part or a Hub id. Of
            a multimodal one (Gemma 3, LLaVA, ...) the language model inside is taken, and its own eyes are left out.
        vision: a vision encoder: loaded, a local folder, a part or a Hub id; ``"efficientnet-lite2"`` if neither this
            nor ``text`` is given.
        text: or a text encoder: ``"language-model"`` for the language model itself, or a loaded one, a local folder, a
            part or a Hub id.
        name: the weave's name; ``"photos"`` or ``"reader"`` by default.
        every: put a fusion layer in front of every so many decoder layers ...
        start: ... from this one on; by default every second one of the upper third.
        layers: or these decoder layers.
        initial: ``"identity"``, or ``"self-attention"`` to start as copies of the decoder's own attention.
        labels: who names what is seen in pictures, so that the names can be read and copied as well: ``"encoder"`` for
            the classifier that the encoder was trained with, or an image classifier, tagger or object detector of
            transformers: loaded, a local folder or a Hub id; None for nobody.
        tokenizer: the language model's; by default from where it was loaded.
        dtype: floating-point type of the weave, and of a language model that is loaded here, or its name; float32 by
            default, or that of the loaded language model.
        **options: further fields of :class:`~weft.weaving.WeaveConfig` (``feed_forward``, ``sees``, ``joint``,
            ``resample``, ``copy_width``, ...).

    Returns:
        The woven model: frozen parts, and one weave that learns. With ``initial="identity"`` and no copy gate it
        computes exactly what the language model does.

    Raises:
        WeftError: the language model or the encoder can't be woven so; the message says why.

    Example:
        >>> model = weave("HuggingFaceTB/SmolLM2-360M-Instruct", vision="google/siglip2-base-patch16-224", every=4)
        >>> model = weave(model, text="language-model", initial="self-attention", copy_width=128)
    """
    if vision is not None and text is not None:
        raise WeftError("A weave has one encoder: give vision or text, and weave a second time for the other.")
    name = ("photos" if text is None else "reader") if name is None else name
    check_weave_name(name)
    check_places(every, start, layers)
    check_weave_options(initial, options)
    dtype = dtype_of(dtype)
    if not isinstance(language_model, WeftModel):
        language_model = _frozen(language_model, dtype)
    if tokenizer is None:
        processor = language_model.processor
        tokenizer = _tokenizer(language_model.language_model.name_or_path) if processor is None else processor.tokenizer
    elif not callable(tokenizer):
        raise WeftError(f"tokenizer={tokenizer!r} is none; load it first, with AutoTokenizer.from_pretrained.")
    config = language_model.config.get_text_config(decoder=True)
    chosen = choose_layers(config.num_hidden_layers, every=every, start=start, layers=layers)
    axis = stream_axis(language_model.language_model, chosen)
    if axis is not None and (text == OWN or initial != "identity" or options.get("joint")):
        raise WeftError(
            "This language model keeps several residual streams for each token, of which fusion layers read the mean; "
            "it takes no text='language-model', no initial='self-attention' and no joint=True."
        )
    encoder: VisionEncoder | TextEncoder
    if text is None:
        encoder, fields = _eyes(vision or "efficientnet-lite2")
    else:
        encoder, fields = _reading(language_model, text, chosen, tokenizer, initial)
    namer = _namer(labels, encoder, language_model) if labels else None
    if namer is not None:
        fields["labels"] = {"id": namer.id, "sha256": namer.sha256}
    if options.get("joint") and initial == "self-attention":
        fields |= _as_decoder_attends(language_model, chosen)  # so that text is looked at as it is there
    fields = {**_geometry(config), "connector_heads": _heads(config.hidden_size), **fields, **options}
    if fields.get("copy_width") and namer is None and not getattr(encoder, "copies", False):
        raise WeftError(
            "copy_width: a copy gate needs a memory in the language model's own vocabulary; use text='language-model', "
            "or labels for pictures."
        )
    check_divides("connector_heads", fields["connector_heads"], "hidden_size", fields["hidden_size"])
    check_divides("kv_heads", fields["kv_heads"], "heads", fields["heads"])
    fields |= {"encoder": {"id": encoder.id, "sha256": encoder.sha256}, "initial": initial, "stream_axis": axis}
    made = WeaveConfig(layers=chosen, **fields)
    language_model.add_weave(name, made, encoder, namer).to(dtype=dtype or language_model.language_model.dtype)
    if language_model.processor is None and tokenizer is not None:
        language_model.processor = WeftProcessor(tokenizer)
    if language_model.processor is not None:
        for each in language_model.weaves:
            language_model.processor.use(language_model.encoder(each))
    return language_model


def _frozen(language_model: Any, dtype: torch.dtype | None) -> WeftModel:
    """A language model in which nothing is woven yet: loaded, a folder, a part or a Hub id.

    Raises:
        WeftError: it is none, or can't be found.
    """
    named: dict[str, str] = {}
    if isinstance(language_model, (str, Path)):
        part = resolve(language_model)
        found = load_language_model(part.path, dtype=dtype or torch.float32)
        named = {"id": part.id, "sha256": part.sha256}
    else:
        found = language_model_of(without_wrapper(language_model))
    return WeftModel(WeftConfig(found.config, named), found)


def extend(
    model: WeftModel, name: str, *, labels: PreTrainedModel | str | Path | None = None, copy_width: int = 0
) -> None:
    """Let a weave that has learned read names of what pictures show, or copy, as well; what it knew it still knows.

    Args:
        model: the woven model.
        name: the weave that gets what it lacks.
        labels: who names what is seen in pictures, as for :func:`weave`; None to leave that as it is.
        copy_width: width in which a copy gate compares; 0 to leave that as it is.

    Raises:
        WeftError: the weave can't have these.
    """
    known, encoder = model.weave(name), model.encoder(name)
    if labels is not None and not known.config.labels:
        namer = _namer(labels, encoder, model)
        if isinstance(namer, nn.Module):
            model.namers[name] = namer
        known.add_names({"id": namer.id, "sha256": namer.sha256})
    if copy_width and not known.config.copy_width:
        known.add_copy_gate(copy_width)
    model.config.weaves[name] = known.config.to_dict()


def _namer(labels: Any, encoder: VisionEncoder | TextEncoder, model: WeftModel) -> Namer:
    """What names pictures for a weave.

    Raises:
        WeftError: the weave reads texts, or the language model's embeddings have a width of their own.
    """
    if not isinstance(encoder, VisionEncoder):
        raise WeftError("labels name what is seen in pictures, but this weave reads texts; leave them out.")
    width = next(model.get_input_embeddings().parameters()).shape[-1]
    if width != model.config.get_text_config(decoder=True).hidden_size:
        raise WeftError(f"labels: this language model's input embeddings have a width of their own ({width}).")
    return load_namer(labels, encoder)


def _eyes(vision: Any) -> tuple[VisionEncoder, dict[str, Any]]:
    """A vision encoder, and what a weave has to know of it."""
    encoder = vision if isinstance(vision, VisionEncoder) else load_vision_encoder(vision)
    return encoder, {"memory_size": encoder.width, "memory_tokens": encoder.tokens}


def _reading(
    model: WeftModel,
    text: Any,
    layers: Sequence[int],
    tokenizer: PreTrainedTokenizerBase | None,
    initial: Initial,
) -> tuple[TextEncoder, dict[str, Any]]:
    """A text encoder, and what a weave has to know of it."""
    if text != OWN:
        encoder = text if isinstance(text, TextEncoder) else load_text_encoder(text)
        return encoder, {"reads": "texts", "memory_size": encoder.width, "connector_layers": 0}
    own = own_encoder(model, layers, tokenizer)
    config = model.config.get_text_config(decoder=True)
    fields = {"reads": "texts", "memory_size": config.hidden_size, "layered": True}
    return own, fields | (_as_decoder_attends(model, layers) if initial == "self-attention" else {})


def _as_decoder_attends(model: WeftModel, layers: Sequence[int]) -> dict[str, Any]:
    """Positions and norms of fusion layers that start as copies of the decoder's own attention."""
    rope = getattr(model.config.get_text_config(decoder=True), "rope_parameters", None) or {}
    return {"rotary_theta": float(rope.get("rope_theta") or 0.0), "qk_norm": normalizes_heads(model, layers[0])}


def _tokenizer(folder: str) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a language model that was loaded from a folder."""
    if not (Path(folder) / "tokenizer_config.json").is_file():
        return None
    return AutoTokenizer.from_pretrained(folder)


def _geometry(text: PreTrainedConfig) -> dict[str, int]:
    """Heads of a fusion layer: the language model's own, or heads of 64 where it has none."""
    width = text.hidden_size
    heads = _of(text, "num_attention_heads") or _heads(width)
    kv_heads, head_dim = _of(text, "num_key_value_heads"), _of(text, "head_dim")
    return {
        "hidden_size": width,
        "heads": heads,
        "kv_heads": kv_heads if kv_heads and heads % kv_heads == 0 else heads,
        "head_dim": head_dim or max(width // heads, 1),
    }


def _of(text: PreTrainedConfig, name: str) -> int | None:
    """A size that a language model has, where all its layers have the same."""
    try:
        found = getattr(text, name, None)
    except RuntimeError:  # each layer has its own
        return None
    return found if isinstance(found, int) else None


def _heads(width: int) -> int:
    """Heads of about 64 that divide a width."""
    return next(heads for heads in range(max(1, width // 64), 0, -1) if width % heads == 0)
