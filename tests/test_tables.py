"""Tables and JSON: every row and object is a document of its own, and an odd one costs no other."""

from __future__ import annotations

import json
from time import process_time

import pytest

from weft.documents import read_documents
from weft.errors import DataError
from weft.json_records import read_lines
from weft.tables import read_table


@pytest.fixture
def read(tmp_path):
    """Reads a file with some content."""

    def read(name, content):
        file = tmp_path / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_documents(file)

    return read


ROWS = [["name", "price", "note"], ["Anna", "1,50", "all fine"], ["Björn", "2,75", "so, so; or not"]]


def written(delimiter, rows=ROWS):
    return "\r\n".join(delimiter.join(f'"{cell}"' if delimiter in cell else cell for cell in row) for row in rows)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("commas.csv", written(",").encode()),
        ("semicolons.csv", written(";").encode("utf-8-sig")),
        ("tabs.csv", written("\t").encode()),
        ("bars.csv", written("|").encode()),
        ("tabs.tsv", written("\t").encode()),
        ("commas.tsv", written(",").encode()),
        ("said.csv", ("sep=;\r\n" + written(";")).encode("cp1252")),
        ("said-tab.csv", ("sep=\t\n" + written("\t")).encode()),
        ("excel.csv", written("\t").encode("utf-16")),
        ("quoted.csv", "\n".join(";".join(f'"{cell}"' for cell in row) for row in ROWS).encode()),
        ("spaced.csv", ("\n\n" + written(";") + "\n\n;;\n").encode()),
        ("old-mac.csv", written(",").replace("\r\n", "\r").encode()),
    ],
)
def test_table_is_read_whatever_divides_its_cells(read, name, content):
    first, second = read(name, content)
    assert first.text == "name: Anna\nprice: 1,50\nnote: all fine"
    assert second.text == "name: Björn\nprice: 2,75\nnote: so, so; or not"
    assert second.metadata["price"] == "2,75"


def test_single_column_with_commas_in_it_stays_one(read):
    assert [one.text for one in read("one.csv", "said\nWell, well, well\nOh\n")] == [
        "said: Well, well, well",
        "said: Oh",
    ]


def test_columns_of_one_name_and_of_none_keep_their_values(read):
    (row,) = read("two.csv", "note,note,,Note\nfirst,second,third,fourth\n")
    assert row.text == "note: first\nnote: second\ncolumn 3: third\nNote: fourth"
    assert row.metadata == {"note": "first", "note (2)": "second", "column 3": "third", "Note": "fourth"}
    (asked,) = read("qa.csv", "question,answer,Answer\nWho?,Anna,Björn\n")
    assert asked.text == "Who?\nAnna" and asked.metadata == {"Answer": "Björn"}


def test_rows_too_long_and_too_short_are_kept_and_told(read):
    rows = read("odd.csv", "a,b\n1,2\n3\n4,5,6,seven\n8,9,,\n")
    assert [one.text for one in rows] == [
        "a: 1\nb: 2",
        "a: 3",
        "a: 4\nb: 5\ncolumn 3: 6\ncolumn 4: seven",
        "a: 8\nb: 9",
    ]
    longer, shorter = rows[0].notes
    assert "more cells" in longer and longer.endswith("row 4")
    assert "fewer cells" in shorter and shorter.endswith("row 3")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('"Bob" who?,Boss', '"Bob" who?\nBoss'),
        ('"Bob who?,Boss', '"Bob who?\nBoss'),
        ('Who is "Bob"?,"Boss', 'Who is "Bob"?\n"Boss'),
        ('5" pipe,"5"" pipe"', '5" pipe\n5" pipe'),
        ('"two\nlines","and\n\nmore"', "two\nlines\nand\n\nmore"),
    ],
)
def test_stray_quote_costs_no_other_row(read, line, expected):
    rows = read("stray.csv", f'question,answer\nFirst?,One\n{line}\nLast?,"Two, too"\n')
    assert [one.text for one in rows] == ["First?\nOne", expected, "Last?\nTwo, too"]


def test_cell_of_a_megabyte_is_read_and_is_not_metadata(read):
    long = "word " * 200_000 + "director"
    rows = read("big.csv", f'title,body\nA,"{long}"\nB,second row\n')
    assert rows[0].text == f"title: A\nbody: {long}" and rows[0].metadata == {"title": "A"}
    assert rows[1].text == "title: B\nbody: second row"


@pytest.mark.parametrize("row", ['"a"",b', '"a,b', 'a"",""b', '"a"b,"'])
def test_time_grows_with_the_table_however_its_quotes_are(row):
    def seconds(count):
        start = process_time()
        records, _ = read_table("x,y\n" + f"{row}\n" * count)
        assert len(records) > count / 2
        return process_time() - start

    seconds(100)
    assert seconds(16_000) < 0.2 + 5 * seconds(4_000)


def test_objects_of_one_id_keep_their_own_documents(read):
    lines = [{"id": 7, "text": "one"}, {"id": "7", "text": "two"}, {"id": None, "text": "three"}, {"text": "four"}]
    lines += [{"id": "7 (2)", "text": "five"}, {"id": "", "text": "six"}, {"id": [1], "text": "seven"}]
    rows = read("ids.jsonl", "\n".join(map(json.dumps, lines)))
    assert [(one.part, one.text) for one in rows[:5]] == [
        ("7", "one"),
        ("7 (2)", "two"),
        ("line 3", "three"),
        ("line 4", "four"),
        ("7 (2) (2)", "five"),
    ]
    assert len({one.part for one in rows}) == 7
    assert any("'7' 2 times" in note for note in rows[0].notes)


def test_many_objects_of_one_id_take_no_longer():
    text = '{"id": "x", "text": "t"}\n' * 20_000
    start = process_time()
    records, notes = read_lines(text)
    assert len({one.part for one in records}) == 20_000 and "20000 times" in notes[0]
    assert process_time() - start < 5


def test_line_that_is_not_json_costs_no_other_line(read):
    rows = read("broken.jsonl", '{"text": "fine"}\n{"text": "cut of\n\n{"text": "fine too"}\n')
    assert [one.text for one in rows] == ["fine", "fine too"]
    assert "line 2 that is not JSON" in rows[0].notes[0]
    with pytest.raises(DataError, match=r"none.jsonl can't be read: line 1 is not JSON"):
        read("none.jsonl", "no\nJSON\n")


def test_object_without_a_text_says_all_that_is_in_it(read):
    rows = read(
        "notes.jsonl", '{"title": "Travel", "by": {"name": "Anna", "role": null}, "tags": ["a", "b"], "ok": true}'
    )
    assert rows[0].text == "title: Travel\nby.name: Anna\ntags: a\ntags: b\nok: true"


def test_metadata_of_json_is_written_as_json_writes_it(read):
    (row,) = read("m.jsonl", json.dumps({"text": "t", "draft": True, "year": 2020, "gone": None, "tags": ["ä"]}))
    assert row.metadata == {"draft": "true", "year": "2020", "tags": '["ä"]'}


def test_json_is_read_as_a_list_as_lines_or_as_one_value(read):
    objects = [{"id": "n1", "text": "one"}, {"text": "two"}]
    lines = "\n".join(map(json.dumps, objects))
    assert [(one.part, one.text) for one in read("a.json", json.dumps(objects, indent=2))] == [
        ("n1", "one"),
        ("item 2", "two"),
    ]
    assert (
        [one.text for one in read("b.json", lines)] == [one.text for one in read("c.ndjson", lines)] == ["one", "two"]
    )
    assert [one.text for one in read("d.json", '{"name": "Weft", "on": {"gpu": false}}')] == [
        "name: Weft\non.gpu: false"
    ]
    with pytest.raises(DataError, match="it is not JSON"):
        read("e.json", "{no")


def test_half_surrogates_in_json_are_replaced_and_told(read):
    rows = read("s.jsonl", r'{"id": "n\ud83d", "text": "a \ud83d b \ud83d\ude00", "by": "\udc00"}')
    assert (rows[0].part, rows[0].text, rows[0].metadata) == ("n\ufffd", "a \ufffd b 😀", {"by": "\ufffd"})
    assert "half characters" in rows[0].notes[0]
