"""How the words of a reply are chosen: the likeliest each time, or drawn; and how likely they were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from weft.errors import WeftError
from weft.pieces import Said
from weft.search import banned_after

COLDEST = 1e-3
"""A temperature below which drawing is as good as taking the likeliest word, and divisions overflow."""


@dataclass(frozen=True)
class Sampling:
    """How words are chosen.

    Attributes:
        max_tokens: tokens after which a reply is cut off.
        temperature: 0 for the likeliest word each time; above, words are drawn, the higher the freer.
        top_p: draw among the likeliest words that together have this probability.
        top_k: draw among so many of the likeliest words; 0 for all.
        min_p: draw among words of at least this share of the likeliest one's probability.
        repetition_penalty: by how much words that the prompt or the reply holds become less likely (Keskar et al.
            2019): above 1 for fewer repetitions, below for more.
        frequency_penalty: taken from a word's logit for each time that the reply holds it.
        presence_penalty: taken from the logits of all words that the reply holds.
        logit_bias: added to the logits of words, by token.
        seed: of the drawing; None for another each time.
        stop: texts at which a reply ends, in front of them.
        logprobs: of how many of the likeliest tokens at each place the log-probabilities are told, beside that of the
            token itself; None to tell none.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or self.temperature < 0 or not 0 < self.top_p <= 1:
            raise WeftError(
                f"max_tokens={self.max_tokens}, temperature={self.temperature}, top_p={self.top_p}: give at least one "
                "token, a temperature of 0 or more, and a top_p above 0 and up to 1."
            )
        if self.top_k < 0 or not 0 <= self.min_p <= 1 or self.repetition_penalty <= 0:
            raise WeftError(
                f"top_k={self.top_k}, min_p={self.min_p}, repetition_penalty={self.repetition_penalty}: give a top_k "
                "of 0 or more, a min_p from 0 to 1, and a penalty above 0."
            )


class Chooser:
    """Chooses the words of one reply.

    Args:
        sampling: how.
        banned: sequences of tokens that the reply may not hold.
    """

    def __init__(self, sampling: Sampling, banned: Sequence[Sequence[int]] = ()) -> None:
        self.sampling, self.banned = sampling, banned
        self.repeating = RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)
        self.warpers: LogitsProcessorList | None = None
        self.generator = torch.Generator()
        if sampling.temperature >= COLDEST:
            self.warpers = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
            if sampling.top_k:
                self.warpers.append(TopKLogitsWarper(sampling.top_k))
            if sampling.top_p < 1:
                self.warpers.append(TopPLogitsWarper(sampling.top_p))
            if sampling.min_p:
                self.warpers.append(MinPLogitsWarper(sampling.min_p))
            if sampling.seed is None:
                self.generator.seed()
            else:
                self.generator.manual_seed(sampling.seed)

    def choose(self, prompt: Sequence[int], said: Sequence[int], logits: Float[Tensor, " V"], likeliest: int) -> Said:
        """The next word.

        Args:
            prompt: tokens of the prompt.
            said: those of the reply so far.
            logits: of the next one.
            likeliest: the one of the greatest logit, which is found for many replies at once.
        """
        chosen, wanted = likeliest, self.sampling.logprobs
        shut = banned_after((*prompt, *said), self.banned) if self.banned else []
        if shut:
            logits = logits.index_fill(0, torch.tensor(shut), -torch.inf)
        scores = self._scores(prompt, said, logits)
        if scores is not logits or shut:
            chosen = int(scores.argmax())
        if self.warpers is not None:
            chances = self.warpers(torch.tensor([[*prompt, *said]]), scores[None].float()).softmax(-1)
            chosen = int(torch.multinomial(chances, 1, generator=self.generator))
        if wanted is None:
            return Said(chosen)
        told = logits.float().log_softmax(-1)
        best = told.topk(wanted)
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return Said(chosen, float(told[chosen]), tuple(pairs))

    def _scores(self, prompt: Sequence[int], said: Sequence[int], logits: Float[Tensor, " V"]) -> Float[Tensor, " V"]:
        """The logits with penalties and biases; the same where there are none."""
        how = self.sampling
        if how.repetition_penalty != 1:
            logits = self.repeating(torch.tensor([[*prompt, *said]]), logits[None].float())[0]
        if said and (how.frequency_penalty or how.presence_penalty):
            tokens, counts = torch.tensor(said).unique(return_counts=True)
            taken = how.frequency_penalty * counts + how.presence_penalty
            logits = logits.float().index_add(0, tokens, -taken.float())
        if how.logit_bias:
            if not 0 <= min(how.logit_bias) <= max(how.logit_bias) < len(logits):
                raise WeftError(f"logit_bias: there are tokens from 0 to {len(logits) - 1:,} only; leave out others.")
            tokens, biases = torch.tensor(list(how.logit_bias)), torch.tensor(list(how.logit_bias.values()))
            logits = logits.float().index_add(0, tokens, biases.float())
        return logits
