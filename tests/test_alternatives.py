"""What Weft is compared with: as large as a weave, as it is known elsewhere, trained and resumed to the same result."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from families import language_model
from PIL import Image
from woven import encoder, reader, tokenizer, woven

from weft.data import collate, rows_of
from weft.data import load_examples as load
from weft.processing import WeftProcessor
from weft.progress import Reporter
from weft.recipe import Recipe
from weft.tasks import CAPTION

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from alternatives_page import write
from clocks import times
from looks import ask_once, words
from prompted import Prompted, Sizes, with_places
from prompted_training import PromptRun
from prompted_words import KeptPrompt, Speaker, first_token
from sides import BEST, Setup, learned, prompt_run, train

COLOURS = ("red", "lime", "blue", "white")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Pictures of one colour each, with two captions; stories with a question; a language model and an encoder."""
    folder = tmp_path_factory.mktemp("world")
    language_model("llama", hidden_size=64, initializer_range=0.2, max_position_embeddings=512).save_pretrained(
        folder / "lm"
    )
    tokenizer().save_pretrained(folder / "lm")
    encoder().save_pretrained(folder / "vit")
    pictures, stories = [], []
    for colour in COLOURS:
        Image.new("RGB", (24, 24), colour).save(folder / f"{colour}.png")
        shown = [{"type": "image", "image": f"{colour}.png"}, {"type": "text", "text": CAPTION}]
        told = [{"type": "document", "text": f"The fox is {colour}."}, {"type": "text", "text": "Which?"}]
        for content, answer, lines in (
            (shown, f"{colour}.", pictures),
            (shown, f"all {colour}.", pictures),
            (told, colour, stories),
        ):
            lines.append({"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]})
    (folder / "pictures.jsonl").write_text("\n".join(map(json.dumps, pictures)))
    (folder / "stories.jsonl").write_text("\n".join(map(json.dumps, stories)))
    return folder


def recipe(world, out, kind="pictures", **changes):
    held = {"vision": str(world / "vit")} if kind == "pictures" else {"text": "language-model", "name": "reader"}
    fields = {
        "data": str(world / f"{kind}.jsonl"),
        "dev": str(world / f"{kind}.jsonl"),
        "output": str(out),
        "features": str(world / "features"),
        "language_model": str(world / "lm"),
        "weave": {"layers": [1, 2], "feed_forward": 32},
        "precision": "fp32",
        "system_prompt": "",
        "batch_size": 2,
        "epochs": 4,
        "learning_rate": 1e-2,
        "warmup": 2,
        "evaluate_every": 3,
        **held,
    }
    return Recipe(**{**fields, **changes})


def log(out):
    return [json.loads(line) for line in (Path(out) / "log.jsonl").read_text().splitlines()]


def prompted(lora: bool, seed: int = 0):
    """A prompted model on a small llama, of which everything that learns does something."""
    model = woven("llama", seed=seed)
    model.processor = WeftProcessor(tokenizer(), model.encoder(), system_prompt="")
    made = Prompted(model, "photos", Sizes(inner=12, rank=3 if lora else 0))
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in made.learned.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    made.train(False)
    return made, model


@pytest.mark.parametrize("lora", [False, True])
def test_as_many_parameters_learn_as_in_the_weave(lora):
    model = woven("llama", feed_forward=200)
    wanted = sum(one.numel() for one in model.weave().parameters())
    sizes = Sizes.matching(wanted, model, model.weave().config, lora=lora)
    assert bool(sizes.rank) == lora and sizes.inner >= (32 if lora else 1)
    assert Prompted(model, "photos", sizes).parameters == pytest.approx(wanted, rel=0.01)
    texts = reader("llama")
    rank = Sizes.matching(20_000, texts, texts.weave().config, lora=True)
    assert rank.inner == 0 and Prompted(texts, "reader", rank).parameters == pytest.approx(20_000, rel=0.05)


def test_a_picture_takes_places_where_it_stands():
    assert with_places([5, 6, 7], [1, 3], 100, 2) == [5, 100, 101, 6, 7, 102, 103]


@pytest.mark.parametrize("lora", [False, True])
def test_answers_that_share_a_prompt_lose_what_they_lose_apart(world, lora):
    made, model = prompted(lora)
    (row, *_) = rows_of(load(world / "pictures.jsonl"), model.processor)
    features = torch.randn(1, 9, 24)
    placed = replace(row, prompt=tuple(with_places(row.prompt, row.columns, made.words, 9)))
    apart = [replace(placed, answers=(answer,)) for answer in placed.answers]
    assert len(apart) == 2
    shared = made.loss(collate([placed], 0), features)
    alone = sum(made.loss(collate([one], 0), features) for one in apart)
    torch.testing.assert_close(shared, alone, atol=1e-4, rtol=1e-4)
    other = made.loss(collate([placed], 0), features.flip(1))
    assert abs((other - shared).item()) > 1e-3


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("beams", [1, 3])
def test_words_are_those_of_generate_from_embeddings(lora, beams):
    """What the plain decoder says over places in its table is what transformers says over embeddings."""
    made, model = prompted(lora)
    plain = woven("llama") if lora else model
    plain.processor = model.processor
    speaker = Speaker(made, plain)
    drawn = [np.random.default_rng(n).integers(0, 255, (24, 24, 3), np.uint8) for n in range(8)]
    noise = [Image.fromarray(one) for one in drawn]
    said = speaker.say(noise, CAPTION, beams=beams, longest=8)
    for picture, found in zip(noise, said, strict=True):
        features = plain.encoder().encode([picture]).features
        ids, columns = speaker.tokens(CAPTION)
        with torch.no_grad():
            embeds = made.embedded(torch.tensor([with_places(ids, columns, made.words, 9)]), features)
            mask = torch.ones(embeds.shape[:2], dtype=torch.long)
            options = {"max_new_tokens": 8, "do_sample": False, "num_beams": beams}
            output = made.language_model.generate(inputs_embeds=embeds, attention_mask=mask, **options)[0].tolist()
        assert found.tokens == tuple(output[: output.index(2)] if 2 in output else output)
    assert len({one.tokens for one in said}) > 1


def test_what_is_kept_of_a_known_picture_gives_the_same_first_token():
    made, model = prompted(lora=False)
    speaker = Speaker(made, model)
    (prompt,), begun = speaker.prompts([Image.effect_noise((24, 24), 90).convert("RGB")], CAPTION)
    kept = KeptPrompt(speaker.decoder, prompt, begun)
    assert kept.first_token() == kept.first_token() == first_token(speaker.decoder, prompt)
    assert kept.bytes == begun * 3 * 2 * 16 * 4  # tokens, layers, keys and values, two heads of eight, four bytes


def test_folded_adapters_compute_what_they_did():
    made, model = prompted(lora=True)
    ids = torch.randint(3, 99, (2, 7))
    expected, merged = made.language_model(ids).logits, made.merged()
    assert not torch.allclose(expected, woven("llama").language_model(ids).logits, atol=1e-2)
    made.fold()
    torch.testing.assert_close(model.language_model(ids).logits, expected, atol=1e-4, rtol=1e-4)
    assert model.plain.get() is not None
    for name, tensor in model.language_model.state_dict().items():
        torch.testing.assert_close(merged[name], tensor)


SIDES = [("pictures", "llava"), ("pictures", "llava-lora"), ("documents", "lora")]


@pytest.mark.parametrize(("kind", "side"), SIDES)
def test_learns_and_keeps_the_best(world, tmp_path, kind, side):
    chosen = recipe(world, tmp_path, {"documents": "stories"}.get(kind, kind), epochs=12)
    run = prompt_run(chosen, side)
    run.feed.encode(Reporter(enabled=False))
    before = run.dev_loss()
    run.run()
    kept = min(line["dev_loss"] for line in log(tmp_path) if "dev_loss" in line)
    assert kept < 0.8 * before and run.best == kept
    run.model, _ = learned(chosen, side)
    assert run.dev_loss() == pytest.approx(kept, rel=0.05)  # in bfloat16, as it is loaded


@pytest.mark.parametrize(("kind", "side"), SIDES)
def test_resumed_run_gives_the_same_weights(world, tmp_path, kind, side):
    kind = {"documents": "stories"}.get(kind, kind)
    changes = {"average": 0.9, "label_smoothing": 0.1, "sampled_vocabulary": 8, "accumulate": 2}
    changes |= {"weave": {"layers": [1, 2], "dropout": 0.2}}
    changes |= {"views": ["plain", "mirror"]} if kind == "pictures" else {}
    whole = prompt_run(recipe(world, tmp_path / "whole", kind, **changes), side)
    whole.run()
    chosen = recipe(world, tmp_path / "broken", kind, **changes)
    update, broken = PromptRun._update, prompt_run(chosen, side)
    broken._update = lambda *given: update(broken, *given) if broken.step < 4 else 1 / 0
    with pytest.raises(ZeroDivisionError):
        broken.run()
    torch.manual_seed(99)
    resumed = prompt_run(chosen, side)
    resumed.run(resume=True)
    assert resumed.step == whole.step > 4
    for ours, theirs in zip(whole.averages, resumed.averages, strict=True):
        assert torch.equal(ours, theirs)
    assert (tmp_path / "broken" / BEST).read_bytes() == (tmp_path / "whole" / BEST).read_bytes()


def test_captions_decide_which_weights_are_kept_where_the_recipe_says_so(world, tmp_path):
    run = prompt_run(recipe(world, tmp_path, metric="cider", epochs=8), "llava-lora")
    run.run()
    assert all("dev_cider" in line for line in log(tmp_path) if "dev_loss" in line)
    assert run.best == -max(line["dev_cider"] for line in log(tmp_path) if "dev_loss" in line)


@pytest.mark.parametrize(
    ("kind", "names"), [("pictures", ("cross", "llava", "llava-lora")), ("stories", ("cross", "lora", "bare"))]
)
def test_sides_are_trained_in_pieces_and_looked_at(world, tmp_path, kind, names):
    """Each takes the same steps, on the same rows, and is then asked for words and times."""
    fields = asdict(recipe(world, tmp_path, kind, evaluate_every=2))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(fields))
    setup = Setup(tmp_path / "recipe.yaml", tmp_path / "runs", {"epochs": 9.0}, steps=3)
    learned_from = []
    for side in names:
        if side != "bare":
            assert train(setup, side, minutes=0)["steps"] == 0
            trained = train(setup, side)
            assert trained["steps"] == trained["of"] == 3 and trained["rows_per_second"] > 0
            learned_from.append([line["tokens"] for line in log(tmp_path / "runs" / side) if "tokens" in line])
        told = words(setup, side, None, "read")
        assert told.get("pictures", told.get("conversations")) == len(COLOURS)
        assert ("wrong_memory_rouge_l" in told) == (kind == "stories" and side == "cross")
        ask_once(setup, side)
    assert all(one == learned_from[0] for one in learned_from)
    found = times(setup, names, 1)
    assert all(one["first_new_ms"][0] > 0 and one["first_known_ms"][0] > 0 for one in found.values())
    assert 0 < found["cross"]["kept_bytes"] < found[names[1]]["kept_bytes"]


def test_page_keeps_what_is_written_and_shows_what_was_measured(tmp_path):
    page = tmp_path / "alternatives.md"
    page.write_text("# Method\n\nWords.\n\n## Figures\n\nold")
    times = {name: [2.0, 1.0, 3.0] for name in ("first_new_ms", "first_known_ms", "after_ms")}
    side = {"title": "LLaVA-style", "pictures": 10, "bleu_4": 0.123, "parameters": 9_700_000, **times}
    found = {"pictures": {"sides": {"llava": side}, "recipe": "photos.yaml", "changes": {}, "setting": "a machine"}}
    write(found, page)
    text = page.read_text()
    assert text.startswith("# Method\n\nWords.\n\n## Figures\n\n### Pictures") and "old" not in text
    assert "| LLaVA-style | 10 | 12.3 |" in text and "9,700,000" in text and "2.0 (1.0 to 3.0)" in text
