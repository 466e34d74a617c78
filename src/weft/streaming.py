"""One reply, word by word, as it comes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from weft.batching import texts_of
from weft.drawing import Chooser, Sampling
from weft.pieces import Pieces
from weft.responding import ends_of
from weft.search import Prompt

if TYPE_CHECKING:
    from weft.model import WeftModel


@torch.inference_mode()
def stream(model: WeftModel, prompt: Prompt, sampling: Sampling) -> Iterator[str]:
    """The text of a reply, piece by piece; together the pieces are the whole of it.

    Args:
        model: the woven model.
        prompt: what it replies to, its memories read.
        sampling: how words are chosen.
    """
    texts, ends = texts_of(model), ends_of(model)
    chooser, pieces, said = Chooser(sampling), Pieces(model, sampling.stop), list[int]()
    read, logits = texts.read(prompt)
    texts.join(read)
    while not pieces.done:
        word = chooser.choose(prompt.tokens, said, logits[0], int(logits[0].argmax()))
        if word.token in ends:
            piece = pieces.take("stop")
        else:
            said.append(word.token)
            piece = pieces.take(word)
        if piece.text:
            yield piece.text
        if not pieces.done and len(said) == sampling.max_tokens:
            piece = pieces.take("length")
            if piece.text:
                yield piece.text
        elif not pieces.done:
            logits = texts.step([word.token])
