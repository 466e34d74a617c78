"""The short way from a cold process to a caption, held to the words of the model itself."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from families import language_model
from PIL import Image
from safetensors.torch import save_file
from test_decoder import lies_on_levels
from woven import tokenizer, woven

import weft
from weft.cli import main
from weft.decoder import Decoder, TextCache
from weft.packed_part import packed_decoder
from weft.packing import GROUP
from weft.processing import WeftProcessor
from weft.quick import quick
from weft.shipped import shipped, woven_folder
from weft.tasks import CAPTION, TITLE

EXAMPLES = Path(__file__).parents[1] / "examples"


def saved(folder: Path, family: str = "llama", dtype: torch.dtype = torch.float32, **changes: object) -> Path:
    changes = {"tie_word_embeddings": True, "rms_norm_eps": 1e-5, **changes}
    model = woven(language_model(family, **changes)).to(dtype)
    model.processor = WeftProcessor(tokenizer(), model.encoder(), system_prompt="")
    model.save_pretrained(folder, merge=True)
    return folder


@pytest.mark.parametrize("beams", [1, 2, 4])
@pytest.mark.parametrize("seed", range(4))
def test_says_what_the_model_says_and_how_likely_it_is(tmp_path, beams, seed):
    torch.manual_seed(seed)
    picture = Image.fromarray(torch.randint(0, 255, (32, 48, 3), dtype=torch.uint8).numpy())
    folder = saved(tmp_path, eos_token_id=seed + 30)
    expected = weft.load(folder).caption(picture, beams=beams)
    said = quick(folder).say(picture, CAPTION, beams=beams)
    assert said.text == expected.text
    assert said.log_probability == pytest.approx(expected.log_probability, abs=1e-3)


def test_knows_a_language_model_with_a_head_of_its_own(tmp_path):
    picture = Image.effect_noise((40, 24), 99).convert("RGB")
    folder = saved(tmp_path, tie_word_embeddings=False)
    expected, said = weft.load(folder).caption(picture), quick(folder).say(picture, CAPTION)
    assert said.text == expected.text
    assert said.log_probability == pytest.approx(expected.log_probability, abs=1e-3)


@pytest.mark.parametrize("instruction", [CAPTION, TITLE])
def test_says_what_the_shipped_model_says(shipped_model, instruction, monkeypatch):
    """Over the same decoder, since words that are about as likely could change places between two."""
    short = quick(shipped("photos"))
    monkeypatch.setattr(shipped_model.plain, "get", lambda: short.decoder)
    for photo in sorted(EXAMPLES.glob("*.jpg")):
        assert short.say(photo, instruction).text == shipped_model.say(photo, instruction).text


def test_packed_weights_are_kept_and_made_anew_when_damaged(tmp_path, monkeypatch):
    weights = {
        name: lies_on_levels(len(tensor), tensor.shape[1] // GROUP) * 0.02 if "_proj" in name else tensor
        for name, tensor in language_model("llama", hidden_size=64, head_dim=16).state_dict().items()
    }
    weights = {name: tensor.bfloat16().contiguous() for name, tensor in weights.items()}
    save_file(weights, tmp_path / "model.safetensors")
    config = language_model("llama", hidden_size=64, head_dim=16).config.to_dict()
    monkeypatch.setenv("WEFT_HOME", str(tmp_path / "home"))
    expected, ids = Decoder(config, weights, "int4"), torch.randint(3, 99, (1, 3))

    def hidden(decoder):
        return decoder(ids, TextCache(decoder, 1))

    def found():
        return packed_decoder(tmp_path / "model.safetensors", "these", config)

    assert torch.equal(hidden(found()), hidden(expected))
    (kept,) = (tmp_path / "home" / "packed").iterdir()
    written = kept.stat().st_mtime_ns
    assert torch.equal(hidden(found()), hidden(expected)) and kept.stat().st_mtime_ns == written
    kept.write_bytes(kept.read_bytes()[:1000])
    assert torch.equal(hidden(found()), hidden(expected)) and kept.stat().st_size > 1000
    save_file(language_model("llama").to(torch.bfloat16).state_dict(), tmp_path / "model.safetensors")
    assert packed_decoder(tmp_path / "model.safetensors", "others", config) is None


@pytest.mark.parametrize(
    ("family", "changes"),
    [("qwen2", {}), ("gpt2", {}), ("llama", {"attention_bias": True})],
)
def test_other_language_models_are_left_to_transformers(tmp_path, family, changes):
    assert quick(saved(tmp_path, family, **changes)) is None


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("generation_config.json", {"repetition_penalty": 1.3}),
        ("generation_config.json", {"eos_token_id": [2, 5]}),
        ("tokenizer_config.json", {"bos_token": {"content": "<s>"}}),
    ],
)
def test_language_model_with_ways_of_its_own_is_left_to_transformers(tmp_path, name, changes):
    folder = saved(tmp_path)
    assert quick(folder) is not None
    file = folder / "language_model" / name
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    assert quick(folder) is None


@pytest.mark.parametrize("template", ["{% generation %}{% endgeneration %}", "{{ raise_exception('no') }}", "{% if"])
def test_chat_template_that_asks_for_more_is_left_to_transformers(tmp_path, template):
    folder = saved(tmp_path)
    (folder / "language_model" / "chat_template.jinja").write_text(template)
    assert quick(folder) is None


def test_padding_that_a_tokenizer_file_asks_for_is_left_out(tmp_path, photo):
    folder = saved(tmp_path)
    expected = quick(folder).say(photo, CAPTION)
    file = folder / "language_model" / "tokenizer.json"
    padding = {"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0}
    padding |= {"pad_type_id": 0, "pad_token": "<pad>"}
    file.write_text(json.dumps({**json.loads(file.read_text()), "padding": padding}))
    assert quick(folder).say(photo, CAPTION) == expected


def test_command_line_takes_the_short_way(tmp_path, photo, monkeypatch, capsys):
    folder = saved(tmp_path / "model")
    broken = tmp_path / "broken.png"
    broken.write_bytes(photo.read_bytes()[:60])
    monkeypatch.setattr("weft.cli._load", lambda name: pytest.fail("transformers was not to be needed"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(photo.read_bytes())))
    arguments = ["caption", photo, broken, "-", "--json", "--model", folder]
    monkeypatch.setattr(sys, "argv", ["weft", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    shown = capsys.readouterr()
    first, piped = (json.loads(line) for line in shown.out.splitlines())
    assert stop.value.code == 1 and "broken.png can't be read" in shown.err
    assert (first["picture"], piped["picture"]) == (str(photo), "-")
    assert first["caption"] == piped["caption"] == quick(folder).say(photo, CAPTION).text


def test_folder_named_like_the_shipped_weave_does_not_stand_for_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    assert woven_folder() == shipped("photos")
    assert woven_folder("photos") == "photos"


def test_folder_without_a_model_is_left_to_the_usual_errors(tmp_path):
    assert quick(tmp_path / "nowhere") is None


def test_caption_from_a_cold_process_imports_neither_transformers_nor_a_compiler(shipped_model, photo):
    code = (
        "import sys; from weft.cli import main\n"
        f"sys.argv = ['weft', 'caption', {str(photo)!r}]\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "heavy = {'transformers', 'torch._dynamo', 'sympy', 'accelerate'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
