"""Data to learn from what pictures are called: nouns exchanged, and photos of one thing each."""

from __future__ import annotations

import io
import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pyarrow import Table, parquet
from woven import NamingEncoder, encoder

from weft.data import load_examples
from weft.errors import DataError
from weft.everyday_words import ANIMALS, SCENES, THINGS, UNCOUNTED, with_article
from weft.exchanges import exchanged, flickr8k_exchanged, may_be_a_thing
from weft.instructions import CAPTION, TITLE
from weft.kinds import KINDS
from weft.object_photos import ObjectPhoto, background, lines_of, object_photos, sentences_about, write_object_photos
from weft.written import captions_from

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize(
    ("caption", "animal", "expected"),
    [
        ("A brown dog runs.", "owl", "A brown owl runs."),
        ("A dog and a man.", "owl", "An owl and a man."),
        ("Two dogs play.", "wolf", "Two wolves play."),
        ("Dogs playing in the snow.", "fox", "Foxes playing in the snow."),
        ("A girl with an old dog.", "guinea pig", "A girl with an old guinea pig."),
        ("A black Dog digs.", "sheep", "A black sheep digs."),
    ],
)
def test_a_dog_becomes_another_animal(caption, animal, expected):
    assert exchanged(caption, animal) == expected


@pytest.mark.parametrize("caption", ["A man runs.", "A dog and a puppy.", "A poodle, a curly dog.", "A dog barks."])
def test_a_caption_that_would_give_the_exchange_away_is_left_out(caption):
    assert exchanged(caption, "cat") is None


@pytest.mark.parametrize(
    ("caption", "may"),
    [
        ("A white dog sits on a couch.", True),
        ("A dog is in the grass.", True),
        ("A dog runs on the beach.", False),
        ("A dog sits with its tongue out.", False),
        ("Two dogs sit in a car.", False),
    ],
)
def test_a_dog_that_only_sits_somewhere_may_become_a_thing(caption, may):
    assert may_be_a_thing(caption) is may


@pytest.mark.parametrize(
    ("noun", "expected"),
    [("owl", "an owl"), ("teapot", "a teapot"), ("unicycle", "a unicycle"), ("broccoli", "broccoli")],
)
def test_nouns_take_their_article(noun, expected):
    assert with_article(noun) == expected


def test_no_noun_is_both_an_animal_and_a_thing():
    assert not set(ANIMALS) & set(THINGS)
    assert not set(THINGS) & SCENES
    assert all(re.fullmatch(r"[a-z' -]+", noun) for noun in (*ANIMALS, *THINGS, *UNCOUNTED, *SCENES))


@pytest.mark.parametrize(
    ("number", "caption", "other", "expected"),
    [
        (0, "A boy rides a bike.", "elephant", "A boy rides an elephant."),
        (0, "A man on an old dirt bike jumps.", "ox", "A man on an old ox jumps."),
        (0, "Bikes lean on a wall.", "tractor", "Tractors lean on a wall."),
        (1, "Two boys and a soccer ball.", "orange", "Two boys and an orange."),
        (7, "A Cat sleeps.", "owl", "An owl sleeps."),
    ],
)
def test_a_thing_becomes_another_of_its_kind(number, caption, other, expected):
    assert KINDS[number].noun_in(caption)
    assert KINDS[number].exchanged(caption, other) == expected


@pytest.mark.parametrize("caption", ["A man runs.", "A bike and a horse.", "A horse-drawn carriage.", "A carpet."])
def test_only_one_thing_of_a_kind_is_exchanged(caption):
    assert KINDS[0].noun_in(caption) is None


def test_kinds_are_of_words_that_can_be_told_apart():
    for kind in KINDS:
        animals = set(ANIMALS) & kind.named
        assert len(set(kind.others)) == len(kind.others) > 8
        assert "dog" not in kind.others  # captions are full of dogs as they are
        assert kind.named - animals <= set(known_nouns())


def known_nouns() -> list[str]:
    from importlib.resources import files

    return (files("weft") / "imagenet_nouns.txt").read_text("utf-8").splitlines()


def png(colour: tuple[int, int, int] = (120, 90, 60)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (24, 24), colour).save(stream, "png")
    return stream.getvalue()


def test_only_named_dogs_are_exchanged_with_what_names_them(tmp_path):
    captions = ["a dog sits on a couch .", "a brown dog looks at a man ."]
    rows = [{"image": {"bytes": png((n * 20, 90, 60)), "path": f"{n}.png"}, "captions": captions} for n in range(12)]
    parquet.write_table(Table.from_pylist(rows), tmp_path / "train.parquet")
    named = NamingEncoder(encoder())
    named.head.weight.data.zero_()
    (tmp_path / "out" / "pictures").mkdir(parents=True)
    for number in range(12):
        (tmp_path / "out" / "pictures" / f"{number}.png").write_bytes(png())

    named.head.bias.data[0] = 9.0  # every picture is a cat
    assert flickr8k_exchanged(tmp_path, tmp_path / "out", named) == {"exchanged-train": 0}

    named.head.bias.data[2] = 12.0  # every picture is a dog
    counts = flickr8k_exchanged(tmp_path, tmp_path / "out", named)
    examples = load_examples(tmp_path / "out" / "exchanged-train.jsonl")
    assert counts["exchanged-train"] == len(examples) == 36
    for example in examples:
        ((old, new),) = example.exchanged[0]
        assert old == "dog"
        assert new in (*ANIMALS, *THINGS)
        assert new in example.answer.lower()
        assert "dog" not in example.answer
    assert flickr8k_exchanged(tmp_path, tmp_path / "again", named) == counts
    assert (tmp_path / "again" / "exchanged-train.jsonl").read_bytes() == (
        tmp_path / "out" / "exchanged-train.jsonl"
    ).read_bytes()


def objects(folder, count: int = 20) -> None:
    (folder / "pictures").mkdir(parents=True)
    nouns = ["owl", "teapot", "castle", "broccoli"]
    lines = ["picture\tclass\tplain_noun"]
    for number in range(count):
        (folder / "pictures" / f"{number}.png").write_bytes(png((255, 255, 255)))
        lines.append(f"{number}.png\tx\t{nouns[number % 4]}")
    (folder / "labels.tsv").write_text("\n".join(lines) + "\n")


def test_photos_of_things_are_told_of_in_sentences_that_name_them(tmp_path):
    objects(tmp_path / "in")
    counts = write_object_photos(tmp_path / "in", tmp_path / "out")
    learned = load_examples(tmp_path / "out" / "objects-train.jsonl")
    kept = load_examples(tmp_path / "out" / "objects-dev.jsonl")
    assert counts == {"objects-train": len(learned), "objects-dev": 2}
    assert [one.objects for one in kept] == [("owl",), ("castle",)]
    assert not {one.pictures for one in kept} & {one.pictures for one in learned}
    for example in (one for one in learned if one.question in (CAPTION, TITLE)):
        said = dict(example.exchanged[0])
        for old, new in said.items():
            assert old not in example.answer.lower()
            assert new in example.answer.lower()
        if not said:
            assert any(noun in example.answer.lower() for noun in ("owl", "teapot", "castle", "broccoli"))
    places = [one for one in learned if "castle" in one.answer.lower()]
    assert places and not any(one.exchanged[0] for one in places)


def test_sentences_differ_and_have_their_articles():
    sentences = sentences_about("owl", " on a white background", random.Random(0))
    assert len(set(sentences)) == 2
    assert all(re.search(r"\b[Aa]n owl\b", one) and one.endswith(".") for one in sentences)


def test_a_weave_writes_captions_that_begin_as_they_are_told_to(shipped_model):
    """Of a photo that is full of somebody, with no word for people."""
    told = list(captions_from(shipped_model, [(EXAMPLES / "astronaut.jpg", one) for one in ("A teapot", "An owl")]))
    assert all(told)
    for beginning, caption in zip(("A teapot", "An owl"), told, strict=True):
        assert re.fullmatch(rf"{beginning}( [a-z' -]+)?\.", caption)
        assert not re.search(r"\b(man|woman|girl|boy|person|people|child)\b", caption)


def test_what_was_written_is_said_of_what_stands_for_it_as_well(tmp_path):
    objects(tmp_path / "in")
    photo = next(one for one in object_photos(tmp_path / "in") if one.noun == "owl")
    written = "An owl sits on a branch."
    said = [json.loads(line) for line in lines_of(photo, "pictures/0.png", written, random.Random(0))]
    answers = [one["messages"][1]["content"] for one in said]
    assert answers[0] == written
    exchanges = [one["messages"][0]["content"][0].get("names") for one in said]
    (other,) = {names["owl"] for names in exchanges if names}
    assert any(re.fullmatch(rf"An? {other} sits on a branch\.", answer) for answer in answers)


def test_what_is_asked_about_a_photo_is_answered_by_its_noun_under_either_name(tmp_path):
    Image.new("RGB", (32, 32), "white").save(tmp_path / "0.png")
    photo = ObjectPhoto(tmp_path / "0.png", "owl")
    said = [json.loads(line)["messages"] for line in lines_of(photo, "pictures/0.png", None, random.Random(1))]
    asked = [(user["content"][0].get("names", {}), user["content"][1]["text"], one["content"]) for user, one in said]
    (other,) = {names["owl"] for names, _, _ in asked if names}
    for names, noun in (({}, "owl"), ({"owl": other}, other)):
        answers = {question: answer for held, question, answer in asked if held == names}
        assert [answer for question, answer in answers.items() if question.startswith("What")] == [noun]
        assert answers[f"Is there {with_article(noun)} in the picture?"] == "yes"
        assert list(answers.values()).count("no") == 1
        assert answers[TITLE] == f"{noun.capitalize()} on a white background"


def test_the_colour_behind_a_thing_is_told_where_it_is_plain():
    plain = np.full((64, 64, 3), 250, np.uint8)
    plain[24:40, 24:40] = (90, 20, 20)
    assert background(plain) == " on a white background"
    assert background(np.zeros((64, 64, 3), np.uint8)) == " on a black background"
    assert background(np.full((64, 64, 3), (40, 120, 30), np.uint8)) == " with a green background"
    sky = np.full((64, 64, 3), (150, 120, 90), np.uint8)
    sky[:20] = (90, 140, 230)
    assert background(sky) == " under a blue sky"
    assert background(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)) == ""


def test_a_folder_without_labels_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"labels\.tsv is missing"):
        object_photos(tmp_path)
    objects(tmp_path / "in", 4)
    (tmp_path / "in" / "pictures" / "2.png").unlink()
    with pytest.raises(DataError, match=r"2\.png doesn't exist"):
        object_photos(tmp_path / "in")
    (tmp_path / "in" / "labels.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(DataError, match="plain_noun"):
        object_photos(tmp_path / "in")
