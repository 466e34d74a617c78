"""The quick way of training computes what the model computes, whatever a family does to masks, positions and logits."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from woven import encoder, memory, open_weave, tokenizer

from weft.data import collate
from weft.fastpath import HiddenStore, UpperStack, Vocabulary, losses_agree
from weft.losses import StepLoss
from weft.making import weave
from weft.memory import Placement
from weft.sampling import sample
from weft.store import FeatureStore
from weft.training_rows import Row

SMALL = {
    "vocab_size": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
PECULIAR = {
    "gemma2": {"sliding_window": 8, "final_logit_softcapping": 3.0},
    "gemma3_text": {"sliding_window": 8},
    "gpt_oss": {"sliding_window": 8, **EXPERTS},
    "cohere2": {"sliding_window": 8, "logit_scale": 4.0},
    "olmo3": {"sliding_window": 8},
    "exaone4": {"sliding_window": 8},
    "smollm3": {"no_rope_layers": [1, 1, 0, 1, 0, 1]},
    "qwen2": {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 2},
    "granite": {"logits_scaling": 4.0},
    "cohere": {"logit_scale": 4.0},
}
"""Families whose layers differ, or that do something to logits, with windows shorter than the rows below."""


def peculiar(family, start):
    """A woven model of a family with weights large enough that masks and caps matter."""
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**SMALL, **PECULIAR[family]})).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in base.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return open_weave(weave(base, vision=encoder(), start=start, every=2, tokenizer=tokenizer())).eval()


def rows():
    """Rows of one answer each, longer than the windows."""
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randint(3, 100, (2, 40), generator=generator).tolist()
    return [Row(tuple(ids[:10]), ((tuple(ids[10:]), (True,) * 30),), (), (), "") for ids in drawn]


@torch.no_grad()
@pytest.mark.parametrize("start", [3, 4])
@pytest.mark.parametrize("family", PECULIAR)
def test_losses_from_stored_hidden_states_are_those_of_the_whole_model(family, start, tmp_path):
    model, some = peculiar(family, start), rows()
    step, placement = StepLoss(model, "photos"), Placement.of([[(0, 2)], [(1, 5)]])
    batch = collate(some, pad=0)
    plain = step.each(batch, memory(2), placement, full=True)
    logits = model(**batch.inputs, memories=[model.place(model.read(memory(2)), placement)]).logits
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1)[batch.predicting].float(), batch.targets, reduction="none"
    )
    torch.testing.assert_close(plain, expected)
    stack = UpperStack(model.language_model, start)
    step.hidden = HiddenStore(FeatureStore(tmp_path, torch.float32), stack, family)
    step.hidden.fill(batch)
    torch.testing.assert_close(step.each(batch, memory(2), placement, full=True), plain, atol=2e-5, rtol=1e-5)
    step.vocabulary = Vocabulary(torch.arange(128), torch.arange(0), 0)
    torch.testing.assert_close(step.each(batch, memory(2), placement), plain, atol=2e-5, rtol=1e-5)
    assert list(model.language_model.model.layers) == list(stack.layers)  # everything is where it was
    assert model.get_output_embeddings() is step.head


@torch.no_grad()
def test_words_of_the_training_set_have_the_capped_logits_of_the_model(monkeypatch):
    """Self-critical training samples among them, and learns among them."""
    model = peculiar("gemma2", 3)
    seen = torch.tensor([2, 30, 31, 90])
    drawn = []
    monkeypatch.setattr(
        torch.Tensor, "multinomial", lambda chances, number: drawn.append(chances) or chances.argmax(-1, keepdim=True)
    )
    sample(model, None, [[]], [5, 6, 7], 2, Vocabulary(seen, torch.arange(0), 0), end=2, longest=1)
    expected = model(input_ids=torch.tensor([[5, 6, 7]])).logits[0, -1, seen].softmax(-1)
    torch.testing.assert_close(drawn[0], expected.expand(2, -1))


def test_only_rounding_counts_as_the_same():
    plain = torch.full((1000,), 4.0)
    assert losses_agree(plain + 1e-5 * torch.randn(1000), plain, torch.float32)
    assert not losses_agree(plain + 1e-2 * torch.randn(1000), plain, torch.float32)
    assert losses_agree(plain + 1e-2 * torch.randn(1000), plain, torch.bfloat16)
    mixed = plain.clone()
    mixed[::10] += torch.randn(100)  # right in the mean, and wrong where it matters
    assert not losses_agree(mixed, plain, torch.bfloat16)
    assert not losses_agree(plain * float("nan"), plain, torch.bfloat16)
