"""Joint fusion layers: memory and text in one softmax, as plain loops have it, cached by every way to words."""

from __future__ import annotations

import cmath
import math

import pytest
import torch
from families import language_model
from PIL import Image
from transformers import DynamicCache
from woven import begin_tokenizer, encoder, memory, open_weave, tokenizer, woven

from weft.data import Row, collate
from weft.decoder import TextCache
from weft.engine import Engine, Limits
from weft.errors import PartError, RecipeError, WeftError
from weft.explain import look as looked_at
from weft.fastpath import HiddenStore, UpperStack, Vocabulary
from weft.fusion import GatedCrossAttention
from weft.joint import JointFusion, TextKeys
from weft.losses import StepLoss
from weft.making import weave
from weft.memory import KeyValues, Placement
from weft.model import WeftModel
from weft.packed_weave import PackedJointFusion
from weft.plain import PlainDecoder
from weft.processing import WeftProcessor
from weft.recipe import Recipe
from weft.responding import prompt_of, respond
from weft.rows import Reading, Rows
from weft.sampling import sample
from weft.search import read_prompt
from weft.store import FeatureStore
from weft.trainer import Trainer
from weft.weaving import decoder_layers

IDS = torch.randint(3, 99, (3, 9), generator=torch.Generator().manual_seed(1))
PADDED = torch.tensor([[1] * 9, [0] * 3 + [1] * 6, [0] * 2 + [1] * 7])
ROWS = [[(0, 2), (1, 5)], [], [(1, 4)]]
"""Columns of a batch in which the second and the third row are padded on the left."""


def joint(family="llama", **options) -> WeftModel:
    return woven(family, joint=True, **options)


# Against the formula


def turned(vector: list[float], angle: float, theta: float) -> list[float]:
    """A vector whose halves are the real and imaginary parts of complex numbers, turned by a rotary position."""
    half = len(vector) // 2
    numbers = [complex(vector[n], vector[n + half]) * cmath.exp(1j * angle * theta ** (-n / half)) for n in range(half)]
    return [one.real for one in numbers] + [one.imag for one in numbers]


def expected_row(layer, hidden, items, sees, real, position, theta):
    """What a joint layer makes of one row, token by token, head by head, key by key.

    ``items`` are pairs of features and the column from which on they may be seen; ``real(c, k)`` says whether the token
    in column c may look at the one in column k, and ``position`` where each stands.
    """
    width, heads = layer.head_dim, layer.q_proj.out_features // layer.head_dim
    shared = heads // (layer.k_proj.out_features // width)

    def of(projection, norm, x, head):
        return norm(projection(x)[head * width : (head + 1) * width])

    result = []
    for column, state in enumerate(hidden):
        seen = [item for item in items if item[1] <= column]
        seen = seen[-1:] if sees == "last" else seen
        if not seen:
            result.append(state)
            continue
        since, found = min(start for _, start in seen), []
        for head in range(heads):
            query = of(layer.q_proj, layer.q_norm, layer.hidden_norm(state), head).tolist()
            chances, values = [], []

            def add(key, distance, value, query=query, chances=chances, values=values):
                key = turned(key.tolist(), distance, theta) if theta else key.tolist()
                chances.append(math.exp(sum(a * b for a, b in zip(query, key, strict=True)) / math.sqrt(width)))
                values.append(value)

            for features, _ in seen:
                for place, token in enumerate(features):
                    x = layer.memory_norm(token)
                    key = of(layer.k_proj, layer.k_norm, x, head // shared)
                    add(key, place - len(features), of(layer.v_proj, torch.nn.Identity(), x, head // shared))
            for other in range(since, column + 1):
                if real(column, other):
                    x = layer.hidden_norm(hidden[other])
                    key = of(layer.k_proj, layer.k_norm, x, head // shared)
                    value = of(layer.v_proj, torch.nn.Identity(), x, head // shared)
                    add(key, float(position[other] - position[column]), value)
            total = sum(chances)
            found.append(sum(chance / total * value for chance, value in zip(chances, values, strict=True)))
        result.append(layer._taken_up(state[None, None], torch.stack(found)[None, :, None])[0, 0])
    return torch.stack(result)


def around(model: WeftModel, index: int):
    """Lists of the hidden states in front of, and behind, a fusion layer while the model runs."""
    layer = decoder_layers(model.language_model)[model.weave().config.layers[index]]
    before, behind = [], []

    def catch(found):
        return lambda _, args, kwargs: found.append((args[0] if args else kwargs["hidden_states"]).clone())

    layer.register_forward_pre_hook(catch(before), with_kwargs=True, prepend=True)
    layer.register_forward_pre_hook(catch(behind), with_kwargs=True)
    return before, behind


@torch.no_grad()
@pytest.mark.parametrize("theta", [0.0, 100.0])
@pytest.mark.parametrize("sees", ["all", "last"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_every_token_finds_what_the_formula_says(family, sees, theta):
    """In a batch that is padded on the left, with several pictures, one, and none."""
    model = joint(family, sees=sees, rotary_theta=theta)
    model = model.double()
    features = model.weave().connector(memory().features.double())
    placed = model.place(model.read(memory()), Placement.of(ROWS))
    before, behind = around(model, 1)
    model(input_ids=IDS, attention_mask=PADDED, memories=[placed])
    assert torch.equal(behind[0][1], before[0][1])
    for row in (0, 2):
        items = [(features[item], start) for item, start in ROWS[row]]
        given = model.weave().fusion(1), before[0][row], items, sees
        found = expected_row(*given, lambda _, key, row=row: bool(PADDED[row, key]), range(9), theta)
        torch.testing.assert_close(behind[0][row], found, atol=1e-5, rtol=1e-5)  # angles are in float32


@torch.no_grad()
def test_padding_is_not_looked_at_though_the_picture_stands_in_front_of_it():
    model = joint()
    read = model.read(memory())
    batch = model(
        input_ids=IDS, attention_mask=PADDED, memories=[model.place(read, Placement.of([[], [], [(1, 0)]]))]
    ).logits
    options = {"attention_mask": PADDED[2:]}
    alone = model.place(read, Placement.of([[(1, 2)]]))
    expected = model(input_ids=IDS[2:], memories=[alone], **options).logits
    torch.testing.assert_close(batch[2, 2:], expected[0, 2:])


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom", "mamba"])
def test_rows_without_memory_are_the_language_model_bit_for_bit(family):
    model = joint(family)
    placed = model.place(model.read(memory()), Placement.of(ROWS))
    logits = model(input_ids=IDS, attention_mask=PADDED, memories=[placed]).logits
    bare = model.language_model(input_ids=IDS, attention_mask=PADDED).logits
    assert torch.equal(logits[1], bare[1])
    assert torch.equal(logits[0, :2], bare[0, :2]) and not torch.allclose(logits[0, 2:], bare[0, 2:])


@torch.no_grad()
def test_new_layers_are_the_identity():
    model = joint(opened=False)
    placed = model.place(model.read(memory()), Placement.of(ROWS))
    assert torch.equal(model(input_ids=IDS, memories=[placed]).logits, model.language_model(input_ids=IDS).logits)


@torch.no_grad()
def test_text_decides_how_much_of_the_memory_is_taken_up():
    """What a plain fusion layer always mixes in, a joint one can leave: here the text's keys are all that answers."""
    torch.manual_seed(0)
    plain, layer = (kind(32, 32, heads=2, qk_norm=False) for kind in (GatedCrossAttention, JointFusion))
    torch.nn.init.eye_(plain.o_proj.weight)
    layer.load_state_dict(plain.state_dict())
    hidden = torch.randn(1, 1, 32)
    queries = layer._queries(hidden)
    memory = KeyValues(-99 * queries, torch.ones(1, 2, 1, 16))
    text = TextKeys(99 * queries, torch.zeros(1, 2, 1, 16))
    assert (plain(hidden, memory) - hidden).abs().min() == pytest.approx(1)
    assert (layer(hidden, memory, None, text) - hidden).abs().max() < 1e-6
    assert torch.equal(layer(hidden, memory), plain(hidden, memory))


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_start_from_self_attention_looks_at_text_as_the_decoder_does(family):
    """With nothing to see in the memory, what a layer adds is half of what its decoder layer's own attention adds."""
    model = joint(family, opened=False, initial="self-attention", feed_forward=0)
    decoder = decoder_layers(model.language_model)[1]
    caught = []
    decoder.self_attn.register_forward_hook(lambda *given: caught.append(given[2][0]))
    states, _ = around(model, 0)
    model.language_model(input_ids=IDS)
    layer, hidden = model.weave().fusion(0), states[0]
    rotation = layer.rotation(torch.arange(9).expand(3, -1))
    text = TextKeys(*layer.read_text(hidden, rotation), torch.ones(9, 9).tril().bool().expand(3, -1, -1), rotation)
    nothing = torch.zeros(3, layer.k_proj.out_features // layer.head_dim, 0, layer.head_dim)
    fused = layer(hidden, KeyValues(nothing, nothing), None, text)
    torch.testing.assert_close(fused, hidden + 0.5 * caught[0])


def test_memory_of_another_width_is_refused():
    with pytest.raises(ValueError, match=r"32 .* 64"):
        JointFusion(64, 32, heads=4)


# Decoding


OPTIONS = {"attention_mask": PADDED, "max_new_tokens": 8, "eos_token_id": None, "pad_token_id": 0, "do_sample": False}


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3", "gemma2", "bloom", "mamba"])
def test_decoding_over_a_cache_says_what_computing_anew_says(family, beams):
    model = joint(family, sees="last", rotary_theta=100.0)
    placed = [model.place(model.read(memory()), Placement.of(ROWS))]
    cached = model.generate(IDS, memories=placed, num_beams=beams, **OPTIONS)
    anew = model.generate(IDS, memories=placed, num_beams=beams, use_cache=False, **OPTIONS)
    assert torch.equal(cached, anew)


@torch.no_grad()
def test_samples_of_a_row_have_texts_of_their_own():
    """Rows that share one copy of a memory do not look at each other's text."""
    model = joint()
    placed = [model.place(model.read(memory()), Placement.of([[(0, 2)]]))]
    torch.manual_seed(0)
    options = {**OPTIONS, "attention_mask": PADDED[:1], "do_sample": True, "num_return_sequences": 4}
    said = model.generate(IDS[:1], memories=placed, output_logits=True, return_dict_in_generate=True, **options)
    assert len({tuple(row) for row in said.sequences.tolist()}) == 4
    for row, sequence in enumerate(said.sequences):
        logits = model(input_ids=sequence[None], memories=placed).logits[0, 8:-1]
        torch.testing.assert_close(torch.stack([step[row] for step in said.logits]), logits)


@torch.no_grad()
@pytest.mark.parametrize("made", [True, False])
def test_a_text_goes_on_in_a_cache_and_a_picture_joins_it(made):
    """The cache is the language model's own, made by it or by the caller; text in front of the picture is in it."""
    model = joint()
    placed = [model.place(model.read(memory()), Placement.of([[(0, 4)], [(1, 6)], []]))]
    whole = model(input_ids=IDS, memories=placed).logits
    given = {"cache": DynamicCache()} if made else {}
    cache = model(input_ids=IDS[:, :4], use_cache=True, **given).cache
    logits = [model(input_ids=IDS[:, 4:7], memories=placed, cache=cache).logits]
    logits += [model(input_ids=IDS[:, column : column + 1], memories=placed, cache=cache).logits for column in (7, 8)]
    torch.testing.assert_close(torch.cat(logits, 1), whole[:, 4:])


@torch.no_grad()
def test_static_shapes_say_the_same_and_are_compiled_once():
    torch.compiler.reset()
    model = joint(rotary_theta=100.0, layers=[1], every=None, start=None)
    asked = [(torch.randint(3, 90, (2, tokens)), memory(2, seed=tokens)) for tokens in (6, 9)]

    def say(ids, features):
        placed = [model.place(model.read(features), Placement.of([[(0, 2)], [(1, 3)]]))]
        return model.generate(ids, memories=placed, **{**OPTIONS, "attention_mask": torch.ones_like(ids)}).tolist()

    plain = [say(*one) for one in asked]
    model.compile_decoding(64, backend="eager")
    compiled = [say(*asked[0])]
    torch.compiler.set_stance("fail_on_recompile")
    try:
        compiled += [say(*one) for one in asked[1:]]
    finally:
        torch.compiler.set_stance("default")
    assert model.static.works and compiled == plain


def reader(theta: float = 100.0) -> WeftModel:
    base = language_model("qwen3", max_position_embeddings=512)
    options = {"layers": [1, 2], "copy_width": 8, "tokenizer": tokenizer(), "rotary_theta": theta, "joint": True}
    return open_weave(weave(base, text="language-model", **options).eval(), "reader")


def seeing(**options) -> WeftModel:
    model = joint(language_model("llama", max_position_embeddings=512), **options)
    model.processor = WeftProcessor(tokenizer(), model.encoder(), system_prompt="")
    return model


def picture(seed: int) -> Image.Image:
    torch.manual_seed(seed)
    return Image.fromarray(torch.randint(0, 255, (24, 24, 3), dtype=torch.uint8).numpy())


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("kind", ["pictures", "last picture", "texts"])
def test_the_plain_decoder_says_what_generate_says(kind, beams):
    """Prompts of several lengths with one memory, several, and none: the same words, as likely."""
    if kind == "texts":
        model = reader()
        read = model.read_texts(["The fox sat in the snow.", "Tea is hot.", "It saw a bird."])
    else:
        model = seeing(sees="last" if "last" in kind else "all", rotary_theta=100.0)
        read = model.read([picture(seed) for seed in range(3)])
    torch.manual_seed(0)
    prompts = [torch.randint(3, 99, (length,)).tolist() for length in (4, 11, 7, 7)]
    held = [[(0, 1)], [(2, 0), (1, 6)], [], [(0, 3)]]
    said = respond(model, read, prompts, held, beams=beams, longest=12)
    model.plain.get = lambda: None
    for one, other in zip(said, respond(model, read, prompts, held, beams=beams, longest=12), strict=True):
        assert one.tokens == other.tokens
        assert one.log_probability == pytest.approx(other.log_probability, abs=0.2 if beams == 1 else 1e-3)


def test_the_most_promising_items_are_chosen_beside_the_text():
    model = seeing()
    read = model.read([picture(seed) for seed in range(5)])
    prompts, held = [IDS[0].tolist()], [[(item, item) for item in range(5)]]
    options = {"beams": 2, "longest": 8}
    all_of_them = respond(model, read, prompts, held, **options)
    assert respond(model, read, prompts, held, top_memory=5, **options) == all_of_them
    (said,) = respond(model, read, prompts, held, top_memory=2, **options)
    model.plain.get = lambda: None
    (other,) = respond(model, read, prompts, held, top_memory=2, **options)
    assert said.tokens == other.tokens
    assert said.log_probability == pytest.approx(other.log_probability, abs=1e-3)
    assert said.log_probability != pytest.approx(all_of_them[0].log_probability, abs=1e-3)


def asked(text: str, *seeds: int) -> list[dict]:
    images = [{"type": "image", "image": picture(seed)} for seed in seeds]
    return [{"role": "user", "content": [*images, {"type": "text", "text": text}]}]


CONVERSATIONS = [asked("What is it?", 0), asked("Hello"), asked("Which of them?", 1, 2), asked("y" * 70, 1)]


@pytest.mark.parametrize("plain", [True, False])
def test_an_engine_replies_as_each_is_replied_to_alone(plain):
    model = seeing(rotary_theta=100.0)
    if not plain:
        model.plain.get = lambda: None
    expected = [model.chat(one, beams=1, max_new_tokens=6)["content"] for one in CONVERSATIONS]
    with Engine(model, Limits(rows=3)) as engine:
        for _ in range(2):  # the second time beginnings of prompts are known
            assert engine.generate_batch(CONVERSATIONS, max_tokens=6) == expected


def packed(**options) -> WeftModel:
    base = language_model("llama", hidden_size=64, intermediate_size=128, head_dim=16, max_position_embeddings=512)
    model = joint(base.bfloat16(), dtype=torch.bfloat16, **options)
    model.processor = WeftProcessor(tokenizer(), model.encoder(), system_prompt="")
    model.plain = PlainDecoder(model, "int8")
    return model


@torch.inference_mode()
def test_a_reply_over_packed_weights_is_the_same_bit_for_bit_whoever_else_is_in_the_batch():
    model = packed(rotary_theta=100.0)
    decoder, weaves = model.plain.get(), model.plain.weaves()
    prompts = [prompt_of(model, one) for one in CONVERSATIONS]

    def logits(which: list[int]) -> torch.Tensor:
        cache = TextCache(decoder)
        for one in which:
            own = TextCache(decoder, 1)
            read_prompt(decoder, weaves, prompts[one], own)
            cache.append(own)
        readings = [Reading(prompts[one].memories).after_prompt(1) for one in which]
        rows = Rows(weaves, readings, torch.zeros(1).long(), cache)
        for token in (5, 6):
            hidden = decoder(torch.full((len(which), 1), token), cache, rows)
        return decoder.logits(hidden)

    together = logits([0, 1, 2, 3, 0])
    for place, one in enumerate([0, 1, 2, 3, 0]):
        assert torch.equal(logits([one])[0], together[place])


@pytest.mark.parametrize("qk_norm", [True, False])
def test_a_packed_layer_computes_what_the_layer_does(qk_norm):
    torch.manual_seed(0)
    layer = JointFusion(64, 64, heads=4, kv_heads=2, head_dim=32, feed_forward=32, rotary_theta=100.0, qk_norm=qk_norm)
    layer = layer.to(torch.bfloat16).eval().requires_grad_(False)
    for parameter in layer.parameters():
        parameter.copy_(torch.randn_like(parameter) * 0.2 if parameter.ndim > 1 else 1 + 0.2 * torch.randn(()))
    made = PackedJointFusion(layer)
    hidden, before = torch.randn(3, 1, 64).bfloat16(), torch.randn(3, 6, 64).bfloat16()
    memories = [layer.read(torch.randn(1, tokens, 64).bfloat16()) for tokens in (9, 5)]
    rotation = layer.rotation(torch.tensor([[6], [6], [4]]))
    earlier = layer.read_text(before, layer.rotation(torch.arange(6).expand(3, -1)))

    class Kept:
        """Texts of six tokens, twice, and of four, of which the first two are not looked at."""

        def __init__(self):
            self.rotation = rotation

        def add(self, *new):
            def text(rows, begin, end):
                keys, values = (
                    torch.cat((old[rows, :, begin:end], one[rows]), 2) for old, one in zip(earlier, new, strict=True)
                )
                return TextKeys(keys, values, None, tuple(one[rows] for one in rotation))

            return [text(slice(0, 2), 0, 6), text(slice(2, 3), 2, 4)]

    given = hidden, memories, [2, 1], [None, None]
    expected = layer.forward_each(*given, texts=Kept())
    found = made.forward_each(*given, texts=Kept())
    assert (found - expected).norm() < 0.03 * (expected - hidden).norm()
    texts = Kept().add(*layer.read_text(hidden, rotation))
    alone = [layer(hidden[:2], memories[0], None, texts[0]), layer(hidden[2:], memories[1], None, texts[1])]
    torch.testing.assert_close(expected, torch.cat(alone), atol=0.02, rtol=0.02)


def test_packed_weights_say_about_as_much_as_plain_ones():
    model = packed()
    read, prompts, held = model.read([picture(0)]), [IDS[0].tolist()], [[(0, 3)]]
    (narrow,) = respond(model, read, prompts, held, beams=1, longest=6)
    model.plain = PlainDecoder(model, None)
    (plain,) = respond(model, read, prompts, held, beams=1, longest=6)
    assert narrow.log_probability == pytest.approx(plain.log_probability, rel=0.05)


def test_samples_for_self_critical_training_are_those_of_generate(monkeypatch):
    model = joint(rotary_theta=100.0)
    items = [[(0, 1)], [(1, 2)], [], [(2, 0), (3, 3)]]
    with torch.no_grad():
        read = model.weave().read(memory(4))
    ids = IDS[:1, :4].expand(4, -1)
    options = {**OPTIONS, "attention_mask": torch.ones_like(ids), "memories": [model.place(read, Placement.of(items))]}
    long = model.generate(ids, **options)[:, 4:].tolist()
    end = long[0][3]
    expected = [row[: row.index(end) + 1] if end in row else row for row in long]
    monkeypatch.setattr(torch.Tensor, "multinomial", lambda chances, number: chances.argmax(-1, keepdim=True))
    everything = Vocabulary(torch.arange(128), torch.arange(0), 0)
    said = sample(model, read, items, ids[0].tolist(), 2, everything, end=end, longest=8)
    assert said == [row for row in expected for _ in range(2)]


# Training, saving, explaining


@pytest.mark.parametrize("stored", [True, False])
def test_answers_that_share_a_row_are_learned_as_if_each_had_its_own(stored, tmp_path):
    """An answer looks at the prompt and at itself, and stands where it would stand alone."""
    model = joint(rotary_theta=100.0)
    answers = [((30, 31, 2), (True,) * 3), ((40, 2), (True,) * 2), ((50, 51, 52, 2), (True,) * 4)]
    rows = [Row(tuple(IDS[n].tolist()), tuple(answers[n:]), (), (), "") for n in range(2)]
    alone = [Row(row.prompt, (answer,), (), (), "") for row in rows for answer in row.answers]
    features = memory()
    step = StepLoss(model, "photos")
    if stored:
        store = FeatureStore(tmp_path, dtype=torch.float32)
        step.hidden = HiddenStore(store, UpperStack(model.language_model, 1), "")
        step.hidden.fill(collate(rows, pad=0))
        step.hidden.fill(collate(alone, pad=0))
    gradients = []
    for some, items in ((rows, [0, 1]), (alone, [0, 0, 0, 1, 1])):
        placement = Placement.of([[(item, 3)] for item in items])
        loss = step(collate(some, pad=0), features, placement)
        gradients.append((loss, *torch.autograd.grad(loss, model.weave().fusion(1).k_proj.weight)))
    for together, apart in zip(*gradients, strict=True):
        torch.testing.assert_close(together, apart)


def test_gradient_checkpointing_gives_the_same_gradients():
    gradients = []
    for checkpointing in (False, True):
        model = joint().train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        placed = [model.place(model.read(memory()), Placement.of(ROWS))]
        model(input_ids=IDS, memories=placed, labels=IDS).loss.backward()
        gradients.append([p.grad.clone() for p in model.weaves.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


@torch.no_grad()
def test_what_is_saved_is_loaded_again(tmp_path):
    model = joint()
    model.save_pretrained(tmp_path, merge=True)
    loaded = WeftModel.from_pretrained(tmp_path)
    assert loaded.weave().config.joint
    placed = [model.place(model.read(memory()), Placement.of(ROWS))]
    again = [loaded.place(loaded.read(memory()), Placement.of(ROWS))]
    assert torch.equal(loaded(input_ids=IDS, memories=again).logits, model(input_ids=IDS, memories=placed).logits)


@torch.no_grad()
def test_a_heat_map_shows_what_went_to_the_picture():
    model = seeing()
    read = model.read([picture(0)])
    answer = [ord(letter) for letter in "a dog"]
    seen = looked_at(model, read, IDS[0].tolist(), 3, answer, picture(0))
    assert seen.weights.shape == (2, 9)
    assert seen.weights.sum(1) == pytest.approx(1)
    layer, hidden = model.weave().fusion(0), torch.randn(1, 2, 32)
    text = TextKeys(*layer.read_text(hidden))
    shares = layer.weights(hidden, read.layers[0], None, text).sum(-1)
    assert ((shares > 0) & (shares < 1)).all()


@torch.no_grad()
def test_text_that_was_kept_nowhere_is_missed():
    model = joint()
    placed = [model.place(model.read(memory()), Placement.of(ROWS))]
    with pytest.raises(WeftError, match="use_cache=False"):
        model(input_ids=IDS, memories=placed, columns=torch.arange(3, 12), use_cache=False)
    cache = model(input_ids=IDS[:, :6], memories=placed).cache
    model(input_ids=IDS[:, 6:7], cache=cache)
    with pytest.raises(WeftError, match="with every part"):
        model(input_ids=IDS[:, 7:], memories=placed, cache=cache)


def recipe(world, out, **changes) -> Recipe:
    fields = {
        "data": str(world / "train.jsonl"),
        "output": str(out),
        "features": str(world / "features"),
        "language_model": str(world / "lm"),
        "vision": str(world / "vit"),
        "weave": {"layers": [2], "connector_layers": 1, "connector_heads": 4},
        "precision": "fp32",
        "batch_size": 2,
        "warmup": 1,
        "sampled_vocabulary": None,
    }
    return Recipe(**{**fields, **changes})


def test_a_run_begins_with_the_connector_of_another(tmp_path):
    """New joint layers in front of every decoder layer, started from self-attention behind a connector that knows."""
    language_model("llama").save_pretrained(tmp_path / "lm")
    begin_tokenizer().save_pretrained(tmp_path / "lm")
    encoder().save_pretrained(tmp_path / "vit")
    encoder(seed=1).save_pretrained(tmp_path / "other")
    picture(0).save(tmp_path / "one.png")
    line = '{"messages": [{"role": "user", "content": [{"type": "image", "image": "one.png"}]}, %s]}\n'
    (tmp_path / "train.jsonl").write_text(line % '{"role": "assistant", "content": "noise."}' * 2)
    first = Trainer(recipe(tmp_path, tmp_path / "first")).run()
    changes = {"layers": [0, 1, 2], "joint": True, "initial": "self-attention"}
    weave_of = {**recipe(tmp_path, "").weave, **changes}
    second = Trainer(
        recipe(tmp_path, tmp_path / "second", weave=weave_of, initial_connector=str(tmp_path / "first" / "best"))
    )
    learned, own = first.weave().connector.state_dict(), second.weave.connector.state_dict()
    for name, tensor in learned.items():
        assert torch.equal(own[name], tensor), name
    decoder = decoder_layers(second.model.language_model)
    for number, layer in enumerate(decoder):
        assert torch.equal(second.weave.fusion(number).k_proj.weight, layer.self_attn.k_proj.weight)
    second.run()
    assert (tmp_path / "second" / "best" / "model.safetensors").is_file()
    other = recipe(tmp_path, "", vision=str(tmp_path / "other"), initial_connector=str(tmp_path / "first" / "best"))
    with pytest.raises(PartError, match="connector"):
        Trainer(other)
    with pytest.raises(RecipeError, match="one of the two"):
        recipe(tmp_path, "", initial_connector="a", initial_weights="b")
