"""What is said of a weave is checked before it is made: unknown names and values are refused in a sentence."""

from __future__ import annotations

import pytest
import torch
from families import language_model
from transformers import LlamaModel, ViTModel
from woven import encoder, tokenizer, woven

from weft.errors import PartError, WeftError
from weft.making import weave


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"feedforward": 3}, "did you mean 'feed_forward'"),
        ({"hidden_size": 32}, "no option 'hidden_size'"),
        ({"initial": "self_attention"}, "did you mean 'self-attention'"),
        ({"sees": "first"}, "choose 'last', 'all'"),
        ({"reading": "carefully"}, "did you mean 'careful'"),
        ({"dtype": "bf16"}, "did you mean 'bfloat16'"),
        ({"dtype": torch.int8}, "int8"),
        ({"name": "a.b"}, "can't name a weave"),
        ({"name": "a/b"}, "can't name a weave"),
        ({"name": "keys"}, "can't name a weave"),
        ({"name": ""}, "can't name a weave"),
        ({"every": 0}, "every: 0"),
        ({"every": "2"}, "every: '2'"),
        ({"start": -1}, "start: -1"),
        ({"layers": "12"}, "no list"),
        ({"layers": [1.5]}, "layers: 1.5"),
        ({"feed_forward": -1}, "feed_forward: -1"),
        ({"heads": 0}, "heads: 0"),
        ({"heads": 3, "kv_heads": 2}, "kv_heads=2 does not divide heads=3"),
        ({"connector_heads": 5}, "connector_heads=5"),
        ({"head_dim": 7, "rotary_theta": 1e4}, "head_dim=7"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"joint": "yes"}, "joint='yes'"),
        ({"resample": 2.5}, "resample: 2.5"),
        ({"rotary_theta": "10000"}, "rotary_theta"),
        ({"labels": "encoder"}, "no classifier"),
        ({"tokenizer": "smollm"}, "AutoTokenizer"),
    ],
)
def test_what_a_weave_can_not_have_is_refused(options, says):
    with pytest.raises(WeftError, match=says) as told:
        weave(language_model("llama"), **{"vision": encoder(), **options})
    assert str(told.value).count(". ") == 0 and len(str(told.value)) < 500


def test_types_are_given_by_their_names_as_well():
    assert woven(dtype="bfloat16").weave().dtype == torch.bfloat16
    assert woven(dtype="torch.float32").weave().dtype == torch.float32


def test_a_vision_model_is_no_language_model_and_a_language_model_sees_nothing(tmp_path):
    seeing, llama = encoder().model, language_model("llama")
    seeing.save_pretrained(tmp_path / "vit")
    llama.save_pretrained(tmp_path / "llama")
    tokenizer().save_pretrained(tmp_path / "llama")
    for eyes in (tmp_path / "llama", llama):
        with pytest.raises(PartError, match="does not take pictures"):
            weave(llama, vision=eyes)
    with pytest.raises(PartError, match=r"vision model \(vit\); give it as vision"):
        weave(tmp_path / "vit", vision=encoder())
    with pytest.raises(WeftError, match=r"ViTModel gives no words"):
        weave(ViTModel.from_pretrained(tmp_path / "vit"), vision=encoder())
    with pytest.raises(WeftError, match=r"LlamaModel gives no words"):
        weave(LlamaModel.from_pretrained(tmp_path / "llama"), vision=encoder())
    with pytest.raises(PartError, match=r"config\.json is missing"):
        weave(tmp_path, vision=encoder())
