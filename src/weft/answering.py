"""Answers from passages, and how sure a model is that the passages hold one.

A weave that has learned to say :data:`~weft.instructions.NOT_SAID` says it too often if it is simply let speak: one
sentence always in the same words beats an answer that could be put in many. So its probability is asked for, and turned
into that of a question without an answer by a scale and a bias of its log-odds (Platt 1999). Where that is below the
weave's ``refuses_at`` the model answers, without the sentence among its choices. Scale, bias and threshold are found on
a dev set by :func:`weft.calibrate`.
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
    from weft.weaving import WeaveConfig


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
    said = respond(model, read, prompts, held, top_memory=top_memory, **{**without_refusing(model), **options})
    refused = log_refusals(model, read, prompts, held, top_memory=top_memory)
    config = None if read is None else model.weave(read.weave).config
    threshold = 0.5 if config is None else config.refuses_at
    answered = []
    for response, log_probability in zip(said, refused, strict=True):
        unanswerable = unanswerable_chance(log_probability, config)
        if unanswerable >= threshold:
            response = Response(tuple(refusal(model)), NOT_SAID, log_probability)
        answered.append(Answered(response, 1 - unanswerable))
    return answered


@torch.inference_mode()
def log_refusals(
    model: WeftModel,
    read: ReadMemory | None,
    prompts: Sequence[Sequence[int]],
    held: Sequence[Held],
    *,
    top_memory: int | None = None,
) -> list[float]:
    """Log-probability (natural) with which a model says that what was read does not say; arguments as for
    :func:`answer_each`."""
    return score(model, read, prompts, held, refusal(model), top_memory).sum(1).tolist()


def log_odds(log_probability: float) -> float:
    """The log-odds of what has a log-probability (natural)."""
    log_probability = max(-700.0, min(log_probability, -1e-7))  # what is certain or impossible has no odds
    return log_probability - math.log(-math.expm1(log_probability))


def unanswerable_chance(log_probability: float, config: WeaveConfig | None) -> float:
    """The probability that a question has no answer, from the log-probability of saying so.

    Args:
        log_probability: natural, of the sentence.
        config: that of the weave which read; None where nothing was read, and what the model says is taken as it is.
    """
    if config is None:
        return math.exp(log_probability)
    odds = log_odds(log_probability) / config.refusal_temperature + config.refusal_bias
    return 1 / (1 + math.exp(min(-odds, 700.0)))


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
    memory = _texts(model, prompt)
    if memory is None:
        return 0.0
    refused = refusal(model)
    says, count = torch.tensor([[*prompt.tokens, *refused]], device=model.device), len(refused)
    options = {"memories": list(prompt.memories), "use_cache": False, **last_logits(model, count + 1)}
    logits = model(input_ids=says, **options).logits[0, -count - 1 : -1].float().log_softmax(-1)
    said = float(logits.gather(-1, says[0, -count:, None]).sum())
    return 1 - unanswerable_chance(said, model.weave(memory.weave).config)


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
