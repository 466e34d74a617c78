"""Woven models on disk, and among transformers' Auto classes and pipelines."""

from __future__ import annotations

import json

import pytest
import torch
from families import language_model
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, pipeline
from woven import encoder, memory, open_weave, parts_on_disk

from weft.config import WeftConfig
from weft.errors import PartError
from weft.making import weave
from weft.memory import Placement
from weft.model import WeftModel
from weft.processing import WeftProcessor

IDS = torch.randint(3, 100, (2, 9), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def parts(tmp_path):
    """A language model and an encoder on disk."""
    return parts_on_disk(tmp_path)


@pytest.fixture
def model(parts):
    return open_weave(weave(parts[0], vision=parts[1], start=1, every=1, feed_forward=16)).eval()


def logits(model):
    placed = [model.place(model.read(memory(1)), Placement.of([[(0, 2)], []]))]
    with torch.no_grad():
        return model(input_ids=IDS, memories=placed).logits


def messages(picture):
    content = [{"type": "image", "image": picture}, {"type": "text", "text": "What is it?"}]
    return [{"role": "user", "content": content}]


@pytest.mark.parametrize("merge", [False, True])
def test_saved_model_gives_the_same_logits(model, tmp_path, merge):
    model.save_pretrained(tmp_path / "saved", merge=merge)
    loaded = WeftModel.from_pretrained(tmp_path / "saved")
    assert torch.equal(logits(loaded), logits(model))
    again = loaded.encoder()
    assert (again.id, again.sha256) == (model.encoder().id, model.encoder().sha256)


def test_checkpoint_holds_what_was_learned_and_names_the_parts(model, parts, tmp_path):
    model.save_pretrained(tmp_path / "saved")
    learned = load_file(tmp_path / "saved" / "model.safetensors")
    assert set(learned) == {f"weaves.{name}" for name in model.weaves.state_dict()}
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert config["language_model"]["id"] == str(parts[0])
    assert len(config["language_model"]["sha256"]) == 64
    assert config["weaves"]["photos"]["encoder"]["id"] == str(parts[1])
    assert not list((tmp_path / "saved").glob("*partial*"))


def test_merged_folder_needs_nothing_else(model, parts, tmp_path):
    expected = logits(model)
    model.save_pretrained(tmp_path / "merged", merge=True)
    for part in parts:
        part.rename(part.with_name(part.name + "-gone"))
    loaded = WeftModel.from_pretrained(tmp_path / "merged")
    assert torch.equal(logits(loaded), expected)
    assert loaded.processor.tokenizer.eos_token == "</s>"


@pytest.mark.parametrize("which", [0, 1])
def test_other_part_than_the_one_trained_on_is_refused(model, parts, tmp_path, which):
    model.save_pretrained(tmp_path / "saved")
    if which:
        encoder(seed=9).save_pretrained(parts[1])
    else:
        language_model("llama", seed=9).save_pretrained(parts[0])
    with pytest.raises(PartError, match="not the one this weave was trained on"):
        WeftModel.from_pretrained(tmp_path / "saved")


def test_language_model_without_a_name_is_refused_unless_merged(parts, tmp_path):
    model = weave(language_model("llama"), vision=parts[1])
    with pytest.raises(PartError, match="merge=True"):
        model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    model.save_pretrained(tmp_path / "merged", merge=True)
    assert WeftModel.from_pretrained(tmp_path / "merged").weaves.keys() == model.weaves.keys()


def test_folder_without_a_woven_model_is_refused(parts):
    with pytest.raises(PartError, match="no woven model"):
        WeftModel.from_pretrained(parts[0].parent)


def test_auto_classes_know_woven_models(model, tmp_path):
    model.save_pretrained(tmp_path / "saved")
    assert isinstance(AutoConfig.from_pretrained(tmp_path / "saved"), WeftConfig)
    assert isinstance(AutoProcessor.from_pretrained(tmp_path / "saved"), WeftProcessor)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path / "saved")
    assert torch.equal(logits(loaded), logits(model))


def test_pipeline_takes_chat_messages(model, tmp_path):
    model.save_pretrained(tmp_path / "saved")
    pipe = pipeline("image-text-to-text", model=str(tmp_path / "saved"))
    picture = Image.new("RGB", (40, 30), "teal")
    options = {"generate_kwargs": {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}}
    said = pipe(messages(picture), return_full_text=False, **options)[0]["generated_text"]
    inputs = model.processor.apply_chat_template(messages(picture), add_generation_prompt=True)
    out = model.generate(**inputs, max_new_tokens=6, do_sample=False, eos_token_id=None)
    expected = model.processor.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert said == expected
    other = pipe(messages(Image.linear_gradient("L")), return_full_text=False, **options)[0]["generated_text"]
    assert isinstance(other, str)


def test_pushed_to_the_hub(model, tmp_path, monkeypatch):
    import weft.checkpoint

    uploaded = {}

    class Api:
        def __init__(self, token=None): ...

        def create_repo(self, repo_id, **options):
            return type("Url", (), {"repo_id": f"someone/{repo_id}"})()

        def upload_folder(self, repo_id, folder_path, commit_message):
            uploaded.update(repo_id=repo_id, files=sorted(file.name for file in folder_path.iterdir()))

    monkeypatch.setattr(weft.checkpoint, "HfApi", Api)
    model.push_to_hub("my-weave")
    assert uploaded["repo_id"] == "someone/my-weave"
    assert {"config.json", "model.safetensors", "processor_config.json"} <= set(uploaded["files"])
