"""Names of what pictures show: where they come from, and how a picture's memory holds them."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from transformers import (
    DetrConfig,
    DetrForObjectDetection,
    DetrImageProcessorPil,
    ResNetConfig,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)
from woven import NamingEncoder, encoder, memory, naming, open_weave, tokenizer, woven

import weft
from weft.data import load_examples
from weft.errors import DataError, PartError, RecipeError, WeftError
from weft.instructions import CAPTION
from weft.keeping import load_read, save_read
from weft.memory import Name, Picture
from weft.namers import LEAST, OwnClassifier, TransformersNamer
from weft.names import Doubt, speller, with_names
from weft.recipe import Recipe

PATCHES = 9


def noise(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (30, 40, 3), np.uint8))


def name(text: str = "cat", confidence: float = 0.5, patch: int = 0) -> Name:
    return Name(text, confidence, np.eye(PATCHES, dtype=np.float32)[patch])


# Who names


def head_of(rows: list[list[float]]) -> nn.Linear:
    head = nn.Linear(len(rows[0]), len(rows))
    head.weight.data = torch.tensor(rows)
    nn.init.zeros_(head.bias)
    return head


def test_classes_of_one_noun_are_added_up():
    head = head_of([[4.0, 0.0], [4.0, 0.0], [0.0, 0.0]])
    (names,) = OwnClassifier(head, ["dog", "dog", "cup"]).name(torch.tensor([[[1.0, 0.0]]]))
    expected = torch.tensor([4.0, 4.0, 0.0]).softmax(0)
    assert [one.text for one in names] == ["dog"]
    assert names[0].confidence == pytest.approx(float(expected[:2].sum()), abs=1e-6)


def test_a_little_of_many_classes_is_no_name():
    head = head_of([[5.0, 0.0], *[[0.0, 0.0]] * 200])
    nouns = ["cup", *["dog"] * 200]
    (names,) = OwnClassifier(head, nouns).name(torch.tensor([[[1.0, 0.0]]]))
    assert [one.text for one in names] == ["cup"]


def test_a_name_is_where_the_patches_speak_for_it():
    features = torch.zeros(1, PATCHES, 2)
    features[0, 4, 0], features[0, :, 1] = 9.0, 1.0
    (names,) = OwnClassifier(head_of([[3.0, 0.0], [0.0, 0.1]]), ["cat", "cup"]).name(features)
    assert names[0].text == "cat"
    assert names[0].place.argmax() == 4
    assert names[0].place.sum() == pytest.approx(1)
    assert names[0].place[4] == pytest.approx(1)


def test_no_more_names_than_asked_for_and_the_surest_first():
    head = head_of([[2.0], [1.9], [1.8], [1.7], [1.6], [1.5]])
    (names,) = OwnClassifier(head, list("abcdef")).name(torch.ones(1, 3, 1))
    assert [one.text for one in names] == ["a", "b", "c", "d"]


def classifier(**options: object) -> TransformersNamer:
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=24,
        patch_size=8,
        id2label={0: "tabby, tabby cat", 1: "Street_sign", 2: "cup"},
        **options,
    )
    processor = ViTImageProcessorPil(size={"height": 24, "width": 24})
    return TransformersNamer(ViTForImageClassification(config), processor)


def name_one(namer: TransformersNamer, image: Image.Image, **options: object) -> tuple[Name, ...]:
    source = Picture(image.size, encoder().rectangles(image.size))
    (names,) = namer.name(torch.zeros(0), [image], [source], **options)
    return names


def test_a_classifier_of_transformers_says_what_it_says():
    namer, image = classifier(), noise()
    inputs = namer.processor(images=image, return_tensors="pt")
    expected = namer.model(**inputs).logits[0].softmax(-1)
    names = {one.text: one for one in name_one(namer, image, least=0.0)}
    assert set(names) == {"tabby", "street sign", "cup"}
    assert [names[text].confidence for text in ("tabby", "street sign", "cup")] == pytest.approx(expected.tolist())
    assert names["cup"].place == pytest.approx(np.full(PATCHES, 1 / PATCHES))


def test_a_tagger_is_sure_of_each_tag_for_itself():
    namer, image = classifier(problem_type="multi_label_classification"), noise()
    expected = namer.model(**namer.processor(images=image, return_tensors="pt")).logits[0].sigmoid()
    names = {one.text: one.confidence for one in name_one(namer, image, least=0.0)}
    assert names["tabby"] == pytest.approx(float(expected[0]))
    assert sum(names.values()) != pytest.approx(1, abs=0.05)


def test_what_a_detector_names_is_in_its_box():
    torch.manual_seed(0)
    backbone = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], out_features=["stage2"])
    config = DetrConfig(
        backbone_config=backbone,
        backbone=None,
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_queries=5,
        id2label={0: "cat", 1: "cup"},
    )
    namer = TransformersNamer(DetrForObjectDetection(config), DetrImageProcessorPil(size={"height": 32, "width": 32}))
    image = noise()

    class Found:
        """A detector's answer: a cat in the left third of the picture, and the same cat once more, less surely."""

        def __call__(self, outputs, threshold, target_sizes):
            assert outputs.logits.shape[:2] == (1, 5)
            assert target_sizes == [(30, 40)]
            boxes = torch.tensor([[0.0, 0.0, 40 / 3, 30.0], [0.0, 0.0, 40 / 3, 30.0]])
            return [{"labels": torch.tensor([0, 0]), "scores": torch.tensor([0.9, 0.4]), "boxes": boxes}]

    namer.processor.post_process_object_detection = Found()
    (found,) = name_one(namer, image)
    assert (found.text, found.confidence) == ("cat", pytest.approx(0.9))
    assert found.place.reshape(3, 3)[:, 0] == pytest.approx(np.full(3, 1 / 3))


def test_a_model_that_names_nothing_is_refused():
    with pytest.raises(PartError, match="names nothing"):
        TransformersNamer(encoder().model, None)


def test_an_encoder_without_a_classifier_can_not_name():
    with pytest.raises(WeftError, match="no classifier of its own"):
        woven(labels="encoder", tokenizer=tokenizer())


# How a memory holds them


def spelled(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def table(ids: torch.Tensor) -> torch.Tensor:
    return torch.stack([ids, -ids], -1).float()


def test_names_stand_behind_the_patches():
    plain = memory(items=2, tokens=PATCHES)
    source = Picture((30, 30), encoder().rectangles((30, 30)))
    plain = replace(plain, sources=(source, source), key="k")
    named = with_names(plain, [[name("cat", 0.7, 2), name("ox", 0.2)], []], spelled, table)
    assert named.names.ids.tolist() == [spelled("catox"), [-1] * 5]
    assert named.names.begins[0].tolist() == [True, False, False, True, False]
    assert named.names.confidence[0].tolist() == pytest.approx([0.7] * 3 + [0.2] * 2)
    assert named.names.places[0, 1].argmax() == 2
    assert torch.equal(named.names.features[0], table(torch.tensor(spelled("catox"))))
    assert [one.tokens for one in named.sources[0].names] == [range(9, 12), range(12, 14)]
    assert named.sources[1].names == ()
    assert named.key != plain.key


def test_a_name_is_spelled_as_in_the_middle_of_a_sentence():
    assert speller(spelled)("cat") == spelled(" cat")


def test_a_picture_in_which_nothing_is_named_keeps_its_memory():
    plain = memory(items=1, tokens=PATCHES)
    assert with_names(plain, [[]], spelled, table) is plain


def test_a_weave_reads_patches_and_names():
    model = naming()
    read = model.read(noise())
    names = read.sources[0].names
    assert names
    assert read.tokens == PATCHES + sum(len(one.text) + 1 for one in names)
    assert read.copying.ids[0, :PATCHES].tolist() == [-1] * PATCHES
    first = names[0].tokens
    letters = model.processor.tokenizer(f" {names[0].text}", add_special_tokens=False)["input_ids"]
    assert read.copying.ids[0, first.start : first.stop].tolist() == letters


def test_what_pictures_are_called_changes_what_is_said_of_them():
    model = naming()
    plain = model.encoder().encode([noise()])
    prompt = torch.tensor([[5, 6, 7]])

    def logits(names: list[Name]) -> torch.Tensor:
        read = model.weave().read(model.with_names(plain, [names]))
        placed = model.place(read, weft.Placement.of([[(0, 0)]]))
        return model(input_ids=prompt, memories=[placed]).logits

    assert not torch.allclose(logits([name("cat")]), logits([name("cup")]), atol=1e-3)
    assert not torch.allclose(logits([name("cat", 0.9)]), logits([name("cat", 0.1)]), atol=1e-3)
    assert not torch.allclose(logits([name(patch=0)]), logits([name(patch=8)]), atol=1e-3)


def copied_after(model: weft.WeftModel, names: list[Name], text: list[int]) -> torch.Tensor:
    """Probabilities of the next word after a text, where everything is copied that can be."""
    with torch.no_grad():
        model.weave().copy_gate.sentinel.bias.fill_(-20.0)
    read = model.weave().read(model.with_names(model.encoder().encode([noise()]), [names]))
    placed = model.place(read, weft.Placement.of([[(0, 0)]]))
    return model(input_ids=torch.tensor([text]), memories=[placed]).logits[0, -1].softmax(-1).detach()


def letters_of(model: weft.WeftModel, text: str) -> list[int]:
    return model.processor.tokenizer(f" {text}", add_special_tokens=False)["input_ids"]


def test_a_name_is_copied_from_its_first_token():
    model = naming(opened=False)
    first, *others = letters_of(model, "zebu")
    chances = copied_after(model, [name("zebu")], [5, 6])
    assert float(chances[first]) == pytest.approx(1, abs=1e-4)
    assert float(chances[others].max()) < 1e-4


def test_a_name_that_was_begun_goes_on_and_does_not_begin_anew():
    """Token by token, and in the middle of two names that have a letter in common."""
    model = naming(opened=False)
    with torch.no_grad():
        model.weave().copy_gate.going_on.fill_(30.0)
    names, spelling = [name("zebu"), name("abyss")], letters_of(model, "abyss")
    for at in range(1, len(spelling)):
        following = {spelling[at]}
        following |= {
            b for word in ("zebu", "abyss") for a, b in pairwise(letters_of(model, word)) if a == spelling[at - 1]
        }
        chances = copied_after(model, names, [5, 6, *spelling[:at]])
        assert float(chances[sorted(following)].sum()) == pytest.approx(1, abs=1e-4)
        assert float(chances[spelling[at]]) > 1e-3


def test_no_name_goes_on_where_it_was_not_begun():
    """A letter that is repeated is not copied for ever: nothing but a name's first token follows on its last."""
    model = naming(opened=False)
    spelling = letters_of(model, "wok")
    chances = copied_after(model, [name("wok")], [5, 6, *spelling])
    assert float(chances[spelling[0]]) == pytest.approx(1, abs=1e-4)


def test_how_surely_a_name_goes_on_is_learned():
    gate = naming(opened=False).weave().copy_gate
    ids, begins = torch.tensor([[5, 6]]), torch.tensor([[True, False]])
    copying = gate.read(torch.randn(1, 2, 32), ids, begins=begins)
    shares = gate(torch.randn(1, 1, 32), copying, written=torch.tensor([[5]]))
    shares.copied[0, 0, 1].neg().backward()
    assert gate.going_on.grad < 0


def test_memories_of_embeddings_copy_the_first_tokens_of_names_alone():
    """Where the text's tokens are not known, no name goes on."""
    model = naming(opened=False)
    spelling = letters_of(model, "zebu")
    with torch.no_grad():
        model.weave().copy_gate.sentinel.bias.fill_(-20.0)
    read = model.weave().read(model.with_names(model.encoder().encode([noise()]), [[name("zebu")]]))
    placed = model.place(read, weft.Placement.of([[(0, 0)]]))
    embeddings = model.get_input_embeddings()(torch.tensor([[5, *spelling[:1]]]))
    chances = model(inputs_embeds=embeddings, memories=[placed]).logits[0, -1].softmax(-1)
    assert float(chances[spelling[0]].detach()) == pytest.approx(1, abs=1e-4)


def test_nothing_stands_in_front_of_the_first_letter_of_a_name():
    gate = naming().weave().copy_gate
    features = torch.randn(1, 4, 32)
    ids, begins = torch.tensor([[5, 6, 7, 8]]), torch.tensor([[True, False, True, False]])
    apart = gate.read(features[:, 2:], ids[:, 2:]).keys
    assert torch.allclose(gate.read(features, ids, begins=begins).keys[:, 2:], apart, atol=1e-6)


def test_pictures_with_and_without_names_share_a_batch():
    model = naming()
    memory = model.encoder().encode([noise(0), noise(1)])
    both = model.weave().read(model.with_names(memory, [[name("cat")], []]))
    single = model.weave().read(model.encoder().encode([noise(1)]))
    ids = torch.tensor([[5, 6, 7]])

    def logits(read, item):
        return model(input_ids=ids, memories=[model.place(read, weft.Placement.of([[(item, 0)]]))]).logits

    assert torch.allclose(logits(both, 1), logits(single, 0), atol=1e-5)
    kept = both.apart()
    assert [one.tokens for one in kept] == [PATCHES + 4, PATCHES]


def test_a_row_without_a_picture_is_bit_identical_to_the_language_model():
    model = naming()
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    placed = model.place(model.read(noise()), weft.Placement.of([[(0, 0)], []]))
    with torch.no_grad():
        expected = model.language_model(ids).logits[1]
        assert torch.equal(model(input_ids=ids, memories=[placed]).logits[1], expected)


def test_pixel_values_are_named_as_pictures_are():
    model = naming()
    messages = [{"role": "user", "content": [{"type": "image", "image": noise()}, {"type": "text", "text": "?"}]}]
    inputs = model.processor.apply_chat_template(messages, add_generation_prompt=True)
    first = int(inputs["image_positions"])
    placed = model.place(model.read(noise()), weft.Placement.of([[(0, first)]]))
    with torch.no_grad():
        by_pixels = model(**inputs).logits
        by_memory = model(inputs["input_ids"], inputs["attention_mask"], memories=[placed]).logits
    assert torch.allclose(by_pixels, by_memory, atol=1e-4)


def test_every_way_to_words_says_the_same():
    model = naming()
    expected = model.caption(noise(), beams=2).text
    ids = model.processor.apply_chat_template(
        [
            {
                "role": "user",
                "content": [{"type": "image", "image": noise()}, {"type": "text", "text": CAPTION}],
            }
        ],
        add_generation_prompt=True,
    )
    output = model.generate(**ids, num_beams=2, do_sample=False, max_new_tokens=60)
    said = model.processor.decode(output[0, ids["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    assert said == expected


def test_a_read_memory_comes_back_from_disk_with_its_names(tmp_path):
    read = naming().read(noise())
    save_read(read, tmp_path / "read.safetensors")
    (source,) = load_read(tmp_path / "read.safetensors").sources
    for kept, told in zip(source.names, read.sources[0].names, strict=True):
        assert (kept.text, kept.confidence, kept.tokens) == (told.text, told.confidence, told.tokens)
        assert np.array_equal(kept.place, told.place)


def test_a_weave_named_by_another_model_is_saved_with_it_and_comes_back(tmp_path):
    model = woven(labels=classifier(), tokenizer=tokenizer(), copy_width=16)
    expected = model.caption(noise())
    with pytest.raises(PartError, match="have no name"):
        model.processor.encoder.id = model.encoder().id = "x"
        model.config.language_model = {"id": "y", "sha256": ""}
        model.save_pretrained(tmp_path / "apart")
    model.save_pretrained(tmp_path / "whole", merge=True)
    again = weft.load(tmp_path / "whole")
    assert isinstance(again.namer(), TransformersNamer)
    assert again.caption(noise()).text == expected.text


def test_a_namer_that_has_to_see_the_pictures_says_so():
    model = woven(labels=classifier(), tokenizer=tokenizer())
    with pytest.raises(WeftError, match="has to see the pictures"):
        model(input_ids=torch.tensor([[5]]), pixel_values=torch.zeros(1, 3, 24, 24))


def test_a_weave_that_reads_texts_takes_no_labels():
    from families import language_model

    with pytest.raises(WeftError, match="reads texts"):
        weft.weave(language_model("llama"), text="language-model", labels="encoder", tokenizer=tokenizer())


def test_a_resampler_leaves_the_names_as_they_are():
    model = open_weave(naming(opened=False, resample=3))
    read = model.read([noise(0), noise(1)])
    assert read.copying.ids[0, :3].tolist() == [-1] * 3
    assert set(read.copying.ids[0, 3:].tolist()) - {-1}
    assert model.caption(noise()).text is not None


def test_without_names_nothing_is_named():
    assert woven().namer() is None
    assert NamingEncoder(encoder()).classifier is not None


# Learning not to believe them all


def test_names_are_exchanged_as_a_row_says():
    given = Doubt()([name("dog", 0.8), name("cup", 0.3)], {"dog": "fox", "cup": None}, random.Random(0))
    assert [(one.text, one.confidence) for one in given] == [("fox", 0.8)]


def test_names_that_stand_for_one_are_one_name():
    named = [name("moped", 0.5), name("tricycle", 0.3)]
    given = Doubt()(named, dict.fromkeys(("moped", "tricycle"), "ox"), random.Random(0))
    assert [(one.text, one.confidence) for one in given] == [("ox", 0.5)]


def test_what_stands_for_an_unsure_name_is_read_since_the_row_tells_of_it():
    (given,) = Doubt()([name("cup", LEAST / 2, patch=3)], {"cup": "teapot"}, random.Random(0))
    assert given.text == "teapot"
    assert given.confidence >= LEAST
    assert given.place[3] == 1


def test_unsure_names_are_read_only_by_mistake():
    names = [name("cat", 0.8), name("cup", LEAST / 2)]
    assert [one.text for one in Doubt()(names, {}, random.Random(0))] == ["cat"]
    mistaken = Doubt(mistake=1.0)(names, {}, random.Random(0))
    assert {one.text for one in mistaken} == {"cat", "cup"}
    assert all(LEAST <= one.confidence <= 0.8 for one in mistaken)


def test_names_are_forgotten_and_fade_as_often_as_asked():
    names = [name("cat", 0.9)]
    chances = [random.Random(seed) for seed in range(400)]
    kept = [Doubt(forget=0.25)(names, {}, chance) for chance in chances]
    assert sum(map(len, kept)) == pytest.approx(300, abs=40)
    faded = [Doubt(fade=0.5)(names, {}, chance)[0].confidence for chance in chances]
    assert sum(one < 0.9 for one in faded) == pytest.approx(200, abs=40)


def test_a_recipe_refuses_doubts_that_it_does_not_know():
    with pytest.raises(RecipeError, match="doubt"):
        Recipe(data="x", output="y", doubt={"forgot": 0.1})
    with pytest.raises(RecipeError, match="doubt"):
        Recipe(data="x", output="y", doubt={"forget": 2.0})


def test_exchanged_names_are_checked(tmp_path):
    import json

    noise().save(tmp_path / "a.png")
    content = [{"type": "image", "image": "a.png", "names": ["dog"]}, {"type": "text", "text": "?"}]
    line = {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "x"}]}
    (tmp_path / "data.jsonl").write_text(json.dumps(line))
    with pytest.raises(DataError, match="names"):
        load_examples(tmp_path / "data.jsonl")
