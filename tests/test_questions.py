"""Questions made from captions by rules, and a data set of them that can't be answered blindly."""

from __future__ import annotations

import io
import json
import random
from collections import Counter

import pytest
from PIL import Image

from weft.caption_reading import Caption, one_person, subjects
from weft.caption_words import plural
from weft.data import load_examples
from weft.errors import DataError
from weft.picture_questions import OPEN, SHARE, YES_NO, balanced, flickr8k_questions
from weft.questions import Question, agreed, leading, questions


def answers(*captions: str) -> dict[str, str]:
    return {question.text: question.answer for question in questions(captions)}


# --- Reading captions


@pytest.mark.parametrize(
    ("caption", "nouns"),
    [
        ("A puppy and two bicycles .", [("dog", False), ("bike", True)]),
        ("Three women with babies .", [("woman", True), ("baby", True)]),
        ("a dog house", []),  # a modifier
        ("A man 's hat .", [("hat", False)]),  # an owner
        ("A group of dogs .", [("dog", True)]),
        ("A group on ice .", [("person", True), ("ice", False)]),
        ("A man bikes .", [("man", False)]),  # a verb
        ("Boys swing .", [("boy", True)]),
        ("A boy on a swing .", [("boy", False), ("swing", False)]),
        ("a man in a t-shirt and a life jacket", [("man", False), ("shirt", False), ("lifejacket", False)]),
        ("A hot dog .", []),
    ],
)
def test_nouns_of_a_caption(caption, nouns):
    assert [(noun.name, noun.many) for noun in Caption.of(caption).nouns] == nouns


@pytest.mark.parametrize(
    ("caption", "deeds"),
    [
        ("A dog runs and jumps .", {("dog", "running"), ("dog", "jumping")}),
        ("A dog is leaping .", {("dog", "jumping")}),
        ("Two dogs run .", {("dog", "running")}),
        ("A man watches a dog swim .", {("man", "watching")}),  # a bare form behind a singular
        ("A man watches a running dog .", {("man", "watching")}),
        ("A boy in shoes for running .", set()),
        ("A boy rides a horse and smiles .", {("boy", "riding")}),  # the boy or the horse?
        ("A boy rides a horse while smiling .", {("boy", "riding"), ("boy", "smiling")}),
    ],
)
def test_who_does_what(caption, deeds):
    assert {(noun.name, verb) for noun, verb in Caption.of(caption).deeds} == deeds


@pytest.mark.parametrize(
    ("caption", "links"),
    [
        ("A man holds a big red ball .", [("man", "holding", "ball")]),
        ("The man is sitting on a bench .", [("man", "sitting on", "bench")]),
        ("A girl wearing a hat and a scarf .", [("girl", "wearing", "hat"), ("girl", "wearing", "scarf")]),
        ("A dog with a stick in its mouth .", [("dog", "in mouth", "stick")]),
        ("A dog in the middle of the street .", [("dog", "in", "street")]),
        ("A beach .", []),
    ],
)
def test_what_governs_a_noun(caption, links):
    assert [(link.owner.name, link.by, link.noun.name) for link in Caption.of(caption).links] == links


@pytest.mark.parametrize(
    ("caption", "colours"),
    [
        ("a small brown dog", {"brown"}),
        ("A black and white dog", {"black", "white"}),
        ("a red , white and blue ball", {"red", "white", "blue"}),
        ("a white spotted dog", {"white", "pattern"}),
        ("a man in red dribbles the ball", set()),
        ("a gray golden dog", {"grey", "golden"}),
        ("the dog", set()),
    ],
)
def test_colours_before_a_noun(caption, colours):
    read = Caption.of(caption)
    assert read.colours(read.nouns[-1]) == colours


@pytest.mark.parametrize(
    ("caption", "total"),
    [
        ("Two brown dogs .", 2),
        ("A black dog and a white dog .", 2),
        ("A dog .", 1),
        ("Dogs .", None),
        ("A dog chases another .", None),
        ("A dog chases another dog .", 2),
        ("A cat .", 0),
        ("A dog and two other dogs .", 3),
    ],
)
def test_things_are_counted(caption, total):
    assert Caption.of(caption).total({"dog"}) == total


def test_plurals():
    assert [plural(word) for word in ("dog", "woman", "bench", "baby", "boy", "person", "sheep")] == [
        *("dogs", "women", "benches", "babies", "boys", "people", "sheep")
    ]


@pytest.mark.parametrize(
    ("captions", "name"),
    [
        (["A man .", "A guy .", "A skier ."], "man"),
        (["A man .", "A woman .", "A woman ."], "person"),
        (["A boy .", "A girl .", "A kid ."], "child"),
        (["A person .", "A girl .", "A dog ."], "girl"),
    ],
)
def test_one_person_gets_one_name(captions, name):
    read = one_person([Caption.of(text) for text in captions])
    assert {noun.name for caption in read for noun in caption.nouns} - {"dog"} == {name}


def test_several_people_keep_their_names():
    read = one_person([Caption.of("A man and a woman ."), Caption.of("A man .")])
    assert [sorted(caption.names) for caption in read] == [["man", "woman"], ["man"]]


@pytest.mark.parametrize(
    ("captions", "who"),
    [
        (["A dog runs .", "The dog ."], ["the dog"]),
        (["Two dogs .", "Dogs ."], ["the dogs"]),
        (["Two dogs .", "A dog ."], []),
        (["A dog .", "A cat ."], []),
        (["A dog sees another .", "A dog ."], []),
    ],
)
def test_only_who_is_beyond_doubt_is_asked_about(captions, who):
    assert [subject.who for subject in subjects([Caption.of(text) for text in captions])] == who


def test_votes():
    assert agreed([{"a"}, set(), {"a"}]) == "a"
    assert agreed([{"a"}, {"b"}]) is agreed([{"a", "b"}]) is agreed([]) is agreed([{"a"}], least=2) is None
    assert leading([{"a"}, {"a"}, {"b"}]) == "a"
    assert leading([{"a"}, {"a"}, {"b"}, {"b"}]) is leading([{"a"}]) is leading([]) is None


# --- Questions


def test_what_is_done_held_ridden_and_worn():
    asked = answers(
        "A man in a red hat is riding a bike .",
        "A man rides his bicycle .",
        "A guy on a bike holding an umbrella .",
    )
    assert asked["What is the man riding?"] == "bike"
    assert asked["What is the man holding?"] == "umbrella"
    assert asked["What is the man wearing on the head?"] == "hat"
    assert asked["What colour is the man's hat?"] == "red"
    asked = answers("A dog runs with a stick in its mouth .", "The dog runs .", "A dog carrying a stick .")
    assert asked["What is the dog doing?"] == "running"
    assert asked["Who is running?"] == "dog"
    assert asked["What is in the dog's mouth?"] == "stick"
    assert asked["What animal is in the picture?"] == "dog"
    assert answers("Kids eat .", "Children eat .")["What are the children doing?"] == "eating"


def test_contradictions_are_not_asked():
    asked = answers("A man holding a ball runs .", "A man holding a cup jumps .", "A brown dog .", "A black dog .")
    assert not {"What is the man holding?", "What is the man doing?", "What colour is the dog?"} & asked.keys()
    assert "What animal is in the picture?" not in answers("A dog and a cat .", "A dog .")


@pytest.mark.parametrize(
    ("captions", "number"),
    [
        (["Two dogs .", "Two big brown dogs .", "Dogs play ."], "two"),
        (["A dog .", "The dog runs ."], "one"),
        (["A black dog and a white dog .", "Two dogs ."], "two"),
        (["Two dogs .", "Three dogs .", "Three dogs ."], None),
        (["A dog .", "A dog .", "Dogs ."], None),
        (["A dog ."], None),
    ],
)
def test_how_many(captions, number):
    assert answers(*captions).get("How many dogs are in the picture?") == number


def test_people_are_counted_whatever_they_are_called():
    asked = answers("A man and a woman .", "Two people .", "A woman kisses a man .")
    assert asked["How many people are in the picture?"] == "two"
    assert asked["How many men are in the picture?"] == "one"


@pytest.mark.parametrize(
    ("captions", "colour"),
    [
        (["A brown dog .", "A small brown dog .", "A dog ."], "brown"),
        (["A brown dog .", "A black dog .", "A brown dog ."], None),
        (["A black and white dog .", "A black dog ."], None),
        (["A brown dog and a brown dog .", "A brown dog ."], None),
        (["A brown dog .", "A dog .", "A dog .", "A dog ."], None),
    ],
)
def test_colour(captions, colour):
    asked = answers(*captions)
    assert asked.get("What colour is the dog?") == colour
    assert asked.get("Is the dog brown?") == ("yes" if colour else None)
    assert asked.get("Is the dog white?") == ("no" if colour else None)
    assert "Is the dog tan?" not in asked  # too like brown


def test_clothes_are_somebodys_where_there_is_one_person():
    assert answers("A girl in a pink dress .", "A girl .")["What colour is the girl's dress?"] == "pink"
    assert answers("A girl in a pink dress .", "A girl and a boy .")["What colour is the dress?"] == "pink"
    assert answers("A boy in blue shorts .", "A boy .")["What colour are the boy's shorts?"] == "blue"


def test_where():
    asked = answers("A dog runs through the shallow water .", "The dog is in the water .", "A dog .")
    assert asked["Where is the dog?"] == "water"
    assert asked["Is the dog in the water?"] == "yes"
    assert asked["Who is in the water?"] == "dog"
    assert asked["Is the dog on the street?"] == "no"
    assert "Is the dog on the beach?" not in asked
    assert answers("Dogs run in a snowy field .", "Two dogs in the snow .")["Where are the dogs?"] == "snow"
    assert "Where is the man?" not in answers("A man looks into the water .", "A man near the water .")


def test_activities_that_go_together_are_no_distractors():
    asked = answers("A dog runs .", "A dog is running .")
    assert asked["Is the dog running?"] == "yes"
    assert asked["Is the dog sleeping?"] == asked["Is the dog swimming?"] == "no"
    assert not {"Is the dog jumping?", "Is the dog walking?"} & asked.keys()
    asked = answers("A dog runs .", "A dog runs to swim .", "A dog .")
    assert "Is the dog swimming?" not in asked


def test_what_one_of_several_does_is_not_what_they_do():
    asked = answers("Two dogs run and one dog sleeps .", "Two dogs run .", "Two dogs and a sleeping dog .")
    assert asked["What are the dogs doing?"] == "running"
    assert asked.get("Are the dogs sleeping?") != "yes"


def test_things_that_are_not_there():
    asked = answers("A woman rides a horse .", "A lady on a horse .")
    assert asked["Is there a horse in the picture?"] == asked["Is there a woman in the picture?"] == "yes"
    assert asked["Is there a dog in the picture?"] == asked["Is there a boy in the picture?"] == "no"
    for caption in ("A person .", "A skier ."):  # may be a man
        assert "Is there a man in the picture?" not in answers("A woman .", "A woman .", caption)
    assert "Is there a cat in the picture?" not in answers("A dog .", "A dog near a cat .", "A dog .")  # one says so
    assert "Is there a car in the picture?" not in answers("Two dogs .", "Dogs .")  # nothing like it


def test_hat_and_helmet_exclude_each_other():
    asked = answers("A boy wearing a helmet .", "A boy in a helmet .")
    assert asked["Is the boy wearing a helmet?"] == "yes"
    assert asked["Is the boy wearing a hat?"] == "no"


def test_sport_is_not_told_by_a_ball_alone():
    assert answers("Men play soccer .", "A soccer game ; two men .")["What sport is being played?"] == "soccer"
    assert "What sport is being played?" not in answers("A man throws a tennis ball .", "A man with a tennis ball .")


def test_questions_are_well_formed():
    captions = ["A man in a red shirt runs on the beach .", "A man runs with two dogs .", "A man in red on a beach ."]
    asked = questions(captions)
    assert asked == questions(captions)
    assert len({question.text for question in asked}) == len(asked)
    assert {question.kind for question in asked} == {"what", "how many", "colour", "where", "yes-no"}
    assert all(question.answer == question.answer.lower() and len(question.answer.split()) <= 2 for question in asked)
    assert {question.answer for question in asked if question.kind == "yes-no"} == {"yes", "no"}
    assert questions([]) == questions(["."]) == []


# --- The data set


def of(answers_: list[str], text: str = "What?", kind: str = "what") -> list[list[Question]]:
    return [[Question(text, answer, kind)] for answer in answers_]


def test_yes_and_no_are_asked_for_equally_often():
    pictures = of(["yes"] * 30 + ["no"] * 7, "Is it?", "yes-no") + of(["yes"] * 3, "Really?", "yes-no")
    chosen = [one for asked in balanced(pictures, random.Random(0)) for one in asked]
    assert Counter((one.text, one.answer) for one in chosen) == {("Is it?", "yes"): 7, ("Is it?", "no"): 7}


@pytest.mark.parametrize(
    ("counts", "kept"),
    [
        ({"a": 100, "b": 10, "c": 5}, {"a": 10, "b": 10, "c": 5}),
        ({"a": 4, "b": 4, "c": 4}, {"a": 4, "b": 4, "c": 4}),
        ({"a": 100, "b": 3}, {"a": 1, "b": 1}),
        ({"a": 9}, {"a": 1}),
    ],
)
def test_answers_that_are_too_common_are_asked_for_less(counts, kept):
    pictures = of([answer for answer, count in counts.items() for _ in range(count)])
    chosen = Counter(one.answer for asked in balanced(pictures, random.Random(0)) for one in asked)
    assert chosen == kept
    assert len(counts) < 3 or max(chosen.values()) <= SHARE * sum(chosen.values())


def test_picture_gets_a_few_questions_in_their_order():
    texts = [f"{number}?" for number in range(10)]
    pictures = [
        [Question(text, f"{picture}", "what") for text in texts]
        + [Question(f"Is it {text}", "yes" if picture % 2 else "no", "yes-no") for text in texts]
        for picture in range(20)
    ]
    chosen = balanced(pictures, random.Random(1))
    assert {len(asked) for asked in chosen} == {OPEN + YES_NO}
    for asked, given in zip(chosen, pictures, strict=True):
        assert asked == [one for one in given if one in asked]
    assert chosen == balanced(pictures, random.Random(1)) != balanced(pictures, random.Random(2))


def picture(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(buffer, "JPEG")
    return buffer.getvalue()


def test_flickr8k_becomes_questions(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    told = [["Two dogs run .", "Two dogs run on grass ."], ["A man sits .", "A man sitting on a bench ."]]
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    (out / "pictures").mkdir(parents=True)
    (out / "pictures" / "train0.jpg").write_bytes(picture("red"))
    for split in ("train", "dev"):
        rows = [
            {"image": {"bytes": picture("blue"), "path": f"{split}{n}.jpg"}, "captions": told[n % 2]} for n in range(6)
        ]
        parquet.write_table(pa.Table.from_pylist(rows), folder / f"{split}.parquet")
    counts = flickr8k_questions(folder, out)
    assert (out / "pictures" / "train0.jpg").read_bytes() == picture("red")  # is not written again
    assert len(list((out / "pictures").iterdir())) == 12
    for split in ("train", "dev"):
        path = out / f"questions-{split}.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert dict(Counter(line["kind"] for line in lines)) == counts[split]
        asked = {
            example.messages[0]["content"][1]["text"]: example.answer
            for example in load_examples(path)
            if example.answer not in ("yes", "no")
        }
        assert asked["What is the man doing?"] == "sitting"
        assert (
            Counter(example.answer for example in load_examples(path))["yes"]
            == Counter(example.answer for example in load_examples(path))["no"]
        )
    first = (out / "questions-train.jsonl").read_bytes()
    flickr8k_questions(folder, out)
    assert (out / "questions-train.jsonl").read_bytes() == first
    assert not list(out.glob("*.partial"))


def test_folder_without_what_is_needed_is_refused(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    with pytest.raises(DataError, match="holds no Parquet files"):
        flickr8k_questions(tmp_path, tmp_path / "out")
    parquet.write_table(pa.table({"text": ["x"]}), tmp_path / "dev.parquet")
    with pytest.raises(DataError, match="needs 'image' and 'captions'"):
        flickr8k_questions(tmp_path, tmp_path / "out")
