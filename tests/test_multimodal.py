"""Language models of peculiar build: those inside multimodal checkpoints, hybrid decoders, and such as are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families import LLAMA, language_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel
from woven import encoder, memory, open_weave, tokenizer, woven

import weft
from weft import WeftModel
from weft.errors import WeftError
from weft.language_models import language_model_of
from weft.making import weave
from weft.memory import Placement
from weft.weaving import decoder_layers

EYES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16}
EYES |= {"image_size": 16, "patch_size": 8}
TEXT = {**LLAMA, "head_dim": 8}
MULTIMODAL = {
    "gemma3": {
        "text_config": {**TEXT, "sliding_window": 8},
        "vision_config": EYES,
        "mm_tokens_per_image": 4,
        **{"image_token_index": 120, "boi_token_index": 121, "eoi_token_index": 122},
    },
    "llava": {
        "text_config": {"model_type": "llama", **TEXT},
        "vision_config": {"model_type": "clip_vision_model", **EYES},
    }
    | {"image_token_index": 120},
    "internvl": {"text_config": {"model_type": "qwen2", **TEXT}, "vision_config": EYES, "image_token_id": 120},
}
IDS = torch.randint(3, 100, (3, 9), generator=torch.Generator().manual_seed(1))
ROWS = Placement.of([[(0, 2)], [], [(1, 0)]])


def multimodal(family):
    """A random one whose vision tower has as many layers as its language model."""
    torch.manual_seed(0)
    return AutoModelForImageTextToText.from_config(AutoConfig.for_model(family, **MULTIMODAL[family])).eval()


@pytest.mark.parametrize("family", MULTIMODAL)
@pytest.mark.parametrize("loaded", [True, False], ids=["loaded", "folder"])
@torch.no_grad()
def test_the_language_model_inside_a_multimodal_checkpoint_is_woven(family, loaded, tmp_path):
    whole = multimodal(family)
    whole.save_pretrained(tmp_path / "whole")
    tokenizer().save_pretrained(tmp_path / "whole")
    bare = whole(input_ids=IDS).logits
    model = weave(whole if loaded else tmp_path / "whole", vision=encoder(), start=1, every=1).eval()
    placed = [model.place(model.read(memory()), ROWS)]
    assert type(model.language_model).__name__.endswith("ForCausalLM")
    assert not any("vision" in name for name, _ in model.language_model.named_parameters())
    assert torch.equal(model(input_ids=IDS, memories=placed).logits, bare)
    open_weave(model)
    seen = model(input_ids=IDS, memories=[model.place(model.read(memory()), ROWS)]).logits
    assert torch.equal(seen[1], bare[1]) and not torch.allclose(seen[0], bare[0], atol=1e-4)


@torch.no_grad()
def test_a_woven_multimodal_checkpoint_comes_back_as_it_was(tmp_path):
    multimodal("gemma3").save_pretrained(tmp_path / "whole")
    tokenizer().save_pretrained(tmp_path / "whole")
    encoder().save_pretrained(tmp_path / "vit")
    model = open_weave(weave(tmp_path / "whole", vision=tmp_path / "vit", start=1, every=1).eval())
    seen = model(input_ids=IDS, memories=[model.place(model.read(memory()), ROWS)]).logits
    for folder, options in ((tmp_path / "named", {}), (tmp_path / "merged", {"merge": True})):
        model.save_pretrained(folder, **options)
        again = weft.load(folder)
        assert torch.equal(again(input_ids=IDS, memories=[again.place(again.read(memory()), ROWS)]).logits, seen)


HYBRID = {
    "jamba": {**TEXT, "num_hidden_layers": 4, "num_experts": 4, "num_experts_per_tok": 2, "mamba_d_state": 4}
    | {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1}
    | {"use_mamba_kernels": False},
    "olmo_hybrid": {**TEXT, "num_hidden_layers": 4, "layer_types": ["linear_attention", "full_attention"] * 2}
    | {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8},
}


def built(family, **fields):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **fields)).eval()


@pytest.mark.parametrize("family", HYBRID)
@torch.no_grad()
def test_decoders_with_layers_of_several_kinds_are_woven(family):
    base = built(family, **HYBRID[family])
    bare = base(input_ids=IDS).logits
    assert len({type(layer) for layer in decoder_layers(base)}) == 2
    model = woven(base)
    seen = model(input_ids=IDS, memories=[model.place(model.read(memory()), ROWS)]).logits
    torch.testing.assert_close(seen[1], bare[1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(seen[0], bare[0], atol=1e-4)


def test_sizes_that_each_layer_has_for_itself_do_not_stand_in_the_way():
    layers = ["sliding_attention", "full_attention"] * 2
    base = built("gemma4_text", **{**TEXT, "num_hidden_layers": 4}, layer_types=layers, global_head_dim=16)
    model = woven(base)
    assert model.weave().config.heads == 4
    assert not torch.equal(model(input_ids=IDS, memories=[model.place(model.read(memory()), ROWS)]).logits[0], IDS[0])


def streams() -> PreTrainedModel:
    """A language model with four residual streams for each token."""
    small = {"vocab_size_per_layer_input": 128, "hidden_size_per_layer_input": 8, "laurel_rank": 4}
    small |= {"num_kv_shared_layers": 0, "activation_sparsity_pattern": [0.0] * 3}
    return built("gemma3n_text", **TEXT, **small, layer_types=["sliding_attention", "full_attention", "full_attention"])


@torch.no_grad()
def test_a_decoder_of_several_streams_is_read_as_their_mean_and_added_to_in_each():
    model = weave(streams(), vision=encoder(), start=1, every=1).eval()
    expected = model.language_model(input_ids=IDS).logits
    placed = model.place(model.read(memory()), ROWS)
    assert torch.equal(model(input_ids=IDS, memories=[placed]).logits, expected)
    open_weave(model)
    found: dict[str, torch.Tensor] = {}
    decoder = model.language_model.model.layers[1]
    keep = [
        decoder.register_forward_pre_hook(lambda _, args: found.update(before=args[0]), prepend=True),
        decoder.register_forward_pre_hook(lambda _, args: found.update(behind=args[0])),
    ]
    placed = model.place(model.read(memory()), ROWS)
    logits = model(input_ids=IDS, memories=[placed]).logits
    for hook in keep:
        hook.remove()
    fusion = model.weave().fusion(0)
    mean = found["before"].mean(0)
    added = placed.fuse(fusion, 0, mean, placed.visible(torch.arange(IDS.shape[1]))) - mean
    torch.testing.assert_close(found["behind"] - found["before"], added.expand_as(found["before"]), rtol=0, atol=1e-5)
    assert torch.equal(logits[1], expected[1])
    assert not torch.allclose(logits[0], expected[0], atol=1e-3)


def test_a_weave_on_several_streams_generates_and_comes_back_from_disk(tmp_path):
    model = open_weave(weave(streams(), vision=encoder(), start=1, every=1)).eval()
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None, "attention_mask": torch.ones_like(IDS)}

    def words(one: WeftModel, **more: Any) -> torch.Tensor:
        return one.generate(IDS, memories=[one.place(one.read(memory()), ROWS)], **options, **more)

    assert torch.equal(words(model), words(model, use_cache=False))
    model.save_pretrained(tmp_path / "woven", merge=True)
    assert torch.equal(words(WeftModel.from_pretrained(tmp_path / "woven")), words(model))


@pytest.mark.parametrize("options", [{"initial": "self-attention"}, {"joint": True}, {"text": "language-model"}])
def test_what_several_streams_do_not_take_is_refused(options):
    with pytest.raises(WeftError, match="several residual streams"):
        weave(streams(), **({} if "text" in options else {"vision": encoder()}), **options)


def test_a_model_with_an_encoder_of_its_own_is_refused():
    from transformers import T5Config, T5ForConditionalGeneration

    sizes = {"vocab_size": 50, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    with pytest.raises(WeftError, match="has an encoder of its own"):
        weave(T5ForConditionalGeneration(T5Config(**sizes)), vision=encoder())


def test_a_language_model_that_stands_alone_is_taken_as_it_is():
    alone = language_model("llama")
    assert language_model_of(alone) is alone
