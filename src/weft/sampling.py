"""Sampled answers for self-critical training, many to a prompt, at the cost of what differs between them.

:func:`sample` computes a prompt once for all its samples, chooses among the words of the training set only, and stops
computing answers that have ended. It is given a language model that is run from its states, as
:mod:`weft.fastpath` has made sure of; ``generate`` does the same for any model, several times as slowly.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from weft.batch import BatchMemory
from weft.fastpath import Vocabulary
from weft.memory import Placement, ReadMemory
from weft.model import WeftModel
from weft.narrow_head import narrowed


@torch.no_grad()
def sample(
    model: WeftModel,
    read: ReadMemory | None,
    items: Sequence[Sequence[tuple[int, int]]],
    prompt: Sequence[int],
    count: int,
    vocabulary: Vocabulary,
    *,
    end: int,
    longest: int,
) -> list[list[int]]:
    """Answers to one prompt about several memories, drawn from the model's own distribution.

    Args:
        model: the woven model, in evaluation mode.
        read: the memories; None where there are none.
        items: for each row the items it holds, with the column from which on each may be seen.
        prompt: tokens of the prompt, the same for all rows.
        count: answers for each row.
        vocabulary: the words to choose among.
        end: the token that ends an answer.
        longest: tokens after which an answer is cut off.

    Returns:
        ``count`` answers for each row, row by row, each with the token that ended it.
    """
    device, language_model = model.device, model.language_model
    words = vocabulary.seen.to(device)
    cache = DynamicCache(config=language_model.config)

    def run(tokens: Tensor, memory: BatchMemory | None, column: int) -> Tensor:
        """The logits of the words behind each row."""
        columns = torch.arange(column, column + tokens.shape[1])
        last = torch.arange(1, len(tokens) + 1, device=device) * tokens.shape[1] - 1
        with model.looking_at([] if memory is None else [memory], columns), narrowed(language_model, last, words):
            return language_model(input_ids=tokens, cache=cache, use_cache=True).logits[0]

    def placed(held: Sequence[Sequence[tuple[int, int]]]) -> BatchMemory | None:
        return None if read is None else model.place(read, Placement.of(held))

    memory = placed(items)
    logits = run(torch.tensor([list(prompt)] * len(items), device=device), memory, 0).repeat_interleave(count, 0)
    cache.batch_repeat_interleave(count)
    answers: list[list[int]] = [[] for _ in range(len(items) * count)]
    rows = list(range(len(answers)))  # those that are computed; an ended one is dropped once half of them have ended
    memory = None if memory is None else memory.repeat_rows(count)
    for step in range(longest):
        chances = logits.float().softmax(-1)
        tokens = words[chances.multinomial(1)[:, 0]]
        going = []
        for place, (row, token) in enumerate(zip(rows, tokens.tolist(), strict=True)):
            if not answers[row] or answers[row][-1] != end:
                answers[row].append(token)
            if answers[row][-1] != end:
                going.append(place)
        if not going or step + 1 == longest:
            break
        if 2 * len(going) <= len(rows):
            kept = torch.tensor(going, device=device)
            cache.batch_select_indices(kept)
            tokens, rows = tokens[kept], [rows[place] for place in going]
            memory = placed([items[row // count] for row in rows])
        logits = run(tokens[:, None], None if memory is None else memory.after_prompt(), len(prompt) + step)
    return answers
