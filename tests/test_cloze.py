"""Questions made by rule from the sentences of a text."""

from __future__ import annotations

import random

import pytest

from weft.cloze import BLANK, blanks, clozes, natural
from weft.instructions import CLOZE

TEXT = """Mr Anders Berg opened a bakery in the old harbour of Malmo in 1987. He baked bread every night and sold it
in the morning. About 300 people were fed for free in the first winter.

"I never wanted to be rich, only to be warm," said Mr Berg. The bakery has 14 ovens in two large halls near the water.
Visitors from Denmark have come by boat on most days of the summer. It rains."""


@pytest.mark.parametrize(
    ("said", "answers"),
    [
        ("The company said that Jane Goodall had joined it in May.", ["Jane Goodall"]),
        ("Sales of the firm rose 12.5% to £933m in the third quarter.", ["12.5%", "£933m"]),
        ("He was born on 4 March 1911 in a village by the sea.", ["4 March 1911"]),
        ("It was the Bank of England that raised the rate in 2004.", ["Bank of England", "2004"]),
        ("Some 1,200 of the men went back to Tony Blair's house.", ["Tony Blair", "1,200"]),
        ("They met Os du Randt at a party in the north.", []),
        ("They liked the British food and the Manchester-based band.", []),
        ("Paris is nice, and Paris is where they met.", []),
        ("On Monday it fell to the lowest level in weeks.", []),
        ("The team won 6-4 and went home by the river.", []),
        ("She bought seven apples and went home by the river.", ["seven"]),
        ("They heard it on Radio 1 when they were at home.", []),
        ("As the Sunday Telegraph said, it rains a lot here.", []),
        ("He said: Blair will go home by the river.", []),
        ('"Blair will go home by the river," he said.', []),
    ],
)
def test_names_dates_and_amounts_are_left_out(said, answers):
    asked = list(blanks(said))
    assert [answer for _, answer in asked] == answers
    for question, answer in asked:
        assert question == CLOZE.format(said.replace(answer, BLANK))


@pytest.mark.parametrize(
    ("said", "clause"),
    [
        (
            "After a long and rather quiet winter in the hills, the shepherds of the valley took their sheep to "
            "Aberdeen, where the market was about to open for the year.",
            "The shepherds of the valley took their sheep to ____.",
        ),
        (
            "The singer, who had lived for many years in a small flat in London, came back to the village and opened "
            "a school for the children there.",
            "The singer, who had lived for many years in a small flat in ____, came back to the village and opened "
            "a school for the children there.",
        ),
        (
            "The minister wanted to build a bridge over the river and a road through the forest and a harbour at "
            "the end of it all in Norway.",
            "The minister wanted to build a bridge over the river and a road through the forest and a harbour at "
            "the end of it all in ____.",
        ),
    ],
)
def test_long_sentence_is_shortened_to_clauses_that_can_be_understood(said, clause):
    assert next(blanks(said))[0] == CLOZE.format(clause)


@pytest.mark.parametrize(
    ("said", "question", "answer"),
    [
        ("Mr Blair has called for calm in the region.", "Who has called for calm in the region?", "Mr Blair"),
        ("Paula Radcliffe won the race after her injury.", "Who won the race after her injury?", "Paula Radcliffe"),
        (
            "The Refugee Council said it would help them.",
            "Which council said it would help them?",
            "The Refugee Council",
        ),
        (
            '"I am glad to be back at home," said chief executive Todd Stitzer, a tall man.',
            'Who said "I am glad to be back at home"?',
            "Todd Stitzer",
        ),
        ('"You must never open that door," said the fox.', 'Who said "You must never open that door"?', "the fox"),
        (
            'Mr Pollard said: "We have seen attacks of this kind."',
            'Who said "We have seen attacks of this kind"?',
            "Mr Pollard",
        ),
        ("About 300 people were killed in the storm.", "How many people were killed in the storm?", "About 300"),
        ("There were 12 empty chairs in the hall.", "How many empty chairs were there in the hall?", "12"),
        ("The firm has two factories in Durham.", "How many factories does the firm have in Durham?", "two"),
        ("Cadbury sold 40 shops to a rival.", "How many shops did Cadbury sell to a rival?", "40"),
        ("The album was released in May 1973.", "When was the album released?", "in May 1973"),
        ("Anna Lind was born in Stockholm.", "Where was Anna Lind born?", "in Stockholm"),
        ("The school opened its doors in 1902.", "When did the school open its doors?", "in 1902"),
    ],
)
def test_plain_sentence_is_asked_about_the_way_people_ask(said, question, answer):
    assert list(natural(said)) == [(question, answer)]


@pytest.mark.parametrize(
    "said",
    [
        "Sandra Holm won the race in the morning.",  # not known to be a person
        "But Mr Blair has called for calm in the region.",
        "Is Mr Blair in the region with all of his friends?",
        '"I am glad to be back at home," he said.',
        '"I will," said Todd Stitzer.',
        "The 2004 figures were far better than anyone thought.",
        "It has two factories in Durham.",
        "The case is set to be heard on 20 December.",
        "The firm has two factories and Mr Blair has two factories.",
    ],
)
def test_other_sentence_gets_no_such_question(said):
    assert list(natural(said)) == []


def test_last_name_that_is_known_makes_a_person():
    said = "Sandra Holm won the race in the morning."
    assert list(natural(said, {"Holm"})) == [("Who won the race in the morning?", "Sandra Holm")]


def test_each_question_is_about_another_sentence_that_holds_its_answer():
    made = clozes(TEXT, random.Random(1), 10)
    assert len({cloze.sentence for cloze in made}) == len(made) >= 5
    assert [cloze.sentence for cloze in made] == sorted(cloze.sentence for cloze in made)
    for cloze in made:
        said = " ".join(TEXT[slice(*cloze.sentence)].split())
        assert (BLANK in cloze.question) == (cloze.answer in said)
        assert cloze.answer.strip(".").casefold() in said.casefold()
        assert 8 <= len(said.split()) <= 40
        assert BLANK in cloze.question or (cloze.answer[0].isupper() or cloze.answer[0].isdigit())


def test_short_sentences_lists_and_halves_of_quotations_are_left_alone():
    text = """It rains in Norway. Adams (Reed 79), Brown, Clark, Dunn, Evans, Ford, Grant, Hill (Stone 12) and Irwin.
    "The rest of what Mr Blair said in London was not of much interest. They won the final in Athens against all
    odds when\n\nWas the first to win in Athens after all of those years. asked Mr Blair in London after all of that.
    Nothing was said of it in any of the papers that came out here."""
    assert clozes(text, random.Random(1), 5) == []


def test_choices_follow_the_generator_and_the_count():
    assert clozes(TEXT, random.Random(3), 2) == clozes(TEXT, random.Random(3), 2)
    assert len({tuple(clozes(TEXT, random.Random(seed), 2)) for seed in range(8)}) > 2
    assert len(clozes(TEXT, random.Random(3), 2)) == 2
    assert clozes(TEXT, random.Random(3), 0) == clozes("", random.Random(3), 3) == []
    with pytest.raises(ValueError, match="count=-1"):
        clozes(TEXT, random.Random(3), -1)
