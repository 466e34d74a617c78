"""What tasks are given: pictures of every kind, lists, options."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers_small import byte_level, pieces
from transformers import TextStreamer
from woven import encoder, reader, tokenizer, woven

from weft.errors import DataError, PictureError, WeftError
from weft.images import load_image
from weft.processing import WeftProcessor

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
PHOTO = Image.fromarray(PIXELS)
OTHER = Image.new("RGB", (24, 24), "blue")


@pytest.fixture(scope="module")
def model():
    return woven(tokenizer=tokenizer())


# Pictures


def same(given, expected=PIXELS):
    return np.array_equal(np.asarray(load_image(given)), expected)


def test_arrays_and_tensors_are_pictures_whichever_axis_the_channels_are():
    fractions = PIXELS.astype(np.float32) / 255
    for array in (PIXELS, fractions, fractions.astype(np.float64)):
        assert same(array) and same(array.transpose(2, 0, 1))
        tensor = torch.from_numpy(array)
        assert same(tensor) and same(tensor.permute(2, 0, 1)) and same(tensor.permute(2, 0, 1).requires_grad_(False))
    assert np.abs(np.asarray(load_image(torch.from_numpy(fractions).bfloat16())).astype(int) - PIXELS).max() <= 1
    grey = PIXELS[..., 0]
    for array in (grey, grey[..., None], grey[None]):
        assert same(array, np.repeat(grey[..., None], 3, -1))
    clear = np.concatenate((PIXELS, np.zeros_like(PIXELS[..., :1])), -1)
    assert same(clear, np.full_like(PIXELS, 255))  # transparency is laid on white


def test_bytes_data_urls_and_file_objects_are_pictures():
    buffer = io.BytesIO()
    PHOTO.save(buffer, "PNG")
    data = buffer.getvalue()
    url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    for given in (data, bytearray(data), memoryview(data), io.BytesIO(data), url):
        assert same(given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((2, 20, 30, 3), np.uint8), "in a list"),
        (np.zeros((20, 30, 5), np.uint8), r"\[20, 30, 5\]"),
        (np.zeros(7, np.uint8), r"\[7\] is no picture"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (np.zeros((20, 30, 3), np.int64), "int64"),
        (np.ones((20, 30, 3), bool), "bool"),
        (PIXELS.astype(np.float32), "floats from 0 to 255"),
        (np.full((20, 30, 3), -1.0), "from -1 to -1"),
        (np.full((20, 30, 3), np.nan), "no numbers"),
        (torch.full((3, 20, 30), 2.5), "from 2.5 to 2.5"),
        (None, "NoneType"),
        (3, "int"),
        ("https://example.org/dog.jpg", "not fetched"),
        ("ftp://example.org/dog.jpg", "not fetched"),
        ("data:image/png;base64,%%%", "base64"),
        ("data:image/png", "base64"),
    ],
)
def test_what_is_no_picture_is_refused_with_what_would_be_right(given, said):
    with pytest.raises(PictureError, match=f"(?i){said}"):
        load_image(given)


def test_tasks_take_every_kind_of_picture(model):
    expected = model.caption(PHOTO, max_new_tokens=4).text
    for given in (PIXELS, torch.from_numpy(PIXELS).permute(2, 0, 1), PIXELS / 255):
        assert model.caption(given, max_new_tokens=4).text == expected
        content = [{"type": "image", "image": given}, {"type": "text", "text": "Describe the picture."}]
        assert model.chat([{"role": "user", "content": content}], beams=3, max_new_tokens=4)["content"] == expected
    assert [one.text for one in model.caption([PIXELS, PHOTO], max_new_tokens=4)] == [expected] * 2
    inputs = model.processor(images=PIXELS, text="x")
    assert torch.equal(inputs["pixel_values"], model.processor(images=PHOTO, text="x")["pixel_values"])


def test_picture_is_fetched_from_hosts_that_are_named_alone():
    from weft.server.pictures import fetch

    with pytest.raises(PictureError, match=r"not fetched from 'example\.org'"):
        fetch("https://example.org/dog.jpg", hosts=["example.com"])
    with pytest.raises(PictureError, match="no public address"):
        fetch("http://localhost:9/dog.jpg", hosts=["localhost"])


# Lists


def test_questions_go_with_their_own_pictures(model):
    options = {"max_new_tokens": 5}
    asked = [(PHOTO, "What?"), (OTHER, "Who is it?")]
    apart = [model.ask(picture, question, **options).text for picture, question in asked]
    assert [one.text for one in model.ask([PHOTO, OTHER], ["What?", "Who is it?"], **options)] == apart
    several = model.ask(PHOTO, ["What?", "Who is it?"], explain="sketch", **options)
    assert [one.text for one in several] == [apart[0], model.ask(PHOTO, "Who is it?", **options).text]
    assert all(one.seen is not None for one in several)
    assert model.ask([PHOTO, OTHER], "What?", **options)[0].text == apart[0]
    assert model.ask([], "What?") == model.ask([PHOTO], []) == []
    with pytest.raises(DataError, match="2 pictures and 3 questions"):
        model.ask([PHOTO, OTHER], ["a", "b", "c"])
    with pytest.raises(DataError, match="in words"):
        model.ask([PHOTO], [3])


def talk(text, picture=None):
    images = [] if picture is None else [{"type": "image", "image": picture}]
    return [{"role": "user", "content": [*images, {"type": "text", "text": text}]}]


def test_several_conversations_are_answered_each_as_alone(model):
    conversations = [talk("What?", PHOTO), talk("Who?"), talk("Is it?", OTHER)]
    apart = [model.chat(one, max_new_tokens=5) for one in conversations]
    assert model.chat(conversations, max_new_tokens=5) == apart
    with pytest.raises(DataError, match="list of messages"):
        model.chat("hello")
    with pytest.raises(DataError, match="user has spoken"):
        model.chat([])


# Drawing and streams


def test_what_is_drawn_depends_on_the_seed_alone(model):
    def said(seed):
        drawn = {"do_sample": True, "temperature": 2.0, "max_new_tokens": 8, "seed": seed}
        yield model.caption(PHOTO, beams=1, **drawn).text
        yield model.title(PHOTO, beams=1, **drawn).text
        yield model.ask(PHOTO, "What?", beams=1, **drawn).text
        yield model.chat(talk("What?", PHOTO), **drawn)["content"]
        yield "".join(model.chat(talk("What?", PHOTO), stream=True, **drawn))

    before = torch.get_rng_state()
    first = list(said(1))
    assert torch.equal(torch.get_rng_state(), before)  # everybody else's chance is as it was
    torch.rand(3)
    assert list(said(1)) == first
    assert all(one != other for one, other in zip(first, said(2), strict=True))


def test_reading_draws_from_its_seed():
    model = reader()
    drawn = {"do_sample": True, "temperature": 2.0, "max_new_tokens": 8, "beams": 1}
    first, again, other = (model.summarize("The fox ran.", seed=seed, **drawn).text for seed in (1, 1, 2))
    assert first == again != other
    assert model.answer("Who?", ["The fox."], seed=1, **drawn) == model.answer("Who?", ["The fox."], seed=1, **drawn)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_pieces_of_a_stream_are_the_reply(family):
    model = woven(family, tokenizer=tokenizer())
    for count in (1, 7):
        whole = model.chat(talk("What?", PHOTO), max_new_tokens=count)["content"]
        pieces_ = list(model.chat(talk("What?", PHOTO), stream=True, max_new_tokens=count))
        assert "".join(pieces_) == whole and all(pieces_)
    with pytest.raises(WeftError, match="one conversation"):
        model.chat([talk("What?")] * 2, stream=True)
    with pytest.raises(WeftError, match="takes no option 'repetition_penalty'"):
        model.chat(talk("What?"), stream=True, repetition_penalty=2.0)


def test_streamer_of_transformers_hears_every_task(model):
    class Heard(TextStreamer):
        def __init__(self):
            super().__init__(model.processor.tokenizer, skip_prompt=True)
            self.text = ""

        def on_finalized_text(self, text, stream_end=False):
            self.text += text

    for ask in (
        lambda **o: model.chat(talk("What?"), **o)["content"],
        lambda **o: model.caption(PHOTO, beams=1, **o).text,
    ):
        heard = Heard()
        said = ask(streamer=heard, max_new_tokens=5)
        assert heard.text.strip() == said


def test_top_memory_goes_with_pictures(model):
    assert model.caption(PHOTO, top_memory=1, max_new_tokens=4).text == model.caption(PHOTO, max_new_tokens=4).text


# Options


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"beam": 3}, "did you mean 'beams'"),
        ({"max_new_token": 3}, "did you mean 'max_new_tokens'"),
        ({"xyzzy": 3}, "no option 'xyzzy'"),
        ({"num_return_sequences": 2}, "decides num_return_sequences"),
        ({"num_beams": 2}, "give beams"),
        ({"max_length": 20}, "give max_new_tokens"),
        ({"return_dict_in_generate": True}, "call generate"),
        ({"temperature": 0.7}, "do_sample=True"),
        ({"beams": 0}, "beams: 0"),
        ({"max_new_tokens": 0}, "max_new_tokens: 0"),
        ({"max_new_tokens": "5"}, "max_new_tokens: '5'"),
        ({"seed": -1}, "seed: -1"),
        ({"seed": "x"}, "seed: 'x'"),
        ({"seed": 2**63}, "too large"),
    ],
)
def test_options_that_are_not_known_or_would_do_nothing_are_refused(model, options, said):
    read = reader()
    for ask in (
        lambda: model.caption(PHOTO, **options),
        lambda: model.title(PHOTO, **options),
        lambda: model.ask(PHOTO, "What?", **options),
        lambda: model.chat(talk("What?"), **options),
        lambda: read.answer("Who?", ["The fox."], **options),
        lambda: read.summarize("The fox ran.", **options),
        lambda: read.title_text("The fox ran.", **options),
    ):
        with pytest.raises(WeftError, match=said):
            ask()


def test_values_that_are_not_known_are_refused_with_the_near_one(model):
    read = reader()
    for ask, near in (
        (lambda: model.caption(PHOTO, explain="sketsh"), "'sketch'"),
        (lambda: model.title("The fox ran. So it did.", explain="sketsh"), "'sketch'"),
        (lambda: read.summarize("The fox ran.", length="shrt"), "'short'"),
        (lambda: read.answer("Who?", ["The fox."], reading="carefull"), "'careful'"),
        (lambda: model.chat(talk("x"), reading="onc"), "'once'"),
    ):
        with pytest.raises(WeftError, match=f"did you mean {near}"):
            ask()


# Plain text for the processor


@pytest.mark.parametrize("kind", [byte_level, pieces])
@pytest.mark.parametrize("begin", [False, True])
def test_processors_text_is_what_the_tokenizer_makes_of_it(kind, begin):
    made = kind(begin=begin)
    processor = WeftProcessor(made, encoder())
    texts = ["the cat sat on the mat", "What is it?", "<s>the<|im_end|>"]
    for options in (
        {},
        {"truncation": True, "max_length": 4},
        {"padding": "max_length", "max_length": 40},
        {"padding": "max_length", "max_length": 3, "truncation": True},
        {"padding": True, "pad_to_multiple_of": 16},
        {"padding_side": "right"},
        {"add_special_tokens": False},
    ):
        expected = made(texts, return_tensors="pt", **{"padding": True, "padding_side": "left", **options})
        inputs = processor(text=texts, **options)
        assert torch.equal(inputs["input_ids"], expected["input_ids"]), options
        assert torch.equal(inputs["attention_mask"], expected["attention_mask"])
    assert processor(text=texts[0])["input_ids"][0].tolist() == made(texts[0])["input_ids"]
    seen = processor(images=[[PHOTO], [], []], text=texts)
    left = int((seen["attention_mask"][0] == 0).sum())
    assert seen["image_positions"].tolist() == [[left + begin], [-1], [-1]]


def test_form_of_the_tensors_is_the_one_that_was_asked_for():
    processor = WeftProcessor(byte_level(), encoder())
    arrays = processor(images=PHOTO, text="cat", return_tensors="np")
    assert all(isinstance(array, np.ndarray) for array in arrays.values()) and len(arrays) == 4
    assert processor(text="cat", return_tensors=None)["input_ids"] == processor(text="cat")["input_ids"].tolist()
    chat = processor.apply_chat_template(talk("cat"), return_tensors="np", padding="max_length", max_length=50)
    assert chat["input_ids"].shape == (1, 50)
    cut = processor.apply_chat_template(talk("cat", PHOTO), processor_kwargs={"truncation": True, "max_length": 2})
    assert cut["input_ids"].shape == (1, 2) and cut["image_positions"].tolist() == [[2]]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"return_tensors": "tf"}, "return_tensors"),
        ({"padding": "longst"}, "'longest'"),
        ({"padding_side": "lift"}, "'left'"),
        ({"truncation": "only_frst"}, "'only_first'"),
        ({"max_lenght": 3}, "'max_length'"),
        ({"max_length": 0}, "max_length: 0"),
        ({"padding": False}, "no tensor"),
        ({"padding": "max_length"}, "needs a max_length"),
    ],
)
def test_what_the_processor_can_not_do_is_refused(options, said):
    processor = WeftProcessor(byte_level())
    with pytest.raises(WeftError, match=said):
        processor(text=["the cat", "a"], **options)
    with pytest.raises(WeftError, match=said):
        processor.apply_chat_template([talk("the cat"), talk("a")], processor_kwargs=options)
