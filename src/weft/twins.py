"""A language model once more, over the same weights, with settings of its own.

What a language model is set to, such as how its attention is computed, holds for everyone who uses it at that moment.
:func:`twin` is for whoever wants another setting while others compute.
"""

from __future__ import annotations

import copy
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def twin(language_model: PreTrainedModel) -> PreTrainedModel:
    """A language model that shares its tensors with another, and nothing else; no weave reads in it.

    Args:
        language_model: the other.
    """
    shared = {id(tensor): tensor for tensor in chain(language_model.parameters(), language_model.buffers())}
    return copy.deepcopy(language_model, dict(shared))
