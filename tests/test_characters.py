"""Characters: what looks the same is the same, and what is not seen goes unless it carries meaning."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.characters import as_seen, superscript
from weft.documents import read_documents


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("ap\u00adproved, zero\u200bwidth, \ufeffmark", "approved, zerowidth, mark"),
        ("o\ufb03ce, \ufb01re", "office, fire"),
        ("cafe\u0301, A\u030angstro\u0308m", "caf\u00e9, \u00c5ngstr\u00f6m"),
        ("10\u00a0000, 10\u202f000", "10 000, 10 000"),
        ("well\u2011known, well\u2010known", "well-known, well-known"),
        ("one\x0btwo\u2028three\x0cfour", "one\ntwo\nthree\n\nfour"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("\U0001d465 = \U0001d7cf", "x = 1"),
        ("\u2f42\u5b57", "\u6587\u5b57"),
        ("\ufefb", "\u0644\u0627"),
        ("Auf\u200clage", "Auflage"),
        ("no\x07bell\x1b", "nobell"),
        ("\u200eleft\u200f", "left"),
        ("hi\U000e0041\U000e0042", "hi"),
    ],
)
def test_what_looks_alike_is_alike(text, seen):
    assert as_seen(text) == seen


@pytest.mark.parametrize(
    "text",
    [
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian: two letters that do not join
        "\u0915\u094d\u200d\u0937",  # Hindi: a half letter
        "\u0dc1\u0dca\u200d\u0dbb\u0dd3",  # Sinhala
        "\U0001f469\u200d\U0001f469\u200d\U0001f467",  # a family
        "\u2764\ufe0f\u200d\U0001f525",  # a heart on fire
        "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",  # the flag of England
        "\u0e44\u0e17\u0e22\u200b\u0e44\u0e17\u0e22",  # Thai: where a word ends
        "\u05e9\u05dc\u05d5\u05dd\u200f!",  # Hebrew: on which side a mark stands
        "\u65e5\u672c\u3000\u8a9e, x\u00b2, \u00bd, \uff21",
    ],
)
def test_what_carries_meaning_stays(text):
    assert as_seen(text) == text


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_doing_it_again_changes_nothing(text):
    assert as_seen(as_seen(text)) == as_seen(text)


def test_raised_digits_are_no_part_of_a_number_or_a_word():
    assert "10" + superscript("6", "10") == "10\u2076"
    assert "m" + superscript("2", "m") == "m\u00b2"
    assert "director" + superscript("1", "director") == "director \u00b9"
    assert "1" + superscript("st", "1") == "1st"


def test_every_reader_hands_on_text_as_people_see_it(tmp_path):
    (tmp_path / "a.txt").write_text("ap\u00adproved by the o\ufb03ce", encoding="utf-8")
    (tmp_path / "a.csv").write_text("name,role\nAnna,di\u00adrector\n", encoding="utf-8")
    (tmp_path / "a.html").write_text("<p>ap&shy;proved by the o&#xFB03;ce</p>", encoding="utf-8")
    assert read_documents(tmp_path / "a.txt")[0].text == "approved by the office"
    assert read_documents(tmp_path / "a.csv")[0].text == "name: Anna\nrole: director"
    assert read_documents(tmp_path / "a.html")[0].text == "approved by the office"
