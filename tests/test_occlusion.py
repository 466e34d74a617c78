"""Regions taken away: what a text is worth without some of what it reads, and what of a picture each word needs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from families import language_model
from PIL import Image
from woven import memory, open_weave, reader, tokenizer, woven

from weft.ablation import PlainAblation, TransformersAblation, ablation
from weft.errors import WeftError
from weft.making import weave
from weft.memory import Memory, Picture, Placement, ReadMemory
from weft.occlusion import MATTERS, Occlusion, occlude
from weft.processing import WeftProcessor
from weft.regions import covered, random_window, tokens_of_region, windows
from weft.responding import prompt_of, score
from weft.search import Prompt

PICTURE = Image.effect_noise((60, 40), 80).convert("RGB")
TEXT = [5, 6, 7, 8, 9]
ANSWER = [ord(letter) for letter in "ab cd"]
COLUMN = 2
SOURCE = Picture((90, 90), np.array([[x, y, x + 10, y + 10] for y in range(0, 90, 10) for x in range(0, 90, 10)]))


def small(family: str = "llama", **options):
    """A woven model whose words depend on what it sees."""
    return woven(language_model(family, initializer_range=0.2), **options)


def about(model, read: ReadMemory, column: int = COLUMN) -> Prompt:
    """A prompt that reads one picture."""
    source = read.sources[0] if read.sources else None
    return Prompt(TEXT, (model.place(read, Placement.of([[(0, column)]])),), (((source, 0),),))


def chances(model, read: ReadMemory, gone: torch.Tensor, column: int = COLUMN) -> torch.Tensor:
    """The same by way of masked keys and the whole model, a row at a time."""
    layers = tuple(replace(layer, mask=~gone[None]) for layer in read.layers)
    return score(model, replace(read, layers=layers), [TEXT], [[(0, column)]], ANSWER)


@pytest.mark.parametrize(
    ("family", "way"),
    [("llama", PlainAblation), ("llama", TransformersAblation), ("gpt2", TransformersAblation)]
    + [(family, TransformersAblation) for family in ("bloom", "gemma3_text", "mamba", "qwen3_moe")],
)
@pytest.mark.parametrize("column", [0, COLUMN, len(TEXT)])
def test_text_without_tokens_is_scored_as_by_the_whole_model_with_those_tokens_masked(family, way, column):
    model = small(family, start=2)
    read = model.read(memory(1))
    gone = torch.rand(5, 9, generator=torch.Generator().manual_seed(0)) < 0.4
    gone[0] = False
    with torch.inference_mode():
        found = way(model, about(model, read, column), ANSWER, 0).score(gone)
    expected = torch.cat([chances(model, read, row, column) for row in gone])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert (found[1:] - found[0]).abs().max() > 0.01


@pytest.mark.parametrize("way", [PlainAblation, TransformersAblation])
def test_row_without_any_token_is_one_without_the_memory(way):
    model = small()
    text = way(model, about(model, model.read(memory(1))), ANSWER, 0)
    with torch.inference_mode():
        found = text.score(torch.tensor([[False] * 9, [True] * 9]))
    torch.testing.assert_close(found[1:], score(model, None, [TEXT], [[]], ANSWER), rtol=0, atol=1e-5)
    assert not torch.allclose(found[0], found[1], atol=0.01)


def test_layers_below_the_first_fusion_layer_are_computed_once():
    model = small("gpt2", start=2)
    layers = model.language_model.transformer.h
    text = TransformersAblation(model, about(model, model.read(memory(1))), ANSWER, 0)
    rows = []
    hooks = [layer.attn.register_forward_pre_hook(lambda _, args: rows.append(len(args[0]))) for layer in layers]
    with torch.inference_mode():
        text.score(torch.zeros(4, 9, dtype=torch.bool))
    for hook in hooks:
        hook.remove()
    assert text.skips and rows == [4]
    assert not any("forward" in vars(layer) for layer in layers)


def test_language_model_whose_upper_layers_need_more_of_the_lower_ones_is_computed_whole():
    """One that keeps something aside in its first layer, and adds it in its last."""
    model = small("gpt2", start=2)
    first, *_, last = model.language_model.transformer.h
    kept = []
    first.attn.register_forward_hook(lambda *called: kept.append(called[-1][0]))
    last.attn.register_forward_pre_hook(lambda _, args: (args[0] + kept.pop(), *args[1:]))
    read = model.read(memory(1))
    text = TransformersAblation(model, about(model, read), ANSWER, 0)
    gone = torch.eye(9, dtype=torch.bool)[:2]
    with torch.inference_mode():
        found = text.score(gone)
    assert not text.skips
    expected = torch.cat([chances(model, read, row) for row in gone])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("way", [PlainAblation, TransformersAblation])
def test_other_memories_stay_and_what_is_copied_from_them_counts(way):
    """A picture among documents, which a weave with a copy gate reads: the picture goes, the documents stay."""
    model = small()
    model.processor = WeftProcessor(tokenizer(), model.encoder())
    weave(model, text="language-model", layers=[1, 2], copy_width=8)
    model = open_weave(model, "reader").eval()
    content = [
        {"type": "image", "image": PICTURE},
        {"type": "document", "text": "A cab came."},
        {"type": "text", "text": "What?"},
    ]
    prompt = prompt_of(model, [{"role": "user", "content": content}])
    place = next(index for index, one in enumerate(prompt.memories) if one.weave == "photos")
    gone = torch.zeros(2, 9, dtype=torch.bool)
    gone[1, :4] = True
    with torch.inference_mode():
        found = way(model, prompt, ANSWER, place).score(gone)
    memories = list(prompt.memories)
    for row, lacking in zip(found, gone, strict=True):
        memories[place] = replace(prompt.memories[place], mask=~lacking[None])
        ids = torch.tensor([[*prompt.tokens, *ANSWER]])
        with torch.no_grad():
            logits = model(input_ids=ids, memories=memories, use_cache=False).logits[0, len(prompt.tokens) - 1 : -1]
        expected = logits.log_softmax(-1).gather(-1, torch.tensor(ANSWER)[:, None])[:, 0]
        torch.testing.assert_close(row, expected, rtol=0, atol=1e-4)


def test_plain_language_models_take_the_short_way():
    model = small()
    prompt = about(model, model.read(memory(1)))
    assert isinstance(ablation(model, prompt, ANSWER), PlainAblation)
    assert isinstance(ablation(small("gpt2"), prompt, ANSWER), TransformersAblation)


def test_windows_of_each_size_cover_the_picture():
    for sides in ((9, 9), (3, 3), (16, 16), (4, 7), (1, 1)):
        rows, columns = sides
        patches = np.array([[x, y, x + 1, y + 1] for y in range(rows) for x in range(columns)], float)
        sizes = windows(Picture((columns, rows), patches))
        assert len(sizes) == 2
        assert all(one.any(0).all() and one.any(1).all() for one in sizes)
    small, large = windows(SOURCE)
    assert (len(small), set(small.sum(1))) == (16, {9})
    assert (len(large), set(large.sum(1))) == (9, {25})
    assert small[1].reshape(9, 9)[:3, 2:5].all()


def test_falls_of_windows_are_spread_over_patches():
    regions = np.array([[True, True, False], [False, True, True]])
    np.testing.assert_allclose(covered(np.array([[4.0], [2.0]]), regions), [[2.0, 1.5, 1.0]])


def test_random_window_lies_together():
    random = np.random.default_rng(0)
    for patches in (1, 2, 3, 5, 8, 9, 40, 81):
        for _ in range(10):
            window = random_window(SOURCE, patches, random)
            down, across = np.divmod(window, 9)
            assert len(set(window)) == patches
            assert (np.ptp(down) + 1) * (np.ptp(across) + 1) < patches + 9
    assert len({tuple(random_window(SOURCE, 8, random)) for _ in range(20)}) > 5


@dataclass(frozen=True)
class NamedPicture(Picture):
    """A picture whose memory holds names of what is on it, behind its patches."""

    names: tuple = ()


@dataclass(frozen=True)
class Name:
    place: np.ndarray
    tokens: range


def test_region_takes_the_names_of_what_lies_mostly_in_it():
    place = np.zeros(81)
    place[[0, 1, 2]] = 0.3, 0.3, 0.4
    source = NamedPicture(
        SOURCE.size, SOURCE.rectangles, names=(Name(place, range(81, 83)), Name(place, range(83, 84)))
    )
    region = np.zeros(81, bool)
    region[[0, 1]] = True
    gone = tokens_of_region(source, region, 85)
    assert np.flatnonzero(gone).tolist() == [0, 1, 81, 82, 83]
    region[1] = False
    assert np.flatnonzero(tokens_of_region(source, region, 85)).tolist() == [0]
    assert np.flatnonzero(tokens_of_region(SOURCE, region, 81)).tolist() == [0]


def test_occlusion_is_the_fall_without_each_region():
    model = small()
    read = model.read(PICTURE)
    (found,) = occlude(model, about(model, read), ANSWER)
    whole = chances(model, read, torch.zeros(9, dtype=torch.bool))
    for regions, falls in zip(found.regions, found.falls, strict=True):
        expected = [whole - chances(model, read, torch.from_numpy(region)) for region in regions]
        np.testing.assert_allclose(falls, torch.cat(expected).numpy(), atol=1e-4)


def test_each_picture_of_a_conversation_is_occluded_while_the_others_stay():
    model = small()
    model.processor = WeftProcessor(tokenizer(), model.encoder())
    other = Image.linear_gradient("L").convert("RGB")
    content = [
        {"type": "image", "image": PICTURE},
        {"type": "text", "text": "And"},
        {"type": "image", "image": other},
        {"type": "text", "text": "what?"},
    ]
    prompt = prompt_of(model, [{"role": "user", "content": content}])
    found = occlude(model, prompt, ANSWER)
    assert [one.source.size for one in found] == [PICTURE.size, other.size]
    columns = prompt.memories[0].placement.starts[0].tolist()
    read = model.read([PICTURE, other])
    held = [[(0, columns[0]), (1, columns[1])]]
    whole = score(model, read, [prompt.tokens], held, ANSWER)
    for item, one in enumerate(found):
        mask = torch.ones(2, 9, dtype=torch.bool)
        mask[item] = ~torch.from_numpy(one.regions[0][0])
        layers = tuple(replace(layer, mask=mask) for layer in read.layers)
        masked = score(model, replace(read, layers=layers), [prompt.tokens], held, ANSWER)
        np.testing.assert_allclose(one.falls[0][0], (whole - masked)[0].numpy(), atol=1e-4)


def test_text_without_tokens_or_pictures_needs_nothing():
    model = small()
    assert occlude(model, about(model, model.read(PICTURE)), []) == []
    assert occlude(reader(), Prompt(TEXT), ANSWER) == []


def test_resampled_pictures_have_no_regions():
    model = small(resample=4)
    with pytest.raises(WeftError, match="resamples"):
        occlude(model, about(model, model.read(PICTURE)), ANSWER)


def test_word_matters_if_a_region_makes_it_less_likely_by_a_third():
    """Its falls are those of its tokens together; a word that becomes likelier everywhere has no weights."""
    regions = np.array([[True, True, False], [False, True, True]])
    falls = np.array([[0.3, 0.3, -1.0, 0.4], [-0.6, 0.0, -1.0, 0.0]])
    found = Occlusion(SOURCE, (regions,), (falls,))
    words = [("both", 0, 2), ("never", 2, 3), ("hardly", 3, 4)]
    np.testing.assert_allclose(found.greatest(words), [0.6, -1.0, 0.4])
    assert math.exp(-MATTERS) == pytest.approx(2 / 3)
    np.testing.assert_allclose(found.maps(words)[0], [0.3, 0.0, -0.3], atol=1e-6)
    np.testing.assert_allclose(found.weights(words), [[1, 0, 0], [0, 0, 0], [0, 0, 0]], atol=1e-6)


def test_features_behind_a_mask_do_not_move_the_map():
    """What a memory's own mask hides is not part of any region."""
    model = small()
    features = torch.cat([model.encode(PICTURE).features, torch.full((1, 3, 24), 9.0)], 1)
    mask = torch.ones(1, 12, dtype=torch.bool)
    mask[:, 9:] = False
    (source,) = model.encode(PICTURE).sources
    model.weave().connector.positions = None
    plain = model.read(Memory(features[:, :9], (source,)))
    padded = model.read(Memory(features, (source,), mask))
    (expected,), (found,) = (occlude(model, about(model, one), ANSWER) for one in (plain, padded))
    np.testing.assert_allclose(found.falls[0], expected.falls[0], atol=1e-5)
