"""A woven model at work: generation, interleaved pictures, several weaves, precision, and what others do to it."""

from __future__ import annotations

import pytest
import torch
from devices import DEVICE
from families import language_model
from PIL import Image
from transformers import TextStreamer
from woven import encoder, memory, open_weave, woven

from weft.errors import WeftError
from weft.making import weave
from weft.memory import Memory, Placement

IDS = torch.randint(3, 128, (3, 9), generator=torch.Generator().manual_seed(1)).to(DEVICE)
OPTIONS = {"attention_mask": torch.ones_like(IDS), "max_new_tokens": 5, "eos_token_id": None}


def laid(model, placement, items=2):
    return [model.place(model.read(memory(items)), placement)]


def each(rows=3):
    return Placement.of([[(row, 0)] for row in range(rows)])


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 3])
def test_batch_generates_what_each_row_generates_alone(beams):
    model = woven()
    read = model.read(memory(3))
    batch = model.generate(IDS, memories=[model.place(read, each())], num_beams=beams, **OPTIONS)
    for row in range(3):
        options = {**OPTIONS, "attention_mask": torch.ones_like(IDS[:1])}
        placed = [model.place(read.item(row), each(1))]
        alone = model.generate(IDS[row : row + 1], memories=placed, num_beams=beams, **options)
        assert torch.equal(batch[row], alone[0])


@torch.no_grad()
def test_samples_and_beams_share_one_copy_of_keys_and_values():
    model = woven()
    placed = model.place(model.read(memory(1)), each(1))
    repeated = placed.repeat_rows(7)
    assert all(
        ours.keys.data_ptr() == theirs.keys.data_ptr() and ours.keys.shape == theirs.keys.shape
        for ours, theirs in zip(repeated.layers, placed.layers, strict=True)
    )
    options = {**OPTIONS, "attention_mask": torch.ones_like(IDS[:1]), "do_sample": True}
    torch.manual_seed(0)
    assert model.generate(IDS[:1], memories=[placed], num_return_sequences=7, **options).shape == (7, 14)


@torch.no_grad()
def test_streamer_gets_every_token(capsys):
    model = woven()

    class Tokens:
        def decode(self, ids, **_):
            return " ".join(map(str, ids)) + " "

    options = {**OPTIONS, "attention_mask": torch.ones_like(IDS[:1])}
    placed = [model.place(model.read(memory(1)), each(1))]
    streamer = TextStreamer(Tokens(), skip_prompt=True)
    out = model.generate(IDS[:1], memories=placed, streamer=streamer, do_sample=False, **options)
    assert capsys.readouterr().out.split() == [str(token) for token in out[0, 9:].tolist()]


@torch.no_grad()
def test_picture_is_encoded_and_read_once_for_a_whole_generation(monkeypatch):
    model = woven()
    calls = {"encoded": 0, "read": 0}
    encode, read = model.encoders["photos"].forward, model.weaves["photos"].read
    monkeypatch.setattr(
        model.encoders["photos"], "forward", lambda x: calls.update(encoded=calls["encoded"] + 1) or encode(x)
    )
    monkeypatch.setattr(model.weaves["photos"], "read", lambda x: calls.update(read=calls["read"] + 1) or read(x))
    pixels = torch.randn(3, 3, 24, 24, generator=torch.Generator().manual_seed(2)).to(DEVICE)
    model.generate(IDS, pixel_values=pixels, image_positions=torch.zeros(3, 1, dtype=torch.long), **OPTIONS)
    assert calls == {"encoded": 1, "read": 1}


@torch.no_grad()
def test_second_question_about_a_read_picture_runs_neither_encoder_nor_reading(monkeypatch):
    model = woven()
    read = model.read(Image.new("RGB", (30, 20), "teal"))

    def refuse(*_):
        raise AssertionError("the picture was read again")

    monkeypatch.setattr(model.encoders["photos"], "forward", refuse)
    monkeypatch.setattr(model.weaves["photos"].connector, "forward", refuse)
    for _ in range(2):
        placed = [model.place(model.read(read), each(1))]
        model.generate(IDS[:1], memories=placed, **{**OPTIONS, "attention_mask": torch.ones_like(IDS[:1])})


@torch.no_grad()
def test_pixel_values_give_what_a_read_memory_gives():
    model = woven()
    pixels = torch.randn(3, 3, 24, 24, generator=torch.Generator().manual_seed(2)).to(DEVICE)
    positions = torch.tensor([[2, 5], [-1, -1], [0, -1]])
    read = model.read(Memory(model.encoders["photos"](pixels), ()))
    placed = model.place(read, Placement.of([[(0, 2), (1, 5)], [], [(2, 0)]]))
    with_pixels = model(input_ids=IDS, pixel_values=pixels, image_positions=positions).logits
    torch.testing.assert_close(with_pixels, model(input_ids=IDS, memories=[placed]).logits)


@torch.no_grad()
@pytest.mark.parametrize("sees", ["last", "all"])
def test_interleaved_pictures_are_seen_as_chosen(sees):
    """What a token computes depends on the pictures that it sees, and on no other."""
    model = woven(sees=sees)
    two = Placement.of([[(0, 2), (1, 5)]])

    def logits(features):
        read = model.read(Memory(features, ()))
        return model(input_ids=IDS[:1], memories=[model.place(read, two)]).logits[0]

    features = memory(2).features
    plain = logits(features)
    first, second = features.clone(), features.clone()
    first[0] += 1
    second[1] += 1
    without_first, without_second = logits(first), logits(second)
    same = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(without_first[:2], plain[:2], **same)
    assert not torch.allclose(without_first[2:5], plain[2:5], **same)
    torch.testing.assert_close(without_second[:5], plain[:5], **same)
    assert not torch.allclose(without_second[5:], plain[5:], **same)


@torch.no_grad()
@pytest.mark.parametrize("sees", ["last", "all"])
def test_decoding_after_interleaved_pictures_agrees_with_computing_anew(sees):
    model = woven(sees=sees)
    placement = Placement.of([[(0, 2), (1, 5)], [(1, 4)], []])
    cached = model.generate(IDS, memories=laid(model, placement), do_sample=False, **OPTIONS)
    anew = model.generate(IDS, memories=laid(model, placement), do_sample=False, use_cache=False, **OPTIONS)
    assert torch.equal(cached, anew)


@torch.no_grad()
def test_weaves_do_not_disturb_each_other():
    model = woven(name="photos")
    placed = laid(model, each(), items=3)
    before = model(input_ids=IDS, memories=placed).logits
    weave(model, vision=encoder(width=32), name="maps", start=0, every=2).to(DEVICE)
    open_weave(model, "maps")
    assert torch.equal(model(input_ids=IDS, memories=placed).logits, before)
    maps = model.place(model.read(memory(3, width=32), "maps"), each())
    both = model(input_ids=IDS, memories=[*placed, maps]).logits
    assert not torch.allclose(both, before)
    with pytest.raises(WeftError, match="photos"):
        weave(model, vision=encoder(), name="photos")


@torch.no_grad()
def test_bfloat16_row_without_memory_is_bit_identical():
    base = language_model("llama").to(torch.bfloat16)
    bare = base(input_ids=IDS).logits
    model = woven(base)
    logits = model(input_ids=IDS, memories=laid(model, Placement.of([[(0, 2)], [], [(1, 0)]]))).logits
    assert logits.dtype == torch.bfloat16
    assert torch.equal(logits[1], bare[1])
    assert torch.isfinite(logits).all()


def test_only_the_weave_learns(capsys):
    model = woven()
    learned = sum(p.numel() for p in model.weaves.parameters())
    model.print_trainable_parameters()
    assert f"trainable params: {learned:,d} " in capsys.readouterr().out
    model.train()
    placed = [model.place(model.read(memory(3)), each())]
    model(input_ids=IDS, memories=placed, labels=IDS).loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.weaves.parameters())
    assert all(p.grad is None for p in model.language_model.parameters())
    assert not model.language_model.training


def test_gradient_checkpointing_gives_the_same_gradients():
    gradients = []
    for checkpointing in (False, True):
        model = woven()
        model.train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        placed = [model.place(model.read(memory(3)), each())]
        model(input_ids=IDS, memories=placed, labels=IDS, use_cache=False).loss.backward()
        gradients.append([p.grad.clone() for p in model.weaves.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


@torch.no_grad()
def test_compiled_model_computes_the_same():
    model = woven(language_model("llama", num_hidden_layers=1), layers=[0])
    placed = laid(model, Placement.of([[(0, 2)], [], [(1, 0)]]))
    expected = model(input_ids=IDS, memories=placed, use_cache=False).logits
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(input_ids=IDS, memories=placed, use_cache=False).logits, expected)
    assert torch.equal(compiled(input_ids=IDS, use_cache=False).logits, model.language_model(input_ids=IDS).logits)


def test_low_rank_adapters_on_the_language_model_learn_beside_the_weave():
    from peft import LoraConfig, get_peft_model

    model = woven()
    placed = laid(model, each(), items=3)
    before = model(input_ids=IDS, memories=placed).logits.detach()
    adapted = get_peft_model(model.language_model, LoraConfig(target_modules=["q_proj", "v_proj"], r=2))
    model.language_model = adapted
    torch.testing.assert_close(model(input_ids=IDS, memories=placed).logits, before)
    model.train()
    placed = [model.place(model.read(memory(3)), each())]
    model(input_ids=IDS, memories=placed, labels=IDS).loss.backward()
    assert all(p.grad is not None for name, p in adapted.named_parameters() if "lora_" in name)
    assert all(p.grad is not None for p in model.weaves.parameters())


@torch.no_grad()
def test_language_model_placed_by_device_map(tmp_path):
    from transformers import AutoModelForCausalLM

    base = language_model("llama")
    base.save_pretrained(tmp_path / "lm")
    mapped = AutoModelForCausalLM.from_pretrained(tmp_path / "lm", device_map=str(DEVICE))
    model, plain = woven(mapped), woven(base)
    placement = Placement.of([[(0, 2)], [], [(1, 0)]])
    expected = plain(input_ids=IDS, memories=laid(plain, placement)).logits
    torch.testing.assert_close(model(input_ids=IDS, memories=laid(model, placement)).logits, expected)


@torch.no_grad()
def test_start_from_self_attention_copies_the_decoders_projections():
    model = woven(opened=False, initial="self-attention", qk_norm=False, feed_forward=0)
    layer, decoder = model.weaves["photos"].layers[0], model.language_model.model.layers[1]
    assert torch.equal(layer.q_proj.weight, decoder.self_attn.q_proj.weight)
    assert torch.equal(layer.o_proj.weight, decoder.self_attn.o_proj.weight)
    assert float(layer.attention_gate) == 0.5
    bare = model.language_model(input_ids=IDS).logits
    logits = model(input_ids=IDS, memories=laid(model, Placement.of([[(0, 0)], [], []]))).logits
    assert torch.equal(logits[1:], bare[1:])
    assert not torch.allclose(logits[0], bare[0])


def test_memory_slot_is_empty_after_a_failed_call():
    model = woven()
    placed = laid(model, each(), items=3)
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=IDS + 1000, memories=placed)
    assert torch.equal(model(input_ids=IDS).logits, model.language_model(input_ids=IDS).logits)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"layers": [7]}, "decoder layers 0 to 2"),
        ({"start": 3}, "decoder layers 0 to 2"),
        ({"initial": "self-attention", "layers": [0], "heads": 2}, "q_proj"),
    ],
)
def test_what_can_not_be_woven_is_refused(options, says):
    with pytest.raises(WeftError, match=says):
        weave(language_model("llama"), vision=encoder(), **options)


def test_item_that_does_not_exist_is_refused():
    model = woven()
    with pytest.raises(ValueError, match="item 5"):
        model.place(model.read(memory(2)), Placement.of([[(5, 0)]]))


def test_features_of_another_width_are_refused():
    with pytest.raises(ValueError, match="width 24"):
        woven().read(memory(1, width=8))


def test_resampler_hands_on_a_fixed_number_of_tokens():
    model = woven(resample=4)
    assert model.read(memory(2)).tokens == 4
