"""How ``AutoTokenizer`` finds the tokenizer of a saved woven model, which is that of its language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from weft.config import WeftConfig
from weft.parts import LANGUAGE_MODEL, resolve, resolve_named


class WeftTokenizer:
    """Stands for the tokenizer of a woven model in transformers' mapping; there are no objects of it."""

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *args: Any, **kwargs: Any
    ) -> PreTrainedTokenizerBase:
        """The language model's tokenizer, from the saved folder where it is merged, or else from its part.

        Args:
            pretrained_model_name_or_path: what ``WeftModel.save_pretrained`` wrote, or a Hub id.
            *args: for the tokenizer.
            **kwargs: for the tokenizer.

        Raises:
            PartError: the language model can't be found.
        """
        folder = resolve(pretrained_model_name_or_path).path
        named = WeftConfig.from_pretrained(folder).language_model
        part = resolve_named(folder / LANGUAGE_MODEL, named, "language model")
        ours = {name: value for name, value in kwargs.items() if name not in ("revision", "_commit_hash", "_from_auto")}
        return AutoTokenizer.from_pretrained(part.path, *args, **ours)
