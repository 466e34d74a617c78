"""Search finds what is there: whichever way it is written, in whichever script, in whatever form it is asked for."""

from __future__ import annotations

import unicodedata
from time import process_time

import pytest

from weft.analyzer import asked, terms
from weft.errors import DataError, WeftError
from weft.knowledge import KnowledgeBase

SUM = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
COMPOUND = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft"
NFD = unicodedata.normalize("NFD", "Das Résumé liegt in der Übersicht bei Müller, Ångström und Łukasz.")
TEXTS = {
    "decomposed.txt": NFD,
    "street.txt": "Die Straße nach GROẞENHAIN ist gesperrt. İSTANBUL ve Iğdır açık. Ο ΟΔΥΣΣΕΥΣ γύρισε.",
    "chinese.txt": "出差由主任批准。车票由办公室预订，午餐在中午供应。",
    "japanese.txt": "出張は部長が承認します。コーヒーは無料です。猫がいます。",
    "korean.txt": "여행은 부장이 승인합니다. 점심은 정오에 나옵니다.",
    "thai.txt": "การเดินทางได้รับอนุมัติจากผู้อำนวยการ อาหารกลางวันเสิร์ฟตอนเที่ยง",
    "hindi.txt": "यात्रा को निदेशक द्वारा अनुमोदित किया जाता है।",
    "arabic.txt": "يُوافِقُ المُدِيرُ عَلَى السَّفَر.",
    "codes.txt": f"Part AB-1234/5 replaces XY 77.b since version v2.13.0 of 2026-11-27. Sum: {SUM}. "
    "Mail jane.doe@example.com, see max_new_tokens, costs 1,234.50 € or 50kg; written in C++ and C#.",
    "others.txt": "Part 5 of version 13 is from 2026. Mail john@example.org about part 1234.",
    "long.txt": f"Die {COMPOUND} tagt heute, und das e-mail-Postfach ist voll.",
    "invisible.txt": "Travel is ap\u00adproved by the di\u200brector of the of\ufb01ce, in a well-\n    known way.",
    "wide.txt": "ＡＢＣ１２３ ｶﾞｿﾘﾝ m² Ⅳ",
    "stops.txt": "To be, or not to be: that is it.",
    "quotes.txt": "O’Brien's l’été isn't over 🎉",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    for name, text in TEXTS.items():
        (folder / name).write_text(text, encoding="utf-8")
    base = KnowledgeBase(folder)
    assert base.update().failed == []
    return base


@pytest.mark.parametrize(
    ("question", "source"),
    [
        *(
            (word, "decomposed.txt")
            for word in ("Résumé", "resume", "RÉSUMÉ", "Müller", "ubersicht", "Ångström", "lukasz")
        ),
        (unicodedata.normalize("NFD", "Müller"), "decomposed.txt"),
        *(
            (word, "street.txt")
            for word in ("STRASSE", "straße", "großenhain", "istanbul", "İstanbul", "ığdır", "IĞDIR")
        ),
        *((word, "street.txt") for word in ("οδυσσεύς", "ΓΥΡΙΣΕ")),
        *((word, "chinese.txt") for word in ("主任", "谁批准出差？", "午餐", "办公室")),
        *((word, "japanese.txt") for word in ("部長", "コーヒー", "猫", "ｺｰﾋｰ", "だれが出張を承認しますか")),
        *((word, "korean.txt") for word in ("여행", "점심", unicodedata.normalize("NFD", "부장"))),
        *((word, "thai.txt") for word in ("เดินทาง", "อาหารกลางวัน", "ผู้อำนวยการ")),
        *((word, "hindi.txt") for word in ("निदेशक", "यात्रा")),
        *((word, "arabic.txt") for word in ("المدير", "السفر")),
        *(
            (word, "codes.txt")
            for word in ("AB-1234/5", "ab12345", "AB 1234", "2.13.0", "v2.13.0", "version 2.13.0", SUM)
        ),
        *((word, "codes.txt") for word in ("2026-11-27", "jane.doe@example.com", "max_new_tokens", "maxNewTokens")),
        *((word, "codes.txt") for word in ("1,234.50", "50 kg", "50kg", "C++", "c#", "€", SUM.upper())),
        *((word, "long.txt") for word in (COMPOUND, COMPOUND.upper(), "email", "E‑Mail", "Postfach")),
        *((word, "invisible.txt") for word in ("approved", "director", "office", "well-known", "wellknown")),
        *((word, "wide.txt") for word in ("abc123", "ガソリン", "m2", "IV")),
        *((word, "stops.txt") for word in ("to be or not to be", "It?", "THAT")),
        *((word, "quotes.txt") for word in ("obrien", "O'Brien", "été", "isnt", "🎉")),
    ],
)
def test_what_is_there_is_found_first(base, question, source):
    assert base.search(question)[0].source == source


@pytest.mark.parametrize("question", ["", "  ", "?!", "…", "\ud800", "\0", "犬", "xylophone", "''", '"', "a" * 100_000])
def test_what_is_not_there_is_not_found(base, question):
    assert base.search(question, source="decomposed.txt") == []


@pytest.mark.parametrize("question", ["\ud83d director", "director \0", "director " * 5000])
def test_odd_question_finds_what_it_asks_for(base, question):
    assert base.search(question)[0].source == "invisible.txt"


def test_stop_words_are_looked_for_only_where_there_are_no_others():
    assert asked("Who's the director of it, and why don't we know?") == ["director", "know"]
    assert asked("to be or not to be") == ["to", "be", "or", "not", "to", "be"]


def test_single_characters_are_asked_for_only_where_they_stand_alone():
    assert {"東", "京", "東京"} == set(terms("東京"))
    assert asked("東京") == ["東京"] and asked("猫") == ["猫"]


def test_long_text_without_spaces_is_found_wherever_it_is_cut(tmp_path):
    numbers = [f"{number:05d}号" for number in range(400)]
    (tmp_path / "a.txt").write_text("".join(numbers), encoding="utf-8")
    (tmp_path / "list.txt").write_text("\n".join(f"PN-{number:06d}" for number in range(400)), encoding="utf-8")
    base = KnowledgeBase(tmp_path)
    base.update()
    for number in range(0, 400, 57):
        (best, *_) = base.search(f"PN-{number:06d}", source="list.txt")
        assert f"PN-{number:06d}" in best.text
    for span in (passage.span for passage in base.search("号", limit=20, source="a.txt")):
        around = "".join(numbers)[span[1] - 3 : span[1] + 3]
        assert base.search(around, source="a.txt")


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    folder = tmp_path_factory.mktemp("known")
    (folder / "a.jsonl").write_text(
        '{"id": "1", "text": "tea one", "draft": true, "year": 2020, "share": 0.5, "by": "J\u00fcrgen"}\n'
        '{"id": "2", "text": "tea two", "draft": false, "year": 2020.0, "by": null}\n'
        '{"id": "3", "text": "tea three", "year": "2021", "by": "it\'s"}\n',
        encoding="utf-8",
    )
    (folder / "b.csv").write_text("drink,draft,year\ntea four,TRUE,2020\ntea five,False,\n")
    (folder / "Übersicht [1].txt").write_text("tea six")
    base = KnowledgeBase(folder)
    base.update()
    return base


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ({"draft": True}, {"one", "four"}),
        ({"draft": "true"}, {"one", "four"}),
        ({"draft": "True"}, {"one", "four"}),
        ({"draft": False}, {"two", "five"}),
        ({"draft": None}, {"three", "six"}),
        ({"year": 2020}, {"one", "two", "four"}),
        ({"year": 2020.0}, {"one", "two", "four"}),
        ({"year": "2020", "draft": True}, {"one", "four"}),
        ({"year": 2021}, {"three"}),
        ({"year": None}, {"five", "six"}),
        ({"share": 0.5}, {"one"}),
        ({"by": "Ju\u0308rgen"}, {"one"}),
        ({"by": "it's"}, {"three"}),
        ({"by": None}, {"two", "four", "five", "six"}),
        ({"by": ""}, {"two", "four", "five", "six"}),
        ({"draft": 1}, set()),
        ({"by": "\ud800' OR 1=1"}, set()),
    ],
)
def test_search_is_narrowed_by_values_of_every_kind(known, where, found):
    said = {one.text.split("tea ")[1].split()[0] for one in known.search("tea", where=where, limit=20)}
    assert said == found


def test_where_takes_no_lists(known):
    with pytest.raises(DataError, match=r"where: by=.* can't be"):
        known.search("tea", where={"by": ["it's"]})
    with pytest.raises(WeftError, match="limit"):
        known.search("tea", limit=0)


@pytest.mark.parametrize("source", ["Übersicht [1].txt", "U\u0308bersicht*", "*[[]1].txt"])
def test_source_is_a_name_or_a_pattern_however_it_is_composed(known, source):
    assert [one.source for one in known.search("tea", source=source)] == ["Übersicht [1].txt"]


def test_document_is_found_by_a_name_composed_otherwise_and_keeps_its_spaces(known, tmp_path):
    assert known.document("U\u0308bersicht [1].txt") == "tea six"
    text = "\n\n".join(f"Paragraph {number} is here.\n\tIt has a second line." * 9 for number in range(40))
    (tmp_path / "long.txt").write_text(text)
    base = KnowledgeBase(tmp_path)
    base.update()
    assert base.document("long.txt") == text
    for found in base.search("paragraph", limit=50):
        assert text[slice(*found.span)] == found.text


@pytest.mark.parametrize("unit", ["plain words of a text ", "AB-1234/5 ", "a-", "é", "猫", ".", "a.", "-\n", "e\u0301"])
def test_time_of_the_analyzer_grows_with_the_text(unit):
    def seconds(size):
        text = (unit * size)[:size]
        start = process_time()
        terms(text)
        return process_time() - start

    seconds(1000)
    assert seconds(160_000) < 0.2 + 5 * seconds(40_000)
