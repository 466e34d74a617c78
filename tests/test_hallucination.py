"""What captions name and what they invent, against mentions and shares counted by hand, as the CHAIR paper counts."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.coco_objects import KINDS, NAMES
from weft.errors import DataError
from weft.hallucination import ObjectWords, chair_i, named

COCO = ObjectWords()


def mentioned(text, words=COCO):
    return [" ".join(sorted(mention.objects)) for mention in words.mentions(text)]


@pytest.mark.parametrize(
    ("caption", "objects"),
    [
        ("A man and a woman are sitting on a bench.", "person, person, bench"),
        ("Three people and two geese by the sea", "person, bird"),
        ("A puppy chews a sofa; the dog's owner watches TV.", "dog, couch, dog, tv"),
        ("Two knives, some wine glasses and a stack of sandwiches.", "knife, wine glass, sandwich"),
        ("A hot dog on a plate", "hot dog"),
        ("A dog is hot, dogs often are", "dog, dog"),
        ("A child hugs her Teddy-Bear in bed.", "person, teddy bear, bed"),
        ("A baby elephant beside an adult giraffe", "elephant, giraffe"),
        ("A mother and her baby feed baby goats", "person, person"),
        ("A passenger train passes passengers on the train tracks", "train, person"),
        ("A toilet with its seat up, and a bathroom toilet seat", "toilet, toilet"),
        ("A cat in the front seat of a van", "cat, chair, car"),
        ("A batter runs to home plate with a baseball bat.", "person, baseball bat"),
        ("A motor bike, a fire truck and a stop light", "motorcycle, truck, traffic light"),
        ("A boy in an orange shirt eats an orange and holds two oranges.", "person, orange, orange"),
        ("An orange and white cat in orange", "cat"),
        ("He caught carp in Japan with his scar; an elephantine mansion", ""),
        ("", ""),
    ],
)
def test_mentions_of_coco_are_those_that_a_reader_finds(caption, objects):
    assert mentioned(caption) == [one for one in objects.split(", ") if one]


def test_every_name_and_kind_of_the_80_categories_mentions_its_category():
    assert len(NAMES) == 80 and NAMES.keys() == KINDS.keys()
    for category, names in NAMES.items():
        for word in (category, *names, *KINDS[category]):
            assert mentioned(f"There is the {word}.") == [category], word
        assert COCO.called(category) == category


@pytest.mark.parametrize(
    ("objects", "caption", "found"),
    [
        (["fish"], "A close-up of a fish.", ["fish"]),
        (["fish"], "Two goldfish and a selfish jellyfish", ["fish"]),
        (["fish", "goldfish"], "A goldfish", ["fish goldfish"]),
        (["ant"], "An elephant with giant ants", ["elephant", "ant"]),
        (["teapot"], "Tea pots, a tea-pot and the teapot's lid", ["teapot", "teapot", "teapot"]),
        (["heron"], "A woman has her on a lead", ["person"]),
        (["three-toed sloth"], "A three toed sloth, one of many sloths", ["three-toed sloth"]),
        (["bell or wind chime"], "Bell or wind chimes", ["bell or wind chime"]),
        (["Wolf"], "Two wolves", ["Wolf"]),
        (["train station"], "A train at the train station", ["train", "train station"]),
        (["duck", "bird"], "A duck, a robin and a bird", ["bird duck", "bird", "bird"]),
        (["golf ball"], "A golf ball is a ball", ["golf ball sports ball", "sports ball"]),
        (["sofa"], "A couch", ["couch"]),
        (["monkey", "zebra crossing"], "A baby monkey at the zebra crossing", ["monkey", "zebra crossing"]),
    ],
)
def test_objects_of_a_file_are_mentioned_as_whole_words_and_compounds(objects, caption, found):
    for order in (objects, objects[::-1]):
        assert mentioned(caption, ObjectWords(order)) == found


def test_chair_is_the_share_of_mentions_that_neither_annotations_nor_references_hold():
    captions = ["A man and a dog on a sofa.", "A cat sleeps on a bed.", "Grass."]
    references = [["A boy with a book."], ["Someone's laptop on a bed", "A laptop."], ["A cow."]]
    objects = [["couch"], ["laptop", "cat"], ["cow"]]
    # Mentioned are person (of the reference), dog (invented), couch; cat, bed (of the reference).
    assert chair_i(captions, references, objects, COCO) == pytest.approx(1 / 5)
    assert chair_i(captions, [["Nothing."]] * 3, [["car"]] * 3, COCO) == 1
    assert chair_i(["Grass."], [["A cow."]], [["cow"]], COCO) == 0


def test_what_an_object_is_a_kind_of_is_in_the_picture_as_well():
    words = ObjectWords(["duck", "golf ball"])
    captions, objects = ["A bird.", "A ball."], [["duck"], ["golf ball"]]
    assert chair_i(captions, [["Grass."]] * 2, objects, words) == 0
    assert named(captions, objects, words) == 0


def test_named_is_the_share_of_pictures_of_which_an_annotated_object_is_named():
    words = ObjectWords(["fish", "sofa", "duck", "bird"])
    captions = ["A goldfish.", "A couch in a room.", "A bird.", "A duck.", "A man with a book."]
    objects = [["fish"], ["sofa"], ["duck"], ["bird"], ["car", "person"]]
    assert [named([one], [of], words) for one, of in zip(captions, objects, strict=True)] == [1, 1, 0, 1, 1]
    assert named(captions, objects, words) == 4 / 5


nouns = st.sampled_from(sorted(NAMES))


@settings(deadline=None, max_examples=50)
@given(st.lists(nouns, min_size=1, max_size=5), st.lists(nouns, min_size=1, max_size=5))
def test_figures_follow_the_sets_of_what_is_said_and_what_is_there(said, there):
    caption = ". ".join(f"Here is the {one}" for one in said)
    assert mentioned(caption) == said
    invented = sum(one not in there for one in said) / len(said)
    assert chair_i([caption], [["It."]], [there], COCO) == pytest.approx(invented)
    assert chair_i([caption], [[f"The {one}." for one in there]], [[]], COCO) == pytest.approx(invented)
    assert named([caption], [there], COCO) == (not set(said).isdisjoint(there))
    shuffled = random.Random(0).sample(there, len(there))
    assert chair_i([caption.upper()], [["It."]], [shuffled], COCO) == pytest.approx(invented)


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=40))
def test_words_of_a_mention_are_the_texts_own(text):
    for mention in COCO.mentions(f"{text} dogs {text}"):
        assert mention.objects and set(mention.words.split()) <= set(re.findall(r"[^\W_]+", f"{text} dogs".lower()))


def test_rows_that_can_not_be_scored_are_refused():
    with pytest.raises(DataError, match="1 predictions for the objects of 2 pictures"):
        named(["a"], [["cat"], ["dog"]], COCO)
    with pytest.raises(DataError, match="1 predictions for the objects of 0 pictures"):
        chair_i(["a"], [["b"]], [], COCO)
    with pytest.raises(DataError, match="nothing to score"):
        chair_i([], [], [], COCO)
    with pytest.raises(DataError, match="'!' is no name of an object"):
        ObjectWords(["cat", "!"])
