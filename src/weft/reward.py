"""Self-critical training: a weave tries several answers of its own, and learns towards those that people would prefer.

Rennie et al. (2017), with the mean of an answer's fellow samples as its baseline (Luo 2020): :class:`SelfCritical` is
given rows and features, samples answers, scores them with CIDEr-D against the right answers, and hands on rows of
sampled answers with a weight for each token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from weft.data import Row
from weft.fastpath import Vocabulary
from weft.memory import Memory, Placement, ReadMemory
from weft.metrics import CiderD
from weft.model import WeftModel
from weft.responding import ends_of
from weft.sampling import sample

LONGEST = 24
"""Tokens after which a sample is cut off."""


@dataclass(frozen=True)
class Sampled:
    """Rows to learn from, with what each of their tokens counts.

    Attributes:
        rows: rows of sampled answers, and those without a choice of right answers as they were.
        weights: for each learned token, in order: its answer's advantage, or 1 in rows that are learned as they are.
        reward: mean CIDEr-D of the samples.
    """

    rows: list[Row]
    weights: list[float]
    reward: float


class SelfCritical:
    """Samples answers and weighs them.

    Args:
        model: the woven model.
        weave: name of the weave that reads the features.
        rows: the training set; rows with several right answers are rewarded, the others are learned as they are.
        samples: answers to try for each row.

    Attributes:
        vocabulary: the words to choose among; None for all.
    """

    def __init__(self, model: WeftModel, weave: str, rows: Sequence[Row], samples: int) -> None:
        self.model, self.weave, self.samples = model, weave, samples
        self.cider = CiderD([self._references(row) for row in rows if _has_choice(row)])
        self.vocabulary: Vocabulary | None = None

    def try_answers(self, rows: Sequence[Row], memory: Memory, placement: Placement) -> Sampled:
        """Sample answers to the rows' prompts and weigh them.

        Args:
            rows: the rows of a batch.
            memory: what they hold.
            placement: which of it each row holds.
        """
        tried = dict(self._sample(rows, memory, placement))
        texts = [self._text(answer) for answers in tried.values() for answer in answers]
        right = [self._references(row) for row, answers in tried.items() for _ in answers]
        rewards = self.cider.scores(texts, right).reshape(-1, self.samples) if texts else np.zeros((0, self.samples))
        others = (rewards.sum(1, keepdims=True) - rewards) / (self.samples - 1)
        advantages = dict(zip(tried, (rewards - others).tolist(), strict=True))
        result, weights = [], []
        for row in rows:
            if row in tried:
                answers = tuple((tuple(answer), (True,) * len(answer)) for answer in tried[row])
                result.append(replace(row, answers=answers))
                for answer, advantage in zip(tried[row], advantages[row], strict=True):
                    weights += [advantage] * len(answer)
            else:
                result.append(row)
                weights += [1.0] * row.learned
        return Sampled(result, weights, float(rewards.mean()) if rewards.size else 0.0)

    @torch.no_grad()
    def _sample(self, rows: Sequence[Row], memory: Memory, placement: Placement) -> Any:
        """Rows that are rewarded, with their samples; those with the same prompt are sampled together."""
        table = zip(placement.items.tolist(), placement.starts.tolist(), strict=True)
        held = {
            row: [(item, start) for item, start in zip(items, starts, strict=True) if item >= 0]
            for row, (items, starts) in zip(rows, table, strict=True)
        }
        alike: dict[tuple[int, ...], list[Row]] = {}
        for row in rows:
            if _has_choice(row):
                alike.setdefault(row.prompt, []).append(row)
        training = self.model.training
        self.model.eval()
        for prompt, group in alike.items():
            chosen = list(dict.fromkeys(item for row in group for item, _ in held[row]))
            items = [[(chosen.index(item), start) for item, start in held[row]] for row in group]
            read = self.model.weave(self.weave).read(memory.some(chosen)) if chosen else None
            answers = self._answers(read, items, prompt)
            for number, row in enumerate(group):
                yield row, answers[number * self.samples : (number + 1) * self.samples]
        self.model.train(training)

    def _answers(
        self, read: ReadMemory | None, items: list[list[tuple[int, int]]], prompt: Sequence[int]
    ) -> list[list[int]]:
        """Samples for each row, row by row: among the training set's words where training knows them, or among all."""
        end = self.model.generation_config.eos_token_id
        copies = self.model.weave(self.weave).copy_gate is not None  # what sampling among known words does not do
        if self.vocabulary is not None and isinstance(end, int) and not copies:
            options: dict[str, Any] = {"end": end, "longest": LONGEST}
            return sample(self.model, read, items, prompt, self.samples, self.vocabulary, **options)
        placed = None if read is None else self.model.place(read, Placement.of(items))
        ids = torch.tensor([list(prompt)] * len(items), device=self.model.device)
        options = {"do_sample": True, "top_k": 0, "top_p": 1.0, "temperature": 1.0, "max_new_tokens": LONGEST}
        output = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            memories=[] if placed is None else [placed],
            num_return_sequences=self.samples,
            **options,
        )
        return [self._until_end(row) for row in output[:, len(prompt) :].tolist()]

    def _until_end(self, tokens: list[int]) -> list[int]:
        """Tokens up to the one that ends the text, which is learned as well."""
        found = ends_of(self.model)
        return next((tokens[: at + 1] for at, token in enumerate(tokens) if token in found), tokens)

    def _references(self, row: Row) -> list[str]:
        return [self._text(tokens) for tokens, _ in row.answers]

    def _text(self, tokens: Sequence[int]) -> str:
        assert self.model.processor is not None
        return self.model.processor.decode(list(tokens), skip_special_tokens=True).strip()


def _has_choice(row: Row) -> bool:
    """Whether a row has several right answers."""
    return len(row.answers) > 1
