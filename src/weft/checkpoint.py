"""Woven models on disk: what was learned as safetensors, and the frozen parts by id and hash.

:func:`save_checkpoint` and :func:`load_checkpoint` are what ``WeftModel.save_pretrained`` and ``from_pretrained`` do.
A merged folder carries the frozen parts as well, each in a folder of its own (``language_model/``, ``encoders/NAME/``).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from weft.encoders import load_vision_encoder
from weft.errors import PartError
from weft.parts import ENCODERS, LANGUAGE_MODEL, WEIGHTS, resolve, resolve_named
from weft.processing import FILE as PROCESSOR
from weft.processing import WeftProcessor

if TYPE_CHECKING:
    from weft.model import WeftModel


def save_checkpoint(
    model: WeftModel,
    folder: Path,
    *,
    merge: bool = False,
    weights_dtype: torch.dtype | None = None,
    push_to_hub: bool = False,
    repo_id: str | None = None,
    **hub: Any,
) -> None:
    """Write a woven model; see ``WeftModel.save_pretrained``.

    Raises:
        PartError: a frozen part has no id by which it could be found again, and ``merge`` is off.
    """
    if not merge:
        name_parts(model)
    folder.mkdir(parents=True, exist_ok=True)
    if merge:
        model.language_model.save_pretrained(folder / LANGUAGE_MODEL)
        for name in model.encoders:
            model.encoder(name).save_pretrained(folder / ENCODERS / name)
    if model.processor is not None:
        weave, encoder = next(iter(model.encoders.items()))
        named = {"id": encoder.id, "sha256": encoder.sha256}
        model.processor.parts = {"language_model": model.config.language_model, "weave": weave, "encoder": named}
        model.processor.save_pretrained(folder)
        if merge:
            model.processor.tokenizer.save_pretrained(folder / LANGUAGE_MODEL)
    model.generation_config.save_pretrained(folder)
    model.config.architectures = [type(model).__name__]
    dtype = weights_dtype or next(model.weaves.parameters()).dtype
    model.config.dtype = dtype
    model.config.save_pretrained(folder)
    learned = {f"weaves.{name}": tensor.to(dtype).contiguous() for name, tensor in model.weaves.state_dict().items()}
    partial = folder / f".{WEIGHTS}.partial"
    save_file(learned, partial, metadata={"format": "pt"})
    partial.replace(folder / WEIGHTS)
    if push_to_hub:
        upload(folder, repo_id or folder.name, **hub)


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
    language_model: PreTrainedModel | None = None,
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
    config = config or cls.config_class.from_pretrained(folder)
    for name in ("trust_remote_code", "adapter_kwargs", "_from_auto", "_commit_hash", "revision", "use_safetensors"):
        kwargs.pop(name, None)
    if dtype in (None, "auto"):
        dtype = config.dtype or torch.float32
    dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    if language_model is None:
        path = resolve_named(folder / LANGUAGE_MODEL, config.language_model, "language model").path
        language_model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, **kwargs)
    encoders = {}
    for name, fields in config.weaves.items():
        part = resolve_named(folder / ENCODERS / name, fields["encoder"], f"encoder of the weave {name!r}")
        encoders[name] = load_vision_encoder(part)
    model = cls(config, language_model, encoders)
    model.weaves.to(dtype=dtype)
    learned = {name.removeprefix("weaves."): tensor for name, tensor in load_file(folder / WEIGHTS).items()}
    model.weaves.load_state_dict(learned)
    if (folder / PROCESSOR).is_file():
        model.processor = WeftProcessor.from_pretrained(folder, encoder=next(iter(encoders.values()), None))
    return model.eval()


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
        if not encoder.id:
            raise PartError(
                f"The encoder of the weave {name!r} has no name by which it could be found again; load it from a "
                "folder or a Hub id, or call save_pretrained(..., merge=True)."
            )
