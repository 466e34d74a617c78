"""Text encoders against the models they stand on: what transformers computes of each passage alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from families import language_model
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BartConfig,
    BartModel,
    BertConfig,
    BertModel,
    ByT5Tokenizer,
    ModernBertConfig,
    ModernBertModel,
    MPNetConfig,
    MPNetModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
)
from woven import begin_tokenizer, encoder, open_weave, reader, tokenizer

import weft.text_encoders
from weft.errors import PartError, WeftError
from weft.making import weave
from weft.memory import Placement
from weft.model import WeftModel
from weft.text_encoders import Piece, TransformersTextEncoder, batches, load_text_encoder, pieces

TEXTS = ["the cat sat.", "a dog", "zebras eat dry grass all day long", "x", "the cat sat."]
WORDS = ["the", "a", "cat", "dog", "sat", "ran", "mat", "big", "red", "zebra", "grass", "eats", "on", ",", "."]
LONG = "the big red cat sat on a mat . " * 20
SIZES = {
    "vocab_size": 24,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}
SPECIAL = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "cls_token_id": 0, "sep_token_id": 2}
T5 = {"vocab_size": 24, "d_model": 32, "num_layers": 2, "num_heads": 4, "d_ff": 64, "d_kv": 8}
BART = {
    "vocab_size": 24,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 40,
}
MINILM = {**SIZES, "hidden_size": 24, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 96}
KINDS = {
    "bert": lambda: BertModel(BertConfig(**SIZES)),
    "minilm": lambda: BertModel(BertConfig(**MINILM)),
    "roberta": lambda: RobertaModel(RobertaConfig(**SIZES, pad_token_id=1)),
    "mpnet": lambda: MPNetModel(MPNetConfig(**SIZES, pad_token_id=1)),
    "modernbert": lambda: ModernBertModel(ModernBertConfig(**SIZES, **SPECIAL)),
    "t5": lambda: T5ForConditionalGeneration(T5Config(**T5)),
    "t5-encoder": lambda: T5EncoderModel(T5Config(**T5)),
    "bart": lambda: BartModel(BartConfig(**BART)),
}
"""Small encoders of real classes, built at random."""


def words(longest: int = 1000) -> PreTrainedTokenizerFast:
    """One token a word, between a token that begins and one that ends a text."""
    known = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3} | {word: at for at, word in enumerate(WORDS, 4)}
    inner = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        cls_token="<s>",
        sep_token="</s>",
        model_max_length=longest,
    )


def saved(kind: str, folder, longest: int = 1000):
    """The folder of an encoder as its makers would publish it."""
    torch.manual_seed(0)
    KINDS[kind]().eval().save_pretrained(folder)
    words(longest).save_pretrained(folder)
    return folder


def assert_near(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


# The language model itself


@torch.no_grad()
@pytest.mark.parametrize("chosen", [[1], [0, 2], [0, 1, 2]])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
def test_features_are_the_language_models_hidden_states_of_the_passage_alone(family, chosen):
    model = reader(family, layers=chosen)
    memory = model.encode_texts(TEXTS)
    bare = language_model(family)
    for index, text in enumerate(TEXTS):
        ids = torch.tensor([[1, *map(ord, text)]])  # the token that begins every passage, and its characters
        states = bare(ids, output_hidden_states=True).hidden_states
        expected = torch.cat([states[layer] for layer in chosen], -1)[0]
        assert_near(memory.features[index, : ids.shape[1]], expected)
        assert memory.mask[index].sum() == ids.shape[1]
        assert not memory.features[index, ids.shape[1] :].any()
        assert memory.ids[index].tolist() == [-1, *map(ord, text)] + [-1] * (memory.ids.shape[1] - ids.shape[1])


@torch.no_grad()
def test_language_model_without_a_begin_token_reads_the_passage_as_it_is():
    model = reader("llama", tokenizer=tokenizer())
    memory = model.encode_texts(["abc"])
    states = language_model("llama")(torch.tensor([[97, 98, 99]]), output_hidden_states=True).hidden_states
    assert_near(memory.features[0], torch.cat(states[1:3], -1)[0])
    assert memory.mask is None
    assert memory.ids.tolist() == [[97, 98, 99]]


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
def test_batching_by_length_does_not_change_features(family, monkeypatch):
    model = reader(family)
    together = model.encode_texts(TEXTS)
    monkeypatch.setattr(weft.text_encoders, "TOKENS_AT_ONCE", 20)
    batched = model.encode_texts(TEXTS)
    assert_near(batched.features, together.features)
    assert batched.key == together.key
    for index, text in enumerate(TEXTS):
        alone = model.encode_texts([text])
        assert alone.mask is None
        assert_near(together.features[index, : alone.features.shape[1]], alone.features[0])
    assert_near(together.features[0], together.features[4])


@settings(deadline=None)
@given(lengths=st.lists(st.integers(0, 5000), max_size=60))
def test_batches_hold_each_passage_once_and_no_more_tokens_than_allowed(lengths):
    found = list(batches(lengths))
    assert sorted(index for batch in found for index in batch) == list(range(len(lengths)))
    for batch in found:
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= 4096


def test_tokens_of_a_passage_know_their_words():
    text, expected = "the  cat,\nsat on a mat.", ["", "the", "cat", ",", "sat", "on", "a", "mat", "."]
    made = weave(language_model("llama"), text="language-model", tokenizer=words()).encoder()
    memory = made.encode([Piece(text, "tale.txt", 40)])
    (source,) = memory.sources
    assert (source.text, source.name, source.start) == (text, "tale.txt", 40)
    assert [text[begin:end] for begin, end in source.spans] == expected
    assert len(source.spans) == memory.features.shape[1]


def test_special_tokens_of_a_passage_can_not_be_copied():
    made = reader("llama").encoder()
    assert made.ids([[1, 97, 2, 0], [98]]).tolist() == [[-1, 97, -1, -1], [98, -1, -1, -1]]


def test_passage_that_is_too_long_for_the_language_model_is_cut_off():
    made = reader("llama").encoder()
    assert made.longest == 128  # positions of these language models
    memory = made.encode(["a" * 500])
    assert memory.features.shape[1] == 128
    assert memory.sources[0].spans[-1].tolist() == [126, 127]
    learned_positions = reader("gpt2").encoder()
    assert learned_positions.encode(["a" * 500]).features.shape[1] == 128


@torch.no_grad()
def test_language_model_that_is_woven_into_reads_passages_as_it_did_before():
    model = reader("llama", opened=False)
    before = model.encode_texts(TEXTS).features
    open_weave(model, "reader")
    assert torch.equal(model.encode_texts(TEXTS).features, before)
    placed = model.place(model.read_texts(["a dog"]), Placement.of([[(0, 0)]]))
    model(input_ids=torch.tensor([[97, 98]]), memories=[placed])
    assert torch.equal(model.encode_texts(TEXTS).features, before)


def test_keys_tell_texts_layers_and_models_apart(tmp_path):
    keys = []
    for seed in (0, 1):
        language_model("llama", seed).save_pretrained(tmp_path / f"lm-{seed}")
        begin_tokenizer().save_pretrained(tmp_path / f"lm-{seed}")
        for layers in ([1], [2]):
            made = weave(tmp_path / f"lm-{seed}", text="language-model", layers=layers).encoder()
            keys += [made.encode(texts).key for texts in (["ab"], ["a", "b"], ["ba"])]
            assert made.encode(["ab"]).key == keys[-3]
    assert len(set(keys)) == len(keys)


# Pieces


@settings(deadline=None)
@given(
    text=st.text(st.sampled_from("ab. \n!"), max_size=300),
    longest=st.integers(20, 80),
    overlap=st.integers(0, 19),
)
def test_pieces_are_where_they_say_and_leave_nothing_out(text, longest, overlap):
    found = pieces(text, longest, overlap=overlap, name="tale")
    covered = set()
    for piece in found:
        assert piece.text == text[piece.start : piece.start + len(piece.text)]
        assert 0 < len(piece.text) <= longest
        assert piece.name == "tale"
        covered |= set(range(piece.start, piece.start + len(piece.text)))
    assert all(place in covered for place, letter in enumerate(text) if not letter.isspace())


def test_pieces_end_where_sentences_end():
    text = "One is here. Two is there! Three is nowhere? Four."
    assert [piece.text for piece in pieces(text, 30)] == ["One is here. Two is there!", "Three is nowhere? Four."]
    assert [piece.start for piece in pieces(text, 30)] == [0, 27]
    assert pieces("  ", 30) == []


def test_piece_cites_its_place_in_its_document():
    text = "One is here. Two is there! Three is nowhere? Four."
    memory = reader("llama").encode_texts(pieces(text, 30, name="numbers"))
    for source in memory.sources:
        assert source.name == "numbers"
        for begin, end in source.spans[1:]:
            assert text[source.start + begin : source.start + end] == source.text[begin:end] != ""


# Encoders of transformers


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_features_are_the_last_hidden_states_of_the_passage_alone(kind, tmp_path):
    made = load_text_encoder(saved(kind, tmp_path / kind))
    texts = ["the cat sat on a mat .", "a dog", "zebra , zebra"]
    memory = made.encode(texts)
    torch.manual_seed(0)
    model = KINDS[kind]().eval()
    model = model.get_encoder() if kind in ("t5", "bart") else model
    for index, text in enumerate(texts):
        inputs = words()(text, return_tensors="pt")
        expected = model(input_ids=inputs["input_ids"]).last_hidden_state[0]
        assert memory.features.shape[-1] == expected.shape[-1] == made.width
        assert_near(memory.features[index, : len(expected)], expected)
        assert memory.mask[index].sum() == len(expected)
    assert memory.ids is None
    assert (made.id, len(made.sha256)) == (str(tmp_path / kind), 64)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_padding_has_no_influence(kind, tmp_path):
    made = load_text_encoder(saved(kind, tmp_path / kind))
    ids = words()("the cat sat on a mat")["input_ids"]
    alone = made(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.bool))
    for fill in (0, 1, 9):
        padded = torch.tensor([ids + [fill] * 5])
        mask = torch.arange(padded.shape[1])[None] < len(ids)
        assert_near(made(padded, mask)[:, : len(ids)], alone)


@pytest.mark.parametrize("kind", KINDS)
def test_text_that_is_too_long_is_cut_off(kind, tmp_path):
    """RoBERTa and MPNet begin to count behind the padding token's id, so two of their positions are never used."""
    made = load_text_encoder(saved(kind, tmp_path / kind))
    room = {"roberta": 38, "mpnet": 38, "t5": 182, "t5-encoder": 182}.get(kind, 40)
    memory = made.encode([LONG, "the cat"])
    assert memory.features.shape[1] == room
    assert torch.isfinite(memory.features).all()
    spans = memory.sources[0].spans
    assert len(spans) == room
    inner = [LONG[begin:end] for begin, end in spans[1:-1]]
    assert inner == LONG.split()[: room - 2]
    assert spans[0].tolist() == spans[-1].tolist() == [0, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_cut_off_is_what_the_tokenizer_would_truncate(kind, tmp_path):
    made = load_text_encoder(saved(kind, tmp_path / kind, longest=9))
    text = " ".join(f"word{number}" for number in range(40))
    ids, spans = made.tokenize(text)
    expected = made.tokenizer(text, truncation=True, max_length=9, return_offsets_mapping=True)
    assert len(ids) == 9
    assert ids == expected["input_ids"]
    assert spans.tolist() == [list(span) for span in expected["offset_mapping"]]


def test_tokenizer_says_how_long_a_text_may_be(tmp_path):
    made = load_text_encoder(saved("minilm", tmp_path / "minilm", longest=16))
    assert made.longest == 16
    assert made.encode([LONG]).features.shape[1] == 16


@pytest.mark.parametrize("kind", KINDS)
def test_saved_encoder_is_loaded_as_it_was(kind, tmp_path):
    made = load_text_encoder(saved(kind, tmp_path / kind))
    made.save_pretrained(tmp_path / "again")
    again = load_text_encoder(tmp_path / "again")
    texts = ["the cat sat on a mat .", "a dog"]
    assert torch.equal(again.encode(texts).features, made.encode(texts).features)
    assert again.longest == made.longest


def test_encoder_stays_frozen_and_in_evaluation_mode(tmp_path):
    made = load_text_encoder(saved("bert", tmp_path / "bert")).train()
    assert not any(module.training for module in made.modules())
    assert not any(parameter.requires_grad for parameter in made.parameters())
    first, second = (made.encode(["the cat"]).features for _ in range(2))
    assert torch.equal(first, second)
    assert not first.requires_grad


def test_what_is_no_text_encoder_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(PartError, match=r"config\.json is missing"):
        load_text_encoder(tmp_path / "empty")
    encoder().save_pretrained(tmp_path / "vision")
    with pytest.raises(PartError, match="can't be loaded as a text encoder"):
        load_text_encoder(tmp_path / "vision")
    BertModel(BertConfig(**SIZES)).save_pretrained(tmp_path / "no-tokenizer")
    with pytest.raises(PartError, match="no text encoder with a fast tokenizer"):
        load_text_encoder(tmp_path / "no-tokenizer")
    with pytest.raises(PartError, match="no text encoder with a fast tokenizer"):
        TransformersTextEncoder(BertModel(BertConfig(**SIZES)), ByT5Tokenizer())


@torch.no_grad()
@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_woven_model_with_a_text_encoder_is_loaded_as_it_was(kind, merge, tmp_path):
    language_model("llama").save_pretrained(tmp_path / "lm")
    begin_tokenizer().save_pretrained(tmp_path / "lm")
    saved(kind, tmp_path / "encoder")
    model = open_weave(weave(tmp_path / "lm", text=tmp_path / "encoder", start=1, every=1), "reader").eval()
    texts, ids = ["the cat sat on a mat .", "a dog"], torch.randint(3, 120, (3, 7))
    placement = Placement.of([[(0, 2), (1, 3)], [], [(1, 0)]])
    expected = model(input_ids=ids, memories=[model.place(model.read_texts(texts), placement)]).logits
    assert torch.equal(expected[1], model.language_model(input_ids=ids).logits[1])
    model.save_pretrained(tmp_path / "saved", merge=merge)
    if merge:
        for part in ("lm", "encoder"):
            (tmp_path / part).rename(tmp_path / f"{part}-gone")
    loaded = WeftModel.from_pretrained(tmp_path / "saved")
    placed = loaded.place(loaded.read_texts(texts), placement)
    assert torch.equal(loaded(input_ids=ids, memories=[placed]).logits, expected)
    assert (loaded.encoder().id, loaded.encoder().sha256) == (model.encoder().id, model.encoder().sha256)


def test_other_encoder_than_the_one_trained_on_is_refused(tmp_path):
    language_model("llama").save_pretrained(tmp_path / "lm")
    begin_tokenizer().save_pretrained(tmp_path / "lm")
    saved("bert", tmp_path / "encoder")
    weave(tmp_path / "lm", text=tmp_path / "encoder").save_pretrained(tmp_path / "saved")
    BertModel(BertConfig(**SIZES)).save_pretrained(tmp_path / "encoder")
    with pytest.raises(PartError, match="not the one this weave was trained on"):
        WeftModel.from_pretrained(tmp_path / "saved")


def test_encoder_of_another_vocabulary_can_not_be_copied_from(tmp_path):
    saved("bert", tmp_path / "encoder")
    with pytest.raises(WeftError, match="copy_width"):
        weave(language_model("llama"), text=tmp_path / "encoder", tokenizer=begin_tokenizer(), copy_width=8)
    model = reader("llama")
    memory = replace(model.encode_texts(["abc"]), ids=None)
    with pytest.raises(ValueError, match="which tokens"):
        model.weave().read(memory)
    with pytest.raises(PartError, match="give tokenizer"):
        weave(language_model("llama"), text="language-model")
    with pytest.raises(WeftError, match="vision or text"):
        weave(language_model("llama"), text="language-model", vision=encoder())


def test_memory_of_no_passages_is_empty():
    model = reader("llama")
    memory = model.encode_texts([])
    assert len(memory) == 0
    assert model.place(model.read_texts([]), Placement.of([[], []])) is None
