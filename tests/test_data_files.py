"""Training data as it lies on people's disks: what is broken names file and line, what is meant is read."""

from __future__ import annotations

import base64
import gzip
import json
import re

import numpy as np
import pytest
from PIL import Image
from woven import encoder, tokenizer

from weft.data import load_examples, rows_of
from weft.errors import DataError, RecipeError
from weft.given_pictures import GivenPictures
from weft.processing import WeftProcessor
from weft.recipe import load_recipe
from weft.tally import Tally

GOOD = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}
ANSWER = {"role": "assistant", "content": "Ho"}


def asked(*messages, **more):
    return {"messages": [*messages, ANSWER], **more}


def refused(folder, content, name="data.jsonl"):
    """What is said of a file with this content."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as error:
        load_examples(path, GivenPictures(folder / "kept"))
    said = str(error.value)
    assert said.startswith(f"{path}") and "\n" not in said and len(said) < 400
    return said.removeprefix(str(folder) + "/")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_in_any_unicode_encoding_are_the_same(tmp_path, encoding, end):
    line = json.dumps(asked({"role": "user", "content": "Un café 🐱"}), ensure_ascii=False)
    (tmp_path / "data.jsonl").write_bytes(f"{line}{end}{end}  {end}{line}".encode(encoding))
    examples = load_examples(tmp_path / "data.jsonl")
    assert [one.question for one in examples] == ["Un café 🐱"] * 2
    assert examples[1].where.endswith("data.jsonl:4")


def test_packed_lines_and_lists_of_any_name_are_read(tmp_path):
    (tmp_path / "data.jsonl.gz").write_bytes(gzip.compress(json.dumps(GOOD).encode()))
    (tmp_path / "list.jsonl").write_text(json.dumps([GOOD, GOOD], indent=2))
    assert [one.where for one in load_examples(tmp_path / "data.jsonl.gz")] == [f"{tmp_path}/data.jsonl.gz:1"]
    assert [one.where for one in load_examples(tmp_path / "list.jsonl")] == [
        f"{tmp_path}/list.jsonl:2, object 1",
        f"{tmp_path}/list.jsonl:14, object 2",
    ]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"messages": [', "not JSON"),
        ("\0\0\0\0\0\0", "not JSON"),
        ('"words"', "'messages' must be a list"),
        ("null", "'messages' must be a list"),
        ("5", "'messages' must be a list"),
        ('[{"role": "user", "content": "Hi"}]', "'messages' must be a list"),
        ('{"messages": [], "weight": NaN}', "NaN is no number"),
        ('{"messages": [], "messages": []}', "the key 'messages' stands twice"),
        ('{"messages": [{"role": "user", "role": "user"}]}', "the key 'role' stands twice"),
        ('{"messages": ' + "[" * 100_000, "nested too deeply|not JSON"),
        ('{"n": ' + "9" * 5000 + "}", "digits"),
        ({"message": [1]}, "did you mean 'messages' by 'message'"),
        ({"instruction": "Say", "output": "Ho"}, "it holds 'instruction', 'output'"),
        ({"messages": "Hi"}, "is 'Hi'"),
        ({"messages": {"role": "user"}}, "must be a list"),
        ({"messages": [None]}, "must be a list"),
        ({"messages": [], "conversations": []}, "leave one of them out"),
        (asked({"role": "user", "text": "Hi"}), "must be a list"),
        (asked({"role": None, "content": "Hi"}), "has the role None"),
        (asked({"role": "usr", "content": "Hi"}), "did you mean 'user'"),
        (asked({"role": "user", "content": None}), "content of a message is None"),
        (asked({"role": "user", "content": 5}), "content of a message is 5"),
        (asked({"role": "user", "content": {"type": "text", "text": "Hi"}}), "content of a message is"),
        (asked({"role": "user", "content": [5]}), "the part 5 is no object"),
        (asked({"role": "user", "content": [{"type": "text", "text": None}]}), "a text part holds no text"),
        (asked({"role": "user", "content": [{"type": "text", "text": 5}]}), "a text part holds no text"),
        (asked({"role": "user", "content": [{"type": "document", "text": 5}]}), "a document is empty"),
        (asked({"role": "user", "content": [{"type": "image", "image": ""}]}), "is a folder"),
        (asked({"role": "user", "content": [{"type": "image", "image": "x" * 5000}]}), "doesn't exist"),
        (asked({"role": "user", "content": [{"type": "image", "image": "a\0b"}]}), "doesn't exist"),
        (asked({"role": "user", "content": "Hi"}, references=5), "'references' must be a list of strings"),
        (asked({"role": "user", "content": "Hi"}, references="Ho"), "'references' must be a list of strings"),
        (asked({"role": "user", "content": "Hi"}, supporting={"a": 1}), "'supporting' must be a list of strings"),
        (asked({"role": "user", "content": "Hi"}, objects=[1]), "'objects' must be a list of strings"),
        (asked({"role": "user", "content": "Hi"}, source=5), "'source' is 5"),
        (asked({"role": "user", "content": "Hi"}, tools="[{"), "'tools' is a string that is not JSON"),
        (asked({"role": "user", "content": "x \ud83d y"}), r"half a character \(\\ud83d\)"),
        (asked({"role": "user", "content": "x"}, references=["\udc00"]), "half a character"),
        (asked({"role": "user", "content": [{"type": "text", "text": "\ud83d"}]}), "half a character"),
        (asked({"role": "user", "content": "<image>Hi"}), "more <image> marks than pictures"),
        (asked({"role": "user", "content": "Hi"}, image_path="a.png"), "call them 'image' or 'images'"),
        (asked({"role": "user", "content": "Hi"}, videos=["a.mp4"]), "'videos' can't be read"),
        (asked({"role": "user", "content": "Hi"}, documents=[{"text": "x"}]), "type 'document'"),
        ({"messages": [{"role": "system", "content": "Be brief."}]}, "the assistant says nothing"),
        ({"messages": []}, "the assistant says nothing"),
        ({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": " "}]}, "says nothing"),
    ],
)
def test_line_that_is_broken_is_named(tmp_path, line, says):
    content = line if isinstance(line, str) else json.dumps(line)

    said = refused(tmp_path, f"{json.dumps(GOOD)}\n\n{content}\n")
    assert said.startswith("data.jsonl:3: ") and re.search(says, said), said


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("data.jsonl", b"", "holds no examples"),
        ("data.jsonl", b"\n\n \r\n", "holds no examples"),
        ("data.json", b"[]", "holds no examples"),
        ("data.json", json.dumps([GOOD])[:-1].encode(), "seems cut off"),
        ("data.json", b'[\n{"messages": 1,\n]', "data.json:3: not JSON"),
        ("data.json", json.dumps([GOOD]).encode() + b"\n[]", "stands behind the list"),
        ("data.json", b'{\n "messages": []\n}', "data.json:1: not JSON.*one whole object"),
        ("data.csv", b"image,caption\na.png,A cat.\n", "data.csv:1: not JSON.*tables are not read"),
        ("data.jsonl", '{"messages": "café"}'.encode("latin-1"), "data.jsonl:1: byte 18 .0xE9. is not UTF-8"),
        ("data.jsonl", json.dumps(GOOD).encode() + b"\n\xff", "data.jsonl:2: byte 1"),
        ("data.jsonl.gz", gzip.compress(json.dumps(GOOD).encode() * 99)[:-20], "is damaged"),
        ("data.jsonl.zst", b"\x28\xb5\x2f\xfd\0\0", "packed by zstd"),
        ("data.parquet", b"PAR1\0\0\0\0", "is a Parquet file"),
        ("data.zip", b"PK\x03\x04\0\0", "is a ZIP archive"),
    ],
)
def test_file_that_is_none_of_conversations_is_refused(tmp_path, name, content, says):

    assert re.search(says, refused(tmp_path, content, name))


def test_folder_is_refused_with_the_file_in_it(tmp_path):
    (tmp_path / "train.jsonl").write_text(json.dumps(GOOD))
    with pytest.raises(DataError, match=r"is a folder; give a JSONL file, such as .*train\.jsonl"):
        load_examples(tmp_path)


@pytest.mark.parametrize("data", [5, {"messages": []}, [None], [["a"]], [{"messages": 3}]])
def test_what_is_no_data_set_is_refused_in_python_too(data):
    with pytest.raises(DataError):
        load_examples(data)


def test_pictures_that_are_missing_are_counted(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    rows = [asked({"role": "user", "content": "<image>Hi"}, images=[name]) for name in ("a.png", "b.png", "c.png")]
    said = refused(tmp_path, "\n".join(map(json.dumps, rows)))
    assert said.startswith("data.jsonl:2: the picture") and said.endswith("So are those of 1 other rows.")


@pytest.fixture
def folder(tmp_path):
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (4, 4), colour).save(tmp_path / name)
    return tmp_path


def seen(example):
    """The user's message: words, and the colours of pictures, in order."""
    (message,) = [one for one in example.messages if one["role"] == "user"]
    content = message["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    colours = {(255, 0, 0): "red", (0, 0, 255): "blue"}
    return [
        colours[Image.open(part["image"]).convert("RGB").getpixel((0, 0))] if part["type"] == "image" else part["text"]
        for part in parts
    ]


def red(folder):
    return (folder / "a.png").read_bytes()


@pytest.mark.parametrize(
    ("content", "column", "expected"),
    [
        ("<image>What?", ["a.png"], ["red", "What?"]),
        ("What?\n<image>", "a.png", ["What?", "red"]),
        ("<image> or <image>?", ["a.png", "b.png"], ["red", "or", "blue", "?"]),
        ("What?", ["a.png", "b.png"], ["red", "blue", "What?"]),
        ([{"type": "text", "text": "<image>What?"}], ["a.png"], ["red", "What?"]),
        ([{"type": "image"}, {"type": "text", "text": "What?"}], ["a.png"], ["red", "What?"]),
        ([{"type": "image", "index": 1}, {"type": "image", "index": 0}], ["a.png", "b.png"], ["blue", "red"]),
        ([{"image": "a.png"}, {"text": "What?"}], None, ["red", "What?"]),
        ("What?", [], ["What?"]),
        ("What?", "", ["What?"]),
        ("What?", [None], ["What?"]),
    ],
)
def test_pictures_beside_the_messages_stand_where_they_are_meant(folder, monkeypatch, content, column, expected):
    monkeypatch.chdir(folder)
    row = asked({"role": "User", "content": content}, images=column)
    (example,) = load_examples([row], GivenPictures(folder / "kept"))
    assert seen(example) == expected


def test_table_of_pandas_is_read(folder, monkeypatch):
    """It holds lists as arrays of objects."""
    monkeypatch.chdir(folder)
    messages = np.array([{"role": "user", "content": "<image>What?"}, ANSWER], dtype=object)
    row = {
        "messages": messages,
        "images": np.array(["a.png"], dtype=object),
        "references": np.array(["x"], dtype=object),
    }
    (example,) = load_examples([row], GivenPictures(folder / "kept"))
    assert seen(example) == ["red", "What?"] and example.references == ("x",)


@pytest.mark.parametrize("kind", ["base64", "part", "anthropic", "array", "file url", "dataset", "cmyk"])
def test_pictures_of_every_kind_are_the_same(folder, monkeypatch, kind):
    monkeypatch.chdir(folder)
    text = base64.b64encode(red(folder)).decode()
    (folder / "a picture.png").write_bytes(red(folder))
    source = {"type": "base64", "media_type": "image/png", "data": text}
    part = {
        "base64": {"type": "image", "image": text},
        "part": {"type": "image", "base64": text},
        "anthropic": {"type": "image", "source": source},
        "array": {"type": "image", "image": np.full((4, 4, 3), (255, 0, 0), np.uint8)},
        "file url": {"type": "image", "image": f"file://{folder}/a%20picture.png"},
        "dataset": {"type": "image", "image": {"path": "a.png", "bytes": None}},
        "cmyk": {"type": "image", "image": Image.new("RGB", (4, 4), "red").convert("CMYK")},
    }[kind]
    (example,) = load_examples([asked({"role": "user", "content": [part]})], GivenPictures(folder / "kept"))
    assert seen(example) == ["red"]


def test_mark_and_part_for_the_same_picture_are_refused(folder, monkeypatch):
    monkeypatch.chdir(folder)
    content = [{"type": "image", "image": "a.png"}, {"type": "text", "text": "<image>\nWhat?"}]
    with pytest.raises(DataError, match="leave the mark out"):
        load_examples([asked({"role": "user", "content": content})])


def test_turns_of_either_vocabulary_are_messages():
    rows = [
        {"conversations": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, ANSWER]},
        {"messages": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]},
        {"messages": [{"role": "human", "content": "Hi"}, {"role": "Assistant", "content": "Ho"}]},
    ]
    found = load_examples(rows)
    assert [(one.question, one.answer) for one in found] == [("Hi", "Ho")] * 3


def test_answers_of_no_weight_are_not_learned():
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "no", "weight": 0},
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "yes"},
    ]
    processor = WeftProcessor(tokenizer(), encoder())
    (row,) = rows_of(load_examples([{"messages": messages}]), processor)
    ((tokens, flags),) = row.answers
    assert processor.decode([token for token, flag in zip(tokens, flags, strict=True) if flag]) == "yes</s>"
    silent = [messages[0], messages[1]]
    with pytest.raises(DataError, match=r"row 0 of the data: .*nothing to learn"):
        rows_of(load_examples([{"messages": silent}]), processor)


def test_columns_that_nobody_reads_are_told_of():
    tally = Tally()
    load_examples([{**GOOD, "refrences": ["a"], "id": 3, "nothing": None}], tally=tally)
    assert tally.sentences == [
        "The column 'refrences' is not read; did you mean 'references'?",
        "Columns that are not read: id.",
    ]


def test_rows_beyond_the_context_are_left_out_and_counted():
    processor, tally = WeftProcessor(tokenizer(), encoder()), Tally()
    long = {"messages": [{"role": "user", "content": "x" * 50}, ANSWER]}
    rows = rows_of(load_examples([GOOD, long], tally=tally), processor, positions=20, tally=tally)
    assert len(rows) == 1
    assert tally.sentences == [
        "1 of 2 rows are left out: 1 with more than the 20 tokens that the language model takes (row 1 of the data)."
    ]


def test_template_that_refuses_a_conversation_names_its_line():
    strict = tokenizer()
    strict.chat_template = "{{ raise_exception('roles must alternate') if messages|length > 2 }}" + strict.chat_template
    row = {"messages": [ANSWER, {"role": "user", "content": "Hi"}, ANSWER]}
    with pytest.raises(DataError, match=r"row 0 of the data: .*roles must alternate"):
        rows_of(load_examples([row]), WeftProcessor(strict, encoder()))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("data: a\noutput: b\ndata: c", "the key 'data' stands twice"),
        ("data: []\noutput: b", "data: the list is empty"),
        ("data: a\noutput: b\nviews: []", "views: the list is empty"),
        ("data: a\noutput: b\nepochs: .nan", "epochs: nan is no number"),
        ("data: a\noutput: b\nlearning_rate: .inf", "learning_rate: inf is no number"),
        ("data: a\noutput: b\nlearning_rate: -1e-3", "learning_rate: -0.001 can't be"),
        ("data: a\noutput: b\nclip: 0", "clip: 0.0 can't be"),
        ("data: a\noutput: b\naverage: 1", "average: 1.0 can't be"),
        ("data: a\noutput: b\npassages: 0", "passages: 0 is too small"),
        ("data: a\noutput: b\nlongest: -5", "longest: -5 is too small"),
        ("data: a\noutput: b\nevaluate_limit: -1", "evaluate_limit: -1 is too small"),
        ("data: a\noutput: b\nlimits: [1, 2]", "limits: "),
        ("data: a\noutput: 2024-13-45", "is not YAML"),
        (b"data: caf\xe9\noutput: b", "is not YAML"),
    ],
)
def test_recipe_with_which_a_run_would_fail_later_is_refused(tmp_path, text, says):
    (tmp_path / "recipe.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RecipeError, match=says):
        load_recipe(tmp_path / "recipe.yaml")
