"""Reading with the question in sight, and texts that stand in the prompt: what is computed, said and cited."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from families import language_model
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
from woven import begin_tokenizer, open_weave, reader, tokenizer

import weft
from weft import heads, leaning
from weft.answering import without_refusing
from weft.conversations import write_objects
from weft.data import Example
from weft.deletion import delete_passages
from weft.errors import DataError, RecipeError, WeftError
from weft.heads import citing_heads, looked_at
from weft.instructions import HEADLINE, QUESTION, SUMMARIES
from weft.knowledge import KnowledgeBase
from weft.leaning import lean, lean_on
from weft.making import weave
from weft.model import WeftModel
from weft.quoting import LONGEST_PROMPT, fits, quote
from weft.reading import cite, prompt_about, read_pieces, say_of
from weft.responding import prompt_of, respond
from weft.text_encoders import Piece, TransformersTextEncoder

FOX = "The fox sat in the snow. It saw a red bird. Then the bird flew away."
TEA = "Tea is drunk hot in the north. In the south it is drunk cold."
OPTIONS = {"max_new_tokens": 6, "beams": 1}


@pytest.fixture
def model():
    base = language_model("llama", max_position_embeddings=4096)
    options = {"layers": [1, 2], "initial": "self-attention", "copy_width": 8, "tokenizer": tokenizer()}
    return open_weave(weave(base, text="language-model", **options).eval(), "reader")


@pytest.fixture
def base(tmp_path):
    (tmp_path / "fox.txt").write_text(FOX)
    (tmp_path / "tea.md").write_text(TEA)
    base = KnowledgeBase(tmp_path)
    base.update()
    return base


def about(*texts, question="Who sat?"):
    content = [{"type": "document", "text": text} for text in texts]
    return [{"role": "user", "content": [*content, {"type": "text", "text": question}]}]


# With the question before each passage


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
@pytest.mark.parametrize("begins", [True, False])
def test_passage_is_encoded_as_it_stands_behind_its_question(family, begins):
    """The memory holds the hidden states of the passage's tokens, and none of the question's."""
    tokens = begin_tokenizer() if begins else tokenizer()
    model = reader(family, tokenizer=tokens)
    asked = [Piece("the cat sat.", question="Who?"), Piece("a dog"), Piece("tea", "tea.md", 7, "Is it hot now?")]
    memory = model.encode_texts(asked)
    begin = [1] if begins else []
    for index, piece in enumerate(asked):
        before = list(map(ord, QUESTION.format(piece.question))) if piece.question else []
        ids = torch.tensor([[*begin, *before, *map(ord, piece.text)]])
        states = language_model(family)(ids, output_hidden_states=True).hidden_states
        expected = torch.cat(states[1:3], -1)[0]
        kept = [*range(len(begin)), *range(len(begin) + len(before), ids.shape[1])]
        own = memory.features[index, : len(kept)]
        torch.testing.assert_close(own, expected[kept], rtol=1e-4, atol=1e-5)
        assert memory.ids[index, : len(kept)].tolist() == [*([-1] * len(begin)), *map(ord, piece.text)]
        source = memory.sources[index]
        assert (source.text, source.name, source.start) == (piece.text, piece.name, piece.start)
        places = [[0, 0]] * len(begin) + [[at, at + 1] for at in range(len(piece.text))]
        assert source.spans.tolist() == places
    real = torch.ones(memory.features.shape[:2], dtype=torch.bool) if memory.mask is None else memory.mask
    assert real.sum(1).tolist() == [len(begin) + len(piece.text) for piece in asked]


@torch.no_grad()
def test_question_and_passage_are_a_pair_of_sentences_for_an_encoder_of_pairs():
    known = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3, "who": 4, "sat": 5, "the": 6, "cat": 7, "a": 8}
    inner = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pair = "[CLS] $A [SEP] $B:1 [SEP]:1"
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=pair, special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    words = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", model_max_length=32)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    bert = BertModel(BertConfig(vocab_size=9, max_position_embeddings=32, **sizes)).eval()
    memory = TransformersTextEncoder(bert, words).encode([Piece("the cat sat", question="who sat"), Piece("a cat")])
    told = bert(**words("who sat", "the cat sat", return_token_type_ids=True, return_tensors="pt")).last_hidden_state[0]
    torch.testing.assert_close(memory.features[0], told[[0, 4, 5, 6, 7]], rtol=1e-4, atol=1e-5)
    assert memory.sources[0].spans.tolist() == [[0, 0], [0, 3], [4, 7], [8, 11], [0, 0]]
    alone = bert(**words("a cat", return_tensors="pt")).last_hidden_state[0]
    torch.testing.assert_close(memory.features[1, :4], alone, rtol=1e-4, atol=1e-5)


def test_question_takes_its_room_from_the_passage_and_no_more_than_half():
    encoder = reader("llama").encoder()
    assert encoder.longest == 128
    question = "".join(map(chr, range(40, 120))) * 3
    before = encoder.before(question)
    assert before == list(map(ord, QUESTION.format(question[-64:])))
    ids, _ = encoder.tokenize("x" * 500, question)
    assert len(before) + len(ids) == 128
    text = "One is here. Two is there. " * 20
    room = 128 - len(before) - 1
    assert max(len(piece.text) for piece in encoder.cut(text)) > room
    cut = encoder.cut(text, question=question)
    assert max(len(piece.text) for piece in cut) <= room
    assert {piece.question for piece in cut} == {question}
    assert all(text[piece.start :].startswith(piece.text) for piece in cut)


@torch.no_grad()
def test_what_is_read_for_one_question_is_kept_for_that_question(model):
    once, cache = model.read_texts([FOX]), model.memory_cache
    first = model.read_texts([Piece(FOX, question="Who sat?")])
    other = model.read_texts([Piece(FOX, question="What flew?")])
    assert (cache.hits, cache.misses) == (0, 3)
    keys = [read.layers[0].keys for read in (once, first, other)]
    assert not torch.allclose(keys[0], keys[1]) and not torch.allclose(keys[1], keys[2])
    again = model.read_texts([Piece(FOX, "another", question="Who sat?")])
    assert (cache.hits, cache.misses) == (1, 3) and again.sources[0].name == "another"
    assert torch.equal(again.layers[0].keys, keys[1])


def test_careful_answer_is_that_of_passages_read_with_the_question(model, base, monkeypatch):
    question = "Where is tea drunk?"
    said = model.answer(question, base, reading="careful", **OPTIONS)
    found = base.search(question)
    read = model.read_texts([Piece(one.text, question=question) for one in found])
    prompt, held = prompt_about(model, question, range(len(read)))
    banned = without_refusing(model)
    (expected,) = respond(model, read, [prompt], [held], beams=1, longest=6, **banned)
    assert (said.text, said.reading) == (expected.text, "careful")
    assert said.log_probability == pytest.approx(expected.log_probability, abs=1e-4)
    assert said.log_probability != pytest.approx(model.answer(question, base, **OPTIONS).log_probability, abs=1e-4)
    assert said.citations == cite(found, lean(model, read, held, prompt, expected.tokens))
    kept = model.answer(question, base, reading="careful", keep=True, **OPTIONS)
    monkeypatch.setattr(type(model), "encode_texts", lambda *a, **k: pytest.fail("a passage was read twice"))
    assert model.answer(question, base, reading="careful", keep=True, **OPTIONS).text == kept.text == said.text


def test_instruction_is_the_question_of_titles_and_summaries(model):
    pieces = [Piece(FOX)]
    for say, instruction in ((model.title_text, HEADLINE), (model.summarize, SUMMARIES["medium"])):
        said = say(FOX, reading="careful", **OPTIONS)
        read = read_pieces(model, pieces, instruction)
        assert said.text == say_of(model, read, instruction, 1, 6, leans=False)[0].text


def test_documents_of_a_conversation_are_read_in_the_sight_of_its_last_message(model):
    messages = [*about(FOX), {"role": "assistant", "content": "A fox."}, {"role": "user", "content": "Where?"}]
    (placed,) = prompt_of(model, messages, mode="careful").memories
    expected = model.read_texts([Piece(FOX, question="Where?")])
    torch.testing.assert_close(placed.layers[0].keys, expected.layers[0].keys)


# In the prompt


@torch.no_grad()
def test_words_are_the_bare_language_models_own(model, base):
    model.processor.system_prompt = "You help."
    question = "Where is tea drunk?"
    found = base.search(question)
    said = model.answer(question, base, reading="prompt", **OPTIONS)
    asked = "\n\n".join([*(one.text for one in found), question])
    text = model.processor.tokenizer.apply_chat_template(
        [{"role": "user", "content": asked}], tokenize=False, add_generation_prompt=True
    )
    ids = torch.tensor([model.processor.tokenizer(text, add_special_tokens=False)["input_ids"]])
    out = model.language_model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False)
    assert said.text == model.processor.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip()
    assert (said.confident, said.confidence, said.reading) == (True, None, "prompt")
    assert {one.source for one in said.citations} == {"fox.txt", "tea.md"} & {one.source for one in found}
    for one in said.citations:
        document = (base.folder / one.source).read_text()
        assert document[slice(*one.span)] == one.text and document[slice(*one.quote_span)] == one.quote
    assert sum(one.weight for one in said.citations) == pytest.approx(1, abs=1e-5)


def test_prompt_knows_where_its_passages_stand(model):
    pieces = [Piece(FOX, "fox.txt", 10), Piece(TEA, "tea.md")]
    prompt = quote(model, pieces, "Who sat?")
    assert model.processor.decode(list(prompt.tokens)).startswith(f"u:{FOX}\n\n{TEA}\n\nWho sat?")
    for first, (source, owner), piece in zip(prompt.quoted, prompt.sources[0], pieces, strict=True):
        tokens = prompt.tokens[first : first + len(source.spans)]
        assert model.processor.decode(list(tokens)) == piece.text == source.text == pieces[owner].text
        assert (source.name, source.start) == (piece.name, piece.start)
        assert source.spans.tolist() == [[at, at + 1] for at in range(len(piece.text))]


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
def test_attention_is_what_transformers_tells_of_the_whole_text(family, monkeypatch):
    """Asked in pieces behind a cache, of some heads; layers that slide over the text included."""
    monkeypatch.setattr(heads, "AT_ONCE", 4)
    model = reader(family)
    tokens = torch.randint(3, 126, (30,)).tolist()
    whole = language_model(family)
    whole.set_attn_implementation("eager")
    told = torch.stack(whole(torch.tensor([tokens]), output_attentions=True).attentions)[:, 0]
    usual = model.language_model.config._attn_implementation
    for first in (0, 19):
        some = looked_at(model, tokens, first, [[1, 2], [2, 0]])
        torch.testing.assert_close(some, (told[1, 2] + told[2, 0])[first:] / 2, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(looked_at(model, tokens, first), told.mean((0, 1))[first:], rtol=1e-3, atol=1e-5)
    assert model.language_model.config._attn_implementation == usual


@pytest.mark.parametrize("family", ["mamba", "falcon"])
def test_language_model_without_attention_that_it_could_tell_says_so(family):
    """Falcon has some, but none that can be told from its fused kernel, and no other while it runs."""
    with pytest.raises(WeftError, match="tells no attention"):
        looked_at(reader(family), [5, 6, 7], 1)


def attends(monkeypatch, looks):
    """Let tokens look where ``looks`` says: given the number of a token, the token that it looks at."""

    def looked(model, tokens, first, chosen):
        found = torch.zeros(len(tokens) - first, len(tokens))
        for row in range(len(found)):
            found[row, looks(first + row)] = 1
        return found

    monkeypatch.setattr(leaning, "looked_at", looked)


def test_sentence_that_is_looked_at_is_cited_first(model, base, monkeypatch):
    found = base.search("tea fox bird")
    prompt = quote(model, [Piece(one.text) for one in found], "tea fox bird")
    which = next(index for index, one in enumerate(found) if one.source == "tea.md")
    attends(monkeypatch, lambda _: prompt.quoted[which] + TEA.index("cold"))
    said = model.answer("tea fox bird", base, reading="prompt", **OPTIONS)
    assert [(one.source, one.weight) for one in said.citations] == [("tea.md", 1.0), ("fox.txt", 0.0)]
    assert said.citations[0].quote == "In the south it is drunk cold."


def test_half_of_a_citation_is_the_words_and_half_the_questions(model, monkeypatch):
    prompt = quote(model, [Piece(FOX), Piece(TEA)], "Who?")
    answer = model.processor.tokenizer("red", add_special_tokens=False)["input_ids"]
    first, second = prompt.quoted
    attends(monkeypatch, lambda at: first if at >= len(prompt.tokens) else second)
    (found,) = lean_on(model, prompt, answer)
    assert [item.shape for item in found.items] == [(3, len(FOX)), (3, len(TEA))]
    assert found.shares.tolist() == pytest.approx([0.5, 0.5])
    assert found.items[0][:, 0].tolist() == pytest.approx([0.5] * 3)
    np.testing.assert_allclose(sum(item.sum(1) for item in found.items), 1)


def test_head_that_finds_the_document_is_found(model, monkeypatch):
    """Of three layers with four heads one looks at the document that holds the answer."""
    examples = [
        Example(
            (*messages, {"role": "assistant", "content": "x"}),
            (),
            "here",
            supporting,
        )
        for messages, supporting in (
            (about_documents_named(("a", FOX), ("b", TEA)), ("b",)),
            (about_documents_named(("a", TEA), ("b", FOX)), ("a",)),
            (about_documents_named(("a", TEA)), ("a",)),
        )
    ]
    asked = []

    def attention(model, tokens, first):
        asked.append(first)
        place = model.processor.decode(list(tokens)).index(TEA)
        told = torch.full((3, 4, len(tokens) - first, len(tokens)), 0.01)
        told[1, 2, :, place] = 1
        told[2, 0, :, place] = 0.5
        yield list(told)

    monkeypatch.setattr(heads, "_attention", attention)
    assert citing_heads(model, examples, 2) == [[1, 2], [2, 0]]
    assert len(asked) == 2
    with pytest.raises(DataError, match="several documents"):
        citing_heads(model, examples[2:])


def about_documents_named(*documents, question="Which?"):
    content = [{"type": "document", "id": id, "text": text} for id, text in documents]
    return [{"role": "user", "content": [*content, {"type": "text", "text": question}]}]


def test_title_and_summary_in_the_prompt_know_what_they_leaned_on(model):
    for say, instruction in ((model.title_text, HEADLINE), (model.summarize, SUMMARIES["medium"])):
        said = say(FOX, reading="prompt", explain=True, **OPTIONS)
        tokens = quote(model, [Piece(FOX)], instruction).tokens
        banned = without_refusing(model)
        (expected,) = respond(model, None, [tokens], [[]], beams=1, longest=6, **banned)
        assert (said.text, said.reading) == (expected.text, "prompt")
        assert sum(share for _, share in said.sentences()) == pytest.approx(1, abs=0.05)
        assert {FOX[slice(*span)] for span, _ in said.sentences()} == {one + "." for one in FOX[:-1].split(". ")}


def test_conversation_holds_its_documents_where_they_were_given(model):
    messages = [*about(FOX), {"role": "assistant", "content": "A fox."}, *about(TEA, question="Where?")]
    prompt = prompt_of(model, messages, mode="prompt")
    text = model.processor.decode(list(prompt.tokens))
    assert text == f"u:{FOX}\n\nWho sat?</s>a:A fox.</s>u:{TEA}\n\nWhere?</s>a:"
    assert not prompt.memories and [owner for _, owner in prompt.sources[0]] == [0, 1]
    said = model.chat(messages, reading="prompt", max_new_tokens=5)
    assert said["content"] == respond(model, None, [prompt.tokens], [[]], beams=1, longest=5)[0].text


def test_deleting_a_passage_from_the_prompt_is_scored_like_never_having_had_it(model, base):
    said = model.answer("fox bird tea", base, reading="prompt", **OPTIONS)
    found = delete_passages(model, said)
    tokens = model.processor.tokenizer(said.text, add_special_tokens=False)["input_ids"]
    pieces = [Piece(one.text) for one in said.citations]

    def chance(kept):
        prompt = list(quote(model, kept, said.question).tokens)
        logits = model.language_model(torch.tensor([[*prompt, *tokens]])).logits[0].log_softmax(-1)
        return sum(float(logits[len(prompt) - 1 + n, t]) for n, t in enumerate(tokens))

    assert found.drops[0] == pytest.approx(chance(pieces) - chance(pieces[1:]), abs=1e-3)


# Which way is taken


def test_weave_says_how_texts_are_read_for_each_task_unless_somebody_does(model, tmp_path):
    for task in ("answer", "title", "summary"):
        assert model.weave("reader").config.reading_of(task) == "once"
    for config in (model.weave("reader").config.__dict__, model.config.weaves["reader"]):
        config |= {"reading": "careful", "reading_by_task": {"title": "prompt"}, "citing_heads": [[1, 2]]}
    assert model.title_text(FOX, **OPTIONS).reading == "prompt"
    assert model.title_text(FOX, reading="once", **OPTIONS).reading == "once"
    assert model.summarize(FOX, **OPTIONS).reading == "careful"
    model.save_pretrained(tmp_path, merge=True)
    loaded = WeftModel.from_pretrained(tmp_path).weave("reader").config
    assert replace(loaded, encoder={}) == replace(model.weave("reader").config, encoder={})
    with pytest.raises(WeftError, match="choose once, careful, prompt"):
        model.title_text(FOX, reading="twice")


def test_text_too_long_for_the_prompt_is_read_as_a_memory_unless_somebody_insists(model):
    text = "The fox sat in the snow. " * 90  # 2,250 of 4,096 tokens
    model.weave("reader").config.reading_by_task = {"title": "prompt", "answer": "prompt"}
    assert model.title_text(text, **OPTIONS).reading == "once"
    assert model.title_text(text, reading="prompt", **OPTIONS).reading == "prompt"
    assert prompt_of(model, about(text)).memories and not prompt_of(model, about(text)).quoted
    assert prompt_of(model, about(text), mode="prompt").quoted
    with pytest.raises(WeftError, match=r"takes 4090 at most.*reading=\"once\""):
        model.answer("Who?", [text * 2], reading="prompt", **OPTIONS)
    with pytest.raises(WeftError, match="at most"):
        model.chat(about(text * 2), reading="prompt", max_new_tokens=6)


def test_long_prompts_are_for_those_who_insist(model):
    model.config.get_text_config(decoder=True).max_position_embeddings = 10 * LONGEST_PROMPT
    prompts = [quote(model, [Piece("x" * length)], "Who?") for length in (LONGEST_PROMPT - 100, LONGEST_PROMPT)]
    assert [fits(model, one, 10, insisted=False) for one in prompts] == [True, False]
    assert fits(model, prompts[1], 10, insisted=True)


def test_figures_of_the_prompt_are_those_of_the_bare_model(model, tmp_path):
    lines = []
    for right, question in (("a", "Who sat?"), ("b", "Where is tea drunk?")):
        said = {"role": "assistant", "content": "fox"}
        held = about_documents_named(("a", FOX), ("b", TEA), question=question)
        lines.append({"messages": [*held, said], "supporting": [right]})
    write_objects(tmp_path / "dev.jsonl", lines)
    say = {"task": "answer", "beams": 1, "max_new_tokens": 5}
    plain = weft.evaluate(model, tmp_path / "dev.jsonl", controls=True, **say)
    found = weft.evaluate(model, tmp_path / "dev.jsonl", reading="prompt", **say)
    assert (plain["reading"], found["reading"]) == ("once", "prompt")
    for name in ("rouge_1", "rouge_l", "f1"):
        assert found[name] == plain[f"bare_{name}"]
    assert 0 <= found["top_citation"] <= 1
    careful = weft.evaluate(model, tmp_path / "dev.jsonl", reading="careful", **say, output=tmp_path / "said.jsonl")
    (first, _) = [json.loads(line) for line in (tmp_path / "said.jsonl").read_text().splitlines()]
    assert (
        first["prediction"] == model.answer("Who sat?", [FOX, TEA], reading="careful", beams=1, max_new_tokens=5).text
    )
    assert careful["reading"] == "careful"


def test_recipe_that_can_not_read_so_is_refused():
    with pytest.raises(RecipeError, match="way to read texts"):
        weft.Recipe(data="a.jsonl", output="b", reading="careful")
    with pytest.raises(RecipeError, match="shard"):
        weft.Recipe(data="a.jsonl", output="b", text="language-model", shard=True, store_features=False)
