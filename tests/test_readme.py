"""The README's examples, run as they stand, with small stand-ins for what has to be downloaded."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from families import language_model
from served import serving
from transformers import SiglipVisionConfig, SiglipVisionModel, ViTImageProcessorPil
from typer.testing import CliRunner
from woven import tokenizer

from weft.cli import app
from weft.images import load_image
from weft.knowledge import KnowledgeBase
from weft.server import Settings, create_app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
PYTHON = [text for kind, text in BLOCKS if kind == "python"]
OVER_HTTP = "from openai import"
TAKES_LONG = ("train", "evaluate", "data", "pull", "serve", "calibrate", "--model")
"""Commands with these words need data or hours, or go on until they are stopped."""


@pytest.fixture(scope="module")
def place(tmp_path_factory, shipped_model):
    """A folder with what the examples name: photos, documents, and models under the names they have on the Hub."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("dog.jpg", "cat.jpg"):
        (folder / name).write_bytes((ROOT / "examples" / "cat.jpg").read_bytes())
    (folder / "holiday").mkdir()
    (folder / "holiday" / "one.jpg").write_bytes((ROOT / "examples" / "coffee.jpg").read_bytes())
    (folder / "handbook").mkdir()
    (folder / "handbook" / "travel.md").write_text(
        "Travel is approved by the director. Tickets are booked by the office."
    )
    (folder / "article.txt").write_text(
        "The old bridge was closed on Monday. Engineers had found cracks in two pillars."
    )
    (folder / "examples").symlink_to(ROOT / "examples")
    language = language_model("llama", num_hidden_layers=9)
    language.save_pretrained(folder / "HuggingFaceTB" / "SmolLM2-360M-Instruct")
    tokenizer().save_pretrained(folder / "HuggingFaceTB" / "SmolLM2-360M-Instruct")
    sizes = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    eyes = SiglipVisionModel(SiglipVisionConfig(**sizes, image_size=24, patch_size=8))
    eyes.save_pretrained(folder / "google" / "siglip2-base-patch16-224")
    ViTImageProcessorPil(size={"height": 24, "width": 24}).save_pretrained(folder / "google/siglip2-base-patch16-224")
    shipped_model.save_pretrained(folder / "my-model")
    return folder


def test_python_blocks_run_one_after_the_other(place, monkeypatch, shipped_model):
    import torch

    import weft

    monkeypatch.chdir(place)
    monkeypatch.setattr(weft, "load", lambda: shipped_model)
    monkeypatch.setattr(shipped_model, "memory_cache", shipped_model.memory_cache)
    tensors = {name: torch.randn(1, 4, 16) for name in ("query", "key", "value")}
    names = {**tensors, "mask": torch.ones(4, 4, dtype=torch.bool), "v": torch.randn(9, 768), "t": torch.randn(5, 512)}
    for text in (one for one in PYTHON if OVER_HTTP not in one):
        exec(compile(_with_a_word_that_was_said(text), "README.md", "exec"), names)


def test_examples_over_http_run(place, monkeypatch, shipped_model, tmp_path):
    """Those of the README, and all of the API's page, one after the other."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(shipped_model, "memory_cache", shipped_model.memory_cache)
    shutil.copytree(ROOT / "examples" / "stories", tmp_path / "stories", ignore=shutil.ignore_patterns(".*"))
    KnowledgeBase(tmp_path / "stories").update()
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    blocks = [one for one in PYTHON if OVER_HTTP in one] + re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (curl,) = re.findall(r"^\$ curl .*$", page, re.MULTILINE)
    names: dict = {}
    with serving(create_app(shipped_model, Settings(knowledge=tmp_path))) as url:
        for text in blocks:
            exec(compile(text.replace("http://127.0.0.1:8000", url), "api.md", "exec"), names)
        said = subprocess.run(
            shlex.split(curl.removeprefix("$ ").replace("http://127.0.0.1:8000", url)), capture_output=True
        )
    assert json.loads(said.stdout)["choices"][0]["message"]["content"]
    assert load_image(place / "heatmap.png").size == load_image(place / "cat.jpg").size


def _with_a_word_that_was_said(text: str) -> str:
    """What the model says of a stand-in photo need not hold the word that the README looks for."""
    return text.replace('heatmap("dog")', "heatmap(0)")


def commands():
    lines = [line for kind, text in BLOCKS if kind == "console" for line in text.splitlines()]
    for line in lines:
        words = shlex.split(line.removeprefix("$ "), comments=True)
        if words[:1] == ["weft"] and not set(words) & set(TAKES_LONG):
            yield pytest.param(words[1:], id=" ".join(words))


@pytest.mark.parametrize("words", list(commands()))
def test_commands_run(words, place, monkeypatch):
    monkeypatch.chdir(place)
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert result.output.strip()
