"""Woven models on disk: what was learned as safetensors, and the frozen parts by id and hash.

:func:`save_checkpoint` and :func:`load_checkpoint` are what ``WeftModel.save_pretrained`` and ``from_pretrained`` do.
A merged folder carries the frozen parts as well, each in a folder of its own (``language_model/``, ``encoders/NAME/``).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from huggingface_hub import HfApi
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from weft.adapter_files import ADAPTERS, load_adapters, save_adapters
from weft.adapters import adapters_hash, own_tensors, without_wrapper
from weft.config import WeftConfig
from weft.encoders import VisionEncoder, load_vision_encoder
from weft.errors import PartError, WeftError
from weft.language_models import load_language_model
from weft.namers import OWN as OWN_LABELS
from weft.namers import TransformersNamer, load_transformers_namer
from weft.originals import changed
from weft.part_checks import check_adapters, check_parts, source_of
from weft.parts import ENCODERS, LABELS, LANGUAGE_MODEL, WEIGHTS, ResolvedPart, resolve, resolve_named
from weft.processing import FILE as PROCESSOR
from weft.processing import WeftProcessor
from weft.text_encoders import OWN, LanguageModelEncoder, TextEncoder, load_text_encoder
from weft.weaving import Weave, WeaveConfig, decoder_layers
from weft.whole_files import read_fields, read_tensors, reading, whole, writing

if TYPE_CHECKING:
    from weft.model import WeftModel


CONFIG = "config.json"
AGAIN = "copy the folder again, or take another checkpoint."
"""What to do about a file of a saved model that is damaged."""
SAVING = ("merge", "weights_dtype", "push_to_hub", "repo_id", "private", "token", "commit_message")
"""Options of ``WeftModel.save_pretrained``."""


def save_checkpoint(
    model: WeftModel,
    folder: Path,
    *,
    merge: bool = False,
    state_dict: Mapping[str, Tensor] | None = None,
    weights_dtype: torch.dtype | None = None,
    push_to_hub: bool = False,
    repo_id: str | None = None,
    checked: bool = False,
    **hub: Any,
) -> None:
    """Write a woven model; see ``WeftModel.save_pretrained``.

    Args:
        checked: its parts are known to be what their files hold (:func:`check_parts`), and are not read through again.

    Raises:
        PartError: a frozen part has no id by which it could be found again, or has changed, and ``merge`` is off.
        WeftError: adapters are where they can't be kept.
    """
    if not merge:
        name_parts(model)
        if not checked:
            check_parts(model)
    check_adapters(model)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _write(model, folder, merge, state_dict, weights_dtype)
    if push_to_hub:
        upload(folder, repo_id or folder.name, **hub)


def _write(
    model: WeftModel,
    folder: Path,
    merge: bool,
    state_dict: Mapping[str, Tensor] | None,
    weights_dtype: torch.dtype | None,
) -> None:
    """Write all files of a woven model, the weights last."""
    config = copy.deepcopy(model.config)
    language_model = without_wrapper(model.language_model)
    if merge:
        _save_parts(model, folder)
        _name_merged(model, config, folder)
    config.adapters = save_adapters(language_model, folder / ADAPTERS)
    if model.processor is not None:
        model.processor.parts = {"language_model": config.language_model}
        eyes = [(name, one) for name, one in model.encoders.items() if isinstance(one, VisionEncoder)]
        if eyes:
            weave, encoder = eyes[0]
            model.processor.parts |= {"weave": weave, "encoder": {"id": encoder.id, "sha256": encoder.sha256}}
        model.processor.save_pretrained(folder)
        if merge:
            model.processor.tokenizer.save_pretrained(folder / LANGUAGE_MODEL)
    model.generation_config.save_pretrained(folder)
    config.architectures = [type(model).__name__]
    config.dtype = weights_dtype or language_model.dtype
    config.save_pretrained(folder)
    learned = {f"weaves.{name}": tensor for name, tensor in model.weaves.state_dict().items()}
    if state_dict is not None:
        if not learned.keys() <= state_dict.keys():
            raise WeftError(f"state_dict lacks {min(learned.keys() - state_dict.keys())}; give the whole model's.")
        learned = {name: state_dict[name] for name in learned}
    learned = {name: tensor.to(weights_dtype).contiguous() for name, tensor in learned.items()}
    with whole(folder / WEIGHTS) as partial:
        save_file(learned, partial, metadata={"format": "pt"})


def _save_parts(model: WeftModel, folder: Path) -> None:
    """Write the frozen parts, the language model without its adapters."""
    language_model = without_wrapper(model.language_model)
    kept = language_model._hf_peft_config_loaded
    language_model._hf_peft_config_loaded = False  # with which transformers writes nothing but adapters
    try:
        language_model.save_pretrained(folder / LANGUAGE_MODEL, state_dict=own_tensors(language_model))
    finally:
        language_model._hf_peft_config_loaded = kept
    for name in model.encoders:
        model.encoder(name).save_pretrained(folder / ENCODERS / name)
    for name, namer in model.namers.items():
        cast(TransformersNamer, namer).save_pretrained(folder / LABELS / name)


def _name_merged(model: WeftModel, config: WeftConfig, folder: Path) -> None:
    """Name the language model of a merged folder: one that is no longer what its name says has none but its hash."""
    try:
        name_parts(model)
        config.language_model = dict(model.config.language_model)
        if not changed(without_wrapper(model.language_model), source_of(model)):
            return
    except PartError:
        pass
    sha256 = ResolvedPart("", folder / LANGUAGE_MODEL).sha256
    config.language_model = {"id": "", "sha256": sha256}
    for fields in config.weaves.values():
        if fields["encoder"].get("id") == OWN:
            fields["encoder"] = {"id": OWN, "sha256": sha256}


def upload(
    folder: Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str = "Upload weave",
) -> str:
    """Put a saved model on the Hugging Face Hub; returns the repository's id."""
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=commit_message)
    return repo_id


def load_checkpoint(
    cls: type[WeftModel],
    source: str | Path,
    *,
    language_model: PreTrainedModel | str | Path | None = None,
    encoders: Mapping[str, VisionEncoder | TextEncoder | str | Path] | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    config: Any = None,
    dtype: torch.dtype | str | None = None,
    **kwargs: Any,
) -> WeftModel:
    """Load a woven model; see ``WeftModel.from_pretrained``.

    Raises:
        PartError: the folder is not a woven model, or a frozen part is not the one that the weave was trained on.
    """
    folder = resolve(source).path
    if not (folder / WEIGHTS).is_file():
        raise PartError(
            f"{source} holds no woven model: {WEIGHTS} is missing; give a folder that save_pretrained wrote."
        )
    config = config or read_config(folder)
    if not config.weaves:
        raise PartError(
            f"{source} is a language model with nothing woven in; weave it with weft.weave, or give a folder that "
            "save_pretrained wrote."
        )
    for name in ("trust_remote_code", "adapter_kwargs", "_from_auto", "_commit_hash", "revision", "use_safetensors"):
        kwargs.pop(name, None)
    wanted: torch.dtype | None = None if dtype == "auto" else getattr(torch, dtype) if isinstance(dtype, str) else dtype
    if language_model is None or isinstance(language_model, (str, Path)):
        part = _language_model(folder, config, language_model)
        kind = wanted or config.dtype or torch.float32
        loaded = load_language_model(part.path, dtype=kind, **kwargs)
        config.language_model = {**config.language_model, "id": part.id}
    else:
        loaded = without_wrapper(language_model)
        _check_given(loaded, folder, config)
    load_adapters(loaded, folder / ADAPTERS, config.adapters)
    own = [name for name, fields in config.weaves.items() if fields["encoder"].get("id") == OWN]
    known = {
        name: _encoder(folder, name, WeaveConfig(**fields), (encoders or {}).get(name))
        for name, fields in config.weaves.items()
        if name not in own
    }
    for name, one in known.items():
        config.weaves[name]["encoder"] = {"id": one.id, "sha256": one.sha256}
    namers = {name: _namer(folder, name, one) for name, one in _named_apart(config)}
    model = cls(config, loaded, known, namers, learned_weaves(folder, config, wanted))
    if (folder / PROCESSOR).is_file():
        eyes = next((one for one in known.values() if isinstance(one, VisionEncoder)), None)
        tokenizer = tokenizer or _tokenizer(loaded.name_or_path)
        model.processor = WeftProcessor.from_pretrained(folder, encoder=eyes, tokenizer=tokenizer)
    for name in own:
        model.encoders[name] = own_encoder(model, model.weave(name).config.layers)
    for name in model.weaves:
        if model.processor is not None:
            model.processor.use(model.encoder(name))
    return model.eval()


def read_config(folder: Path) -> WeftConfig:
    """What a saved model says of itself.

    Raises:
        PartError: its file is missing or damaged.
    """
    file = folder / CONFIG
    read_fields(file, AGAIN)
    try:
        with reading(file, AGAIN):
            return WeftConfig.from_pretrained(folder)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise PartError(f"{file} does not describe a woven model; {AGAIN}") from None


def _language_model(folder: Path, config: WeftConfig, given: str | Path | None) -> ResolvedPart:
    """The language model of a saved model, from where it is said to be, or where somebody says that it is."""
    merged, named = folder / LANGUAGE_MODEL, config.language_model
    if given is not None:
        return resolve_named(None, {**named, "id": str(given)}, "language model", folder)
    where = Path(named.get("id", ""))
    if where.is_absolute() and not where.is_dir() and not merged.is_dir():
        raise PartError(
            f"The language model is no longer in {where}; say where it is: from_pretrained(..., language_model=FOLDER)."
        )
    part = resolve_named(merged, named, "language model", folder)
    return part if part.id or not part.known_sha256 else ResolvedPart(str(merged.absolute()), merged, part.sha256)


def _check_given(language_model: PreTrainedModel, folder: Path, config: WeftConfig) -> None:
    """Refuse a loaded language model that was loaded from other files than those that the weave was trained on.

    Raises:
        PartError: it was, or has another geometry.
    """
    where, sha256 = Path(language_model.name_or_path or ""), config.language_model.get("sha256")
    own, trained = (one.get_text_config(decoder=True) for one in (language_model.config, config))
    geometry = ("model_type", "hidden_size", "num_hidden_layers", "vocab_size")
    unlike = [name for name in geometry if getattr(own, name, None) != getattr(trained, name, None)]
    merged = folder / LANGUAGE_MODEL
    if not unlike and where.is_dir() and sha256 and not (merged.is_dir() and where.samefile(merged)):
        part = resolve(where)
        unlike = ["sha256"] if part.sha256 != sha256 else []
        config.language_model = {"id": part.id, "sha256": sha256}
    if unlike:
        raise PartError(
            f"The language model that was given is not the one this weave was trained on ({unlike[0]} differs); give "
            f"that one ({config.language_model.get('id') or 'it has no name'}), or train the weave anew."
        )


def _tokenizer(folder: str) -> PreTrainedTokenizerBase | None:
    """The tokenizer in a language model's folder, if there is one."""
    return AutoTokenizer.from_pretrained(folder) if (Path(folder) / "tokenizer_config.json").is_file() else None


def load_weaves(model: WeftModel, source: str | Path) -> None:
    """Add the weaves of a saved model; see ``WeftModel.load_weaves``.

    Raises:
        PartError: the folder is not a woven model, or its weaves were trained on another language model.
        WeftError: the model has a weave of the same name.
    """
    folder = resolve(source).path
    if not (folder / WEIGHTS).is_file():
        raise PartError(f"{source} holds no woven model: {WEIGHTS} is missing.")
    config = read_config(folder)
    name_parts(model)
    if config.language_model.get("sha256") != model.config.language_model.get("sha256"):
        raise PartError(
            f"The weaves of {source} were trained on another language model "
            f"({config.language_model.get('id')}, not {model.config.language_model.get('id')})."
        )
    if config.adapters and config.adapters["hash"] != adapters_hash(without_wrapper(model.language_model)):
        raise PartError(
            f"The weaves of {source} were trained together with adapters in the language model, which this model has "
            "not; load that model by itself."
        )
    dtype = next(model.weaves.parameters()).dtype
    learned = learned_weaves(folder, config, dtype)
    for name, fields in config.weaves.items():
        made = WeaveConfig(**fields)
        own = made.encoder.get("id") == OWN
        encoder = own_encoder(model, made.layers) if own else _encoder(folder, name, made)
        namer = _namer(folder, name, made) if name in dict(_named_apart(config)) else None
        model.add_weave(name, made, encoder, namer, learned[name])
        if model.processor is not None:
            model.processor.use(encoder)
    model.eval()


def learned_weaves(folder: Path, config: Any, dtype: torch.dtype | None) -> dict[str, Weave]:
    """The weaves of a saved model, by their names; in the type in which they were saved (None) they stay where they
    lie.

    Raises:
        PartError: the weights are not what the configuration describes.
    """
    tensors, weaves = read_tensors(folder / WEIGHTS, AGAIN), dict[str, Weave]()
    for name, fields in config.weaves.items():
        try:
            with torch.device("meta"):  # nothing is made only to be overwritten
                weave = Weave(name, WeaveConfig(**fields))
        except TypeError:  # settings of another version, or none
            raise PartError(f"{folder / CONFIG} describes no weave that this version knows; {AGAIN}") from None
        prefix = f"weaves.{name}."
        own = {key.removeprefix(prefix): tensors.pop(key) for key in list(tensors) if key.startswith(prefix)}
        try:
            weave.load_state_dict({key: tensor.to(dtype) for key, tensor in own.items()}, assign=True)
        except RuntimeError:
            raise PartError(f"{folder / WEIGHTS} does not hold the tensors that its config.json describes.") from None
        weaves[name] = weave
    if tensors:
        raise PartError(f"{folder / WEIGHTS} does not hold the tensors that its config.json describes.")
    return weaves


def load_connector(weave: Weave, source: str | Path) -> None:
    """Take what stands in front of the fusion layers (connector and resampler) from a saved weave of the same name.

    Args:
        weave: the weave that gets it; its fusion layers stay as they are.
        source: what ``save_pretrained`` wrote, or a Hub id.

    Raises:
        PartError: the folder is not a woven model, or has no connector of this name that fits.
    """
    folder = resolve(source).path
    if not (folder / WEIGHTS).is_file():
        raise PartError(f"{source} holds no woven model: {WEIGHTS} is missing.")

    def before_layers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: t for name, t in tensors.items() if name.startswith(("connector.", "resampler."))}

    start = f"weaves.{weave.name}."
    saved = read_config(folder).weaves.get(weave.name, {})
    stored = read_tensors(folder / WEIGHTS, AGAIN)
    learned = before_layers({name.removeprefix(start): t for name, t in stored.items()})
    own = before_layers(weave.state_dict())
    alike = {name: t.shape for name, t in learned.items()} == {name: t.shape for name, t in own.items()}
    if not own or not alike or saved.get("encoder", {}).get("sha256") != weave.config.encoder.get("sha256"):
        raise PartError(
            f"{source} has no connector that fits the weave {weave.name!r}; give a model whose weave of this name has "
            "the same encoder, language model and connector settings."
        )
    weave.load_state_dict(learned, strict=False)


def own_encoder(
    model: WeftModel, layers: Sequence[int], tokenizer: PreTrainedTokenizerBase | None = None
) -> LanguageModelEncoder:
    """The language model of a woven model as encoder of passages, for fusion layers in front of some of its layers.

    Raises:
        PartError: its tokenizer is not known.
    """
    if tokenizer is None and model.processor is not None:
        tokenizer = model.processor.tokenizer
    if tokenizer is None:
        raise PartError("The language model reads passages by its own tokenizer, which was not found; give tokenizer.")
    decoder = decoder_layers(model.language_model)
    sha256 = model.config.language_model.get("sha256", "")
    return LanguageModelEncoder(model.language_model, decoder, layers, tokenizer, sha256=sha256)


def _encoder(
    folder: Path, name: str, config: WeaveConfig, given: VisionEncoder | TextEncoder | str | Path | None = None
) -> VisionEncoder | TextEncoder:
    """The encoder of a saved weave, from its part, or from where somebody says that it is."""
    what = f"encoder of the weave {name!r}"
    if isinstance(given, (VisionEncoder, TextEncoder)):
        if given.sha256 != config.encoder.get("sha256"):
            raise PartError(f"The {what} that was given is not the one this weave was trained on.")
        return given
    if given is None:
        part = resolve_named(folder / ENCODERS / name, config.encoder, what, folder)
    else:
        part = resolve_named(None, {**config.encoder, "id": str(given)}, what, folder)
    return load_text_encoder(part) if config.reads == "texts" else load_vision_encoder(part)


def _named_apart(config: WeftConfig) -> list[tuple[str, WeaveConfig]]:
    """The weaves whose pictures are named by a model apart from the encoder."""
    weaves = [(name, WeaveConfig(**fields)) for name, fields in config.weaves.items()]
    return [(name, one) for name, one in weaves if one.labels and one.labels["id"] != OWN_LABELS]


def _namer(folder: Path, name: str, config: WeaveConfig) -> TransformersNamer:
    """What names pictures for a saved weave, from its part."""
    part = resolve_named(folder / LABELS / name, config.labels, f"labels of the weave {name!r}", folder)
    return load_transformers_namer(part)


def name_parts(model: WeftModel) -> None:
    """Fill in id and hash of a language model that was given loaded, from where it was loaded.

    Raises:
        PartError: a part was loaded from nowhere that could be found again.
    """
    if not model.config.language_model:
        where = model.language_model.name_or_path
        if not where:
            raise PartError(
                "The language model has no name by which it could be found again; save it and weave into the saved "
                "folder, or call save_pretrained(..., merge=True)."
            )
        part = resolve(where)
        model.config.language_model = {"id": part.id, "sha256": part.sha256}
    for name, encoder in model.encoders.items():
        if isinstance(encoder, LanguageModelEncoder):
            encoder.sha256 = model.config.language_model.get("sha256", "")
            model.config.weaves[name]["encoder"] = {"id": encoder.id, "sha256": encoder.sha256}
        elif not encoder.id:
            raise PartError(
                f"The encoder of the weave {name!r} has no name by which it could be found again; load it from a "
                "folder or a Hub id, or call save_pretrained(..., merge=True)."
            )
    for name, namer in model.namers.items():
        if not namer.id:
            raise PartError(
                f"The labels of the weave {name!r} have no name by which they could be found again; load them from a "
                "folder or a Hub id, or call save_pretrained(..., merge=True)."
            )
