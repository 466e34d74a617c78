"""Questions made unanswerable: what they are asked of, and what is exchanged in them."""

from __future__ import annotations

import json
import random
import re

import pytest

from weft.entity_swaps import EntitySwaps, names
from weft.instructions import NOT_SAID
from weft.practice import cloze_lines, reading_of
from weft.unanswerable import KINDS, Asked, Unanswerable, says

NORTH = [
    "One day Halvor went to the mill. He had seven sheep, and the miller said that Halvor must sell them.",
    "At the mill the miller gave Halvor nine coins, and so Halvor was glad.",
    "In the evening it rained on the hills of Norway.",
    "Far away in Norway the sea was calm, and nobody fished.",
]
SOUTH = [
    "The old woman said that Taro was brave. And so Taro went to cut bamboo in Kyoto.",
    "When they asked what Taro wanted, he smiled at the people in Kyoto.",
]
TEXTS = {
    "north": [(f"north#{n}", said) for n, said in enumerate(NORTH, 1)],
    "south": [(f"south#{n}", said) for n, said in enumerate(SOUTH, 1)],
}
SHEEP = Asked("north", "How many sheep did Halvor have, if not five?", ("Seven sheep.",), (0,))


def ids(line):
    return [part["id"] for part in json.loads(line)["messages"][0]["content"] if part["type"] == "document"]


def question(line):
    return json.loads(line)["messages"][0]["content"][-1]["text"]


def test_names_stand_there_twice_with_a_capital_amid_a_sentence():
    found = names(" ".join(NORTH))
    assert set(found) == {"Halvor", "Norway"}
    assert found["Halvor"] != found["Norway"]
    assert names("We saw the Giant. Then the Giant ate. A giant, a giant and a giant came.") == {}


@pytest.mark.parametrize("seed", range(5))
def test_name_becomes_one_of_its_kind_from_another_text(seed):
    swaps = EntitySwaps({"north": " ".join(NORTH), "south": " ".join(SOUTH)})
    rng = random.Random(seed)
    assert swaps.question("Why was Halvor's dog glad?", "north", NORTH, rng) == "Why was Taro's dog glad?"
    assert swaps.question("Who lives in Norway?", "north", NORTH, rng) == "Who lives in Kyoto?"


def test_only_what_the_documents_hold_is_exchanged_and_for_what_they_do_not():
    swaps = EntitySwaps({"north": " ".join(NORTH), "south": " ".join(SOUTH)})
    rng = random.Random(0)
    assert swaps.question("Why was Halvor glad?", "north", NORTH[2:], rng) is None
    assert swaps.question("Why was Halvor glad?", "north", [*NORTH, SOUTH[0]], rng) is None
    assert swaps.question("Why did Halvor sell his sheep?", "north", NORTH, rng) is None  # would have to agree


@pytest.mark.parametrize(
    ("asked", "told", "form"),
    [
        ("Who had seven sheep?", "He had seven sheep.", "Who had [a-z]+ sheep?"),
        ("Who came on the third day?", "On the third day he came.", "Who came on the [a-z]+ day?"),
        ("What happened in 1984?", "It rained in 1984.", r"What happened in (19|20)\d\d?"),
        ("What costs 3.5 crowns?", "It costs 3.5 crowns.", r"What costs \d\.\d crowns?"),
    ],
)
@pytest.mark.parametrize("seed", range(5))
def test_number_becomes_another_of_its_form(asked, told, form, seed):
    made = EntitySwaps({"a": ""}).question(asked, "a", [told], random.Random(seed))
    assert made is not None and made != asked
    assert re.fullmatch(form.replace("?", r"\?"), made)


def test_number_that_stands_in_the_documents_is_not_taken():
    said = " ".join(["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"])
    for seed in range(10):
        made = EntitySwaps({"a": ""}).question("Who had ten sheep?", "a", [said], random.Random(seed))
        assert made in ("Who had twenty sheep?", "Who had thirty sheep?", "Who had forty sheep?", None)


@pytest.mark.parametrize(
    ("section", "answer", "expected"),
    [
        ("He had seven\nsheep and a dog.", "Seven sheep.", True),
        ("The geese flew over the frozen river.", "Geese were flying over a frozen river.", True),
        ("The geese sat at home.", "Geese were flying over a frozen river.", False),
        ("Nobody came.", "Seven sheep.", False),
    ],
)
def test_section_says_an_answer_by_its_words(section, answer, expected):
    assert says(section, [answer, "Something else entirely."]) == expected


def test_kinds_differ_in_what_is_read_and_what_is_asked():
    silent, rng = Unanswerable(TEXTS, [SHEEP]), random.Random(1)
    documents = [TEXTS["north"][0]]
    story, section, exchanged = (silent.lines(kind, SHEEP, documents, rng)[0] for kind in KINDS)
    assert ids(story)[0].startswith("south") and question(story) == SHEEP.question
    assert ids(section)[0] in ("north#3", "north#4") and question(section) == SHEEP.question  # none beside the first
    assert ids(exchanged) == ["north#1"] and question(exchanged) == SHEEP.question.replace("Halvor", "Taro")
    for line, kind in zip((story, section, exchanged), KINDS, strict=True):
        assert json.loads(line)["messages"][1]["content"] == NOT_SAID and json.loads(line)["kind"] == kind


def test_question_may_have_no_line_of_a_kind():
    all_say = Asked("north", "What is it?", ("The",), (0,))
    silent, rng = Unanswerable(TEXTS, [all_say]), random.Random(1)
    assert [silent.lines(kind, all_say, [TEXTS["north"][0]], rng) for kind in KINDS] == [[], [], []]
    assert silent.any_lines(all_say, [TEXTS["north"][0]], rng) == []


def test_a_question_is_read_with_the_sections_that_answer_it():
    for seed in range(30):
        read = reading_of(SHEEP, TEXTS, random.Random(seed), most=2)
        assert TEXTS["north"][0] in read and 1 <= len(read) <= 3
    alone = {"north": TEXTS["north"]}
    assert all(set(reading_of(SHEEP, alone, random.Random(seed), most=2)) <= set(alone["north"]) for seed in range(30))


def test_clozes_are_asked_with_their_answer_and_without():
    texts = {
        name: [(f"{name}#1", f"In the morning the wife of {who} went down to the river with {n} geese.")]
        for name, who, n in (("a", "Halvor", 11), ("b", "Taro", 12), ("c", "Finn", 13))
    }
    answered, unanswerable = cloze_lines(texts, random.Random(0), count=1)
    assert len(answered) == 3 and len(unanswerable) == 3
    for line, name in zip(answered, "abc", strict=True):
        assert json.loads(line)["supporting"] == [f"{name}#1"] and f"{name}#1" in ids(line)
    for line, name in zip(unanswerable, "abc", strict=True):
        assert json.loads(line)["messages"][1]["content"] == NOT_SAID and f"{name}#1" not in ids(line)
