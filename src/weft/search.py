"""Continuing texts over a plain decoder: greedily or by beam search, many texts side by side.

The search is transformers' own and finds the same words; what it leaves out is what a language model without
peculiarities does not need. A prompt is computed once, alone, whatever runs beside it and however many beams continue
it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from weft.batch import BatchMemory
from weft.decoder import Decoder, TextCache
from weft.rows import Reading, Rows, Weaves


@dataclass(frozen=True, eq=False)
class Prompt:
    """A text to continue.

    Attributes:
        tokens: its tokens.
        memories: the memories that it reads, each laid out for one row.
        sources: for each memory where its items came from, and which of the conversation's pictures, or documents,
            each belongs to; last the same for passages that stand in the text itself.
        quoted: for each of these passages the token at which it begins.
    """

    tokens: Sequence[int]
    memories: tuple[BatchMemory, ...] = ()
    sources: tuple[tuple[tuple[Any, int], ...], ...] = ()
    quoted: tuple[int, ...] = ()


@dataclass(frozen=True)
class Continuation:
    """A continuation of a prompt.

    Attributes:
        tokens: the tokens, without one that ended them.
        total: log-probability (natural) of the tokens and the one that ended them.
        length: tokens counted, the one that ended them included.
    """

    tokens: tuple[int, ...]
    total: float
    length: int = 0

    def score(self, length_penalty: float) -> float:
        """By what beams compete: the log-probability over the length to this power; a token's, for a power of one."""
        return self.total / self.length**length_penalty


def read_prompt(decoder: Decoder, weaves: Weaves, prompt: Prompt, cache: TextCache) -> Float[Tensor, "1 V"]:
    """Logits of the word that follows a prompt, what a weave copies mixed in.

    Args:
        decoder: the language model.
        weaves: the model's weaves by name.
        prompt: what to read.
        cache: holds one row; it grows by the prompt, or by what of it is not there yet.
    """
    done = cache.lengths[0]
    rows = Rows(weaves, [Reading(prompt.memories)], torch.arange(done, len(prompt.tokens)), cache)
    tokens = torch.tensor([list(prompt.tokens[done:])])
    hidden = decoder(tokens, cache, rows)
    return rows.copied(hidden, decoder.logits(hidden), tokens[:, -1])


@torch.inference_mode()
def search(
    decoder: Decoder,
    weaves: Weaves,
    prompts: Sequence[Prompt],
    *,
    beams: int,
    longest: int,
    ends: Collection[int],
    banned: Sequence[Sequence[int]] = (),
    length_penalty: float = 1.0,
) -> list[Continuation]:
    """The best continuation of each prompt.

    Args:
        decoder: the language model.
        weaves: the model's weaves by name.
        prompts: what to continue.
        beams: beams of the search; 1 is greedy.
        longest: tokens of a continuation, at most.
        ends: tokens of which each ends a text.
        banned: sequences of tokens that no text may hold.
        length_penalty: power of its length by which a beam's log-probability is divided: above one for longer texts,
            below for shorter ones. A single beam has nothing to compete with.
    """
    cache = TextCache(decoder)
    cache.reserve(max(len(prompt.tokens) for prompt in prompts) + longest)
    logits = []
    for prompt in prompts:
        own = TextCache(decoder, 1)
        logits.append(read_prompt(decoder, weaves, prompt, own))
        cache.append(own)
    searches = [_Search(prompt, beams, longest, set(ends), banned, length_penalty) for prompt in prompts]
    running, scores = searches, torch.cat(logits)
    while running:
        rows, start = list[int](), 0
        for one in running:
            count = len(one.running)
            rows += [start + parent for parent in one.advance(scores[start : start + count])]
            start += count
        running = [one for one in running if one.running]
        if not running:
            break
        cache.select(rows)
        readings = [Reading(one.prompt.memories).after_prompt(len(one.running)) for one in running]
        reader = Rows(weaves, readings, torch.zeros(1, dtype=torch.long), cache)
        tokens = torch.tensor([beam.tokens[-1] for one in running for beam in one.running])
        hidden = decoder(tokens[:, None], cache, reader)
        scores = reader.copied(hidden, decoder.logits(hidden), tokens)
    return [one.best() for one in searches]


class _Search:
    """The beams of one text."""

    def __init__(
        self,
        prompt: Prompt,
        beams: int,
        longest: int,
        ends: set[int],
        banned: Sequence[Sequence[int]],
        length_penalty: float,
    ) -> None:
        self.prompt, self.beams, self.longest, self.ends, self.banned = prompt, beams, longest, ends, banned
        self.length_penalty = length_penalty
        self.running = [Continuation((), 0.0)]
        self.finished: list[Continuation] = []
        self.length = 0

    def advance(self, logits: Float[Tensor, "beams V"]) -> list[int]:
        """Let each running beam say one more token; returns which beam each of those that go on continues."""
        self.length += 1
        chances = logits.float().log_softmax(-1)
        for row, beam in enumerate(self.running):
            if self.banned:
                chances[row, banned_after((*self.prompt.tokens, *beam.tokens), self.banned)] = -torch.inf
        chances += torch.tensor([beam.total for beam in self.running])[:, None]
        wanted = self.beams * (1 + len(self.ends)) if self.beams > 1 else 1
        best = chances.flatten().topk(min(wanted, chances.numel()))
        tried = [
            (*divmod(place, chances.shape[1]), total)
            for place, total in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
        for row, token, total in tried[: self.beams]:
            if token in self.ends:
                self.finished.append(Continuation(self.running[row].tokens, total, self.length))
        self.finished = sorted(self.finished, key=self._score, reverse=True)[: self.beams]
        going = [(row, token, total) for row, token, total in tried if token not in self.ends][: self.beams]
        self.running = [
            Continuation((*self.running[row].tokens, token), total, self.length) for row, token, total in going
        ]
        full = len(self.finished) == self.beams
        if full and self.running and self._score(self.running[0]) <= self._score(self.finished[-1]):
            self.running = []
        if self.length == self.longest:
            self.finished, self.running = self.finished + self.running, []
        return [row for row, _, _ in going] if self.running else []

    def best(self) -> Continuation:
        """The best of all that have ended."""
        return max(self.finished, key=self._score)

    def _score(self, beam: Continuation) -> float:
        return beam.score(self.length_penalty)


def banned_after(text: Sequence[int], banned: Sequence[Sequence[int]]) -> list[int]:
    """The tokens that may not come next, since they would complete one of the banned sequences."""
    return [
        sequence[-1]
        for sequence in banned
        if len(sequence) == 1 or tuple(text[1 - len(sequence) :]) == tuple(sequence[:-1])
    ]
