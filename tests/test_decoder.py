"""The plain decoder and its search, held to transformers: logits, words, and what rows with memories read."""

from __future__ import annotations

import pytest
import torch
from families import language_model
from PIL import Image
from woven import open_weave, tokenizer, woven

import weft
from weft.batching import SideBySide, texts_of
from weft.decoder import Decoder, TextCache, is_plain
from weft.errors import WeftError
from weft.fusion import GatedCrossAttention
from weft.hooks import head_inputs
from weft.making import weave
from weft.packed_weave import PackedFusion, PackedWeave
from weft.packing import GROUP, ROUNDING, pack
from weft.plain import PlainDecoder, may_be_plain
from weft.processing import WeftProcessor
from weft.responding import respond
from weft.tensor_file import TensorFile

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


def noise(seed: int) -> Image.Image:
    """A picture that is the same in every run, whatever ran before."""
    pixels = torch.randint(0, 256, (24, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(pixels.numpy())


def decoder_of(model, quantize=None):
    return Decoder(model.config.to_dict(), model.state_dict(), quantize)


@pytest.fixture(params=FAMILIES)
def family(request):
    model = language_model(request.param, tie_word_embeddings=request.param == "llama")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:  # at their start they would do nothing
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@torch.inference_mode()
def test_computes_what_transformers_computes(family):
    """Prompts of several lengths, each alone, then side by side, token by token."""
    decoder, prompts = decoder_of(family), [torch.randint(3, 99, (1, length)) for length in (5, 9, 5)]
    cache = TextCache(decoder)
    for prompt in prompts:
        own = TextCache(decoder, 1)
        found = decoder.logits(decoder(prompt, own))
        torch.testing.assert_close(found, family(prompt).logits[:, -1], atol=1e-4, rtol=1e-4)
        cache.append(own)
    texts = prompts
    for _ in range(4):
        tokens = torch.randint(3, 99, (3, 1))
        texts = [torch.cat((text, token[None]), 1) for text, token in zip(texts, tokens, strict=True)]
        expected = torch.cat([family(text).logits[:, -1] for text in texts])
        torch.testing.assert_close(decoder.logits(decoder(tokens, cache)), expected, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_text_goes_on_by_several_tokens_at_once(family):
    """As where two prompts share their beginning."""
    decoder, text = decoder_of(family), torch.randint(3, 99, (1, 14))
    cache = TextCache(decoder, 1)
    for part in text.split([6, 1, 7], 1):
        found = decoder.logits(decoder(part, cache))
    torch.testing.assert_close(found, family(text).logits[:, -1], atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_rows_are_kept_repeated_and_dropped(family):
    decoder, texts = decoder_of(family), torch.randint(3, 99, (2, 6))
    cache = TextCache(decoder, 2)
    decoder(texts, cache)
    cache.select([1, 1, 0])
    tokens = torch.tensor([[7], [8], [9]])
    expected = family(torch.cat((texts[[1, 1, 0]], tokens), 1)).logits[:, -1]
    torch.testing.assert_close(decoder.logits(decoder(tokens, cache)), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
        {"attention_bias": True},
        {"hidden_act": "gelu"},
    ],
)
def test_other_decoders_are_not_known(changes):
    assert is_plain(language_model("llama").config.to_dict())
    assert not is_plain(language_model("llama", **changes).config.to_dict())
    assert not is_plain(language_model("mistral", sliding_window=8).config.to_dict())
    assert not is_plain(language_model("gpt2").config.to_dict())


def lies_on_levels(rows: int = 64, groups: int = 3) -> torch.Tensor:
    """A matrix whose groups hold 16 evenly spaced values, both ends among them: what four bits can hold."""
    levels = torch.randint(0, 16, (rows, groups, GROUP))
    levels[..., 0], levels[..., 1] = 0, 15
    steps = torch.rand(rows, groups, 1) + 0.5
    return (levels * steps - 7 * steps).flatten(1)


@pytest.mark.parametrize("tokens", [1, 3, 8, 40])
@pytest.mark.parametrize("bits", ["int4", "int8"])
def test_packed_matrix_multiplies_as_the_levels_that_it_names(bits, tokens):
    matrix, x = torch.randn(64, 96).bfloat16(), torch.randn(tokens, 96).bfloat16()
    packed = pack(matrix, bits, torch.bfloat16)
    unit = torch.cat([packed(row[None]) for row in torch.eye(96).bfloat16()]).T.float()
    assert (unit - matrix.float()).abs().max() / matrix.float().abs().max() == pytest.approx(packed.error, abs=4e-3)
    torch.testing.assert_close(packed(x).float(), x.float() @ unit.T, atol=0.15, rtol=0.02)


def test_four_bits_lose_nothing_of_what_was_in_four_bits():
    assert pack(lies_on_levels().bfloat16(), "int4", torch.bfloat16).error <= ROUNDING
    assert pack(torch.randn(64, 96).bfloat16(), "int4", torch.bfloat16).error > 4 * ROUNDING


def quantizable(**changes):
    model = woven(language_model("llama", hidden_size=64, head_dim=16, **changes)).to(torch.bfloat16)
    model.processor = WeftProcessor(tokenizer(), model.encoder(), system_prompt="")
    return model


def test_packing_is_chosen_where_it_loses_nothing():
    model = quantizable()
    assert model.plain.get().quantize is None
    with torch.no_grad():
        for name, parameter in model.language_model.named_parameters():
            if parameter.ndim == 2 and "embed" not in name:
                parameter.copy_(lies_on_levels(len(parameter), parameter.shape[1] // GROUP) * 0.02)
    decoder = model.plain.get()
    assert decoder.quantize == "int4" and decoder.error <= ROUNDING
    assert model.plain.get() is decoder


@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_model_is_loaded_quantized_or_says_why_not(tmp_path, quantize):
    model = quantizable()
    model.save_pretrained(tmp_path / "llama", merge=True)
    loaded = weft.load(tmp_path / "llama", quantize=quantize)
    assert loaded.plain.get().quantize == quantize
    assert isinstance(loaded.caption(Image.new("RGB", (24, 24))).text, str)
    with pytest.raises(WeftError, match="bfloat16"):
        weft.load(tmp_path / "llama", quantize=quantize, dtype=torch.float32)
    with pytest.raises(WeftError, match="not known"):
        weft.load(tmp_path / "llama", quantize="int3")
    other = woven("gpt2").to(torch.bfloat16)
    other.processor = WeftProcessor(tokenizer(), other.encoder(), system_prompt="")
    other.save_pretrained(tmp_path / "gpt2", merge=True)
    with pytest.raises(WeftError, match="GPT2LMHeadModel"):
        weft.load(tmp_path / "gpt2", quantize=quantize)


def test_a_processor_without_bfloat16_gets_float32_and_packed_weights(tmp_path, monkeypatch):
    model = quantizable()
    with torch.no_grad():
        for name, parameter in model.language_model.named_parameters():
            if parameter.ndim == 2 and "embed" not in name:
                parameter.copy_(lies_on_levels(len(parameter), parameter.shape[1] // GROUP) * 0.02)
    model.save_pretrained(tmp_path, merge=True)
    picture = Image.new("RGB", (24, 24), "red")
    told = {}
    for native in (False, True):
        monkeypatch.setattr("weft.making.multiplies_bfloat16", lambda device, native=native: native)
        loaded = weft.load(tmp_path)
        assert loaded.dtype == (torch.bfloat16 if native else torch.float32)
        assert loaded.plain.get().quantize == "int4" and loaded.plain.get().embeddings.dtype == torch.bfloat16
        assert isinstance(loaded.plain.weaves()["photos"], PackedWeave)
        told[native] = loaded.caption(picture, beams=1).log_probability
        assert weft.load(tmp_path, dtype=torch.bfloat16).dtype == torch.bfloat16
        assert weft.load(tmp_path, dtype=torch.float32).plain.get().quantize is None
    assert told[False] == pytest.approx(told[True], rel=0.05)


def test_additions_to_the_language_model_are_not_left_out():
    model = woven("llama")
    assert may_be_plain(model)
    layer = model.language_model.model.layers[0].mlp
    handle = layer.register_forward_hook(lambda *a: None)
    assert not may_be_plain(model)
    handle.remove()
    handle = model.get_output_embeddings().register_forward_pre_hook(lambda *a: None)
    assert not may_be_plain(model)
    handle.remove()
    with head_inputs(model.get_output_embeddings()):  # which looks on at its own thread's calls, and changes nothing
        assert may_be_plain(model)
    layer.down_proj = torch.nn.Sequential(layer.down_proj)
    assert not may_be_plain(model)
    assert not may_be_plain(woven("gpt2"))


@torch.inference_mode()
def test_a_decoder_over_a_file_is_that_over_its_tensors(tmp_path, monkeypatch):
    """A prompt longer than those for which packed weights are faster, and a token; bit for bit."""
    monkeypatch.setattr("weft.decoder.FEW", 8)
    monkeypatch.setattr("weft.decoder.NATIVE", True)
    base = language_model("llama", hidden_size=64, head_dim=16).to(torch.bfloat16)
    base.save_pretrained(tmp_path)
    config, ids = base.config.to_dict(), torch.randint(3, 99, (1, 20))
    there, held = Decoder(config, TensorFile(tmp_path / "model.safetensors"), "int8"), decoder_of(base, "int8")
    for part in ids.split([19, 1], 1):
        assert torch.equal(there(part, TextCache(there, 1)), held(part, TextCache(held, 1)))


def in_four_bits(model):
    """A model whose language model loses nothing in four bits, as one that has a name."""
    with torch.no_grad():
        for name, parameter in model.language_model.named_parameters():
            if parameter.ndim == 2 and "embed" not in name:
                parameter.copy_(lies_on_levels(len(parameter), parameter.shape[1] // GROUP) * 0.02)
    model.config.language_model = {"id": "a part", "sha256": "5" * 64}
    return model


@pytest.mark.parametrize("native", [True, False])
def test_weights_on_disk_are_used_until_others_take_their_place(tmp_path, monkeypatch, native):
    monkeypatch.setenv("WEFT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("weft.making.multiplies_bfloat16", lambda device: native)
    model, picture = in_four_bits(quantizable()), Image.new("RGB", (24, 24), "red")
    model.save_pretrained(tmp_path / "saved", merge=True)
    expected = model.language_model.state_dict()
    told = []
    for _ in range(2):
        loaded = weft.load(tmp_path / "saved")
        assert loaded.plain.get().quantize == "int4"
        told.append(loaded.caption(picture, beams=1).log_probability)
        assert loaded.dtype == (torch.bfloat16 if native else torch.float32)
        for name, tensor in loaded.language_model.state_dict().items():
            assert torch.equal(tensor, expected[name].to(tensor.dtype))
    assert told[0] == told[1]
    kept = sorted(file.parent.name for file in (tmp_path / "home").glob("*/*.safetensors"))
    assert kept == (["packed"] if native else ["float32", "packed"])
    before = loaded.plain.get()
    with torch.no_grad():
        loaded.language_model.model.layers[0].mlp.down_proj.weight.mul_(2)
    assert loaded.plain.get() is not before
    assert loaded.caption(picture, beams=1).log_probability != told[0]


def test_changed_weights_are_noticed():
    model = woven("llama")
    before = model.plain.get()
    with torch.no_grad():
        model.language_model.model.layers[0].mlp.down_proj.weight.mul_(2)
    assert model.plain.get() is not before


def reader():
    base = language_model("qwen3", max_position_embeddings=512)
    options = {"layers": [1, 2], "copy_width": 8, "tokenizer": tokenizer()}
    model = open_weave(weave(base, text="language-model", **options).eval(), "reader")
    return model, model.read_texts(["The fox sat in the snow.", "Tea is hot.", "It saw a bird."])


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("kind", ["pictures", "last picture", "texts"])
def test_words_are_those_of_generate(kind, beams):
    """Prompts of several lengths with one memory, several, and none: the same words, as likely."""
    torch.manual_seed(0)
    if kind == "texts":
        model, read = reader()
    else:
        model = woven("llama", sees="last" if "last" in kind else "all")
        model.processor = WeftProcessor(tokenizer(), model.encoder(), system_prompt="")
        read = model.read([noise(seed) for seed in range(3)])
    prompts = [torch.randint(3, 99, (length,)).tolist() for length in (4, 11, 7, 7)]
    held = [[(0, 1)], [(2, 0), (1, 6)], [], [(0, 3)]]
    options = {"beams": beams, "longest": 12, "bad_words_ids": [[40, 41], [42]]}
    said = respond(model, read, prompts, held, **options)
    model.plain.get = lambda: None
    for one, other in zip(said, respond(model, read, prompts, held, **options), strict=True):
        assert one.tokens == other.tokens
        assert one.log_probability == pytest.approx(other.log_probability, abs=0.2 if beams == 1 else 1e-3)


@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 0.5, 2.0, 5.0])
def test_length_penalty_finds_the_words_that_generate_finds_with_it(length_penalty):
    """Where it matters: texts that may end at any of several tokens, some early and some never."""
    model = woven(language_model("llama", initializer_range=0.1))
    model.processor = WeftProcessor(tokenizer(), model.encoder(), system_prompt="")
    model.generation_config.eos_token_id = list(range(2, 22))
    read = model.read([noise(seed) for seed in range(4)])
    prompts, held = [[5, 6, 7, 8 + n] for n in range(8)], [[(n % 4, 1)] for n in range(8)]
    options = {"beams": 3, "longest": 12}
    usual = respond(model, read, prompts, held, **options)
    said = respond(model, read, prompts, held, **options, length_penalty=length_penalty)
    assert model.plain.get() is not None and usual != said
    model.plain.get = lambda: None
    for one, other in zip(
        said, respond(model, read, prompts, held, **options, length_penalty=length_penalty), strict=True
    ):
        assert one.tokens == other.tokens
        assert one.log_probability == pytest.approx(other.log_probability, abs=1e-3)


def test_neighbours_do_not_change_what_a_text_says():
    model, read = reader()
    prompts = [torch.randint(3, 99, (length,)).tolist() for length in (4, 11, 7)]
    held = [[(0, 1)], [], [(1, 0), (2, 0)]]
    options = {"beams": 2, "longest": 10}
    together = respond(model, read, prompts, held, **options)
    alone = [respond(model, read, [p], [h], **options)[0] for p, h in zip(prompts, held, strict=True)]
    assert [one.tokens for one in together] == [one.tokens for one in alone]


def searched(model, monkeypatch) -> bool:
    """Whether a caption's words are searched over the plain decoder."""
    asked = []
    get = model.plain.get
    monkeypatch.setattr(model.plain, "get", lambda: asked.append(True) or get())
    model.caption(Image.new("RGB", (24, 24)), max_new_tokens=2, beams=1)
    return bool(asked)


@pytest.mark.parametrize(
    "settings",
    [
        {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0.1},
        {"max_length": 4096, "repetition_penalty": 1.0, "num_beams": 4},
    ],
)
def test_settings_for_drawing_words_do_not_rule_out_the_short_way(settings, monkeypatch):
    """What most chat models ship with; the words are those that ``generate`` finds."""
    model = quantizable(initializer_range=0.2).float()
    model.generation_config.update(**settings)
    options = {"read": None, "prompts": [[5, 6, 7, 8]], "held": [[]], "beams": 2, "longest": 9}
    said = respond(model, **options)
    assert searched(model, monkeypatch)
    monkeypatch.setattr(model.plain, "get", lambda: None)
    assert respond(model, **options)[0].tokens == said[0].tokens


@pytest.mark.parametrize("settings", [{"repetition_penalty": 1.2}, {"no_repeat_ngram_size": 2}, {"min_length": 8}])
def test_settings_that_change_the_likeliest_words_do_for_tasks_but_not_for_an_engine(settings, monkeypatch):
    model = quantizable().float()
    model.generation_config.update(**settings)
    assert not searched(model, monkeypatch)
    assert isinstance(texts_of(model), SideBySide)


def test_plain_decoder_refuses_what_it_does_not_know():
    with pytest.raises(WeftError, match="int2"):
        PlainDecoder(woven("llama"), "int2")


def fusion_layer(feed_forward: int, kv_heads: int = 2) -> GatedCrossAttention:
    options = {"heads": 4, "kv_heads": kv_heads, "head_dim": 32, "feed_forward": feed_forward}
    layer = GatedCrossAttention(hidden_size=64, memory_size=32, **options).to(torch.bfloat16).eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2 if parameter.ndim > 1 else 1 + 0.2 * torch.randn(()))
    return layer.requires_grad_(False)


@pytest.mark.parametrize("tokens", [9, 3000])
@pytest.mark.parametrize(("feed_forward", "kv_heads"), [(0, 4), (32, 2)])
def test_packed_fusion_layer_computes_what_the_layer_does(feed_forward, kv_heads, tokens):
    layer = fusion_layer(feed_forward, kv_heads)
    memories = [layer.read(torch.randn(1, n, 32).bfloat16()) for n in (tokens, 5)]
    hidden = torch.randn(3, 1, 64).bfloat16()
    expected = layer.forward_each(hidden, memories, [2, 1], [None, None])
    alone = torch.cat([layer(hidden[n : n + 1], memories[n // 2]) for n in range(3)])
    torch.testing.assert_close(expected, alone, atol=0.02, rtol=0.02)
    found = PackedFusion(layer).forward_each(hidden, memories, [2, 1], [None, None])
    assert (found - expected).norm() < 0.03 * (expected - hidden).norm()


@pytest.mark.parametrize("kv_heads", [2, 4])
def test_what_a_row_finds_does_not_depend_on_the_others(kv_heads):
    """Memories of the same size are looked at together, others apart; rows that share one, too."""
    layer = fusion_layer(32, kv_heads)
    packed = PackedFusion(layer)
    sizes, counts = (81, 81, 9, 600, 81, 600), (1, 1, 1, 1, 2, 1)
    memories = [layer.read(torch.randn(1, tokens, 32).bfloat16()) for tokens in sizes]
    hidden = torch.randn(sum(counts), 1, 64).bfloat16()
    found = packed.forward_each(hidden, memories, counts, [None] * 6)
    parts = zip(hidden.split(counts), memories, counts, strict=True)
    alone = [packed.forward_each(own, [memory], [count], [None]) for own, memory, count in parts]
    assert torch.equal(found, torch.cat(alone))


def test_packed_fusion_layer_leaves_to_the_layer_what_it_does_not_do(monkeypatch):
    """A prompt, many rows, and rows that see a part of their memory: bit for bit the layer's own."""
    monkeypatch.setattr("weft.packed_weave.FEW", 8)
    layer = fusion_layer(32)
    memory, packed = layer.read(torch.randn(1, 9, 32).bfloat16()), PackedFusion(layer)
    part = torch.ones(1, 1, 9, dtype=torch.bool)
    part[..., 4:] = False
    for shape, visible in (((1, 4, 64), None), ((12, 1, 64), None), ((1, 1, 64), part)):
        hidden = torch.randn(shape).bfloat16()
        given = hidden, [memory], [shape[0]], [visible]
        assert torch.equal(packed.forward_each(*given), layer.forward_each(*given))


def test_weave_is_packed_with_its_language_model_and_anew_when_it_has_learned():
    model = quantizable()
    assert model.plain.weaves()["photos"] is model.weave()
    model.plain = PlainDecoder(model, "int8")
    packed = model.plain.weaves()["photos"]
    assert isinstance(packed, PackedWeave) and model.plain.weaves()["photos"] is packed
    with torch.no_grad():
        model.weave().fusion(0).q_proj.weight.mul_(2)
    assert model.plain.weaves()["photos"] is not packed
