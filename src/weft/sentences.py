"""Vectors of sentences and passages, for search by meaning: all-MiniLM-L6-v2 (Reimers and Gurevych 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch

from weft.control_tokens import encode_written
from weft.parts import resolve

PART = "all-minilm-l6-v2"
LONGEST = 256
"""Tokens of a text that the encoder was made for; what is beyond is left out."""


def sentence_vectors(texts: Sequence[str], batch_size: int = 32) -> list[list[float]]:
    """A vector of length one for each text: the mean of its tokens' last states.

    Args:
        texts: sentences or passages.
        batch_size: texts at once; those of like length go together.

    Raises:
        PartError: the sentence encoder can't be found or fetched.
    """
    tokenizer, model = _encoder()
    around = tokenizer("a")
    at = around.sequence_ids(0).index(0)
    first, last = around["input_ids"][:at], around["input_ids"][at + 1 :]
    room = LONGEST - len(first) - len(last)
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    vectors: list[list[float]] = [[] for _ in texts]
    for start in range(0, len(order), batch_size):
        some = order[start : start + batch_size]
        rows = [[*first, *encode_written(tokenizer, texts[index])[0][:room], *last] for index in some]
        encoded = tokenizer.pad({"input_ids": rows}, return_tensors="pt", verbose=False)
        with torch.inference_mode():
            states = model(**encoded).last_hidden_state
        real = encoded["attention_mask"][..., None]
        means = (states * real).sum(1) / real.sum(1).clamp(min=1)
        for index, vector in zip(some, torch.nn.functional.normalize(means, dim=-1).tolist(), strict=True):
            vectors[index] = vector
    return vectors


@lru_cache(maxsize=1)
def _encoder() -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    folder = resolve(PART).path
    return AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
