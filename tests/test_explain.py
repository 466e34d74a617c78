"""Seeing: what words need or looked at, as arrays and pictures, and whether the pictures tell the truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from devices import DEVICE
from PIL import Image
from woven import tokenizer, woven

from weft.deletion import faithfulness
from weft.errors import PictureError, WeftError
from weft.explain import Seen, look, needed
from weft.memory import Memory, Picture, Placement
from weft.occlusion import MATTERS
from weft.processing import WeftProcessor
from weft.tasks import CAPTION


@pytest.fixture
def model():
    model = woven(language())
    model.processor = WeftProcessor(tokenizer(), model.encoders["photos"])
    return model


def language():
    from families import language_model

    return language_model("llama", initializer_range=0.2)


PICTURE = Image.effect_noise((60, 40), 80).convert("RGB")


def test_weights_are_those_of_the_formula_at_the_places_that_predict_each_word(model):
    read = model.read(PICTURE)
    prompt, answer = [5, 6, 7], [ord(letter) for letter in "ab c"]
    seen = look(model, read, prompt, 1, answer, PICTURE)
    assert seen.words == ("ab", "c")
    caught = []

    def catch(layer, args):
        hidden, keyvalues, _ = args
        queries = layer.q_norm(layer.q_proj(layer.hidden_norm(hidden)).unflatten(-1, (4, 8)).transpose(1, 2))
        keys = keyvalues.keys.repeat_interleave(2, 1)
        caught.append((queries @ keys.mT / 8**0.5).softmax(-1)[0].mean(0))

    hooks = [layer.register_forward_pre_hook(catch) for layer in model.weaves["photos"].layers]
    placed = [model.place(read, Placement.of([[(0, 1)]]))]
    with torch.no_grad():
        model(input_ids=torch.tensor([prompt + answer], device=DEVICE), memories=placed)
    for hook in hooks:
        hook.remove()
    expected = torch.stack(caught).mean(0)
    # The tokens "a", "b" are predicted from places 2 and 3; " c" belongs to the tokens " " and "c".
    np.testing.assert_allclose(seen.of("ab"), expected[2:4].mean(0).numpy(), atol=1e-5)
    np.testing.assert_allclose(seen.weights.sum(1), 1, atol=1e-5)


def test_layers_and_heads_can_be_chosen(model):
    read, answer = model.read(PICTURE), [ord("a")]
    every = [
        look(model, read, [5], 0, answer, PICTURE, layers=[layer], heads=[head]).weights
        for layer in range(2)
        for head in range(4)
    ]
    np.testing.assert_allclose(np.mean(every, 0), look(model, read, [5], 0, answer, PICTURE).weights, atol=1e-5)
    assert not np.allclose(every[0], every[1])


def test_heat_lies_where_the_patch_is():
    rectangles = np.array([[x * 20, y * 20, x * 20 + 20, y * 20 + 20] for y in range(2) for x in range(3)], float)
    weights = np.array([[0, 0, 1, 0, 0, 0], [0.2, 0.2, 0, 0.2, 0.2, 0.2]])
    seen = Seen(("right", "elsewhere"), weights, Picture((60, 40), rectangles), PICTURE)
    heat = seen.map("right")
    assert heat.shape == (40, 60)
    assert heat.max() == 1 and heat[5, 55] > 0.9 and heat[30, 5] < 0.05
    assert seen.map(1)[5, 55] < 0.3
    shown = np.asarray(seen.heatmap("right"), float)
    assert shown[:20, 40:].mean() > 2 * shown[20:, :20].mean()


def test_words_to_which_no_region_matters_are_not_lit():
    rectangles = np.array([[x * 20, y * 20, x * 20 + 20, y * 20 + 20] for y in range(2) for x in range(3)], float)
    weights = np.array([[0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]], np.float32)
    falls = np.array([[0, 0, 2, 0, 0, -1], [0.1, 0, 0, -0.2, 0, 0]])
    greatest = np.array([MATTERS + 0.01, MATTERS - 0.01])
    seen = Seen(("cat", "the"), weights, Picture((60, 40), rectangles), PICTURE, falls, greatest)
    assert seen.matters == (True, False)
    assert not seen.map("the").any()
    dark = np.asarray(seen.heatmap("the"), float)
    np.testing.assert_allclose(dark, 0.35 * np.asarray(PICTURE, float), atol=1)
    sheet = np.asarray(seen.sheet(tile=224))  # two tiles a row, each with its word above it
    cat, the = sheet[6:32, 236:460], sheet[187:213, 6:230]
    assert cat.min() < 50 and 100 < the.min() < 200
    sketch = Seen(("cat", "the"), weights, Picture((60, 40), rectangles), PICTURE)
    assert sketch.matters == (True, True)


def test_what_a_word_needs_is_what_it_is_less_likely_without(model):
    read, prompt = model.read(PICTURE), [5, 6, 7]
    answer = [ord(letter) for letter in "ab cd ef"]
    seen = needed(model, read, prompt, 1, answer, PICTURE)
    assert seen.words == ("ab", "cd", "ef")
    lit = np.array(seen.matters)
    assert lit.any()
    np.testing.assert_allclose(seen.weights.sum(1), lit, atol=1e-5)
    positive = seen.falls.clip(min=0)
    np.testing.assert_allclose(seen.weights[lit], (positive / positive.sum(1, keepdims=True))[lit], atol=1e-5)
    assert (seen.greatest[lit] > MATTERS).all() and (seen.greatest[~lit] <= MATTERS).all()


def test_text_without_words_needs_nothing(model):
    seen = needed(model, model.read(PICTURE), [5, 6, 7], 1, [], PICTURE)
    assert seen.words == () and seen.weights.shape == (0, 9)
    seen.sheet()


def test_explanation_is_by_occlusion_or_as_a_sketch_by_attention(model, photo):
    options = {"beams": 1, "max_new_tokens": 6}
    whole, sketch = (model.caption(photo, explain=explain, **options) for explain in (True, "sketch"))
    assert whole.text == sketch.text and whole.words == sketch.words
    assert len(whole.matters) == len(whole.words) and all(sketch.matters)
    assert whole.seen.falls is not None and sketch.seen.falls is None
    assert not np.allclose(whole.seen.weights, sketch.seen.weights)
    with pytest.raises(WeftError, match="'sketch'"):
        model.caption(photo, explain="attention")


def test_caption_shows_a_tile_for_each_word(model, tmp_path, photo):
    caption = model.caption(photo, beams=1, explain=True, max_new_tokens=5)
    assert caption.name == str(photo)
    assert len(caption.words) == len(caption.seen.weights)
    assert caption.heatmap(0).size == (64, 48)
    sheet = caption.sheet()
    sheet.save(tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").size == sheet.size
    with pytest.raises(WeftError, match="its words are"):
        caption.heatmap("unseen-word")


def test_caption_without_explanation_says_how_to_get_one(model, photo):
    with pytest.raises(WeftError, match="explain=True"):
        model.caption(photo, beams=1, max_new_tokens=3).sheet()


def test_log_probability_is_that_of_the_text(model, photo):
    """Summed over its tokens, of which five are generated and none ends the text."""
    read = model.read(photo)
    caption = model.caption(read, beams=1, max_new_tokens=5, eos_token_id=None)
    content = [{"type": "image", "image": photo}, {"type": "text", "text": CAPTION}]
    inputs = model.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    prompt = inputs["input_ids"].shape[1]
    with torch.no_grad():
        ids = model.generate(**inputs, max_new_tokens=5, do_sample=False, eos_token_id=None)
        inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        chances = model(**inputs).logits[0, prompt - 1 : -1].log_softmax(-1)
    expected = chances.gather(-1, ids[0, prompt:, None]).sum()
    assert caption.log_probability == pytest.approx(float(expected), rel=1e-4)


def test_several_pictures_and_memories_are_captioned_together(model, photo):
    options = {"beams": 2, "max_new_tokens": 4}
    alone = [model.caption(one, **options).text for one in (photo, PICTURE)]
    together = model.caption([photo, model.read(PICTURE)], **options)
    assert [caption.text for caption in together] == alone
    assert model.caption([]) == []


def test_broken_picture_is_refused_by_name(model, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff broken")
    with pytest.raises(PictureError, match=r"bad\.jpg"):
        model.caption(tmp_path / "bad.jpg")


@pytest.mark.parametrize("by", ["occlusion", "sketch"])
def test_faithfulness_is_the_drop_without_the_patches_that_are_lit_most(model, by):
    text = "ab cd"
    measured = faithfulness(model, PICTURE, text, by=by, patches=3, draws=5)
    assert measured.words == ("ab", "cd")
    memory = model.encode(PICTURE)
    content = [{"type": "image", "image": PICTURE}, {"type": "text", "text": CAPTION}]
    rendered = model.processor.render([{"role": "user", "content": content}], add_generation_prompt=True)
    prompt, (column,), _ = model.processor.tokenize(rendered)
    answer = [ord(letter) for letter in text]
    seen = (needed if by == "occlusion" else look)(model, model.read(memory), prompt, column, answer, PICTURE)
    assert measured.matters == seen.matters
    mask = torch.ones(1, 9, dtype=torch.bool)
    mask[0, np.argsort(-(seen.falls if by == "occlusion" else seen.weights)[0], kind="stable")[:3].copy()] = False

    def chance(memory):
        placed = [model.place(model.read(memory), Placement.of([[(0, column)]]))]
        with torch.no_grad():
            ids = torch.tensor([prompt + answer], device=DEVICE)
            logits = model(input_ids=ids, memories=placed).logits[0].log_softmax(-1)
        return sum(float(logits[len(prompt) - 1 + place, answer[place]]) for place in (0, 1))

    masked = Memory(memory.features, memory.sources, mask)
    assert measured.looked_at[0] == pytest.approx(chance(memory) - chance(masked), abs=1e-4)
    changed = Memory(torch.where(mask[..., None].to(DEVICE), memory.features, 9.0), memory.sources, mask)
    assert chance(changed) == pytest.approx(chance(masked), abs=1e-4)
    assert measured.gain == pytest.approx(np.mean(measured.looked_at) - np.mean(measured.random))
    assert measured.gain_over_regions == pytest.approx(np.mean(measured.looked_at) - np.mean(measured.regions))
    assert faithfulness(model, PICTURE, text, by=by, patches=3, draws=5) == measured


def test_taking_everything_away_is_the_same_whichever_patches_were_lit(model):
    measured = faithfulness(model, PICTURE, "ab cd", patches=9, draws=2)
    for drops in (measured.random, measured.regions):
        assert drops == pytest.approx(measured.looked_at, abs=1e-4)


def test_shipped_model_can_be_asked_whether_its_heat_maps_tell_the_truth(shipped_model):
    temple = Path(__file__).parents[1] / "examples" / "temple.jpg"
    measured = faithfulness(shipped_model, temple, draws=4)
    assert measured.words == tuple(shipped_model.caption(temple).text.split())
    assert measured.gain_over_regions > 0.05
    assert measured.gain_over_regions > faithfulness(shipped_model, temple, by="sketch", draws=4).gain_over_regions
