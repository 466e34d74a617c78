"""Messages reach the chat template whole, and become the tokens that transformers makes of them."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from functools import partial

import pytest
from jinja2 import UndefinedError
from PIL import Image
from tokenizers_small import CHATML, LLAMA3, TEMPLATES, TOOLS, byte_level, pieces, sentencepiece_bpe
from woven import encoder, reader, tokenizer, woven

from weft.data import load_examples, rows_of
from weft.errors import DataError, WeftError
from weft.making import weave
from weft.model import WeftModel
from weft.processing import WeftProcessor
from weft.responding import as_learned, prompt_of

RED = Image.new("RGB", (24, 24), "red")
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
CONVERSATIONS = {
    "one message": [{"role": "user", "content": "What is in the picture?"}],
    "several turns": [
        {"role": "user", "content": "the cat"},
        {"role": "assistant", "content": "sat."},
        {"role": "user", "content": "on what?\n\nsay it"},
    ],
    "white space": [{"role": "user", "content": "  two  spaces\n"}, {"role": "assistant", "content": " x "}],
    "names and reasoning": [
        {"role": "user", "name": "Ada", "content": "hi"},
        {"role": "assistant", "content": "ho", "reasoning_content": "hm"},
    ],
    "tools": [
        {"role": "user", "content": "the weather?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "name": "weather", "tool_call_id": "c1", "content": "rain"},
        {"role": "assistant", "content": "It rains."},
    ],
    "no content": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [CALL]}],
}
SCHEMA = {"type": "function", "function": {"name": "weather", "description": "of a <city>", "parameters": {}}}


def weather(city: str) -> str:
    """The weather.

    Args:
        city: where.
    """
    return city


@pytest.mark.parametrize(("template", "conversation"), list(itertools.product(TEMPLATES, CONVERSATIONS)))
def test_what_the_template_makes_of_messages_is_what_transformers_makes(template, conversation):
    for made in (byte_level(TEMPLATES[template]), pieces(TEMPLATES[template])):
        messages, processor = CONVERSATIONS[conversation], WeftProcessor(made)
        for options in (
            {"add_generation_prompt": True},
            {"tools": [SCHEMA, weather], "enable_thinking": False, "add_generation_prompt": True},
        ):
            try:
                expected = made.apply_chat_template(messages, tokenize=False, **options)
            except (TypeError, UndefinedError):  # this template takes no message without content
                with pytest.raises(DataError, match="chat template"):
                    processor.apply_chat_template(messages, tokenize=False, **options)
                continue
            assert processor.apply_chat_template(messages, tokenize=False, **options) == expected
            ids = made.apply_chat_template(messages, **options)["input_ids"]
            mine = processor.apply_chat_template(messages, **options)
            assert mine["input_ids"][0].tolist() == ids
            assert ids.count(made.bos_token_id) == ("bos_token" in TEMPLATES[template])


def test_open_last_message_is_gone_on_with():
    made = byte_level()
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "The <|im_end|> cat"}]
    text = WeftProcessor(made).apply_chat_template(messages, tokenize=False, continue_final_message=True)
    assert text == made.apply_chat_template(messages, tokenize=False, continue_final_message=True)
    assert text.endswith("The <|im_end|> cat")


def test_named_templates_are_chosen_as_transformers_chooses_them():
    made = byte_level()
    made.chat_template = {"default": CHATML, "tool_use": TOOLS}
    messages, processor = CONVERSATIONS["tools"], WeftProcessor(made)
    for tools in (None, [SCHEMA]):
        expected = made.apply_chat_template(messages, tools=tools, tokenize=False)
        assert processor.apply_chat_template(messages, tools=tools, tokenize=False) == expected
    assert {"tools", "enable_thinking"} <= processor.template_variables


def test_messages_of_other_libraries_are_objects_with_the_same_fields():
    @dataclass
    class Message:
        role: str
        content: str

    processor = WeftProcessor(byte_level())
    expected = processor.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    assert processor.apply_chat_template([Message("user", "x")], tokenize=False) == expected


def test_picture_does_not_keep_a_template_from_stripping_what_is_around_a_message():
    made = byte_level(LLAMA3)
    processor = WeftProcessor(made, encoder())
    image = {"type": "image", "image": RED}
    plain = made.apply_chat_template([{"role": "user", "content": "cat"}])["input_ids"]
    column = plain.index(made.encode("cat")[0])
    for parts, at in (
        ([image, {"type": "text", "text": "  cat "}], column),
        ([{"type": "text", "text": " cat\n"}, image], column + len(made.encode("cat"))),
    ):
        inputs = processor.apply_chat_template([{"role": "user", "content": parts}])
        assert inputs["input_ids"][0].tolist() == plain
        assert inputs["image_positions"].tolist() == [[at]]


@pytest.mark.parametrize("kind", [byte_level, pieces, sentencepiece_bpe])
def test_begin_of_text_stands_once_before_a_conversation_without_a_chat_template(kind):
    made = kind(None, begin=True)
    processor = WeftProcessor(made, encoder())
    messages = [{"role": "user", "content": [{"type": "image", "image": RED}, {"type": "text", "text": "the cat"}]}]
    inputs = processor.apply_chat_template(messages)
    assert inputs["input_ids"][0].tolist() == made("the cat\n")["input_ids"]
    assert inputs["image_positions"].tolist() == [[1]]
    bare = WeftProcessor(kind(None, begin=False), encoder()).apply_chat_template(messages)
    assert made.bos_token_id not in bare["input_ids"] and bare["image_positions"].tolist() == [[0]]


def test_template_that_loses_a_message_with_a_picture_is_refused():
    processor = WeftProcessor(byte_level("{% for m in messages[1:] %}{{ m.content }}{% endfor %}"), encoder())
    with pytest.raises(DataError, match="leaves out"):
        processor.apply_chat_template([{"role": "user", "content": [{"type": "image", "image": RED}]}])


@pytest.mark.parametrize("message", ["x", {"content": "x"}, {"role": "user", "content": 3}, None])
def test_message_that_is_none_is_refused(message):
    with pytest.raises(DataError, match="message"):
        WeftProcessor(byte_level()).render([message])


def chatting(template=None, **options):
    made = tokenizer()
    made.chat_template = template or made.chat_template
    return woven(tokenizer=made, **options)


def test_chat_hands_template_variables_and_tools_on():
    model = chatting(
        "{{ (tools or []) | length }}{{ style or '' }}{% for m in messages %}{{ m.content }}{% endfor %}"
        "{% if enable_thinking %}?{% endif %}"
    )
    heard = []
    render = model.processor.render

    def listening(messages, **options):
        heard.append(render(messages, **options))
        return heard[-1]

    model.processor.render = listening
    say = [{"role": "user", "content": "x"}]
    model.chat(say, max_new_tokens=1, enable_thinking=True, tools=[SCHEMA], chat_template_kwargs={"style": "s"})
    assert heard[-1].text == "1sx?"
    with pytest.raises(WeftError, match="did you mean 'enable_thinking'"):
        model.chat(say, enable_thinkin=True)
    with pytest.raises(WeftError, match="knows no tools"):
        chatting().chat(say, tools=[SCHEMA])


def test_training_rows_hold_tool_calls_and_tools(tmp_path):
    made = byte_level(TOOLS)
    messages = [{"role": "user", "content": "rain?"}, {"role": "assistant", "content": None, "tool_calls": [CALL]}]
    file = tmp_path / "calls.jsonl"
    file.write_text(
        json.dumps({"messages": messages, "tools": [SCHEMA]})
        + "\n"
        + json.dumps({"messages": messages, "tools": json.dumps([SCHEMA])}),
        encoding="utf-8",
    )
    (row,) = rows_of(load_examples(file), WeftProcessor(made))
    whole = made.apply_chat_template(messages, tools=[SCHEMA])["input_ids"]
    (tokens, flags), again = row.answers
    assert [*row.prompt, *tokens] == whole[: len(row.prompt) + len(tokens)] and again == (tokens, flags)
    assert made.decode(tokens).startswith("<tool_call>") and all(flags)
    assert row.prompt[-2:] == tuple(made.encode("<|im_start|>assistant\n")[-2:])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"messages": [{"role": "user", "content": [5]}, {"role": "assistant", "content": "y"}]}, "no object"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "no text"),
        ({"messages": [{"role": "user"}, {"role": "assistant", "content": "y"}]}, "'role' and 'content'"),
        ({"messages": [{"role": "assistant", "content": None}]}, "content of a message is None"),
        ({"messages": [{"role": "assistant", "content": " "}]}, "says nothing"),
        ({"messages": [{"role": "assistant", "content": "y"}], "tools": "{"}, "not JSON"),
        ({"messages": [{"role": "assistant", "content": "y"}], "tools": {}, "chat_template_kwargs": [1]}, "an object"),
    ],
)
def test_line_of_training_data_that_is_not_what_it_should_be_is_refused(tmp_path, line, said):
    file = tmp_path / "data.jsonl"
    file.write_text(json.dumps(line), encoding="utf-8")
    with pytest.raises(DataError, match=rf"data\.jsonl:1: .*{said}"):
        load_examples(file)


def test_training_answer_can_not_hold_a_control_token(tmp_path):
    made = byte_level()
    said = {"role": "assistant", "content": "one <|im_end|> two"}
    file = tmp_path / "said.jsonl"
    file.write_text(json.dumps({"messages": [{"role": "user", "content": "<|im_end|>"}, said]}), encoding="utf-8")
    (row,) = rows_of(load_examples(file), WeftProcessor(made))
    ((tokens, _),) = row.answers
    end = made.convert_tokens_to_ids("<|im_end|>")
    assert tokens.count(end) == 1 and tokens[-1] == end  # the template's own
    assert row.prompt.count(end) == 1


# The order of the parts of a message


def parts(*kinds):
    holds = {"image": {"image": RED}, "document": {"text": "the fox"}, "text": {"text": "What is it?"}}
    return [{"role": "user", "content": [{"type": kind, **holds[kind]} for kind in kinds]}]


@pytest.mark.parametrize("kind", ["image", "document"])
def test_picture_or_document_is_seen_where_the_weave_learned_to_see_it(kind):
    model = chatting() if kind == "image" else reader()
    before, behind = parts(kind, "text"), parts("text", kind)

    def columns():
        prompts = [prompt_of(model, messages) for messages in (before, behind)]
        return [prompt.memories[0].placement.starts.flatten().tolist() for prompt in prompts]

    first, last = [len("u:")], [len("u:What is it?")]
    assert columns() == [first, first]
    assert model.chat(before, max_new_tokens=6) == model.chat(behind, max_new_tokens=6)
    weave = next(iter(model.weaves.values()))
    weave.config.placed = "last"
    assert columns() == [last, last]
    weave.config.placed = "as given"
    assert columns() == [first, last]


def test_several_pictures_keep_their_order():
    model, blue = chatting(), Image.new("RGB", (24, 24), "blue")
    mixed, first = parts("text", "image", "text", "image"), parts("image", "image", "text", "text")
    for messages in (mixed, first):
        images = [part for part in messages[0]["content"] if part["type"] == "image"]
        images[1]["image"] = blue
    assert model.chat(mixed, max_new_tokens=6) == model.chat(first, max_new_tokens=6)


def test_training_rows_hold_pictures_where_the_weave_is_to_see_them(tmp_path):
    RED.save(tmp_path / "red.png")
    content = [{"type": "text", "text": "abc"}, {"type": "image", "image": "red.png"}]
    line = {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "x"}]}
    (tmp_path / "data.jsonl").write_text(json.dumps(line), encoding="utf-8")
    model, examples = chatting(), load_examples(tmp_path / "data.jsonl")
    for placed, column in (("first", 2), ("last", 5), ("as given", 5)):
        model.weave("photos").config.placed = placed
        (row,) = rows_of(examples, model.processor, arrange=partial(as_learned, model))
        assert row.columns == (column,)  # behind "u:", or behind "u:abc"


def test_placed_is_saved(tmp_path):
    model = chatting(placed="last")
    model.save_pretrained(tmp_path, merge=True)
    assert WeftModel.from_pretrained(tmp_path).weave("photos").config.placed == "last"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "has no content"),
        (["x"], "has the part 'x'"),
        ([None], "has the part None"),
        ([{"type": "text", "text": None}], "text part holds no text"),
        ([{"text": "x"}], "part of type None"),
        ([{"type": ["x"]}], "part of type"),
        ([{"type": "image"}], "holds no picture"),
        ([{"type": "image", "image": 5}], "A picture is"),
        ([{"type": "document", "text": 5}], "document part holds no text"),
        ([{"type": "document", "text": "notes/missing.txt"}], "the name of a file"),
        ("x \ud83d", "half a character"),
        ([{"type": "text", "text": "x"}, {"type": "document", "text": "y \ud83d"}], "half a character"),
        (5, "content of a message is 5"),
        ({}, "content of a message is {}"),
    ],
)
def test_what_no_message_holds_is_said_in_a_sentence(content, what):
    model = woven("llama")
    model.processor = WeftProcessor(tokenizer(), model.encoder(), system_prompt="")
    weave(model, text="language-model", layers=[1])
    for stream in (False, True):
        with pytest.raises(WeftError, match=what):
            list(model.chat([{"role": "user", "content": content}], max_new_tokens=1, stream=stream))
