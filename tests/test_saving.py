"""What is saved gives the same logits when it is loaded, or is refused with a sentence that says what to do."""

from __future__ import annotations

import shutil

import pytest
import torch
from families import language_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from woven import memory, open_weave, parts_on_disk, reader, tokenizer

from weft.errors import PartError, WeftError
from weft.making import weave
from weft.memory import Placement
from weft.model import WeftModel
from weft.quick import quick

peft = pytest.importorskip("peft")
IDS = torch.randint(3, 100, (2, 9), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def parts(tmp_path):
    """A language model and an encoder on disk."""
    return parts_on_disk(tmp_path)


@pytest.fixture
def model(parts):
    return open_weave(weave(parts[0], vision=parts[1], start=1, every=1, feed_forward=16)).eval()


@torch.no_grad()
def logits(model):
    placed = [model.place(model.read(memory(1).to(model.weave().dtype)), Placement.of([[(0, 2)], []]))]
    return model(input_ids=IDS, memories=placed).logits


def adapt(model, **options):
    """Put an adapter that has learned something in place."""
    config = peft.LoraConfig(**{"target_modules": ["q_proj", "v_proj"], "r": 2, "lora_alpha": 16, **options})
    adapted = peft.get_peft_model(model.language_model, config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return adapted


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize(
    "options",
    [{}, {"use_dora": True}, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}],
    ids=["lora", "dora", "head"],
)
def test_adapter_in_the_language_model_is_saved_with_the_weave(model, tmp_path, merge, options):
    plain = logits(model)
    adapt(model, **options)
    expected = logits(model)
    assert not torch.allclose(expected, plain)
    model.save_pretrained(tmp_path / "saved", merge=merge)
    loaded = WeftModel.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(logits(loaded), expected)
    assert not any(parameter.requires_grad for parameter in loaded.language_model.parameters())
    loaded.disable_adapters()
    torch.testing.assert_close(logits(loaded), plain)
    assert quick(tmp_path / "saved") is None


def test_adapters_by_name_come_back_with_those_that_have_a_say(model, tmp_path):
    adapted = adapt(model)
    adapted.add_adapter("other", peft.LoraConfig(target_modules=["k_proj"], r=3))
    adapted.set_adapter("other")
    other = logits(model)
    model.save_pretrained(tmp_path / "other")
    loaded = WeftModel.from_pretrained(tmp_path / "other")
    assert loaded.active_adapters() == ["other"]
    torch.testing.assert_close(logits(loaded), other)
    adapted.set_adapter("default")
    loaded.set_adapter("default")
    torch.testing.assert_close(logits(loaded), logits(model))
    with pytest.raises(WeftError, match="no adapter named 'third'"):
        loaded.set_adapter("third")


def test_adapter_of_its_own_folder_can_be_put_in_place_and_another_models_is_refused(model, parts, tmp_path):
    adapt(model).save_pretrained(tmp_path / "adapter")
    fresh = open_weave(weave(parts[0], vision=parts[1], start=1, every=1, feed_forward=16)).eval()
    fresh.load_adapter(tmp_path / "adapter")
    torch.testing.assert_close(logits(fresh), logits(model))
    with pytest.raises(WeftError, match="has an adapter named 'default' already"):
        fresh.load_adapter(tmp_path / "adapter")
    larger = language_model("llama", hidden_size=64)
    larger.save_pretrained(tmp_path / "larger")
    other = weave(larger, vision=parts[1], tokenizer=tokenizer())
    with pytest.raises(PartError, match="made for another model"):
        other.load_adapter(tmp_path / "adapter")
    with pytest.raises(PartError, match="holds no adapter"):
        fresh.load_adapter(parts[0], "second")


def test_adapter_that_was_made_on_the_woven_model_fits(model, parts, tmp_path):
    config = peft.LoraConfig(target_modules=r"language_model.*q_proj", r=2, init_lora_weights=False)
    around = peft.get_peft_model(model, config)
    around.save_pretrained(tmp_path / "adapter")
    fresh = open_weave(weave(parts[0], vision=parts[1], start=1, every=1, feed_forward=16)).eval()
    fresh.load_adapter(tmp_path / "adapter")
    torch.testing.assert_close(logits(fresh), logits(model))
    fresh.save_pretrained(tmp_path / "saved")
    torch.testing.assert_close(logits(WeftModel.from_pretrained(tmp_path / "saved")), logits(model))


def folded(model):
    model.language_model = adapt(model).merge_and_unload()


@torch.no_grad()
def tuned(model):
    model.language_model.model.norm.weight[3] += 0.5


@torch.no_grad()
def one_row(model):
    model.language_model.get_input_embeddings().weight.data[7] += 1.0


def resized(model):
    model.language_model.resize_token_embeddings(130)


def rounded(model):
    model.language_model.to(torch.bfloat16).to(torch.float32)


def capped(model):
    model.language_model.config.rms_norm_eps = 0.1


@pytest.mark.parametrize("change", [folded, tuned, one_row, resized, rounded, capped])
def test_changed_language_model_is_refused_or_saved_whole(model, tmp_path, change):
    change(model)
    with pytest.raises(PartError, match=r"no longer the one in .*merge=True"):
        model.save_pretrained(tmp_path / "named")
    assert not (tmp_path / "named").exists()
    model.save_pretrained(tmp_path / "whole", merge=True)
    loaded = WeftModel.from_pretrained(tmp_path / "whole")
    if change is capped:  # which a model takes note of when it is made
        assert loaded.language_model.config.rms_norm_eps == 0.1
    else:  # rounding a model rounds its rotary frequencies as well, which are not saved
        tolerance = {"atol": 1e-3, "rtol": 0} if change is rounded else {"atol": 0, "rtol": 0}
        torch.testing.assert_close(logits(loaded), logits(model), **tolerance)
        assert loaded.config.language_model["sha256"] != model.config.language_model["sha256"]
    loaded.save_pretrained(tmp_path / "again")  # it names the merged folder now
    assert torch.equal(logits(WeftModel.from_pretrained(tmp_path / "again")), logits(loaded))


def test_weaves_of_an_adapted_language_model_are_not_added_to_one_without_the_adapter(model, parts, tmp_path):
    adapt(model)
    model.save_pretrained(tmp_path / "adapted")
    plain = weave(parts[0], text="language-model", start=1, every=1)
    with pytest.raises(PartError, match="trained together with adapters"):
        plain.load_weaves(tmp_path / "adapted")


def test_adapter_that_is_folded_in_for_the_moment_or_sits_in_a_weave_is_refused(model, tmp_path):
    adapted = adapt(model)
    adapted.merge_adapter()
    with pytest.raises(WeftError, match="unmerge_adapter"):
        model.save_pretrained(tmp_path / "saved", merge=True)
    adapted.unmerge_adapter()
    peft.get_peft_model(model.weaves, peft.LoraConfig(target_modules=["q_proj"], r=2))
    with pytest.raises(WeftError, match="adapters in weaves"):
        model.save_pretrained(tmp_path / "saved", merge=True)


def test_changed_encoder_is_refused_or_saved_whole(model, tmp_path):
    with torch.no_grad():
        model.encoder().model.layernorm.weight.mul_(2)
    with pytest.raises(WeftError, match="encoder of the weave 'photos' is no longer the one"):
        model.save_pretrained(tmp_path / "named")
    model.save_pretrained(tmp_path / "whole", merge=True)
    picture = torch.randn(1, 3, 24, 24)
    loaded = WeftModel.from_pretrained(tmp_path / "whole")
    torch.testing.assert_close(loaded.encoder()(picture), model.encoder()(picture))


@pytest.mark.parametrize("narrow", ["all", "language model", "weave"])
def test_types_of_language_model_and_weave_come_back_each_as_it_was(model, tmp_path, narrow):
    """As after a run in bfloat16, which leaves a weave in float32 on a language model in bfloat16."""
    part = {"all": model, "language model": model.language_model, "weave": model.weaves}[narrow]
    part.to(torch.bfloat16)
    model.save_pretrained(tmp_path / "saved")
    loaded = WeftModel.from_pretrained(tmp_path / "saved")
    assert loaded.language_model.dtype == model.language_model.dtype
    assert loaded.weave().dtype == model.weave().dtype
    # Rounding a model rounds its rotary frequencies as well, which are not saved.
    torch.testing.assert_close(logits(loaded), logits(model), atol=1e-2, rtol=0)
    asked = WeftModel.from_pretrained(tmp_path / "saved", dtype=torch.float32)
    assert {parameter.dtype for parameter in asked.parameters()} == {torch.float32}


@pytest.mark.parametrize("family", ["gpt2", "qwen3_moe", "gemma3_text", "bloom"])
def test_unchanged_language_models_of_other_families_are_saved_by_name(family, parts, tmp_path):
    """Whatever transformers renames, ties or puts together on loading is no change."""
    language_model(family).save_pretrained(tmp_path / family)
    tokenizer().save_pretrained(tmp_path / family)
    woven = open_weave(weave(tmp_path / family, vision=parts[1], start=1, every=1)).eval()
    woven.save_pretrained(tmp_path / "saved")
    assert torch.equal(logits(WeftModel.from_pretrained(tmp_path / "saved")), logits(woven))
    with torch.no_grad():
        next(woven.language_model.parameters()).view(-1)[5] += 1
    with pytest.raises(PartError, match="no longer the one"):
        woven.save_pretrained(tmp_path / "saved")


def test_language_model_that_was_moved_is_named(model, parts, tmp_path):
    expected = logits(model)
    model.save_pretrained(tmp_path / "saved")
    moved, eyes = tmp_path / "elsewhere", tmp_path / "eyes"
    parts[0].rename(moved)
    with pytest.raises(PartError, match="say where it is"):
        WeftModel.from_pretrained(tmp_path / "saved")
    for given in (moved, AutoModelForCausalLM.from_pretrained(moved)):
        loaded = WeftModel.from_pretrained(tmp_path / "saved", language_model=given)
        assert torch.equal(logits(loaded), expected)
        assert loaded.processor.tokenizer.eos_token == "</s>"
    parts[1].rename(eyes)
    loaded = WeftModel.from_pretrained(tmp_path / "saved", language_model=moved, encoders={"photos": eyes})
    loaded.save_pretrained(tmp_path / "again")
    assert torch.equal(logits(WeftModel.from_pretrained(tmp_path / "again")), expected)


def test_another_language_model_is_refused_however_it_is_given(model, parts, tmp_path):
    model.save_pretrained(tmp_path / "saved")
    other = tmp_path / "other"
    shutil.copytree(parts[0], other)
    language_model("llama", seed=9).save_pretrained(other)
    for given in (other, AutoModelForCausalLM.from_pretrained(other), language_model("qwen3")):
        with pytest.raises(PartError, match="not the one"):
            WeftModel.from_pretrained(tmp_path / "saved", language_model=given)


def test_relative_folders_are_found_from_everywhere(parts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = weave("lm", vision="vit", start=1, every=1)
    made.save_pretrained("saved")
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    assert WeftModel.from_pretrained(tmp_path / "saved").weaves.keys() == made.weaves.keys()


@torch.no_grad()
def test_memory_of_a_passage_is_read_anew_when_an_adapter_of_its_encoder_changes():
    """The language model reads passages itself, so an adapter in it changes what it makes of them."""
    model = reader()
    before = model.read_texts(["a b c"])
    adapted = adapt(model)
    after = model.read_texts(["a b c"])
    assert not torch.allclose(after.layers[-1].keys, before.layers[-1].keys)
    with adapted.disable_adapter():
        again = model.read_texts(["a b c"])
    assert torch.equal(again.layers[-1].keys, before.layers[-1].keys)


def test_adapters_files_are_those_of_peft(model, parts, tmp_path):
    adapt(model)
    expected = model.language_model(input_ids=IDS).logits
    model.save_pretrained(tmp_path / "saved")
    bare = AutoModelForCausalLM.from_pretrained(parts[0])
    loaded = peft.PeftModel.from_pretrained(bare, tmp_path / "saved" / "adapters" / "default")
    torch.testing.assert_close(loaded(input_ids=IDS).logits, expected)
    assert not any("lora" in name for name in load_file(tmp_path / "saved" / "model.safetensors"))
