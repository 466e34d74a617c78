"""What Weft promises of any language model, held to it over families of real classes."""

from __future__ import annotations

import inspect

import pytest
import torch
from devices import DEVICE
from families import FAMILIES, language_model
from woven import memory, open_weave, woven

from weft.memory import Placement

pytestmark = pytest.mark.parametrize("family", FAMILIES)

ROWS = Placement.of([[(0, 2)], [], [(1, 0)]])
"""A row that sees an item from its third token on, one without memory, and one that sees an item throughout."""


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(3, 128, (3, 9), generator=torch.Generator().manual_seed(1)).to(DEVICE)


def laid(model, placement=ROWS):
    return [model.place(model.read(memory()), placement)]


@torch.no_grad()
def test_freshly_woven_model_is_bit_identical_to_the_language_model(family, ids):
    bare = language_model(family)(input_ids=ids).logits
    model = woven(family, opened=False)
    assert torch.equal(model(input_ids=ids).logits, bare)
    assert torch.equal(model(input_ids=ids, memories=laid(model)).logits, bare)


@torch.no_grad()
@pytest.mark.parametrize("gate", [0.5, -3.0, 100.0])
def test_row_without_memory_is_bit_identical_to_the_language_model_at_any_gate(family, ids, gate):
    bare = language_model(family)(input_ids=ids).logits
    model = woven(family)
    for layer in model.weaves["photos"].layers:
        layer.attention_gate.fill_(gate)
    logits = model(input_ids=ids, memories=laid(model)).logits
    if "moe" in family:
        # Experts compute the tokens of all rows together, so what other rows hold moves the last bits, bare or woven.
        torch.testing.assert_close(logits[1], bare[1], rtol=1e-4, atol=1e-5)
    else:
        assert torch.equal(logits[1], bare[1])
    assert not torch.allclose(logits[0], bare[0])
    assert torch.equal(model(input_ids=ids).logits, bare)


@torch.no_grad()
def test_text_before_a_picture_does_not_see_it(family, ids):
    bare = language_model(family)(input_ids=ids).logits
    model = woven(family)
    logits = model(input_ids=ids, memories=laid(model)).logits
    torch.testing.assert_close(logits[0, :2], bare[0, :2], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(logits[0, 2], bare[0, 2], atol=1e-4)


@torch.no_grad()
def test_cached_and_uncached_generation_agree(family, ids):
    model = woven(family)
    options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    cached = model.generate(ids, memories=laid(model), **options)
    uncached = model.generate(ids, memories=laid(model), use_cache=False, **options)
    stepwise = ids
    for _ in range(5):
        logits = model(input_ids=stepwise, memories=laid(model), use_cache=False).logits
        stepwise = torch.cat([stepwise, logits[:, -1].argmax(-1, keepdim=True)], 1)
    assert torch.equal(cached, stepwise)
    assert torch.equal(uncached, stepwise)


@torch.no_grad()
def test_left_and_right_padding_agree(family, ids):
    model = open_weave(woven(family))
    text, pad = ids[:1], torch.zeros(1, 3, dtype=torch.long, device=DEVICE)
    ones, zeros = torch.ones_like(text), torch.zeros_like(pad)
    read = model.read(memory(1))

    def logits(input_ids, mask, start):
        placed = [model.place(read, Placement.of([[(0, start)]]))]
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        accepts = "position_ids" in inspect.signature(model.language_model.forward).parameters
        extra = {"position_ids": positions} if accepts else {}
        return model(input_ids=input_ids, attention_mask=mask, memories=placed, **extra).logits

    plain = logits(text, ones, 2)
    left = logits(torch.cat([pad, text], 1), torch.cat([zeros, ones], 1), 5)[:, 3:]
    right = logits(torch.cat([text, pad], 1), torch.cat([ones, zeros], 1), 2)[:, :9]
    torch.testing.assert_close(right, plain, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(left, plain, rtol=1e-4, atol=1e-4)
