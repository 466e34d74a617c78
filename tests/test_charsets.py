"""Bytes as text: whichever encoding a file is in, its words are read right, and what is guessed or lost is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.charsets import REPLACEMENT, decode, printable, sound
from weft.errors import DataError

LEGACY = {
    "cp1252": "Der Fluß fließt über die Brücke nach Köln. „Schön“ – das kostet 5 €, sagt Frau Müller.",
    "latin-1": "L'été dernier, nous étions à la plage. Le garçon a mangé une crêpe près du château.",
    "cp1250": "Zażółć gęślą jaźń. Książka leży na stole, a dziewczyna śpi w łóżku.",
    "iso8859-2": "Příliš žluťoučký kůň úpěl ďábelské ódy. Děti šly do školy a večer četly knihu.",
    "cp1251": "Поездки утверждает директор. Билеты заказывает офис.",
    "koi8-r": "Поездки утверждает директор. Билеты заказывает офис.",
    "cp1253": "Τα ταξίδια εγκρίνονται από τον διευθυντή.",
    "cp1254": "Seyahat müdür tarafından onaylanır. Şu ağaçların altında çocuklar güneşleniyor.",
    "cp932": "出張は部長が承認します。切符は事務所が予約します。",
    "euc-jp": "出張は部長が承認します。切符は事務所が予約します。",
    "iso2022-jp": "出張は部長が承認します。",
    "gb18030": "出差由主任批准。车票由办公室预订。",
    "big5": "出差由主任批准。車票由辦公室預訂。",
    "cp949": "출장은 부장이 승인합니다. 표는 사무실에서 예약합니다.",
    "cp874": "การเดินทางได้รับอนุมัติจากผู้อำนวยการ",
    "utf-16-le": "Name\tPreis\nMüller\t5 €\n",
    "utf-16-be": "Name\tPreis\nMüller\t5 €\n",
}


@pytest.mark.parametrize("encoding", LEGACY)
def test_text_of_another_encoding_is_read_and_the_guess_is_told(encoding):
    decoded = decode(LEGACY[encoding].encode(encoding))
    assert decoded.text == LEGACY[encoding]
    (note,) = decoded.notes
    assert "was read as" in note and "looks like" in note


@pytest.mark.parametrize("word", ["Müller", "Café", "El niño", "Rødgrød", "Informação", "“Quoted”", "5 €", "it’s"])
def test_windows_1252_is_recognised_by_one_word(word):
    assert decode(word.encode("cp1252")).text == word
    assert decode(f"The director is {word} and travels a lot.\n".encode("cp1252")).text.count(word) == 1


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_mark_tells_the_encoding(encoding):
    assert decode("Müller\r\n東京\rend".encode(encoding)) == decode("Müller\n東京\nend".encode())


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_utf_8_is_read_as_it_stands(text):
    decoded = decode(text.encode())
    assert decoded.text == text.removeprefix("\ufeff") and decoded.notes == ()


@pytest.mark.parametrize("wrong", [b"\xff", b"\xc3", b"\x80", b"\xe2\x82", b"\xed\xa0\xbd"])
@pytest.mark.parametrize("place", ["start", "within", "end"])
def test_wrong_byte_costs_one_place_and_no_other_character(wrong, place):
    before, after = "Müller reist — immer. ", "Das kostet 5 € für Anna.\nUnd Jürgen auch."
    data = {
        "start": wrong + (before + after).encode(),
        "within": before.encode() + wrong + after.encode(),
        "end": (before + after).encode() + wrong,
    }[place]
    decoded = decode(data)
    assert decoded.text.replace(REPLACEMENT, "") == before + after
    (note,) = decoded.notes
    assert "no UTF-8" in note and REPLACEMENT in note


def test_replacements_are_counted_without_those_that_were_there():
    decoded = decode("Müller\ufffd".encode() + b"\xff " + "é".encode() + b"\xfe")
    assert decoded.text.count(REPLACEMENT) == 3
    assert "2 places" in decoded.notes[0]


def test_lines_of_two_encodings_are_each_read_right():
    lines = ["Grüße aus Köln", "plain", "Olá, Conceição", "Müller fährt"]
    data = b"\n".join([lines[0].encode(), b"plain", lines[2].encode("cp1252"), lines[3].encode("cp1252")])
    decoded = decode(data)
    assert decoded.text.split("\n")[0] == lines[0]
    assert decoded.text.split("\n")[3] == lines[3]
    assert "windows-1252" in decoded.notes[0]


@pytest.mark.parametrize("zeros", [1, 2, 3])
@pytest.mark.parametrize(
    "text", ["The first line. And another one of them.", "Müller reist \xad 東京 kostet 5 €, wie immer"]
)
def test_zero_byte_does_not_make_a_text_utf_16(text, zeros):
    data = text.encode()
    for place in range(len(data) - 3):
        if data[place] < 128:
            assert decode(data[:place] + b"\0" * zeros + data[place:]).text == text


def test_utf_16_of_other_scripts_is_told_without_a_mark():
    for text in ("Поездки утверждает директор. Билеты заказывает офис.\n", "出差由主任批准。 车票由办公室预订。\n"):
        assert decode(text.encode("utf-16-le")).text == decode(text.encode("utf-16-be")).text == text


def test_zero_bytes_in_a_text_are_left_out_and_told():
    decoded = decode(b"first line\n" + b"\0" * 500 + "zweite für alle\n".encode())
    assert decoded.text == "first line\nzweite für alle\n"
    assert "500 zero bytes" in decoded.notes[0]


@pytest.mark.parametrize("data", [b"\0\1\2\3", bytes(range(256)) * 4, b"\0" * 100, b"\x7fELF\2\1\1\0\0\0\0\0\0\3\0>"])
def test_what_is_no_text_is_refused(data):
    with pytest.raises(DataError, match="no text"):
        decode(data)


def test_half_surrogates_are_replaced_at_their_places():
    assert sound("a\ud83db\udc00c") == "a\ufffdb\ufffdc"
    assert sound("plain 😀") == "plain 😀"


def test_name_that_is_no_utf_8_can_be_printed():
    name = b"caf\xe9.txt".decode("utf-8", "surrogateescape")
    assert printable(name) == "caf\\xe9.txt" and printable("café.txt") == "café.txt"
