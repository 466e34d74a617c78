"""Samples for self-critical training, against transformers' ``generate``."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from devices import DEVICE
from woven import memory, woven

from weft.fastpath import Vocabulary
from weft.memory import Placement
from weft.sampling import sample

PROMPT = [5, 17, 40, 9]
ITEMS = [[(0, 1)], [(1, 2)], [], [(2, 0), (3, 3)], [(3, 1)]]


def everything(size: int = 128) -> Vocabulary:
    return Vocabulary(torch.arange(size), torch.arange(0), 0)


@pytest.fixture
def model():
    return woven("llama")


@pytest.fixture
def read(model):
    with torch.no_grad():
        return model.weave().read(memory(items=4))


def test_likeliest_words_are_those_of_greedy_generation_answers_that_end_early_dropped(model, read, monkeypatch):
    placed = model.place(read, Placement.of(ITEMS))
    ids = torch.tensor([PROMPT] * len(ITEMS), device=DEVICE)
    options = {"memories": [placed], "max_new_tokens": 12, "do_sample": False, "eos_token_id": None}
    long = model.generate(ids, attention_mask=torch.ones_like(ids), **options)[:, len(PROMPT) :].tolist()
    end = Counter(token for row in long for token in set(row[2:])).most_common(1)[0][0]
    expected = [row[: row.index(end) + 1] if end in row else row for row in long]
    assert len({len(row) for row in expected}) > 1
    monkeypatch.setattr(torch.Tensor, "multinomial", lambda chances, number: chances.argmax(-1, keepdim=True))
    said = sample(model, read, ITEMS, PROMPT, 2, everything(), end=end, longest=12)
    assert said == [row for row in expected for _ in range(2)]


def test_words_are_drawn_as_likely_as_they_are(model, read):
    torch.manual_seed(0)
    drawn = sample(model, read, [[(1, 0)]], PROMPT, 20_000, everything(), end=2, longest=1)
    found = torch.bincount(torch.tensor(drawn)[:, 0], minlength=128) / 20_000
    placed = model.place(read, Placement.of([[(1, 0)]]))
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([PROMPT], device=DEVICE), memories=[placed]).logits[0, -1].softmax(-1)
    assert (found - expected.cpu()).abs().sum() < 0.1


def test_only_words_of_the_training_set_are_said(model, read):
    few = Vocabulary(torch.tensor([2, 30, 31, 90]), torch.arange(0), 0)
    said = sample(model, read, ITEMS, PROMPT, 3, few, end=2, longest=8)
    assert {token for row in said for token in row} <= {2, 30, 31, 90}
    assert all(2 not in row[:-1] and (row[-1] == 2 or len(row) == 8) for row in said)
