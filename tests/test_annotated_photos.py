"""Photos whose objects are annotated: as conversations, and in the figures of an evaluation."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from families import language_model
from PIL import Image
from typer.testing import CliRunner
from woven import encoder, open_weave, tokenizer

from weft.annotated_photos import coco_mini, objects_evaluation
from weft.cli import app
from weft.data import load_examples
from weft.errors import DataError
from weft.evaluation import evaluate
from weft.instructions import CAPTION
from weft.making import weave

PHOTOS = [
    {"picture": "1.png", "captions": ["a cat sleeps on a couch", "Sleeping cat ."], "objects": ["cat", "couch"]},
    {"picture": "2.png", "captions": ["a teapot .", "  "], "objects": ["teapot"]},
    {"picture": "3.png", "captions": ["Only snow"], "objects": []},
]


@pytest.fixture
def folder(tmp_path):
    """A folder as COCO's photos come in, and as object photos do."""
    pictures = tmp_path / "in" / "pictures"
    pictures.mkdir(parents=True)
    for number in range(1, 4):
        Image.new("RGB", (24, 24), (60 * number, 50, 90)).save(pictures / f"{number}.png")
    write(tmp_path / "in" / "dev.jsonl", PHOTOS)
    rows = ["picture\tclass\tplain_noun", "1.png\tgoldfish\tfish", '2.png\t"quoted"\tobelisk']
    (tmp_path / "in" / "labels.tsv").write_text("\n".join(rows))
    return tmp_path / "in"


def write(file, lines):
    file.write_text("\n".join(json.dumps(line) for line in lines))


def test_photos_with_captions_become_one_conversation_each(folder, tmp_path):
    done = CliRunner().invoke(app, ["data", "coco-mini", str(folder), str(tmp_path / "out")])
    assert (done.exit_code, done.output) == (0, f"{tmp_path}/out/dev.jsonl\t3 conversations\n")
    examples = load_examples(tmp_path / "out" / "dev.jsonl")
    assert [one.question for one in examples] == [CAPTION] * 3
    assert [one.answer for one in examples] == ["A cat sleeps on a couch.", "A teapot.", "Only snow."]
    assert [one.references for one in examples] == [("Sleeping cat.",), (), ()]
    assert [one.objects for one in examples] == [("cat", "couch"), ("teapot",), ()]
    assert examples[0].pictures == (str(tmp_path / "out" / "pictures" / "1.png"),)


def test_object_photos_have_their_noun_as_caption(folder, tmp_path):
    assert objects_evaluation(folder, tmp_path / "out") == {"objects": 2}
    examples = load_examples(tmp_path / "out" / "objects.jsonl")
    assert [(one.answer, one.objects) for one in examples] == [("A fish.", ("fish",)), ("An obelisk.", ("obelisk",))]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"picture": "gone.png"}, r"dev\.jsonl:1: .*gone\.png is no file"),
        ({"picture": "../dev.jsonl"}, r"dev\.jsonl:1: .* is no file in"),
        ({"captions": [" . "]}, r"dev\.jsonl:1: the picture has no caption"),
        ({"objects": "cat"}, r"dev\.jsonl:1: each line is an object whose 'objects' is a list of str"),
    ],
)
def test_photo_that_can_not_be_taken_is_refused_by_file_and_line(folder, tmp_path, changes, says):
    write(folder / "dev.jsonl", [PHOTOS[0] | changes])
    with pytest.raises(DataError, match=says):
        coco_mini(folder, tmp_path / "out")
    assert not (tmp_path / "out" / "dev.jsonl").exists()


def test_folders_of_another_kind_are_refused(folder, tmp_path):
    with pytest.raises(DataError, match="holds no JSONL files"):
        coco_mini(folder / "pictures", tmp_path / "out")
    for text, says in [("", "columns"), ("picture\tclass\n1.png\tcat", "needs 'picture', 'class', 'plain_noun'")]:
        (folder / "labels.tsv").write_text(text)
        with pytest.raises(DataError, match=says):
            objects_evaluation(folder, tmp_path / "out")
    for rows, says in [("", "is empty"), ("1.png\tcat\t", r"labels\.tsv:2: the picture has no noun")]:
        (folder / "labels.tsv").write_text(f"picture\tclass\tplain_noun\n{rows}")
        with pytest.raises(DataError, match=says):
            objects_evaluation(folder, tmp_path / "out")
    (folder / "labels.tsv").unlink()
    with pytest.raises(DataError, match="is missing"):
        objects_evaluation(folder, tmp_path / "out")


@pytest.fixture(scope="module")
def model():
    return open_weave(weave(language_model("llama"), vision=encoder(), layers=[1], tokenizer=tokenizer()).eval())


def test_evaluation_tells_what_is_named_and_what_is_not_there(folder, tmp_path, model, monkeypatch):
    coco_mini(folder, tmp_path)
    said = {"1.png": "A cat on a sofa with a dog", "2.png": "A man.", "3.png": "A person"}

    def say(pictures, *_, **__):
        return [SimpleNamespace(text=said[name.rpartition("/")[2]]) for name in pictures]

    monkeypatch.setattr(model, "say", say)
    figures = evaluate(model, tmp_path / "dev.jsonl", output=tmp_path / "said.jsonl")
    assert figures["pictures"] == 3
    # Of the two with objects: cat, couch, dog, person, of which dog and person aren't there.
    assert figures["chair_i"] == pytest.approx(2 / 4)
    assert figures["named"] == pytest.approx(1 / 2)
    lines = [json.loads(line) for line in (tmp_path / "said.jsonl").read_text().splitlines()]
    assert [line.get("objects") for line in lines] == [["cat", "couch"], ["teapot"], None]


def test_objects_of_all_lines_about_a_picture_count(folder, tmp_path, model, monkeypatch):
    lines = [PHOTOS[0] | {"objects": objects} for objects in (["cat"], ["dog", "cat"])]
    write(folder / "dev.jsonl", lines)
    coco_mini(folder, tmp_path)
    monkeypatch.setattr(model, "say", lambda pictures, *_, **__: [SimpleNamespace(text="A dog")] * len(pictures))
    figures = evaluate(model, tmp_path / "dev.jsonl")
    assert (figures["pictures"], figures["chair_i"], figures["named"]) == (1, 0, 1)


def test_evaluation_without_objects_has_no_such_figures(folder, tmp_path, model, monkeypatch):
    write(folder / "dev.jsonl", [PHOTOS[2]])
    coco_mini(folder, tmp_path)
    monkeypatch.setattr(model, "say", lambda pictures, *_, **__: [SimpleNamespace(text="A dog")] * len(pictures))
    assert not {"chair_i", "named"} & evaluate(model, tmp_path / "dev.jsonl").keys()


@pytest.mark.parametrize("objects", ["cat", [3]])
def test_objects_that_are_no_list_of_strings_are_refused(tmp_path, objects):
    line = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}], "objects": objects}
    write(tmp_path / "data.jsonl", [line])
    with pytest.raises(DataError, match=r"data\.jsonl:1: 'objects' must be a list of strings"):
        load_examples(tmp_path / "data.jsonl")
