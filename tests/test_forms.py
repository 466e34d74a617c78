"""Conversations in the forms that people have them."""

from __future__ import annotations

import base64
import http.server
import io
import json
import threading

import pytest
from PIL import Image

from weft.data import load_examples
from weft.errors import DataError
from weft.given_pictures import GivenPictures


@pytest.fixture
def folder(tmp_path):
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (4, 4), colour).save(tmp_path / name)
    return tmp_path


def png(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(buffer, "PNG")
    return buffer.getvalue()


def address(colour):
    return "data:image/png;base64," + base64.b64encode(png(colour)).decode()


def seen(example):
    """A conversation as roles with words and the colours of pictures, in order."""
    found = []
    for message in example.messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for part in parts:
            if part["type"] == "image":
                found.append((message["role"], Image.open(part["image"]).convert("RGB").getpixel((0, 0))))
            else:
                found.append((message["role"], part["text"]))
    return found


RED, BLUE = (255, 0, 0), (0, 0, 255)
ONE = [("user", RED), ("user", "What?"), ("assistant", "Red.")]
ANSWER = {"role": "assistant", "content": "Red."}
TWO = [("user", RED), ("user", "and"), ("user", BLUE), ("user", "?"), ("assistant", "Two.")]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param(
            {
                "image": "a.png",
                "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "Red."}],
            },
            ONE,
            id="llava",
        ),
        pytest.param(
            {
                "images": ["a.png"],
                "conversations": [{"from": "user", "value": "What?"}, {"from": "gpt", "value": "Red."}],
            },
            ONE,
            id="sharegpt, without a mark",
        ),
        pytest.param(
            {
                "image": ["a.png", "b.png"],
                "conversations": [
                    {"from": "human", "value": "<image> and <image> ?"},
                    {"from": "gpt", "value": "Two."},
                ],
            },
            TWO,
            id="two marks",
        ),
        pytest.param(
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image_url", "image_url": {"url": address("red")}},
                            {"type": "text", "text": "What?"},
                        ],
                    },
                    ANSWER,
                ]
            },
            ONE,
            id="openai",
        ),
        pytest.param(
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "input_image", "image_url": address("red")},
                            {"type": "input_text", "text": "What?"},
                        ],
                    },
                    {"role": "assistant", "content": [{"type": "output_text", "text": "Red."}]},
                ]
            },
            ONE,
            id="openai responses",
        ),
        pytest.param(
            {
                "images": [Image.new("RGB", (4, 4), "red")],
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image", "text": None}, {"type": "text", "text": "What?", "image": None}],
                    },
                    ANSWER,
                ],
            },
            ONE,
            id="a column of pictures",
        ),
        pytest.param(
            {
                "conversations": [
                    {"from": "system", "value": "Be brief."},
                    {"from": "human", "value": "Hi"},
                    {"from": "gpt", "value": "Ho"},
                ]
            },
            [("system", "Be brief."), ("user", "Hi"), ("assistant", "Ho")],
            id="words alone",
        ),
    ],
)
def test_conversations_of_every_form_are_the_same(folder, monkeypatch, fields, expected):
    monkeypatch.chdir(folder)
    (example,) = load_examples([fields], GivenPictures(folder / "kept"))
    assert seen(example) == expected


def test_files_of_one_list_and_of_lines_hold_the_same(folder):
    rows = [
        {
            "image": name,
            "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "It."}],
        }
        for name in ("a.png", "b.png")
    ]
    (folder / "list.json").write_text(json.dumps(rows, indent=1))
    (folder / "lines.jsonl").write_text("\n".join(map(json.dumps, rows)))
    both = [load_examples(folder / name) for name in ("list.json", "lines.jsonl")]
    assert [[seen(example) for example in examples] for examples in both] == [[seen(e) for e in both[0]]] * 2
    assert both[0][1].where == f"{folder / 'list.json'}:15, object 2"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"text": "hello"}, "'messages' must be a list"),
        ({"messages": [{"role": "user", "content": 3}, ANSWER]}, "content of a message is 3"),
        ({"messages": [{"role": "user", "content": [{"type": "video", "video": "a"}]}, ANSWER]}, "of type 'video'"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}, ANSWER]}, "holds no picture"),
        ({"images": ["a.png"], "messages": [ANSWER]}, "1 of its pictures have no"),
        ({"images": ["a.png", "b.png"], "messages": [{"role": "user", "content": "<image>"}, ANSWER]}, "1 of its pic"),
        ({"conversations": [{"from": "human", "value": "<image>"}]}, "more <image> marks than pictures"),
        ({"conversations": [{"from": "robot", "value": "Hi"}]}, "a turn is from 'robot'"),
        ({"conversations": [{"from": "human"}]}, "a turn says None"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "image": "data:image/png,red"}]}, ANSWER]},
            "with base64",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "image", "image": 7}]}, ANSWER]}, "a picture is a int"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "image": "http://x.org/a.png"}]}, ANSWER]},
            "fetch_pictures: true",
        ),
        ("words", "'messages' must be a list"),
    ],
)
def test_what_is_no_conversation_is_refused(folder, monkeypatch, fields, says):
    monkeypatch.chdir(folder)
    with pytest.raises(DataError, match=f"row 0 of the data: .*{says}"):
        load_examples([fields], GivenPictures(folder / "kept"))


def test_pictures_on_the_web_are_fetched_once_where_that_is_allowed(folder):
    asked = []

    class Pictures(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200 if self.path == "/red.png" else 404)
            self.end_headers()
            self.wfile.write(png("red"))

        def log_message(self, *_): ...

    with http.server.HTTPServer(("127.0.0.1", 0), Pictures) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        there, gone = (f"http://127.0.0.1:{server.server_port}/{name}.png" for name in ("red", "gone"))
        pictures = GivenPictures(folder / "kept", fetch=True)
        files = {pictures.file(there, folder, "here") for _ in range(2)}
        with pytest.raises(DataError, match=r"here: the picture .*gone\.png can't be fetched"):
            pictures.file(gone, folder, "here")
        server.shutdown()
    assert asked == ["/red.png", "/gone.png"]
    assert Image.open(files.pop()).getpixel((0, 0)) == RED and not files


def test_data_sets_of_the_library_are_read_as_they_are(folder):
    datasets = pytest.importorskip("datasets")
    content = [{"type": "image", "text": None}, {"type": "text", "text": "What?"}]
    answer = [{"type": "text", "text": "Red."}]
    row = {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]}
    table = datasets.Dataset.from_list([{**row, "images": [{"path": None, "bytes": png("red")}]}])
    table = table.cast_column("images", datasets.Sequence(datasets.Image()))
    for data in (table, table.to_iterable_dataset()):
        (example,) = load_examples(data, GivenPictures(folder / "kept"))
        assert seen(example) == ONE
