"""Looking at the most promising items only: chosen as plain loops choose, the same whichever way it is computed."""

from __future__ import annotations

import pytest
import torch
from devices import DEVICE
from families import language_model
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner
from woven import memory, open_weave, reader, tokenizer, woven

from weft.attention import attention
from weft.batch import arrange
from weft.choosing import look, narrowed
from weft.cli import app
from weft.engine import Engine
from weft.errors import WeftError
from weft.evaluation import evaluate
from weft.fusion import GatedCrossAttention
from weft.making import weave
from weft.memory import KeyValues, Placement, ReadMemory
from weft.packed_weave import PackedFusion
from weft.processing import WeftProcessor
from weft.responding import respond

IDS = torch.randint(3, 128, (3, 9), generator=torch.Generator().manual_seed(1)).to(DEVICE)
ROWS = Placement.of([[(item, item) for item in range(6)], [], [(1, 2), (3, 4), (5, 0)]])


def fusion_layer(dtype=torch.float64, **options) -> GatedCrossAttention:
    torch.manual_seed(0)
    layer = GatedCrossAttention(32, 24, **{"heads": 4, "kv_heads": 2, "head_dim": 8, "feed_forward": 8, **options})
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, 0, 0.4)
    return layer.to(dtype).requires_grad_(False)


def read_of(layer: GatedCrossAttention, lengths: list[int], seed: int = 0) -> ReadMemory:
    """Items of these lengths, with rubbish where they are padded."""
    generator = torch.Generator().manual_seed(seed)
    dtype = layer.q_proj.weight.dtype
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    shape = (len(lengths), 2, max(lengths), layer.head_dim)
    keys, values = (torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
    padding = ~mask[:, None, :, None]
    keyvalues = KeyValues(keys.masked_fill(padding, 99), values.masked_fill(padding, 99), mask)
    return ReadMemory("photos", (keyvalues,))


def looked_up(layer, hidden, read, items, top):
    """What one text token finds among items that it may see, in loops: the items with the greatest bounds, summed."""
    queries, keyvalues = layer._queries(hidden[None, None])[0, :, 0], read.layers[0]
    shared = layer.q_proj.out_features // layer.k_proj.out_features

    def of(tensor, item, head):
        return tensor[item, head // shared][keyvalues.mask[item]]

    def bound(item):
        total = 0.0
        for head, query in enumerate(queries):
            for one, column in zip(query.tolist(), of(keyvalues.keys, item, head).T, strict=True):
                total += max(one * float(column.min()), one * float(column.max()))
        return total

    items = [item for item in items if keyvalues.mask[item].any()]
    best = sorted(items, key=bound, reverse=True)[:top]
    found = torch.zeros_like(queries)
    for head, query in enumerate(queries if best else ()):
        keys, values = (torch.cat([of(t, item, head) for item in best]) for t in (keyvalues.keys, keyvalues.values))
        found[head] = (keys @ query / layer.head_dim**0.5).softmax(0) @ values
    return layer._taken_up(hidden[None, None], found[None, :, None])[0, 0] if best else hidden


@settings(deadline=None, max_examples=40)
@given(
    rows=st.lists(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=5), min_size=1, max_size=4),
    again=st.integers(1, 2),
    lengths=st.lists(st.integers(0, 4), min_size=6, max_size=6).filter(any),
    top=st.integers(1, 4),
    seed=st.integers(0, 2**31),
)
def test_each_token_looks_at_the_items_that_plain_loops_choose(rows, again, lengths, top, seed):
    """Rows with several items, the same ones, or none; padded and empty items; in a prompt and after it."""
    rows = [row for row in rows for _ in range(again)]
    layer = fusion_layer()
    read = read_of(layer, lengths, seed)
    placed = arrange(read, Placement.of(rows), top=top)
    if placed is None:
        assert not any(rows)
        return
    hidden = torch.randn(len(rows), 4, 32, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    columns = torch.arange(4)
    prompt = placed.fuse(layer, 0, hidden, placed.visible(columns))
    settled = placed.after_prompt()
    step = settled.fuse(layer, 0, hidden[:, :1], settled.visible(columns[:1]))
    for index, row in enumerate(rows):
        if not row:
            assert torch.equal(prompt[index], hidden[index]) and torch.equal(step[index], hidden[index, :1])
        for column in range(4):
            seen = [item for item, start in row if start <= column]
            expected = looked_up(layer, hidden[index, column], read, seen, top)
            torch.testing.assert_close(prompt[index, column], expected)
        expected = looked_up(layer, hidden[index, 0], read, [item for item, _ in row], top)
        torch.testing.assert_close(step[index, 0], expected)


@pytest.mark.parametrize("tokens", [1, 3])
def test_what_is_gathered_is_what_a_mask_shows(tokens):
    """Two groups of rows; items of several lengths; some that may not be seen, and fewer of them than are looked at."""
    layer = fusion_layer()
    read = read_of(layer, [5, 2, 4, 1, 5, 3, 5, 5, 4, 5, 2, 5])
    placed = arrange(read, Placement.of([[(item, 0) for item in range(12)], [(3, 0), (8, 9)]]), top=2)
    (keyvalues,) = placed.layers
    queries = layer._queries(torch.randn(2, tokens, 32, dtype=torch.float64))
    visible = placed.visible(torch.arange(tokens))
    assert tokens * 2 * 5 <= keyvalues.keys.shape[2]
    mask = narrowed(queries, keyvalues, visible)
    assert (mask.sum(-1) <= 10).all() and (mask[1].sum(-1) == 1).all()
    expected = attention(queries, keyvalues.keys, keyvalues.values, mask[:, None])
    torch.testing.assert_close(look(queries, keyvalues, visible), expected)
    weights = layer.weights(torch.randn(2, tokens, 32, dtype=torch.float64), keyvalues, visible)
    assert ((weights > 0).any(1).sum(-1) <= 10).all()


@pytest.mark.parametrize("tokens", [1, 6])
def test_rows_that_decode_side_by_side_choose_each_for_itself(tokens):
    layer = fusion_layer()
    read = read_of(layer, [4, 3, 4, 2, 4, 1, 4, 4])
    own = [arrange(read, Placement.of([[(item, 0) for item in items]]), top=2) for items in (range(8), (2, 5, 7))]
    hidden = torch.randn(3, tokens, 32, dtype=torch.float64)
    memories, visible = [one.layers[0] for one in own], [one.visible(torch.arange(tokens)) for one in own]
    together = layer.forward_each(hidden, memories, [2, 1], visible)
    alone = [own[row // 2].fuse(layer, 0, hidden[row : row + 1], visible[row // 2]) for row in range(3)]
    torch.testing.assert_close(together, torch.cat(alone))


def test_packed_layer_chooses_as_the_layer_does():
    layer = fusion_layer(torch.bfloat16, head_dim=32, feed_forward=32)
    read = read_of(layer, [9, 9, 7, 9, 9])
    read.layers[0].keys[3] *= 4  # so that rounding decides nothing
    read.layers[0].keys[1] *= 2
    placed = arrange(read, Placement.of([[(item, 0) for item in range(5)]]), top=2)
    other = arrange(read, Placement.of([[(2, 0)]]), top=2)
    hidden = torch.randn(3, 1, 32).bfloat16()
    given = hidden, [placed.layers[0], other.layers[0]], [2, 1], [None, None]
    expected = layer.forward_each(*given)
    assert (PackedFusion(layer).forward_each(*given) - expected).norm() < 0.05 * (expected - hidden).norm()


@torch.no_grad()
@pytest.mark.parametrize("sees", ["all", "last"])
def test_as_many_as_there_are_is_all_bit_for_bit(sees):
    model = woven(sees=sees)
    read = model.read(memory(6))
    every = [model.place(read, ROWS)]
    for top in (6, 100):
        placed = [model.place(read, ROWS, top)]
        assert torch.equal(model(input_ids=IDS, memories=placed).logits, model(input_ids=IDS, memories=every).logits)
    fewer = model(input_ids=IDS, memories=[model.place(read, ROWS, 2)]).logits
    assert torch.equal(fewer, model(input_ids=IDS, memories=every).logits) == (sees == "last")
    assert torch.equal(fewer[1], model.language_model(input_ids=IDS).logits[1])


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("make", [woven, reader])
def test_batch_generates_what_each_row_generates_alone(make, beams):
    model = make()
    read = model.read(memory(6)) if make is woven else model.read_texts(["a fox", "b", "the dog sat", "tea", "it", "x"])
    options = {"max_new_tokens": 6, "eos_token_id": None, "num_beams": beams, "do_sample": False}
    mask = torch.ones_like(IDS)
    batch = model.generate(IDS, attention_mask=mask, memories=[model.place(read, ROWS, 2)], **options)
    for row in range(3):
        placed = model.place(read, Placement(ROWS.items[row : row + 1], ROWS.starts[row : row + 1]), 2)
        given = {"attention_mask": mask[:1], "memories": [] if placed is None else [placed], **options}
        assert torch.equal(model.generate(IDS[row : row + 1], **given)[0], batch[row])


@torch.no_grad()
def test_pictures_and_documents_given_as_tensors_are_chosen_among():
    model = woven()
    pixels = torch.randn(3, 3, 24, 24, generator=torch.Generator().manual_seed(2)).to(DEVICE)
    given = {"input_ids": IDS[:1], "pixel_values": pixels, "image_positions": torch.tensor([[0, 2, 4]])}
    placed = model.see(pixels, given["image_positions"], 1)
    assert placed.layers[0].items.top == 1
    expected = model(input_ids=IDS[:1], memories=[placed]).logits
    assert torch.equal(model(**given, top_memory=1).logits, expected)
    options = {"max_new_tokens": 5, "eos_token_id": None, "do_sample": False}
    found = model.generate(**given, top_memory=1, **options)
    assert torch.equal(found, model.generate(IDS[:1], memories=[placed], **options))


# Every way to words


PASSAGES = ["The fox sat in the snow.", "It saw a bird.", "Tea is hot.", "Nobody came to the house on the hill."]


@pytest.fixture(scope="module")
def both():
    """Eyes and a reader with a copy gate on one language model."""
    model = woven(language_model("llama", max_position_embeddings=512))
    model.processor = WeftProcessor(tokenizer(), model.encoder(), system_prompt="You help.")
    weave(model, text="language-model", layers=[1, 2], copy_width=8)
    return open_weave(model, "reader").eval()


def asked(text: str, passages: list[str]) -> list[dict]:
    documents = [{"type": "document", "text": passage} for passage in passages]
    return [{"role": "user", "content": [*documents, {"type": "text", "text": text}]}]


def test_engine_says_what_generate_says(both):
    conversations = [asked("Who sat?", PASSAGES), asked("Hello", []), asked("What is hot?", PASSAGES[1:])]
    with Engine(both, top_memory=1) as engine:
        replies = engine.generate_batch(conversations, max_tokens=12)
    for messages, reply in zip(conversations, replies, strict=True):
        given = both.processor.apply_chat_template(messages, add_generation_prompt=True)
        out = both.generate(**given, top_memory=1, max_new_tokens=12, do_sample=False)[0, given["input_ids"].shape[1] :]
        assert reply == both.processor.decode(out, skip_special_tokens=True).strip()
        assert reply == both.chat(messages, top_memory=1, max_new_tokens=12)["content"]
    assert replies[0] != both.chat(conversations[0], max_new_tokens=12)["content"]


@pytest.mark.parametrize("beams", [1, 3])
def test_plain_decoder_says_what_generate_says(both, beams, monkeypatch):
    read = both.read_texts(PASSAGES)
    prompts, held = [[5, 9, 11], [40, 7, 33, 8, 20]], [[(item, 1) for item in range(4)], [(1, 0), (3, 2)]]
    options = {"beams": beams, "longest": 8, "top_memory": 1}
    plain = respond(both, read, prompts, held, **options)
    monkeypatch.setattr(both.plain, "get", lambda: None)
    assert [one.tokens for one in plain] == [one.tokens for one in respond(both, read, prompts, held, **options)]


def test_copy_gates_look_at_the_whole_memory(both):
    placed = both.place(both.read_texts(PASSAGES), Placement.of([[(item, 0) for item in range(4)]]), 1)
    hidden = torch.randn(1, 2, both.config.get_text_config().hidden_size)
    shares, _ = placed.shares(both.weave("reader").copy_gate, hidden, placed.visible(torch.arange(2)), None)
    assert shares.copied.isfinite().all()


def test_answers_and_summaries_look_at_the_most_promising_passages(both):
    question = "Who sat in the snow?"
    every, some = both.answer(question, PASSAGES), both.answer(question, PASSAGES, top_memory=1)
    assert both.answer(question, PASSAGES, top_memory=4) == every
    assert some.log_probability != every.log_probability
    text = "\n\n".join(PASSAGES * 40)
    assert both.summarize(text, explain=True, top_memory=1, max_new_tokens=5).leaning is not None
    titles = [both.title(text, beams=1, max_new_tokens=5, top_memory=top) for top in (1, None)]
    assert titles[0].log_probability != titles[1].log_probability


@pytest.mark.parametrize("top", [0, -3])
def test_fewer_than_one_is_refused(both, top):
    read = both.read_texts(PASSAGES)
    wrong = [
        lambda: both.place(read, Placement.of([[(0, 0)]]), top),
        lambda: both.answer("Who?", PASSAGES, top_memory=top),
        lambda: both.summarize("A text.", top_memory=top),
        lambda: both.chat(asked("Who?", PASSAGES), top_memory=top),
        lambda: both.generate(IDS, document_ids=IDS, top_memory=top),
        lambda: Engine(both, top_memory=top),
        lambda: evaluate(both, [], top_memory=top),
    ]
    for call in wrong:
        with pytest.raises(WeftError, match=f"top_memory={top}: give at least 1"):
            call()


@pytest.mark.parametrize("command", [["answer", "Who?", "--knowledge", "."], ["summarize", "a.txt"], ["evaluate", "a"]])
def test_fewer_than_one_is_wrong_use_on_the_command_line(command):
    result = CliRunner().invoke(app, [*command, "--top-memory", "0"])
    assert result.exit_code == 2 and "--top-memory" in result.output


# A needle


@torch.no_grad()
def test_needle_among_a_hundred_thousand_tokens_is_found():
    """Four items of a thousand give what all give, where the needle's keys are close to the query; any four do not."""
    layer = fusion_layer(torch.float32, heads=2, kv_heads=2, head_dim=64)
    generator = torch.Generator().manual_seed(5)
    hidden = torch.randn(1, 1, 32, generator=generator)
    queries = layer._queries(hidden)
    keys = 0.3 * torch.randn(1000, 2, 100, 64, generator=generator)
    direction = queries[0, :, 0] / queries[0, :, 0].square().mean(-1, keepdim=True)
    keys[617, :, 40:45] = 2.5 * direction[:, None]
    values = torch.randn(1000, 2, 100, 64, generator=generator)
    read = ReadMemory("photos", (KeyValues(keys, values),))
    whole = Placement.of([[(item, 0) for item in range(1000)]])
    every = arrange(read, whole).fuse(layer, 0, hidden, None)
    placed = arrange(read, whole, top=4)
    found = narrowed(queries, placed.layers[0], None)[0, 0].view(1000, 100).any(1).nonzero()[:, 0].tolist()
    assert len(found) == 4 and 617 in found
    moved = (every - hidden).norm()
    assert (placed.fuse(layer, 0, hidden, None) - every).norm() < 0.01 * moved
    drawn = torch.randperm(1000, generator=generator)[:4].tolist()
    assert 617 not in drawn
    random = arrange(read, Placement.of([[(item, 0) for item in drawn]])).fuse(layer, 0, hidden, None)
    assert (random - every).norm() > 0.3 * moved
