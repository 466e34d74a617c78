"""Whether a woven model can be saved: a folder that only names its frozen parts must give the same ones back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from weft.adapters import adapter_names, check_unmerged, without_wrapper
from weft.encoders import VisionEncoder, load_vision_encoder
from weft.errors import PartError, WeftError
from weft.namers import TransformersNamer, load_transformers_namer
from weft.originals import changed, changed_encoder_tensor
from weft.parts import resolve
from weft.text_encoders import LanguageModelEncoder, TextEncoder, load_text_encoder

if TYPE_CHECKING:
    from weft.model import WeftModel


def check_parts(model: WeftModel) -> None:
    """Refuse frozen parts that have changed since they were loaded: a weave that only names them would get others back.

    Raises:
        PartError: one has; the message names the first tensor or setting that differs.
    """
    language_model, folder = without_wrapper(model.language_model), source_of(model)
    if what := changed(language_model, folder):
        raise PartError(
            f"The language model is no longer the one in {folder} ({what} differs), and what is saved would only name "
            "it; save with merge=True, or undo the change."
        )
    for name in model.weaves:
        encoder = model.encoder(name)
        if isinstance(encoder, LanguageModelEncoder):
            continue
        with suppress(PartError):  # what came from a merged folder may be nowhere else
            _check_part(
                encoder,
                f"encoder of the weave {name!r}",
                partial(_encoder, encoder),
            )
    for name, namer in model.namers.items():
        with suppress(PartError):
            again = partial(load_transformers_namer, resolve(cast(TransformersNamer, namer).id))
            _check_part(namer, f"labels of the weave {name!r}", again)


def _check_part(part: Any, what: str, again: Callable[[], Any]) -> None:
    """Refuse an encoder, or labels, that have changed."""
    where = resolve(part.id).path
    if name := changed_encoder_tensor(part.model.state_dict(), where, lambda: again().model.state_dict()):
        raise WeftError(
            f"The {what} is no longer the one in {where} ({name} differs), and what is saved would only name it; save "
            "with merge=True, or undo the change."
        )


def source_of(model: WeftModel) -> Path:
    """The folder that a language model was loaded from.

    Raises:
        PartError: it can't be found.
    """
    where = model.language_model.name_or_path
    return Path(where) if where and Path(where).is_dir() else resolve(model.config.language_model["id"]).path


def check_adapters(model: WeftModel) -> None:
    """Refuse adapters that could not be kept.

    Raises:
        WeftError: there are some outside the language model, or folded into it.
    """
    for name, module in model.named_children():
        if name != "language_model" and adapter_names(module):
            raise WeftError(
                f"There are adapters in {name}, which a saved model has no place for; call merge_and_unload() of "
                "PEFT's model, or give target_modules that are in the language model alone."
            )
    check_unmerged(without_wrapper(model.language_model))


def _encoder(encoder: VisionEncoder | TextEncoder) -> VisionEncoder | TextEncoder:
    """An encoder as its part gives it."""
    part = resolve(encoder.id)
    return load_text_encoder(part) if isinstance(encoder, TextEncoder) else load_vision_encoder(part)
