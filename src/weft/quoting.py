"""Texts that stand in the prompt itself, as they do without Weft.

:func:`quote` is given passages and a question and hands on a prompt that says where each passage stands in it. It is
read by the bare language model: no weave has a part in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from weft.errors import WeftError
from weft.memory import Excerpt
from weft.rendering import Rendered, about_documents, quoted
from weft.search import Prompt

if TYPE_CHECKING:
    from weft.model import WeftModel
    from weft.passages import Piece
    from weft.processing import WeftProcessor

LONGEST_PROMPT = 4096
"""Tokens of a prompt up to which texts are put into it where nobody insists; longer ones are read as a memory."""

Standing = tuple[int, "Piece"]
"""A passage, and the character of its document's words in the prompt at which it begins."""


def quote(model: WeftModel, pieces: Sequence[Piece], question: str) -> Prompt:
    """A prompt in which passages stand one after another, empty lines between them, and the question behind them.

    Its system message is that of the chat template: the prompt is what one would give the bare language model.

    Raises:
        WeftError: the model has no processor.
    """
    if model.processor is None:
        raise WeftError("The model has no processor (tokenizer and encoder); set model.processor.")
    messages = quoted(about_documents([piece.text for piece in pieces], question))
    rendered = model.processor.render(messages, bare=True, add_generation_prompt=True)
    return find(model.processor, rendered, [[(0, piece)] for piece in pieces])


def bare_prompt(processor: WeftProcessor, texts: Sequence[str], question: str) -> list[int]:
    """The tokens of the same prompt, for whoever does not ask where the passages stand in it."""
    messages = quoted(about_documents(texts, question))
    return processor.tokenize(processor.render(messages, bare=True, add_generation_prompt=True)).ids


def find(processor: WeftProcessor, rendered: Rendered, held: Sequence[Sequence[Standing]]) -> Prompt:
    """A prompt that knows where the passages of its documents stand in it.

    Args:
        processor: knows the tokenizer.
        rendered: the conversation as text, the words of each document behind its place.
        held: the passages of each document.
    """
    tokenized, found = processor.tokenize_with_spans(rendered)
    places = np.asarray(found, dtype=np.int64).reshape(-1, 2)
    sources, firsts = [], []
    for owner, (offset, pieces) in enumerate(zip(rendered.document_offsets, held, strict=True)):
        for begin, piece in pieces:
            first, spans = _tokens_of(places, offset + begin, len(piece.text))
            sources.append((Excerpt(piece.text, spans, piece.name, piece.start), owner))
            firsts.append(first)
    return Prompt(tokenized.ids, sources=(tuple(sources),) if sources else (), quoted=tuple(firsts))


def _tokens_of(places: Int[np.ndarray, "T 2"], begin: int, length: int) -> tuple[int, Int[np.ndarray, "N 2"]]:
    """The first token of a passage, and the characters of it that its tokens stand for."""
    inside = np.flatnonzero((places[:, 1] > begin) & (places[:, 0] < begin + length))
    first = int(inside[0]) if len(inside) else 0
    return first, (places[inside] - begin).clip(0, length)


def fits(model: WeftModel, prompt: Prompt, longest: int, *, insisted: bool) -> bool:
    """Whether a prompt with texts in it is short enough: no longer than :data:`LONGEST_PROMPT`, nor than half of what
    the language model takes. Where somebody insists, it may be as long as leaves room for the reply.

    Args:
        model: the woven model.
        prompt: the prompt.
        longest: tokens of the reply, at most.
        insisted: whether somebody asked for it.

    Raises:
        WeftError: somebody insists, and there is no room.
    """
    positions = model.positions
    count = len(prompt.tokens)
    if not insisted:
        return count <= min(LONGEST_PROMPT, (positions or 2 * LONGEST_PROMPT) // 2)
    if positions is not None and count + longest > positions:
        raise WeftError(
            f"The prompt with the texts in it has {count} tokens; this language model takes {positions - longest} at "
            'most. Give shorter texts, or have them read as a memory: reading="once".'
        )
    return True
