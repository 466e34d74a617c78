"""Sampled answers for self-critical training, many to a prompt, at the cost of what differs between them.

:func:`sample` computes a prompt once for all its samples, chooses among the words of the training set only, and stops
computing answers that have ended. It is given a language model that is run from its states, as
:mod:`weft.fastpath` has made sure of; ``generate`` does the same for any model, several times as slowly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache

from weft.batch import BatchMemory
from weft.fastpath import Vocabulary, head_of
from weft.memory import Placement, ReadMemory
from weft.model import WeftModel


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
    head = cast(nn.Linear, model.get_output_embeddings())
    words = vocabulary.seen.to(device)
    weight, bias = head_of(head, words)
    cache = DynamicCache(config=language_model.config)

    def run(tokens: Tensor, memory: BatchMemory | None, column: int) -> Tensor:
        """The last state of each row."""
        columns = torch.arange(column, column + tokens.shape[1])
        with model.looking_at([] if memory is None else [memory], columns):
            output = language_model.base_model(input_ids=tokens, cache=cache, use_cache=True)
        return output.last_hidden_state[:, -1]

    def placed(held: Sequence[Sequence[tuple[int, int]]]) -> BatchMemory | None:
        return None if read is None else model.place(read, Placement.of(held))

    memory = placed(items)
    states = run(torch.tensor([list(prompt)] * len(items), device=device), memory, 0).repeat_interleave(count, 0)
    cache.batch_repeat_interleave(count)
    answers: list[list[int]] = [[] for _ in range(len(items) * count)]
    rows = list(range(len(answers)))  # those that are computed; an ended one is dropped once half of them have ended
    memory = None if memory is None else memory.repeat_rows(count)
    for step in range(longest):
        chances = F.linear(states.to(weight.dtype), weight, bias).float().softmax(-1)
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
        states = run(tokens[:, None], None if memory is None else memory.after_prompt(), len(prompt) + step)
    return answers
