"""Answers with citations, titles and summaries, from small woven models of random weights."""

from __future__ import annotations

import math
import re

import pytest
import torch
from devices import DEVICE
from families import language_model
from woven import open_weave, tokenizer

import weft
from weft.answering import without_refusing
from weft.deletion import delete_passages
from weft.errors import DataError, WeftError
from weft.instructions import HEADLINE, NOT_SAID, SUMMARIES
from weft.knowledge import KnowledgeBase
from weft.leaning import lean
from weft.making import weave
from weft.marking import marked
from weft.memory import Placement
from weft.passages import sentences
from weft.reading import document, evenly, prompt_about, say_of
from weft.responding import respond
from weft.text_encoders import Piece

STORY = "The fox sat in the snow. It saw a bird. The bird was red and sang of summer. Then it flew away over the hill."


@pytest.fixture
def model():
    base = language_model("llama", max_position_embeddings=4096)
    options = {"layers": [1, 2], "initial": "self-attention", "copy_width": 8, "tokenizer": tokenizer()}
    return open_weave(weave(base, text="language-model", **options).eval(), "reader")


@pytest.fixture
def base(tmp_path):
    (tmp_path / "fox.txt").write_text(STORY)
    (tmp_path / "tea.md").write_text("Tea is drunk hot in the north. In the south it is drunk cold.")
    base = KnowledgeBase(tmp_path)
    base.update()
    return base


def test_answer_cites_what_was_read_and_where_it_stands(model, base):
    said = model.answer("Where is tea drunk cold?", base, max_new_tokens=8, beams=1)
    assert said.confident and said.citations
    assert sum(one.weight for one in said.citations) == pytest.approx(1, abs=1e-5)
    assert [one.weight for one in said.citations] == sorted((one.weight for one in said.citations), reverse=True)
    for one in said.citations:
        text = (base.folder / one.source).read_text()
        assert text[slice(*one.span)] == one.text
        assert text[slice(*one.quote_span)] == one.quote
        assert one.quote_span in sentences(text)


def test_folder_and_texts_serve_as_knowledge(model, base):
    options = {"max_new_tokens": 6, "beams": 1}
    assert model.answer("tea cold", base.folder, **options) == model.answer("tea cold", base, **options)
    said = model.answer("Who sat?", [STORY, "Tea is hot."], **options)
    assert {one.source for one in said.citations} == {"text 1", "text 2"}


def test_nothing_found_is_said_without_generating(model, base, monkeypatch):
    monkeypatch.setattr(model, "generate", lambda *a, **k: pytest.fail("there is nothing to read"))
    said = model.answer("xylophone quartz", base)
    assert (said.text, said.confident, said.citations) == (NOT_SAID, False, ())


def test_answer_that_is_not_said_cites_nothing(model, base, monkeypatch):
    monkeypatch.setattr(type(model.processor), "decode", lambda *a, **k: NOT_SAID)
    said = model.answer("tea", base, max_new_tokens=3, beams=1)
    assert (said.text, said.confident, said.citations) == (NOT_SAID, False, ())


def test_refuses_from_the_weaves_threshold_on_and_never_by_chance(model, base, monkeypatch):
    """Which of the two it is depends on the probability of refusing alone, and an answer does not begin like it."""
    chances = iter([0.6, 0.4, 0.4])
    monkeypatch.setattr("weft.answering.score", lambda *a: torch.tensor([[next(chances)]]).log())
    refused = model.answer("tea", base, max_new_tokens=4, beams=1)
    answered = model.answer("tea", base, max_new_tokens=4, beams=1)
    assert (refused.text, refused.confident, refused.confidence) == (NOT_SAID, False, pytest.approx(0.4))
    assert answered.confident and answered.confidence == pytest.approx(0.6)
    model.weave("reader").config.refuses_at = 0.3
    assert not model.answer("tea", base, max_new_tokens=4, beams=1).confident


def test_refusal_is_shut_out_with_its_space_and_without(model):
    """A model that may not say the words as they are would turn to the same words without the space."""
    usual, unspaced = map(model.processor.decode, without_refusing(model)["bad_words_ids"])
    assert NOT_SAID.startswith(usual) and unspaced == "Thetext"


def test_chance_of_refusing_is_that_of_the_sentence(model, base):
    said = model.answer("Where is tea drunk?", base, max_new_tokens=2, beams=1)
    found = base.search("Where is tea drunk?")
    read = model.read_texts([one.text for one in found])
    prompt, held = prompt_about(model, "Where is tea drunk?", range(len(read)))
    refusal = model.processor.tokenizer(NOT_SAID, add_special_tokens=False)["input_ids"]
    placed = model.place(read, Placement.of([held]))
    ids = torch.tensor([[*prompt, *refusal]], device=DEVICE)
    logits = model(input_ids=ids, memories=[placed], use_cache=False).logits[0]
    chance = math.exp(sum(float(logits[len(prompt) - 1 + n].log_softmax(-1)[t]) for n, t in enumerate(refusal)))
    assert said.confidence == pytest.approx(1 - chance, abs=1e-6)


def test_what_was_read_is_kept_and_gives_the_same_answer(model, base, monkeypatch):
    options = {"max_new_tokens": 6, "beams": 1}
    plain = model.answer("fox bird tea", base, **options)
    assert model.answer("fox bird tea", base, keep=True, **options) == plain
    monkeypatch.setattr(type(model), "encode_texts", lambda *a, **k: pytest.fail("a passage was read twice"))
    again = model.answer("fox bird tea", base, keep=True, **options)
    assert again.text == plain.text
    assert [one.source for one in again.citations] == [one.source for one in plain.citations]


def test_what_another_weave_read_is_not_taken(model, base):
    model.answer("fox", base, keep=True, max_new_tokens=2, beams=1)
    kept = set(base.memories.folder.rglob("*.safetensors"))
    with torch.no_grad():
        model.weave("reader").fusion(0).k_proj.weight.add_(1)
    model.answer("fox", base, keep=True, max_new_tokens=2, beams=1)
    assert len(set(base.memories.folder.rglob("*.safetensors"))) == 2 * len(kept)


def test_corrupt_kept_memory_is_read_anew(model, base):
    options = {"keep": True, "max_new_tokens": 4, "beams": 1}
    plain = model.answer("fox", base, **options)
    for file in base.memories.folder.rglob("*.safetensors"):
        file.write_bytes(b"broken")
    assert model.answer("fox", base, **options) == plain


@pytest.mark.parametrize("question", ["", "  \n"])
def test_empty_question_is_refused(model, base, question):
    with pytest.raises(DataError, match="empty"):
        model.answer(question, base)


def test_question_longer_than_the_language_model_takes_is_refused(model, base):
    with pytest.raises(WeftError, match=r"takes .* at most"):
        model.answer("fox " * 10_000, base)


def test_folder_that_was_not_indexed_names_the_command(model, tmp_path):
    with pytest.raises(WeftError, match="weft index"):
        model.answer("fox", tmp_path)


def test_weights_of_words_are_the_copy_gates_own(model):
    """Against the distribution computed by hand for one place."""
    read = model.read_texts([STORY, "Tea."])
    prompt, held = prompt_about(model, "Who?", range(2))
    answer = model.processor.tokenizer("red", add_special_tokens=False)["input_ids"]
    leaning = lean(model, read, held, prompt, answer)
    assert [weights.shape for weights in leaning.items] == [(3, len(STORY) + 0), (3, 4)] or leaning.items[0].shape[
        0
    ] == 3
    torch.testing.assert_close(torch.tensor(sum(w.sum(1) for w in leaning.items)), torch.ones(3), atol=1e-5, rtol=0)
    assert leaning.shares.sum() == pytest.approx(1)
    placed = model.place(read, Placement.of([held]))
    states = []
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda _, args: states.append(args[0]))
    model(input_ids=torch.tensor([[*prompt, *answer]], device=DEVICE), memories=[placed], use_cache=False)
    hook.remove()
    gate = model.weave("reader").copy_gate
    query = gate.q_proj(gate.hidden_norm(states[0]))[0, len(prompt) - 1]
    for item, weights in enumerate(leaning.items):
        keys = read.copying.keys[item][: weights.shape[1]]
        scores = keys @ query / query.shape[0] ** 0.5
        ratio = (scores[1] - scores[0]).exp()
        assert weights[0, 1] / weights[0, 0] == pytest.approx(ratio.item(), rel=1e-3)


def test_weave_that_does_not_copy_leans_on_its_attention(model):
    base = language_model("llama")
    plain = open_weave(weave(base, text="language-model", layers=[1], tokenizer=tokenizer()).eval(), "reader")
    read = plain.read_texts([STORY])
    prompt, held = prompt_about(plain, "Who?", [0])
    leaning = lean(plain, read, held, prompt, [50, 51])
    assert leaning.items[0].shape[0] == 2 and leaning.items[0].min() >= 0 and leaning.shares.tolist() == [1.0]


def test_deleting_a_passage_is_scored_like_never_having_read_it(model, base):
    said = model.answer("fox bird tea", base, max_new_tokens=5, beams=1)
    found = delete_passages(model, said)
    assert found == weft.faithfulness(model, said)
    texts = [one.text for one in said.citations]
    assert len(found.drops) == len(texts) == 2

    def chance(kept):
        read = model.read_texts(kept)
        prompt, held = prompt_about(model, said.question, range(len(kept)))
        answer = model.processor.tokenizer(said.text, add_special_tokens=False)["input_ids"]
        placed = model.place(read, Placement.of([held]))
        ids = torch.tensor([[*prompt, *answer]], device=DEVICE)
        logits = model(input_ids=ids, memories=[placed], use_cache=False).logits
        return sum(float(logits[0, len(prompt) - 1 + n].log_softmax(-1)[t]) for n, t in enumerate(answer))

    assert found.drops[0] == pytest.approx(chance(texts) - chance(texts[1:]), abs=1e-3)
    assert found.gain == pytest.approx(found.drops[0] - found.drops[1])
    with pytest.raises(WeftError, match="cites no passages"):
        delete_passages(model, model.answer("xylophone", base))


@pytest.mark.parametrize("length", list(SUMMARIES))
def test_summary_follows_its_instruction(model, length):
    said = model.summarize(STORY, length=length, max_new_tokens=6)
    expected, _ = say_of(model, model.read_texts([STORY]), SUMMARIES[length], 1, 6, leans=False)
    assert said.text == expected.text and said.read == (1, 1)


def test_title_of_a_text_and_of_a_documents_file(model, tmp_path):
    path = tmp_path / "story.txt"
    path.write_text(STORY)
    expected, _ = say_of(model, model.read_texts([STORY]), HEADLINE, 3, 6, leans=False)
    for given in (STORY, path, str(path)):
        assert model.title(given, max_new_tokens=6).text == expected.text


def test_long_text_is_read_up_to_the_bound(model, monkeypatch):
    text = " ".join(f"Sentence number {index} is about thing {index}." for index in range(500))
    every = model.encoder("reader").cut(text)
    read = []
    encode = type(model).encode_texts
    monkeypatch.setattr(
        type(model), "encode_texts", lambda self, some, name=None: read.extend(some) or encode(self, some, name)
    )
    said = model.summarize(text, bound=3, max_new_tokens=2)
    assert said.read == (3, len(every))
    assert [piece.start for piece in read] == [every[0].start, every[len(every) // 2].start, every[-1].start]


def test_evenly_chosen_passages_are_as_many_as_the_bound_and_keep_both_ends():
    some = [Piece(str(index)) for index in range(10)]
    for bound in range(2, 12):
        chosen = evenly(some, bound)
        assert len(chosen) == len(set(chosen)) == min(bound, 10)
        assert chosen[0].text == "0" and chosen[-1].text == "9"
    assert evenly(some, 1) == some[:1]
    with pytest.raises(DataError, match="at least 1"):
        evenly(some, 0)


def test_marked_page_holds_the_whole_text_and_escapes_it(model):
    text = "A <b>fox</b> & a bird. " + STORY
    said = model.summarize(text, explain=True, max_new_tokens=6)
    assert sum(share for _, share in said.sentences()) == pytest.approx(1, abs=0.05)
    page = marked(said)
    body = re.sub(r"</?mark[^>]*>", "", page.split('<div class="text">')[1].split("</div>")[0])
    assert body == text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert "<mark" in page
    with pytest.raises(WeftError, match="explain=True"):
        marked(model.summarize(text, max_new_tokens=2))


@pytest.mark.parametrize("text", ["", " \n "])
def test_empty_text_is_refused(model, text):
    with pytest.raises(DataError, match="holds no text"):
        model.summarize(text)
    with pytest.raises(DataError, match="no length"):
        model.summarize(STORY, length="endless")


def test_missing_document_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.txt"):
        document(tmp_path / "gone.txt")


def test_prompts_of_several_lengths_are_answered_as_each_alone(model):
    read = model.read_texts([STORY, "Tea is drunk hot."])
    asked = [
        prompt_about(model, question, [item]) for question, item in (("Who?", 0), ("What is drunk in the north?", 1))
    ]
    prompts, held = [prompt for prompt, _ in asked], [items for _, items in asked]
    both = respond(model, read, prompts, held, beams=2, longest=6)
    for index in range(2):
        (alone,) = respond(model, read, [prompts[index]], [held[index]], beams=2, longest=6)
        assert both[index].text == alone.text
        assert both[index].log_probability == pytest.approx(alone.log_probability, abs=1e-3)


def test_chat_goes_on_with_what_was_said(model):
    content = [{"type": "document", "text": STORY}, {"type": "text", "text": "Who sat?"}]
    messages = [{"role": "user", "content": content}]
    reply = model.chat(messages, max_new_tokens=4)
    assert reply["role"] == "assistant"
    messages += [reply, {"role": "user", "content": "Where?"}]
    assert model.chat(messages, max_new_tokens=4)["content"] is not None
    with pytest.raises(DataError, match="must be the user's"):
        model.chat(messages[:2])
