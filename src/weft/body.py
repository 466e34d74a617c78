"""A woven model's language model in parts: its body, for whoever has a head of their own, as TRL has; what its cache
holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import Cache

from weft.adapters import without_wrapper

if TYPE_CHECKING:
    from weft.model import WeftModel


class Body(nn.Module):
    """Computes what the body of a woven model's language model does, its rows having looked at their memories.

    Args:
        model: the woven model, which is used, not owned.
    """

    def __init__(self, model: WeftModel) -> None:
        super().__init__()
        self._used = (model,)  # a tuple hides it from PyTorch

    @property
    def config(self) -> Any:
        """The woven model's."""
        return self._used[0].config

    def forward(self, input_ids: Any = None, attention_mask: Any = None, **inputs: Any) -> Any:
        """What the body of the language model returns; arguments as for ``WeftModel.forward``.

        Raises:
            WeftError: what the rows look at is to be copied from, of which hidden states do not tell.
        """
        (model,) = self._used
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, **inputs}
        return model.through(without_wrapper(model.language_model).base_model, inputs)


def counted(cache: Cache) -> int | None:
    """Tokens of the text that a cache holds; None for one of recurrent states alone, which does not count them."""
    return None if cache.layers and all(cache.is_linear) else int(cache.get_seq_length())
