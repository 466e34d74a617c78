"""What the attention heads of a language model tell of its own prompt: where a reply to it looked.

:func:`looked_at` is given a text and asks some heads. In a language model a few heads find what is asked for wherever
it stands, and the others follow position and syntax (Wu et al. 2024, "Retrieval Head Mechanistically Explains
Long-Context Factuality"); :func:`citing_heads` finds out which those are, from questions whose documents are known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from weft.errors import DataError, WeftError
from weft.passages import Piece
from weft.quoting import quote
from weft.responding import last_logits
from weft.twins import twin

if TYPE_CHECKING:
    from weft.data import Example
    from weft.model import WeftModel

AT_ONCE = 64
"""Tokens whose attention is asked for at once; that of all heads is large."""
_TELLS_NOTHING = (
    '{} tells no attention over its prompt, so nothing can be cited from there; read texts as a memory: reading="once".'
)


@torch.inference_mode()
def looked_at(
    model: WeftModel, tokens: Sequence[int], first: int, heads: Sequence[Sequence[int]] = ()
) -> Float[Tensor, "R T"]:
    """Where tokens of a text looked, from one on: the attention of some heads, averaged.

    Args:
        model: the woven model, of which only the language model is used.
        tokens: the text, ``T`` tokens.
        first: the first of its ``R`` tokens that are asked.
        heads: decoder layer and head of each; all heads where there are none.

    Raises:
        WeftError: the language model tells no attention.
    """
    found = []
    for told in _attention(model, tokens, first):
        chosen = [told[layer][head] for layer, head in heads] if heads else [one.mean(0) for one in told]
        found.append(torch.stack(chosen).mean(0))
    return torch.cat(found)


def _attention(model: WeftModel, tokens: Sequence[int], first: int) -> Iterator[list[Float[Tensor, "heads R T"]]]:
    """The attention of some tokens of a text at a time, for each decoder layer, from one on.

    What stands before that token is computed as usual, the others in the steps of attention's definition.
    """
    language_model, total = model.language_model, len(tokens)
    eager = language_model.config._attn_implementation == "eager"
    tells = eager or language_model._can_set_attn_implementation()
    if not tells or not language_model._supports_default_dynamic_cache():
        raise WeftError(_TELLS_NOTHING.format(type(language_model).__name__))
    telling = language_model if eager else twin(language_model)  # others compute meanwhile, and do not want it set so
    if not eager:
        telling.set_attn_implementation("eager")
    given = torch.tensor([list(tokens)], device=model.device)
    from transformers import DynamicCache  # seconds, for which a cold process that looks at nothing need not wait

    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    options: dict[str, Any] = {"cache": cache, "use_cache": True, **last_logits(model, 1)}
    if first:
        language_model(input_ids=given[:, :first], **options)
    done = first
    for some in given[:, first:].split(AT_ONCE, 1):
        told = getattr(telling(input_ids=some, output_attentions=True, **options), "attentions", None)
        if not told:
            raise WeftError(_TELLS_NOTHING.format(type(language_model).__name__))
        done += some.shape[1]
        # A layer whose attention slides has forgotten what lies behind its window.
        yield [F.pad(one[0].float(), (done - one.shape[-1], total - done)).cpu() for one in told]


def citing_heads(model: WeftModel, examples: Sequence[Example], count: int = 4) -> list[list[int]]:
    """The heads whose attention, from a question, goes most to the document that holds the answer.

    Args:
        model: the woven model.
        examples: conversations about several documents, one of which holds the answer; others are passed over.
        count: how many heads.

    Returns:
        Decoder layer and head of each, the best first, as ``citing_heads`` of a weave's configuration takes them.

    Raises:
        DataError: there is no such conversation.
        WeftError: the language model tells no attention.
    """
    shares: list[Float[Tensor, "layers heads"]] = []
    for example in examples:
        right = [str(one.get("id")) in example.supporting for one in example.documents]
        if len(right) > 1 and sum(right) == 1:
            pieces = [Piece(one["text"]) for one in example.documents]
            prompt = quote(model, pieces, example.question)
            ends = [
                first + len(source.spans) for first, (source, _) in zip(prompt.quoted, *prompt.sources, strict=True)
            ]
            looked = torch.stack([torch.stack(told).sum(2) for told in _attention(model, prompt.tokens, max(ends))])
            each = [looked.sum(0)[..., first:end].sum(-1) for first, end in zip(prompt.quoted, ends, strict=True)]
            shares.append(each[right.index(True)] / torch.stack(each).sum(0).clamp(min=1e-9))
    if not shares:
        raise DataError("No conversation has several documents of which one holds the answer; see 'supporting'.")
    mean = torch.stack(shares).mean(0)
    best = mean.flatten().topk(min(count, mean.numel())).indices.tolist()
    return [[place // mean.shape[1], place % mean.shape[1]] for place in best]
