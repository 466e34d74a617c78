"""Rotary positions stretched for long texts: the plain decoder turns as transformers does."""

from __future__ import annotations

import pytest
import torch
from families import language_model

from weft.decoder import Decoder, TextCache, is_plain, peculiarity
from weft.rotary import rotary_frequencies

SHORT = {"original_max_position_embeddings": 16}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, **SHORT}
YARN = {"rope_type": "yarn", "factor": 4.0, **SHORT}
ROPES = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 3.0},
    "llama3": LLAMA3,
    "llama3 from a long text": {**LLAMA3, "original_max_position_embeddings": 100, "low_freq_factor": 2.0},
    "yarn": YARN,
    "yarn between places": {**YARN, "truncate": False, "beta_fast": 8.0, "beta_slow": 2.0},
    "yarn that scales as it says": {**YARN, "attention_factor": 1.3},
    "yarn with two scales": {**YARN, "mscale": 1.0, "mscale_all_dim": 0.5},
}


@pytest.fixture(params=ROPES)
def model(request):
    """One whose positions matter: transformers starts weights so small that they hardly do."""
    model = language_model("llama", head_dim=16, rope_parameters={**ROPES[request.param], "rope_theta": 1e3})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("q_proj.weight", "k_proj.weight")):
                parameter.mul_(30)
    return model


def test_frequencies_are_those_of_transformers(model):
    found, scale = rotary_frequencies(model.config.rope_parameters, 16)
    torch.testing.assert_close(found, model.model.rotary_emb.inv_freq)
    assert scale == pytest.approx(model.model.rotary_emb.attention_scaling)


@torch.inference_mode()
def test_decoder_computes_what_transformers_computes(model):
    """A prompt longer than the texts of the first training, and three tokens after it."""
    ids = torch.randint(3, 99, (1, 43), generator=torch.Generator().manual_seed(0))
    decoder = Decoder(model.config.to_dict(), model.state_dict())
    cache = TextCache(decoder, 1)
    for part in ids.split([40, 1, 1, 1], 1):
        found = decoder.logits(decoder(part, cache))
    torch.testing.assert_close(found, model(ids).logits[:, -1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_positions_that_turn_by_the_length_of_the_text_are_left_to_transformers(kind):
    config = language_model("llama").config.to_dict()
    config["rope_parameters"] = {"rope_type": kind, "rope_theta": 1e4, "factor": 2.0}
    assert not is_plain(config)
    assert kind in peculiarity(config)
