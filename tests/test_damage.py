"""What is damaged or in the way: files that were cut off, pictures that can not be read, data that has changed."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from coloured import COLOURS, SMALL, conversation, paint
from families import language_model
from PIL import Image
from safetensors.torch import load_file, save_file
from woven import encoder, tokenizer

from weft.errors import DataError, PartError, WeftError
from weft.evaluation import evaluate
from weft.instructions import CAPTION
from weft.making import load
from weft.recipe import Recipe
from weft.run_folder import held
from weft.store import FeatureStore
from weft.trainer import Trainer
from weft.training import train
from weft.whole_files import check_writable, whole


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A language model and an encoder."""
    folder = tmp_path_factory.mktemp("parts")
    language_model("llama", num_hidden_layers=3, initializer_range=0.2).save_pretrained(folder / "lm")
    tokenizer().save_pretrained(folder / "lm")
    encoder().save_pretrained(folder / "vit")
    return folder


@pytest.fixture
def world(parts, tmp_path):
    """Pictures of one colour each, with two captions."""
    lines = paint(tmp_path)
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "dev.jsonl").write_text("\n".join(map(json.dumps, lines[:2])))
    return tmp_path


def recipe(world, parts, **changes):
    fields = {
        "data": str(world / "data.jsonl"),
        "dev": str(world / "dev.jsonl"),
        "output": str(world / "run"),
        "features": str(world / "features"),
        "language_model": str(parts / "lm"),
        "vision": str(parts / "vit"),
    }
    return Recipe(**{**SMALL, **fields, **changes})


def best(world, name="run"):
    """The best weights of a run, in memory of their own: the file may be cut off."""
    return {key: one.clone() for key, one in load_file(world / name / "best" / "model.safetensors").items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


DAMAGES = ("empty", "zeros", "cut", "half", "shape", "type", "another")


@pytest.mark.parametrize("kind", ["pictures", "hidden states"])
def test_features_that_are_damaged_are_made_again(world, parts, kind):
    train(recipe(world, parts))
    first = best(world)
    stored = sorted((world / "features").rglob("*.safetensors"))
    chosen = [file for file in stored if ("hidden" in file.parts) == (kind == "hidden states")]
    assert len(chosen) == len(COLOURS)
    for damage, file in zip(DAMAGES if kind == "pictures" else reversed(DAMAGES), chosen, strict=False):
        content = file.read_bytes()
        if damage in ("shape", "type", "another"):
            features = load_file(file)["features"].clone()
            name, features = {
                "shape": ("features", features[:, :-1]),
                "type": ("features", features.double()),
                "another": ("others", features),
            }[damage]
            save_file({name: features.contiguous()}, file)
        else:
            kept = {
                "empty": b"",
                "zeros": bytes(len(content)),
                "cut": content[:-4],
                "half": content[: len(content) // 2],
            }
            file.write_bytes(kept[damage])
    train(recipe(world, parts, output=str(world / "again")))
    assert same(first, best(world, "again"))


def test_features_that_vanish_while_a_run_goes_on_are_named(tmp_path):
    with pytest.raises(WeftError, match=r"ab/abcd\.safetensors has been removed.*resume"):
        FeatureStore(tmp_path).get("abcd")


@pytest.mark.parametrize("damage", [b"cut", None])
def test_run_goes_on_from_the_checkpoint_before_one_that_is_damaged(world, parts, damage, capsys):
    train(recipe(world, parts))
    first = best(world)
    file = world / "run" / "checkpoint.safetensors"
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:1000])
    train(recipe(world, parts), resume=True)
    said = capsys.readouterr().err
    assert ("is gone" if damage is None else "is damaged; the run goes on from") in said and "previous" in said
    assert same(first, best(world))


def test_run_whose_checkpoints_are_all_damaged_is_refused(world, parts):
    train(recipe(world, parts))
    for file in (world / "run").glob("checkpoint*"):
        file.write_bytes(b"")
    with pytest.raises(DataError, match=r"checkpoint\.safetensors and .*previous.* are damaged.*start anew"):
        train(recipe(world, parts), resume=True)


@pytest.mark.parametrize("damage", [b"", None])
def test_best_weights_that_are_damaged_are_found_anew(world, parts, damage, capsys):
    train(recipe(world, parts, epochs=1, max_steps=2))
    first, file = best(world), world / "run" / "best" / "model.safetensors"
    if damage is None:
        shutil.rmtree(file.parent)
    else:
        file.write_bytes(damage)
    train(recipe(world, parts, epochs=1, max_steps=2), resume=True)
    assert "best is damaged" in capsys.readouterr().err
    assert same(first, best(world))


@pytest.mark.parametrize("content", [None, b"a: ["])
def test_run_goes_on_without_the_recipe_it_had(world, parts, content):
    train(recipe(world, parts), minutes=0)
    file = world / "run" / "recipe.yaml"
    file.unlink() if content is None else file.write_bytes(content)
    train(recipe(world, parts), resume=True)
    assert "batch_size: 2" in file.read_text()


def test_run_knows_its_data(world, parts):
    train(recipe(world, parts, share_prompts=False), minutes=0)
    data = world / "data.jsonl"
    lines = data.read_text().splitlines()
    edited = lines[0].replace('"red."', '"Red."')
    for changed, says in (
        (lines[:-1], r"another data \(8 conversations then, 7 now\)"),
        ([*lines, edited], r"another data \(8 conversations then, 9 now\)"),
        ([*lines[2:], *lines[:2]], "another data"),
        ([edited, *lines[1:]], "another data"),
        ([lines[0].replace("red.png", "lime.png"), *lines[1:]], "another content of its pictures"),
    ):
        data.write_text("\n".join(changed))
        with pytest.raises(DataError, match=says):
            train(recipe(world, parts, share_prompts=False), resume=True)


def test_run_knows_its_pictures_wherever_they_are(world, parts, tmp_path):
    train(recipe(world, parts), minutes=0)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for file in (*world.glob("*.png"), world / "data.jsonl"):
        shutil.copy(file, moved)
    train(recipe(world, parts, data=str(moved / "data.jsonl")), resume=True, minutes=0)
    Image.new("RGB", (24, 24), "black").save(moved / "red.png")
    with pytest.raises(DataError, match="another content of its pictures"):
        train(recipe(world, parts, data=str(moved / "data.jsonl")), resume=True)


def test_dev_set_that_has_changed_is_told_of(world, parts, capsys):
    train(recipe(world, parts, max_steps=2))
    (world / "dev.jsonl").write_text("\n".join((world / "data.jsonl").read_text().splitlines()[4:6]))
    train(recipe(world, parts), resume=True)
    assert "dev set, or the metric, has changed" in capsys.readouterr().err


def test_run_that_is_to_go_on_and_has_not_begun_says_so(world, parts, capsys):
    train(recipe(world, parts), resume=True, minutes=0)
    assert "holds no checkpoint to go on from" in capsys.readouterr().err


def test_pictures_that_can_not_be_read_are_left_out_and_named(world, parts, capsys):
    data, red = world / "data.jsonl", (world / "red.png").read_bytes()
    whole_run = [line for line in data.read_text().splitlines() if "red" not in line]
    (world / "others.jsonl").write_text("\n".join(whole_run))
    changes = {"dev": None, "share_prompts": False}
    train(recipe(world, parts, data=str(world / "others.jsonl"), output=str(world / "others"), **changes))
    (world / "red.png").write_bytes(red[:40])
    train(recipe(world, parts, **changes))
    said = capsys.readouterr().err
    assert "data.jsonl:1" in said and "data.jsonl:2" in said and "red.png" in said and "left out" in said
    assert same(best(world, "others"), best(world))
    for colour in COLOURS:
        (world / f"{colour}.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"No row is left to learn from: 8 whose picture can't be read .*data\.jsonl:1"):
        train(recipe(world, parts, output=str(world / "none")))


@pytest.mark.parametrize(
    ("changes", "lines", "says"),
    [
        ({"longest": 3}, None, "8 with more than 3 tokens, the recipe's 'longest'"),
        (
            {},
            [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}],
            "1 without pic",
        ),
        ({}, [conversation("red.png", "x" * 900)], "1 with more than the 128 tokens that the language model takes"),
    ],
)
def test_rows_that_teach_nothing_are_counted_and_a_run_of_them_alone_is_refused(world, parts, changes, lines, says):
    data = world / "data.jsonl"
    if lines is not None:
        data.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(DataError, match=f"No row is left to learn from: .*{says}"):
        train(recipe(world, parts, dev=None, **changes))
    if lines is not None:
        data.write_text("\n".join(map(json.dumps, [*lines, conversation("red.png", "red.")])))
        feed = Trainer(recipe(world, parts, dev=None, **changes)).feed
        assert len(feed.rows) == 1 and any(says in one for one in feed.about)


@pytest.mark.parametrize("metric", ["cider", "rouge"])
def test_metric_that_the_dev_set_can_not_be_measured_by_is_refused_before_the_run(world, parts, metric):
    (world / "dev.jsonl").write_text((world / "dev.jsonl").read_text().replace(CAPTION, "What?"))
    with pytest.raises(DataError, match=f"metric: {metric} compares"):
        Trainer(recipe(world, parts, metric=metric))


def test_evaluation_leaves_out_pictures_that_can_not_be_read_and_names_them(world, parts, capsys):
    model = train(recipe(world, parts, max_steps=1))
    (world / "lime.png").write_bytes(b"no picture")
    figures = evaluate(model, world / "data.jsonl", beams=1, max_new_tokens=2)
    assert figures["pictures"] == 3
    assert "2 of 8 rows are left out: 2 whose picture can't be read" in capsys.readouterr().err
    with pytest.raises(WeftError, match="is a folder; give the name of a file"):
        evaluate(model, world / "data.jsonl", output=world)
    with pytest.raises(DataError, match="No example asks for a caption"):
        evaluate(model, [{"messages": [{"role": "user", "content": CAPTION}, {"role": "assistant", "content": "x"}]}])


def test_question_that_leaves_no_room_for_a_reply_is_left_out_before_the_first_reply(world, parts, capsys):
    model = train(recipe(world, parts, max_steps=1))
    rows = [json.loads(line) for line in (world / "data.jsonl").read_text().replace(CAPTION, "Which?").splitlines()]
    for row in rows:
        row["messages"][0]["content"][0]["image"] = str(world / row["messages"][0]["content"][0]["image"])
    rows[2]["messages"][0]["content"][1]["text"] = "x" * 200
    figures = evaluate(model, rows, task="vqa", beams=1, max_new_tokens=2)
    assert figures["questions"] == 7
    assert "1 with more than the" in capsys.readouterr().err
    with pytest.raises(DataError, match="No conversation is left to evaluate"):
        evaluate(model, rows[2:3], task="vqa")


def test_two_runs_never_share_a_folder(world, parts):
    with held(world / "run"), pytest.raises(WeftError, match="Another run writes to"):
        train(recipe(world, parts))
    train(recipe(world, parts), minutes=0)


@pytest.mark.parametrize("field", ["output", "features"])
def test_folder_that_can_not_be_written_is_named(world, parts, field):
    (world / "file").write_text("in the way")
    with pytest.raises(WeftError, match=r"file/inside.* can't be written"):
        train(recipe(world, parts, **{field: str(world / "file" / "inside")}))


def test_file_is_there_in_full_or_not_at_all(tmp_path, monkeypatch):
    target = tmp_path / "deep" / "file.txt"
    with whole(target) as partial:
        partial.write_text("first")
    with pytest.raises(WeftError, match="No space left"), whole(target) as partial:
        partial.write_text("second")
        raise OSError(28, "No space left on device")
    assert target.read_text() == "first" and [one.name for one in target.parent.iterdir()] == ["file.txt"]
    with pytest.raises(WeftError, match="can't be written"):
        check_writable(target / "below")


@pytest.fixture(scope="module")
def woven_folder(parts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    Image.new("RGB", (24, 24)).save(folder / "red.png")
    (folder / "data.jsonl").write_text(json.dumps(conversation("red.png", "red.")))
    train(recipe(folder, parts, dev=None, max_steps=1))
    return folder / "run" / "best"


@pytest.mark.parametrize("damage", ["missing", "empty", "half", "zeros", "list"])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "processor_config.json"])
def test_saved_model_that_is_damaged_names_the_file(woven_folder, tmp_path, name, damage):
    shutil.copytree(woven_folder, tmp_path / "model")
    file = tmp_path / "model" / name
    content = file.read_bytes()
    if damage == "missing":
        if name == "processor_config.json":
            pytest.skip("a model without a processor is one")
        file.unlink()
    else:
        kept = {"empty": b"", "half": content[: len(content) // 2], "zeros": bytes(len(content)), "list": b"[]"}
        file.write_bytes(kept[damage])
    with pytest.raises(PartError, match=name.replace(".", r"\.")):
        load(tmp_path / "model")


def test_initial_weights_and_connector_that_are_damaged_name_the_file(woven_folder, world, parts):
    shutil.copytree(woven_folder, world / "model")
    (world / "model" / "model.safetensors").write_bytes(b"cut")
    for field in ("initial_weights", "initial_connector"):
        with pytest.raises(PartError, match=r"model/model\.safetensors is damaged"):
            train(recipe(world, parts, **{field: str(world / "model")}))
