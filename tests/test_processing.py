"""Chat messages with pictures, as tensors."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from woven import encoder, tokenizer

from weft.errors import DataError
from weft.processing import WeftProcessor

RED, BLUE = Image.new("RGB", (30, 20), "red"), Image.new("RGB", (20, 30), "blue")


@pytest.fixture
def processor():
    return WeftProcessor(tokenizer(), encoder())


def user(*parts):
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part} for part in parts
    ]
    return [{"role": "user", "content": content}]


def test_text_is_what_the_tokenizer_makes_of_messages_without_pictures(processor):
    with_picture = processor.apply_chat_template(user(RED, "What?"), add_generation_prompt=True)
    plain = [{"role": "user", "content": "What?"}]
    expected = tokenizer().apply_chat_template(plain, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    assert torch.equal(with_picture["input_ids"], expected["input_ids"])
    assert processor.apply_chat_template(user(RED, "What?"), tokenize=False) == "u:What?</s>"


def test_picture_is_seen_from_where_it_stands(processor):
    inputs = processor.apply_chat_template(user("ab", RED, "cd", BLUE))
    assert inputs["image_positions"].tolist() == [[4, 6]]  # "u:ab" and "u:abcd" stand before them
    assert inputs["pixel_values"].shape == (2, 3, 24, 24)


def test_batch_is_padded_on_the_left_and_positions_move_along(processor):
    batch = [user("a", RED, "b"), user("abcdef"), user(RED, BLUE, "x")]
    inputs = processor.apply_chat_template(batch, add_generation_prompt=True)
    assert inputs["attention_mask"].sum(1).tolist() == [7, 11, 6]
    assert inputs["image_positions"].tolist() == [[4 + 3, -1], [-1, -1], [5 + 2, 5 + 2]]
    right = processor.apply_chat_template(batch, processor_kwargs={"padding_side": "right"})
    assert right["image_positions"][0].tolist() == [3, -1]


def test_system_prompt_is_for_conversations_that_have_none(processor):
    processor.system_prompt = "S"
    assert processor.apply_chat_template(user("x"), tokenize=False) == "s:S</s>u:x</s>"
    own = [{"role": "system", "content": "T"}, *user("x")]
    assert processor.apply_chat_template(own, tokenize=False) == "s:T</s>u:x</s>"


def test_plain_text_with_pictures_before_it(processor):
    inputs = processor(images=[RED, BLUE], text=["one", "three"])
    assert inputs["image_positions"].tolist() == [[2], [0]]
    assert processor.batch_decode(inputs["input_ids"], skip_special_tokens=True) == ["one", "three"]
    assert "pixel_values" not in processor(text="words")
    with pytest.raises(DataError, match="2 texts"):
        processor(images=[[RED]], text=["a", "b"])


def test_tokenizer_without_a_chat_template_gets_a_plain_one():
    plain = tokenizer()
    plain.chat_template = None
    processor = WeftProcessor(plain, encoder())
    messages = [*user("What?"), {"role": "assistant", "content": "It"}]
    assert processor.apply_chat_template(messages, tokenize=False) == "What?\nIt</s>\n"


@pytest.mark.parametrize("part", [{"type": "video", "video": "x"}, {"type": "image"}])
def test_part_that_can_not_be_rendered_is_refused(processor, part):
    with pytest.raises(DataError, match=part["type"]):
        processor.apply_chat_template([{"role": "user", "content": [part]}])
