"""Passages: every word of a text is in one, none is too long, and each says truly where it stood."""

from __future__ import annotations

from itertools import pairwise
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.passages import cut, sentences


def said(text):
    return [text[begin:end] for begin, end in sentences(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("Mr. Smith met J. R. Jones. They left.", ["Mr. Smith met J. R. Jones.", "They left."]),
        ("It costs 3.50 at example.com. Good.", ["It costs 3.50 at example.com.", "Good."]),
        ('"Stop!" he said. She did...', ['"Stop!"', "he said.", "She did..."]),
        ("A heading\n\nA paragraph\nof two lines.", ["A heading", "A paragraph\nof two lines."]),
        ("第一句。第二句！", ["第一句。", "第二句！"]),
        ("यह एक है। यह दो है।", ["यह एक है।", "यह दो है।"]),
        ("Contents ........ 3\n\nEnd", ["Contents ........", "3", "End"]),
        ("  \n\n ", []),
        ("", []),
    ],
)
def test_sentences_end_where_a_reader_would_say(text, expected):
    assert said(text) == expected


words = st.text(st.sampled_from("ab.!? \n"), max_size=400)


@given(text=words, longest=st.integers(8, 60), overlap=st.integers(0, 7))
def test_every_character_but_space_is_in_a_passage_and_none_is_too_long(text, longest, overlap):
    spans = cut(text, longest, overlap)
    covered = set()
    for begin, end in spans:
        assert 0 < end - begin <= longest
        assert text[begin:end] == text[begin:end].strip()
        covered |= set(range(begin, end))
    assert all(place in covered for place, character in enumerate(text) if not character.isspace())


@given(text=words, longest=st.integers(8, 60), overlap=st.integers(0, 7))
def test_passages_move_on_and_repeat_no_more_than_asked(text, longest, overlap):
    spans = cut(text, longest, overlap)
    for (_, end), (begin, after) in pairwise(spans):
        assert after > end
        assert end - begin <= overlap


def test_passage_begins_with_the_last_sentences_of_the_one_before():
    text = "First one here. Second one here. Third one here. Fourth one here."
    assert [text[begin:end] for begin, end in cut(text, 34, 18)] == [
        "First one here. Second one here.",
        "Second one here. Third one here.",
        "Third one here. Fourth one here.",
    ]


@pytest.mark.parametrize(("longest", "overlap"), [(10, 10), (10, -1), (0, 0)])
def test_passage_that_would_not_move_on_is_refused(longest, overlap):
    with pytest.raises(ValueError, match="longer than what it repeats"):
        cut("text", longest, overlap)


def test_long_sentence_is_cut_at_the_ends_of_its_lines_and_never_within_an_accent():
    text = "\n".join(f"PN-{number:04d} a part" for number in range(100))
    assert all(text[begin:end].startswith("PN-") and text[begin:end].endswith(" part") for begin, end in cut(text))
    accents = "e\u0301" * 1000
    assert all(text[begin] == "e" for text in (accents,) for begin, _ in cut(text, 61, 0))
    clauses = "一二三四五六七八九，" * 100
    assert all(clauses[begin:end].endswith("，") for begin, end in cut(clauses, 64, 0))


@pytest.mark.parametrize(
    "unit",
    [
        ".",
        "。",
        "\n",
        " \n",
        "word ",
        "x",
        "猫",
        ".x",
        ". ",
        '."',
        "Mr. ",
        "a\t",
        "e\u0301",
        "\u0301",
        "A sentence. ",
        "\n" + " " * 50,
    ],
    ids=ascii,
)
def test_time_to_cut_grows_with_the_text(unit):
    def seconds(size):
        text = f"Travel is approved. {(unit * size)[:size]}x"
        start = process_time()
        cut(text)
        return process_time() - start

    seconds(1000)
    assert seconds(200_000) < 0.2 + 6 * seconds(50_000)
