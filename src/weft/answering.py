"""Answers from passages, and how sure a model is that the passages hold one.

A weave that has learned to say :data:`~weft.instructions.NOT_SAID` says it too often if it is simply let speak: one
sentence always in the same words beats an answer that could be put in many. So its probability is asked for. Where that
is below the weave's ``refuses_at`` the model answers, without that sentence among its choices. The threshold is found
on a dev set, as for SQuAD 2.0 (Rajpurkar et al. 2018).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from weft.instructions import NOT_SAID
from weft.memory import ReadMemory
from weft.responding import Held, Response, last_logits, respond, score
from weft.search import Prompt

if TYPE_CHECKING:
    from weft.batch import BatchMemory
    from weft.model import WeftModel


@dataclass(frozen=True)
class Answered:
    """A response to a question, and the probability that what was read holds an answer."""

    response: Response
    confidence: float


@torch.inference_mode()
def answer_each(
    model: WeftModel,
    read: ReadMemory | None,
    prompts: Sequence[Sequence[int]],
    held: Sequence[Held],
    *,
    top_memory: int | None = None,
    **options: Any,
) -> list[Answered]:
    """Answer questions, or say that what was read does not.

    Args:
        model: the woven model.
        read: the memory.
        prompts: tokens of each question's prompt.
        held: for each the items that it holds.
        top_memory: as for :func:`~weft.responding.respond`.
        **options: for :func:`~weft.responding.respond`.

    Raises:
        WeftError: a question is longer than the language model takes.
    """
    refused = refusal(model)
    said = respond(model, read, prompts, held, top_memory=top_memory, **{**without_refusing(model), **options})
    chances = score(model, read, prompts, held, refused, top_memory).sum(1).exp().tolist()
    threshold = 0.5 if read is None else model.weave(read.weave).config.refuses_at
    return [
        Answered(response if chance < threshold else Response(tuple(refused), NOT_SAID, math.log(chance)), 1 - chance)
        for response, chance in zip(said, chances, strict=True)
    ]


def without_refusing(model: WeftModel) -> dict[str, Any]:
    """Options for ``generate`` with which a model does not begin to say that the text does not say.

    Shut out of the usual way to begin, it would go on without the space between the two words; that is shut as well.
    """
    assert model.processor is not None
    first, second = NOT_SAID.split(" ")[:2]
    unspaced = model.processor.tokenizer(first + second, add_special_tokens=False)["input_ids"]
    return {"bad_words_ids": [refusal(model)[:2], unspaced]}


@torch.inference_mode()
def confidence(model: WeftModel, prompt: Prompt) -> float:
    """The probability that the documents of a prompt hold an answer; zero where it holds none."""
    if _texts(model, prompt) is None:
        return 0.0
    refused = refusal(model)
    says, count = torch.tensor([[*prompt.tokens, *refused]], device=model.device), len(refused)
    options = {"memories": list(prompt.memories), "use_cache": False, **last_logits(model, count + 1)}
    logits = model(input_ids=says, **options).logits[0, -count - 1 : -1].float().log_softmax(-1)
    return 1 - float(logits.gather(-1, says[0, -count:, None]).sum().exp())


def refuses(model: WeftModel, prompt: Prompt, confidence: float) -> bool:
    """Whether a model that is so sure of an answer gives none."""
    memory = _texts(model, prompt)
    return memory is None or 1 - confidence >= model.weave(memory.weave).config.refuses_at


def refusal(model: WeftModel) -> list[int]:
    """The tokens with which a model says that what was read does not say."""
    assert model.processor is not None
    return model.processor.tokenizer(NOT_SAID, add_special_tokens=False)["input_ids"]


def _texts(model: WeftModel, prompt: Prompt) -> BatchMemory | None:
    """The memory of texts that a prompt reads."""
    read = (memory for memory in prompt.memories if model.weave(memory.weave).config.reads == "texts")
    return next(read, None)
