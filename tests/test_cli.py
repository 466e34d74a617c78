"""The command line, as people call it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from typer.testing import CliRunner

import weft
from weft.cli import app, main
from weft.errors import WeftError
from weft.images import load_image, picture_name

runner = CliRunner()


class Said:
    def __init__(self, name, size):
        self.text, self.log_probability, self.words = f"a picture of {size[0]} pixels", -1.5, ("a", "picture")
        self.name, self.matters = name, (False, True)

    def sheet(self):
        return Image.new("RGB", (2, 2))


class Model:
    """Says how wide a picture is; reads it as the real one does."""

    explained: list = []  # noqa: RUF012

    def caption(self, source, *, beams, explain):
        assert beams >= 1
        self.explained.append(explain)
        return Said(picture_name(source), load_image(source).size)

    title = caption


@pytest.fixture(autouse=True)
def model(monkeypatch):
    monkeypatch.setattr("weft.quick.quick", lambda folder: None)
    monkeypatch.setattr("weft.cli._load", lambda name: Model())


@pytest.fixture
def folder(tmp_path):
    for width in (3, 5):
        Image.new("RGB", (width, 2)).save(tmp_path / f"{width}.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    return tmp_path


def run(monkeypatch, *arguments):
    """Through ``main``, as the installed command does; returns the exit code."""
    monkeypatch.setattr(sys, "argv", ["weft", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code or 0


def test_one_picture_gives_one_line(folder):
    result = runner.invoke(app, ["caption", str(folder / "3.png")])
    assert (result.exit_code, result.output) == (0, "a picture of 3 pixels\n")


def test_folder_gives_a_line_for_each_of_its_pictures(folder):
    result = runner.invoke(app, ["caption", str(folder)])
    assert result.output == f"{folder}/3.png\ta picture of 3 pixels\n{folder}/5.png\ta picture of 5 pixels\n"


def test_json_is_one_object_a_line(folder):
    result = runner.invoke(app, ["title", str(folder), "--json", "--beams", "1"])
    lines = [json.loads(line) for line in result.output.splitlines()]
    assert [line["title"] for line in lines] == ["a picture of 3 pixels", "a picture of 5 pixels"]
    assert lines[0]["log_probability"] == -1.5


def test_picture_on_standard_input(folder):
    result = runner.invoke(app, ["caption", "-"], input=(folder / "5.png").read_bytes())
    assert result.output == "a picture of 5 pixels\n"


def test_explanation_is_written(folder, tmp_path):
    runner.invoke(app, ["caption", str(folder / "3.png"), "--explain", str(tmp_path / "new" / "sheet.png")])
    assert Image.open(tmp_path / "new" / "sheet.png").size == (2, 2)
    runner.invoke(app, ["caption", str(folder), "--explain", str(tmp_path / "sheets")])
    assert sorted(file.name for file in (tmp_path / "sheets").iterdir()) == ["3.png", "5.png"]


def test_explanation_may_be_the_sketch_by_attention(folder, tmp_path):
    Model.explained.clear()
    picture, sheet = str(folder / "3.png"), str(tmp_path / "sheet.png")
    runner.invoke(app, ["caption", picture, "--sketch"])
    runner.invoke(app, ["caption", picture, "--explain", sheet, "--sketch"])
    result = runner.invoke(app, ["caption", picture, "--explain", sheet, "--json"])
    assert Model.explained == [False, "sketch", True]
    assert json.loads(result.output)["matters"] == [False, True]


def test_broken_file_is_reported_and_the_rest_goes_on(folder, monkeypatch, capsys):
    (folder / "4.png").write_bytes(b"broken")
    assert run(monkeypatch, "caption", folder) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert err.startswith("weft: ") and "4.png" in err and "Traceback" not in err


def test_error_for_people_is_one_sentence_and_exit_code_1(tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "train", tmp_path / "gone.yaml") == 1
    err = capsys.readouterr().err
    assert err == f"weft: {tmp_path}/gone.yaml is not a file; give a recipe (YAML).\n"
    assert run(monkeypatch, "pull", "nothing") == 1
    assert "smollm2-135m-instruct" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["caption"], ["caption", "a.png", "--beams", "0"], ["evaluate", "x", "--task", "y"], ["z"]]
)
def test_wrong_use_has_exit_code_2(arguments, monkeypatch):
    assert run(monkeypatch, *arguments) == 2


def test_length_penalty_reaches_the_search(tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr("weft.load", lambda _=None: None)
    monkeypatch.setattr("weft.evaluate", lambda model, data, **options: given.update(options) or {})
    assert runner.invoke(app, ["evaluate", "dev.jsonl", "--length-penalty", "0.8", "--json"]).exit_code == 0
    assert given["length_penalty"] == 0.8


@pytest.mark.parametrize("command", ["caption", "title", "pull", "train", "evaluate", "info", "data flickr8k"])
def test_help_gives_an_example(command):
    result = runner.invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0
    assert f"weft {command}" in result.output


def test_info_tells_versions_and_parts():
    facts = json.loads(runner.invoke(app, ["info", "--json"]).output)
    assert facts["weft"] == weft.__version__
    assert {"smollm2-135m-instruct", "efficientnet-lite2"} <= set(facts["parts"])


def test_help_and_import_load_neither_torch_nor_transformers():
    code = "import weft, weft.cli, sys; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_examples_are_there_and_named_with_author_and_licence():
    examples = Path(__file__).parents[1] / "examples"
    listed = (examples / "README.md").read_text()
    pictures = [file for file in examples.iterdir() if file.suffix == ".jpg"]
    assert pictures and all(f"`{file.name}`" in listed for file in pictures)


@pytest.mark.parametrize("first", ["weft", "transformers"])
def test_transformers_knows_woven_models_whichever_is_imported_first(first):
    second = "transformers" if first == "weft" else "weft"
    code = (
        f"import {first}, {second}; from transformers import AutoConfig; print(AutoConfig.for_model('weft').model_type)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "weft"


@pytest.mark.parametrize(
    "words",
    [["caption", "PHOTO"], ["ask", "PHOTO", "What?"], ["title", "PHOTO"], ["summarize", "TEXT"], ["title", "TEXT"]],
)
def test_explanation_under_a_name_of_no_kind_is_refused_at_once(words, photo, tmp_path, monkeypatch):
    monkeypatch.setattr("weft.load", lambda _=None: SimpleNamespace(title_text=None, summarize=None))
    (tmp_path / "text.txt").write_text("Words.", encoding="utf-8")
    given = {"PHOTO": str(photo), "TEXT": str(tmp_path / "text.txt")}
    refused = CliRunner().invoke(
        app, [*(given.get(word, word) for word in words), "--explain", str(tmp_path / "a.foo")]
    )
    assert (refused.exit_code == 2 and ".png" in refused.output) or ".html" in refused.output


def test_language_model_without_a_weave_is_named(shipped_model):  # its part is there
    with pytest.raises(WeftError, match="nothing woven in"):
        weft.load("smollm2-135m-instruct")
