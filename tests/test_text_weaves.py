"""Weaves that read texts: what rows with and without memory compute, generation, conversations, and what is kept."""

from __future__ import annotations

import inspect

import pytest
import torch
from devices import DEVICE
from families import FAMILIES, language_model
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb
from woven import begin_tokenizer, encoder, open_weave, reader, tokenizer, woven

from weft.attention import attention
from weft.batch import arrange
from weft.errors import PartError, WeftError
from weft.fusion import GatedCrossAttention
from weft.making import weave
from weft.memory import CopyKeys, KeyValues, Memory, Placement, ReadMemory
from weft.model import WeftModel

PASSAGES = ["the cat sat.", "a dog", "zebras eat grass all day", "x"]
IDS = torch.randint(3, 126, (4, 9), generator=torch.Generator().manual_seed(1)).to(DEVICE)
ROWS = Placement.of([[(0, 2)], [], [(1, 0), (2, 4), (0, 4)], [(3, 0)]])
"""A row that sees a passage from its third token on, one without, one with three of different lengths, a short one."""
OPTIONS = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
STARTS = [("llama", "self-attention"), ("qwen3", "self-attention"), ("gpt2", "identity")]
NEAR = {"rtol": 1e-4, "atol": 1e-4}


def laid(model, placement=ROWS, passages=PASSAGES):
    return [model.place(model.read_texts(passages), placement)]


def stepwise(model, ids, placement=ROWS, steps=5):
    """The likeliest next token again and again, each time from the whole text."""
    for _ in range(steps):
        logits = model(input_ids=ids, memories=laid(model, placement), use_cache=False).logits
        ids = torch.cat([ids, logits[:, -1].argmax(-1, keepdim=True)], 1)
    return ids


# Rows with and without memory


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_row_without_memory_is_bit_identical_to_the_language_model(family):
    """Also where its neighbours copy; and with nothing to read the whole model is."""
    base = language_model(family).requires_grad_(False)  # as in a woven model: it decides how PyTorch folds products
    bare = base(input_ids=IDS).logits
    model = reader(base)
    assert torch.equal(model(input_ids=IDS).logits, bare)
    logits = model(input_ids=IDS, memories=laid(model)).logits
    if "moe" in family:  # whose rows are computed together
        torch.testing.assert_close(logits[1], bare[1], rtol=1e-4, atol=1e-5)
    else:
        assert torch.equal(logits[1], bare[1])
    for row in (0, 2, 3):
        assert not torch.allclose(logits[row], bare[row])
    torch.testing.assert_close(logits[0, :2], bare[0, :2], rtol=1e-4, atol=1e-5)
    assert torch.isfinite(logits).all()


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
@pytest.mark.parametrize(("family", "initial"), STARTS)
def test_row_without_memory_is_bit_identical_at_any_weights(family, initial, scale, dtype):
    base = language_model(family).to(dtype)
    bare = base(input_ids=IDS).logits
    model = reader(base, initial=initial)
    for parameter in model.weaves.parameters():
        parameter.mul_(scale)
    logits = model(input_ids=IDS, memories=laid(model)).logits
    assert logits.dtype == dtype
    assert torch.equal(logits[1], bare[1])
    assert torch.isfinite(logits).all()


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_new_weave_that_does_not_copy_is_the_language_model_with_a_memory_too(family):
    base = language_model(family).requires_grad_(False)  # as in a woven model: it decides how PyTorch folds products
    bare = base(input_ids=IDS).logits
    model = reader(base, opened=False, copy_width=0)
    assert torch.equal(model(input_ids=IDS, memories=laid(model)).logits, bare)


@torch.no_grad()
def test_new_copy_gate_says_almost_what_the_language_model_says():
    bare = language_model("llama")(input_ids=IDS).logits.softmax(-1)
    model = reader("llama", opened=False)
    found = model(input_ids=IDS, memories=laid(model)).logits.exp()
    copied = 0.5 * (found - bare)[[0, 2, 3], 2:].abs().sum(-1)
    assert 0 < float(copied.max()) < 0.2


@torch.no_grad()
@pytest.mark.parametrize(("family", "initial"), STARTS)
def test_rows_are_computed_in_a_batch_as_they_are_alone(family, initial):
    """Whatever the number and the lengths of the passages beside them."""
    model = reader(family, initial=initial)
    together = model(input_ids=IDS, memories=laid(model)).logits
    held = [[0], [], [1, 2, 0], [3]]
    starts = [[2], [], [0, 4, 4], [0]]
    for row, (items, begins) in enumerate(zip(held, starts, strict=True)):
        placement = Placement.of([list(zip(range(len(items)), begins, strict=True))])
        memories = laid(model, placement, [PASSAGES[item] for item in items]) if items else []
        alone = model(input_ids=IDS[row : row + 1], memories=memories).logits
        torch.testing.assert_close(together[row : row + 1], alone, **NEAR)


@torch.no_grad()
@pytest.mark.parametrize("start", [True, False])
def test_passage_is_read_the_same_whatever_is_read_with_it(start):
    """Also where the tokenizer has no token that begins a text."""
    model = reader("qwen3", initial="self-attention", tokenizer=begin_tokenizer() if start else tokenizer())
    together = model.read_texts(PASSAGES)
    for index, passage in enumerate(PASSAGES):
        alone, item = model.read_texts([passage]), together.item(index)
        assert item.tokens == alone.tokens == len(passage) + start
        for ours, theirs in zip(item.layers, alone.layers, strict=True):
            assert ours.mask is None
            torch.testing.assert_close(ours.keys, theirs.keys, **NEAR)
            torch.testing.assert_close(ours.values, theirs.values, **NEAR)
        assert torch.equal(item.copying.ids, alone.copying.ids)
        torch.testing.assert_close(item.copying.keys, alone.copying.keys, **NEAR)


@torch.no_grad()
@pytest.mark.parametrize(("family", "initial"), STARTS)
def test_left_and_right_padding_agree(family, initial):
    model = reader(family, initial=initial)
    text, pad = IDS[:1], torch.zeros(1, 3, dtype=torch.long, device=DEVICE)
    ones, zeros = torch.ones_like(text), torch.zeros_like(pad)

    def logits(input_ids, mask, start):
        placed = laid(model, Placement.of([[(0, start), (1, start)]]))
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        assert "position_ids" in inspect.signature(model.language_model.forward).parameters
        return model(input_ids=input_ids, attention_mask=mask, position_ids=positions, memories=placed).logits

    plain = logits(text, ones, 2)
    left = logits(torch.cat([pad, text], 1), torch.cat([zeros, ones], 1), 5)[:, 3:]
    right = logits(torch.cat([text, pad], 1), torch.cat([ones, zeros], 1), 2)[:, :9]
    torch.testing.assert_close(right, plain, **NEAR)
    torch.testing.assert_close(left, plain, **NEAR)


@torch.no_grad()
def test_passage_without_tokens_changes_nothing():
    """An empty text, where the tokenizer has no token that begins one, alone and beside others."""
    model = reader("llama", tokenizer=tokenizer())
    bare = model.language_model(input_ids=IDS).logits
    for passages in ([""], ["", "ab"]):
        placed = laid(model, Placement.of([[(0, 0)], [], [(0, 2)], []]), passages)
        assert torch.equal(model(input_ids=IDS, memories=placed).logits, bare)


# The distribution


@torch.no_grad()
def test_logits_are_the_mixture_of_what_the_language_model_says_and_what_is_copied():
    """Against the same weave without its gate, and the gate's shares added up word by word."""
    model = reader("llama", initial="self-attention")
    placed = laid(model)
    found = model(input_ids=IDS, memories=placed).logits
    gate = model.weave().copy_gate
    states = []
    hook = model.language_model.lm_head.register_forward_pre_hook(lambda _, args: states.append(args[0]))
    model.weave().copy_gate = None
    plain = replaced(placed[0], copying=None)
    said = model(input_ids=IDS, memories=[plain]).logits.double().softmax(-1)
    hook.remove()
    read = model.read_texts(PASSAGES)
    assert read.copying is None
    model.weave().copy_gate = gate
    read = model.read_texts(PASSAGES)
    for row, items in enumerate(((0,), (), (1, 2, 0), (3,))):
        for column in range(IDS.shape[1]):
            seen = [item for item, start in held(row) if start <= column]
            if not seen:
                assert torch.equal(found[row, column].double().softmax(-1), said[row, column])
                continue
            parts = [read.item(item).copying for item in seen]
            copying = CopyKeys(torch.cat([c.keys for c in parts], 1), torch.cat([c.ids for c in parts], 1))
            shares = gate(states[0][row : row + 1, column : column + 1], copying)
            expected = said[row, column] * shares.generated.double().exp()[0, 0]
            for token, share in zip(copying.ids[0].tolist(), shares.copied[0, 0].double().exp().tolist(), strict=True):
                expected[max(token, 0)] += share
            torch.testing.assert_close(found[row, column].double().softmax(-1), expected, rtol=1e-3, atol=1e-6)
        assert len(items) == len(held(row))


def held(row):
    """Items of a row of :data:`ROWS`, with the column from which on each is seen."""
    pairs = zip(ROWS.items[row].tolist(), ROWS.starts[row].tolist(), strict=True)
    return [(item, start) for item, start in pairs if item >= 0]


def replaced(memory, **changes):
    from dataclasses import replace

    return replace(memory, **changes)


@torch.no_grad()
def test_tokens_are_found_by_what_stands_before_the_last_fusion_layer():
    model = reader("llama", start=0)
    read = model.read_texts(PASSAGES)
    for item, passage in enumerate(PASSAGES):
        ids = torch.tensor([[1, *map(ord, passage)]], device=DEVICE)
        states = model.language_model(ids, output_hidden_states=True).hidden_states[2]
        expected = model.weave().copy_gate.read(states, ids)
        torch.testing.assert_close(read.item(item).copying.keys, expected.keys, **NEAR)


@torch.no_grad()
def test_logits_that_are_not_kept_are_not_mixed():
    model = reader("llama")
    placed = laid(model)
    whole = model(input_ids=IDS, memories=placed).logits
    for kept in (1, 6):
        some = model(input_ids=IDS, memories=placed, logits_to_keep=kept).logits
        torch.testing.assert_close(some, whole[:, -kept:], rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "cohere"])
def test_labels_give_the_loss_of_the_mixed_distribution(family):
    model = reader(family)
    labels = IDS.clone()
    labels[:, :3] = -100
    labels[3, 5] = -100
    output = model(input_ids=IDS, labels=labels, memories=laid(model))
    logits = model(input_ids=IDS, memories=laid(model)).logits
    assert torch.equal(output.logits, logits)
    chances = logits.double().log_softmax(-1)
    losses = [
        -chances[row, column - 1, labels[row, column]]
        for row in range(len(labels))
        for column in range(1, labels.shape[1])
        if labels[row, column] >= 0
    ]
    assert output.loss.item() == pytest.approx(float(sum(losses) / len(losses)), rel=1e-5)


@torch.no_grad()
def test_loss_is_divided_by_the_items_of_a_larger_batch_as_in_transformers():
    model = reader("llama")
    inputs = {"input_ids": IDS, "labels": IDS}
    one, seven = (
        model(**inputs, memories=laid(model), num_items_in_batch=torch.tensor(count)).loss.item() for count in (1, 7)
    )
    assert one == pytest.approx(7 * seven, rel=1e-5)
    assert one == pytest.approx(32 * model(**inputs, memories=laid(model)).loss.item(), rel=1e-5)


def test_only_the_weave_learns_and_all_of_it():
    model = reader("llama", initial="self-attention")
    model.train()
    model(input_ids=IDS, memories=laid(model), labels=IDS).loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.weaves.parameters())
    assert all(p.grad is not None and p.grad.any() for p in model.weave().copy_gate.parameters())
    assert all(p.grad is None for p in model.language_model.parameters())


@torch.no_grad()
def test_compiled_model_copies_the_same():
    model = reader("llama")
    placed = laid(model)
    expected = model(input_ids=IDS, memories=placed, use_cache=False).logits
    compiled = torch.compile(model, backend="aot_eager")
    torch.testing.assert_close(compiled(input_ids=IDS, memories=placed, use_cache=False).logits, expected)


# Generation


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_cached_generation_agrees_with_computing_anew(family):
    model = reader(family)
    expected = stepwise(model, IDS)
    options = {"attention_mask": torch.ones_like(IDS), **OPTIONS}
    assert torch.equal(model.generate(IDS, memories=laid(model), **options), expected)
    assert torch.equal(model.generate(IDS, memories=laid(model), use_cache=False, **options), expected)


@torch.no_grad()
@pytest.mark.parametrize("sees", ["last", "all"])
def test_copied_words_are_decoded_from_what_is_seen(sees):
    """A gate that copies all it can, from the passages that the last token sees."""
    model = reader("llama", initial="self-attention", sees=sees)
    gate = model.weave().copy_gate
    gate.sentinel.bias.fill_(-1e4)
    expected = stepwise(model, IDS)
    found = model.generate(IDS, memories=laid(model), attention_mask=torch.ones_like(IDS), **OPTIONS)
    assert torch.equal(found, expected)
    assert set(found[3, 9:].tolist()) == {ord("x")}
    seen = PASSAGES[0] if sees == "last" else "".join(PASSAGES[:3])
    assert set(found[2, 9:].tolist()) <= set(map(ord, seen))


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize(("family", "initial"), STARTS)
def test_batch_generates_what_each_row_generates_alone(family, initial, beams):
    model = reader(family, initial=initial)
    mask = torch.ones_like(IDS)
    batch = model.generate(IDS, memories=laid(model), attention_mask=mask, num_beams=beams, **OPTIONS)
    read = model.read_texts(PASSAGES)
    for row in range(len(IDS)):
        placed = model.place(read, Placement.of([held(row)]))
        memories = [] if placed is None else [placed]
        options = {"attention_mask": mask[:1], "num_beams": beams, **OPTIONS}
        assert torch.equal(model.generate(IDS[row : row + 1], memories=memories, **options)[0], batch[row])


@torch.no_grad()
def test_beams_are_scored_by_the_mixed_distribution():
    """The score of the best beam is the log-probability of its words, computed anew in one call."""
    model = reader("llama", initial="self-attention")
    output = model.generate(
        IDS,
        memories=laid(model),
        attention_mask=torch.ones_like(IDS),
        num_beams=3,
        length_penalty=0.0,
        return_dict_in_generate=True,
        output_scores=True,
        **OPTIONS,
    )
    chances = model(input_ids=output.sequences, memories=laid(model)).logits.log_softmax(-1)
    said = chances[:, 8:-1].gather(-1, output.sequences[:, 9:, None])[..., 0].sum(-1)
    torch.testing.assert_close(output.sequences_scores, said, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_samples_share_one_copy_of_what_is_copied():
    model = reader("llama")
    placed = model.place(model.read_texts(PASSAGES), Placement.of([[(0, 0), (1, 0)]]))
    repeated = placed.repeat_rows(7)
    assert repeated.copying is placed.copying
    assert repeated.layers is placed.layers
    torch.manual_seed(0)
    options = {"max_new_tokens": 3, "do_sample": True, "eos_token_id": None, "num_return_sequences": 7}
    out = model.generate(IDS[:1], memories=[placed], attention_mask=torch.ones_like(IDS[:1]), **options)
    assert out.shape == (7, 12)


# How a batch is laid out


def random_read(items, tokens, seed, masked):
    """Items of different lengths as a weave might have read them, with rubbish where they are padded."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0 if masked else tokens, tokens + 1, (items,), generator=generator)
    mask = torch.arange(tokens) < lengths[:, None]
    layers = tuple(
        KeyValues(
            torch.randn(items, 2, tokens, 4, generator=generator),
            torch.randn(items, 2, tokens, 4, generator=generator),
            mask if masked else None,
        )
        for _ in range(2)
    )
    ids = torch.randint(3, 9, (items, tokens), generator=generator).masked_fill(~mask, -1)
    copying = CopyKeys(torch.randn(items, tokens, 3, generator=generator), ids)
    return ReadMemory("reader", layers, (), "", copying), mask, generator


rows_of_items = st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=4), min_size=1, max_size=5)


@settings(deadline=None, max_examples=80)
@given(
    rows=rows_of_items,
    again=st.integers(1, 3),
    tokens=st.integers(1, 5),
    masked=st.booleans(),
    sees=st.sampled_from(["all", "last"]),
    seed=st.integers(0, 2**31),
)
def test_compact_layout_shows_each_row_what_the_plain_one_shows(rows, again, tokens, masked, sees, seed):
    """Each row beside itself ``again`` times, against one row after the other with all padding in place."""
    rows = [row for row in rows for _ in range(again)]
    read, mask, generator = random_read(4, tokens, seed, masked)
    memory = arrange(read, Placement.of(rows), sees)
    holding = [index for index, row in enumerate(rows) if row]
    if not holding:
        assert memory is None
        return
    assert (memory.rows is None) == (len(holding) == len(rows))
    assert memory.rows is None or memory.rows.tolist() == holding
    torch.manual_seed(seed)
    layer = GatedCrossAttention(8, 8, heads=4, kv_heads=2, head_dim=4, feed_forward=8)
    for parameter in layer.parameters():
        torch.nn.init.uniform_(parameter, -0.6, 0.6)
    hidden = torch.randn(len(rows), 6, 8, generator=generator)
    columns = torch.arange(6)
    with torch.no_grad():
        fused = memory.fuse(layer, 1, hidden, memory.visible(columns))
        settled = memory.after_prompt()
        later = settled.fuse(layer, 1, hidden, settled.visible(columns[:6]))
    widest = max(len(row) for row in rows)
    for index, row in enumerate(rows):
        if not row:
            assert torch.equal(fused[index], hidden[index]) and torch.equal(later[index], hidden[index])
            continue
        items, starts = zip(*row, strict=True)
        keys, values = (
            torch.cat([getattr(read.layers[1], name)[item : item + 1] for item in items], 2)
            for name in ("keys", "values")
        )
        begun = torch.tensor(starts)[None] <= columns[:, None]
        ended = torch.ones(6, len(items), dtype=torch.bool)
        for seen, found in ((begun, fused), (ended, later)):
            if sees == "last":
                last = torch.stack([torch.arange(len(items)) * one for one in seen]).amax(1, keepdim=True)
                seen = seen & (torch.arange(len(items))[None] == last)
            visible = seen.repeat_interleave(tokens, 1) & mask[list(items)].flatten()
            with torch.no_grad():
                expected = layer(hidden[index : index + 1], KeyValues(keys, values), visible[None])
            torch.testing.assert_close(found[index : index + 1], expected, rtol=1e-4, atol=1e-5)
            assert torch.equal(found[index][~visible.any(-1)], hidden[index][~visible.any(-1)])
    # What is laid is what the row holds, in its order, and no longer than the row that holds most.
    groups = memory.owners.shape[0]
    assert len(holding) % groups == 0
    real = memory.mask if memory.mask is not None else torch.ones_like(memory.owners, dtype=torch.bool)
    longest = max(int(mask[[item for item, _ in rows[index]]].sum()) for index in holding)
    assert memory.owners.shape[1] <= (longest if masked else widest * tokens) or memory.placement.items.shape[1] == 1
    for group in range(groups):
        row = rows[holding[group * (len(holding) // groups)]]
        owned = [(place, token) for place, (item, _) in enumerate(row) for token in range(tokens) if mask[item, token]]
        assert memory.owners[group][real[group]].tolist() == [place for place, _ in owned]
        items = [row[place][0] for place, _ in owned]
        at = [token for _, token in owned]
        assert torch.equal(memory.copying.keys[group][real[group]], read.copying.keys[items, at])
        assert torch.equal(memory.copying.ids[group][real[group]], read.copying.ids[items, at])


def test_padding_is_left_out_of_a_batch():
    read, mask, _ = random_read(4, 9, 3, masked=True)
    assert not mask.all(1).any()
    memory = arrange(read, Placement.of([[(0, 0), (1, 0)], [(2, 0)]]))
    assert memory.owners.shape[1] == max(int(mask[[0, 1]].sum()), int(mask[2].sum()))


# Starting from self-attention


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3", "smollm3"])
def test_weave_that_starts_from_self_attention_looks_as_the_decoder_does(family):
    """At a passage that stands right before the token that looks, apart from what falls to the token itself."""
    base = language_model(family, initializer_range=0.3, attn_implementation="eager")
    for name, parameter in base.named_parameters():
        if "norm" in name:
            parameter.add_(torch.randn_like(parameter) * 0.3)
    model = reader(base, initial="self-attention", opened=False, start=0)
    read = model.read_texts(PASSAGES)
    for item, passage in enumerate(PASSAGES):
        ids = torch.tensor([[1, *map(ord, passage), ord("?")]], device=DEVICE)
        output = base(ids, output_attentions=True, output_hidden_states=True)
        for layer in range(3):
            looked = (
                model.weave().fusion(layer).weights(output.hidden_states[layer][:, -1:], read.item(item).layers[layer])
            )
            own = output.attentions[layer][:, :, -1:, :-1]
            torch.testing.assert_close(looked, own / own.sum(-1, keepdim=True), rtol=1e-3, atol=1e-5)
            assert own.std() > 0.01


@torch.no_grad()
def test_keys_are_turned_as_transformers_turns_them():
    """For items of different lengths in one memory, each right before the token that looks."""
    base = language_model("llama", initializer_range=0.3)
    model = reader(base, initial="self-attention", opened=False, start=0)
    layer, own = model.weave().fusion(1), base.model.layers[1]
    memory = model.encode_texts(PASSAGES)
    read = model.weave().read(memory)
    hidden = torch.randn(len(PASSAGES), 1, 32)
    ours = layer.weights(hidden, read.layers[1])
    rotary = LlamaRotaryEmbedding(base.config)
    for item, passage in enumerate(PASSAGES):
        length = len(passage) + 1
        features = memory.features[item : item + 1, :length, 32:64]
        query = (
            own.self_attn.q_proj(own.input_layernorm(hidden[item : item + 1])).unflatten(-1, (-1, 8)).transpose(1, 2)
        )
        key = own.self_attn.k_proj(own.input_layernorm(features)).unflatten(-1, (-1, 8)).transpose(1, 2)
        cos, sin = rotary(features, torch.arange(length + 1)[None])
        query, _ = apply_rotary_pos_emb(query, query, cos[:, -1:], sin[:, -1:])
        _, key = apply_rotary_pos_emb(key, key, cos[:, :-1], sin[:, :-1])
        expected = (query @ key.repeat_interleave(2, 1).mT / 8**0.5).softmax(-1)
        torch.testing.assert_close(ours[item : item + 1, ..., :length], expected, rtol=1e-4, atol=1e-6)
        assert not ours[item, ..., length:].any()


@torch.no_grad()
def test_weave_that_starts_from_self_attention_hands_on_half_of_what_the_decoder_finds():
    base = language_model("llama", initializer_range=0.3)
    model = reader(base, initial="self-attention", opened=False, start=0)
    layer, own = model.weave().fusion(0), base.model.layers[0].self_attn
    read = model.read_texts(["the cat"])
    hidden = torch.randn(1, 3, 32)
    looked = attention(layer._queries(hidden), read.layers[0].keys, read.layers[0].values)
    expected = hidden + 0.5 * own.o_proj(looked.transpose(1, 2).flatten(2))
    torch.testing.assert_close(layer(hidden, read.layers[0]), expected, **NEAR)


def test_language_model_without_projections_of_its_own_starts_as_the_identity():
    with pytest.raises(WeftError, match="initial='identity'"):
        reader("gpt2", initial="self-attention")


# Conversations


def user(*parts):
    kinds = {str: "text", bytes: "document"}
    content = []
    for part in parts:
        kind = kinds.get(type(part), "image")
        content.append(
            {"type": kind, kind if kind != "document" else "text": part.decode() if kind == "document" else part}
        )
    return [{"role": "user", "content": content}]


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_documents_of_a_conversation_are_what_read_texts_reads(side):
    model = reader("llama", initial="self-attention")
    batch = [user("ab", b"the cat sat.", "cd", b"a dog"), user("nothing"), user(b"zebras eat grass all day", "why?")]
    options = {"add_generation_prompt": True, "processor_kwargs": {"padding_side": side}}
    inputs = model.processor.apply_chat_template(batch, **options)
    plain = model.processor.apply_chat_template([user("abcd"), user("nothing"), user("why?")], **options)
    assert torch.equal(inputs["input_ids"], plain["input_ids"])
    width = inputs["input_ids"].shape[1]
    lefts = [width - int(row.sum()) if side == "left" else 0 for row in inputs["attention_mask"]]
    placement = Placement.of([[(0, lefts[0] + 4), (1, lefts[0] + 6)], [], [(2, lefts[2] + 2)]])
    assert inputs["document_positions"].tolist() == [[lefts[0] + 4, lefts[0] + 6], [-1, -1], [lefts[2] + 2, -1]]
    read = model.read_texts(["the cat sat.", "a dog", "zebras eat grass all day"])
    text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    logits = model(**text, memories=[model.place(read, placement)]).logits
    torch.testing.assert_close(model(**inputs).logits, logits, **NEAR)
    found = model.generate(**inputs, **OPTIONS)
    assert torch.equal(found, model.generate(**text, memories=[model.place(read, placement)], **OPTIONS))
    beams = model.generate(**inputs, num_beams=3, **OPTIONS)
    assert torch.equal(beams, model.generate(**text, memories=[model.place(read, placement)], num_beams=3, **OPTIONS))


@torch.no_grad()
def test_document_is_encoded_once_for_a_whole_generation(monkeypatch):
    model = reader("llama")
    inputs = model.processor.apply_chat_template(user(b"the cat sat.", "why?"), add_generation_prompt=True)
    counts = []
    run = model.encoder().run
    monkeypatch.setattr(model.encoder(), "run", lambda tokens, *more: counts.append(len(tokens)) or run(tokens, *more))
    model.generate(**inputs, **OPTIONS)
    assert counts == [1]


def test_long_document_is_read_in_passages_and_each_is_seen_from_where_it_stands():
    model = reader("llama")
    sentence = "It was a long and quiet day in the village by the sea. "
    inputs = model.processor.apply_chat_template(user("ab", (sentence * 100).encode(), "why?"))
    held, longest = inputs["document_ids"].shape
    assert held > 2 and longest <= model.encoder("reader").longest
    assert inputs["document_positions"].tolist() == [[4] * held]
    rows = zip(inputs["document_ids"], inputs["document_mask"].bool(), strict=True)
    read = " ".join(model.processor.decode(ids[real][1:]) for ids, real in rows)  # behind the begin token
    assert read.split() == (sentence * 100).split()  # nothing is cut off, nothing read twice


@torch.no_grad()
def test_documents_padded_more_than_need_be_or_on_the_left_are_read_the_same():
    model = reader("llama", initial="self-attention")
    inputs = model.processor.apply_chat_template(user(b"the cat sat.", b"a dog", "why?"))
    expected = model(**inputs).logits
    wide = {**inputs}
    for name in ("document_ids", "document_mask"):
        wide[name] = torch.nn.functional.pad(inputs[name], (0, 4))
    torch.testing.assert_close(model(**wide).logits, expected, **NEAR)
    for name in ("document_ids", "document_mask"):
        wide[name] = torch.stack(
            [row.roll(int((1 - mask).sum())) for row, mask in zip(inputs[name], inputs["document_mask"], strict=True)]
        )
    torch.testing.assert_close(model(**wide).logits, expected, **NEAR)


@torch.no_grad()
def test_document_without_words_is_no_document():
    model = reader("llama")
    inputs = model.processor.apply_chat_template(user(b"  ", "why?"), add_generation_prompt=True)
    text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    assert torch.equal(model(**inputs).logits, model.language_model(**text).logits)


@torch.no_grad()
def test_pictures_and_documents_in_one_conversation():
    """Each is read by its own weave, and what one weave does not change depends on neither."""
    model = woven("llama", tokenizer=begin_tokenizer())
    weave(model, text="language-model", initial="self-attention", copy_width=16, tokenizer=begin_tokenizer())
    open_weave(model, "reader").eval()
    picture = Image.linear_gradient("L").resize((30, 20)).convert("RGB")
    batch = [user(picture, "ab", b"the cat sat.", "c"), user("plain"), user(b"a dog", picture), user(picture, "x")]
    inputs = model.processor.apply_chat_template(batch, add_generation_prompt=True)
    assert set(inputs) == set(model.processor.model_input_names)
    width = inputs["input_ids"].shape[1]
    left = [width - int(row.sum()) for row in inputs["attention_mask"]]
    photos = model.read([picture])
    texts = model.read_texts(["the cat sat.", "a dog"])
    seen = Placement.of([[(0, left[0] + 2)], [], [(0, left[2] + 2)], [(0, left[3] + 2)]])
    written = Placement.of([[(0, left[0] + 4)], [], [(1, left[2] + 2)], []])
    memories = [model.place(photos, seen), model.place(texts, written)]
    text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    logits = model(**inputs).logits
    torch.testing.assert_close(logits, model(**text, memories=memories).logits, **NEAR)
    assert torch.equal(logits[1], model.language_model(**text).logits[1])
    torch.testing.assert_close(logits[3], model(**text, memories=memories[:1]).logits[3], **NEAR)
    assert torch.equal(model.generate(**inputs, **OPTIONS), model.generate(**text, memories=memories, **OPTIONS))


def test_tokenizer_that_comes_with_a_second_weave_serves_the_first_as_well():
    model = woven("llama")
    assert model.processor is None
    weave(model, text="language-model", tokenizer=begin_tokenizer())
    inputs = model.processor.apply_chat_template(user(Image.new("RGB", (8, 8)), b"the cat", "why?"))
    assert set(inputs) == set(model.processor.model_input_names)


def test_document_for_a_model_that_reads_none_is_refused():
    from weft.errors import DataError

    model = weave(language_model("llama"), vision=encoder(), tokenizer=begin_tokenizer())
    with pytest.raises(DataError, match="no weave that reads texts"):
        model.processor.apply_chat_template(user(b"the cat", "why?"))
    with pytest.raises(DataError, match="no weave that reads pictures"):
        reader("llama").processor.apply_chat_template(user(Image.new("RGB", (8, 8)), "why?"))
    with pytest.raises(WeftError, match="reads texts"):
        model.read_texts(["the cat"])


# What is kept


@pytest.fixture
def folder(tmp_path):
    """Two language models on disk."""
    for seed in (0, 9):
        language_model("llama", seed).save_pretrained(tmp_path / f"lm-{seed}")
        begin_tokenizer().save_pretrained(tmp_path / f"lm-{seed}")
    encoder().save_pretrained(tmp_path / "vit")
    return tmp_path


def made(folder, **options):
    options = {"initial": "self-attention", "copy_width": 16, "start": 1, "every": 1, **options}
    return open_weave(weave(folder / "lm-0", text="language-model", **options), options.get("name", "reader")).eval()


@torch.no_grad()
@pytest.mark.parametrize("merge", [False, True])
def test_saved_model_computes_and_converses_the_same(folder, merge):
    model = made(folder)
    inputs = model.processor.apply_chat_template(user(b"the cat sat.", "why?"), add_generation_prompt=True)
    expected, said = model(**inputs).logits, model.generate(**inputs, **OPTIONS)
    model.save_pretrained(folder / "saved", merge=merge)
    if merge:
        (folder / "lm-0").rename(folder / "gone")
    loaded = WeftModel.from_pretrained(folder / "saved")
    again = loaded.processor.apply_chat_template(user(b"the cat sat.", "why?"), add_generation_prompt=True)
    assert all(torch.equal(again[name], inputs[name]) for name in inputs)
    assert torch.equal(loaded(**again).logits, expected)
    assert torch.equal(loaded.generate(**again, **OPTIONS), said)
    assert loaded.encoder().reads == model.encoder().reads
    assert loaded.weave().config == model.weave().config


def test_checkpoint_does_not_hold_the_language_model_as_an_encoder(folder):
    from safetensors.torch import load_file

    model = made(folder)
    model.save_pretrained(folder / "saved")
    learned = load_file(folder / "saved" / "model.safetensors")
    assert set(learned) == {f"weaves.{name}" for name in model.weaves.state_dict()}
    assert not any("encoders" in name for name in model.state_dict())
    assert sum(p.numel() for p in model.parameters()) == sum(
        p.numel() for part in (model.language_model, model.weaves) for p in part.parameters()
    )


@torch.no_grad()
def test_weaves_of_another_language_model_are_refused(folder):
    made(folder).save_pretrained(folder / "saved")
    other = weave(folder / "lm-9", vision=folder / "vit", start=1, every=1)
    with pytest.raises(PartError, match="another language model"):
        other.load_weaves(folder / "saved")
    assert list(other.weaves) == ["photos"]


@torch.no_grad()
def test_loaded_weave_does_not_change_what_the_first_computes(folder):
    reading = made(folder)
    reading.save_pretrained(folder / "saved")
    ids, placed = IDS, laid(reading)
    read = reading(input_ids=ids, memories=placed).logits
    model = open_weave(weave(folder / "lm-0", vision=folder / "vit", start=1, every=1)).eval()
    seen = [model.place(model.read(Image.new("RGB", (20, 20), "teal")), Placement.of([[(0, 1)], [], [(0, 0)], []]))]
    before = model(input_ids=ids, memories=seen).logits
    model.load_weaves(folder / "saved")
    assert list(model.weaves) == ["photos", "reader"]
    assert torch.equal(model(input_ids=ids, memories=seen).logits, before)
    # Saved weights stay where they lie in their file, which rounds otherwise than a tensor of one's own.
    torch.testing.assert_close(model(input_ids=ids, memories=laid(model)).logits, read)
    assert model.config.weaves["reader"] == reading.config.weaves["reader"]
    inputs = model.processor.apply_chat_template(user(b"the cat sat.", "why?"))
    torch.testing.assert_close(model(**inputs).logits, reading(**inputs).logits)


@torch.no_grad()
def test_weave_added_to_a_reader_does_not_change_what_it_computes(folder):
    model = made(folder)
    placed = laid(model)
    before = model(input_ids=IDS, memories=placed).logits
    weave(model, text="language-model", name="second", layers=[0, 2], copy_width=8)
    open_weave(model, "second", seed=3)
    assert torch.equal(model(input_ids=IDS, memories=placed).logits, before)
    second = model.place(model.read_texts(PASSAGES, "second"), ROWS)
    both = model(input_ids=IDS, memories=[*placed, second]).logits
    assert torch.equal(both[1], before[1])
    assert not torch.allclose(both[0], before[0])
    assert torch.isfinite(both).all()


@torch.no_grad()
def test_documents_are_read_by_the_same_weave_after_loading(folder):
    """Of several weaves that read texts the first one, whatever their names and encoders."""
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=128, **sizes)).save_pretrained(folder / "bert")
    tokenizer().save_pretrained(folder / "bert")
    model = made(folder, name="reader")
    weave(model, text=folder / "bert", name="another")
    open_weave(model, "another")
    inputs = model.processor.apply_chat_template(user(b"the cat sat.", "why?"))
    expected = model(**inputs).logits
    model.save_pretrained(folder / "saved")
    loaded = WeftModel.from_pretrained(folder / "saved")
    assert loaded.weave_that_reads("texts").name == "reader"
    again = loaded.processor.apply_chat_template(user(b"the cat sat.", "why?"))
    assert torch.equal(loaded(**again).logits, expected)


def test_encoder_of_a_language_model_that_came_loaded_knows_its_hash(folder):
    """So that features that are kept are never taken for those of another language model."""
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(folder / "lm-0")
    model = weave(base, text="language-model", start=1, every=1)
    model.save_pretrained(folder / "saved")
    expected = weave(folder / "lm-0", text="language-model", start=1, every=1).encoder().sha256
    assert model.encoder().sha256 == expected
    assert len(expected) == 64


# Read memories as values


@torch.no_grad()
def test_memories_laid_side_by_side_are_what_is_read_together():
    model = reader("llama", initial="self-attention")
    parts = [model.read_texts(PASSAGES[:2]), model.read_texts(PASSAGES[2:3]), model.read_texts(PASSAGES[3:])]
    joined, together = ReadMemory.concatenate(parts), model.read_texts(PASSAGES)
    assert len(joined) == len(together) == 4
    assert joined.tokens == together.tokens
    assert [source.text for source in joined.sources] == PASSAGES
    for ours, theirs in zip(joined.layers, together.layers, strict=True):
        assert torch.equal(ours.mask, theirs.mask)
        for name in ("keys", "values"):
            real = theirs.mask[:, None, :, None]
            torch.testing.assert_close(getattr(ours, name) * real, getattr(theirs, name) * real, **NEAR)
    assert torch.equal(joined.copying.ids, together.copying.ids)
    logits = model(input_ids=IDS, memories=[model.place(joined, ROWS)]).logits
    torch.testing.assert_close(logits, model(input_ids=IDS, memories=laid(model)).logits, **NEAR)
    alone = ReadMemory.concatenate([model.read_texts(["abc"]), model.read_texts(["xyz"])])
    assert all(layer.mask is None for layer in alone.layers)
    with pytest.raises(ValueError, match="one weave"):
        ReadMemory.concatenate([parts[0], ReadMemory("other", parts[0].layers)])
    with pytest.raises(ValueError, match="one weave"):
        ReadMemory.concatenate([parts[0], ReadMemory("reader", parts[0].layers)])


@torch.no_grad()
def test_item_is_the_passage_alone_and_can_be_laid_beside_others():
    model = reader("llama", initial="self-attention")
    read = model.read_texts(PASSAGES)
    assert [read.item(index).tokens for index in range(4)] == [len(passage) + 1 for passage in PASSAGES]
    assert read.item(1).sources == read.sources[1:2]
    assert len({read.item(index).key for index in range(4)} | {read.key}) == 5
    again = ReadMemory.concatenate([read.item(index) for index in range(4)])
    placed = [model.place(again, ROWS)]
    logits = model(input_ids=IDS, memories=placed).logits
    torch.testing.assert_close(logits, model(input_ids=IDS, memories=laid(model)).logits, **NEAR)
    assert read.item(0).layers[0].keys.data_ptr() == read.layers[0].keys.data_ptr()


@torch.no_grad()
def test_moved_memory_keeps_masks_and_ids():
    model = reader("llama")
    read, memory = model.read_texts(PASSAGES), model.encode_texts(PASSAGES)
    half = read.to(torch.bfloat16)
    assert half.layers[0].keys.dtype == half.layers[1].values.dtype == half.copying.keys.dtype == torch.bfloat16
    assert torch.equal(half.layers[0].mask, read.layers[0].mask)
    assert torch.equal(half.copying.ids, read.copying.ids)
    assert (half.layers[0].mask.dtype, half.copying.ids.dtype) == (torch.bool, torch.long)
    there = read.to("meta")
    tensors = [there.copying.keys, there.copying.ids]
    tensors += [tensor for layer in there.layers for tensor in (layer.keys, layer.values, layer.mask)]
    assert all(tensor.device.type == "meta" for tensor in tensors)
    moved = memory.to(torch.bfloat16)
    assert moved.features.dtype == torch.bfloat16
    assert torch.equal(moved.ids, memory.ids) and torch.equal(moved.mask, memory.mask)
    assert (moved.mask.dtype, moved.ids.dtype) == (torch.bool, torch.long)
    assert moved.sources == memory.sources


@torch.no_grad()
def test_read_memory_serves_any_number_of_questions(monkeypatch):
    model = reader("llama")
    read = model.read_texts(PASSAGES)

    def refuse(*_):
        raise AssertionError("a passage was read again")

    monkeypatch.setattr(model.encoder(), "run", refuse)
    for layer in model.weave().layers:
        monkeypatch.setattr(layer, "read", refuse)
    monkeypatch.setattr(model.weave().copy_gate, "read", refuse)
    for _ in range(2):
        placed = [model.place(model.read(read), ROWS)]
        model.generate(IDS, memories=placed, attention_mask=torch.ones_like(IDS), **OPTIONS)


def test_memory_of_another_width_is_refused():
    model = reader("llama")
    with pytest.raises(ValueError, match="width 64"):
        model.weave().read(Memory(torch.zeros(1, 3, 32), ()))
