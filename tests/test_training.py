"""Training: it learns, resumes to the same result, and stops with a sentence when it can't go on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import yaml
from families import language_model
from PIL import Image
from safetensors.torch import load_file
from woven import encoder, tokenizer

from weft.data import load_examples, rows_of
from weft.errors import DataError, RecipeError, WeftError
from weft.evaluation import evaluate, perplexity
from weft.fastpath import Vocabulary, own_attention
from weft.making import weave
from weft.recipe import Recipe, load_recipe
from weft.tasks import CAPTION
from weft.trainer import Trainer
from weft.training import train

COLOURS = ("red", "lime", "blue", "white")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A small world: pictures of one colour each, which is their caption; a language model and an encoder."""
    folder = tmp_path_factory.mktemp("world")
    language_model("llama", hidden_size=64, num_hidden_layers=4, initializer_range=0.2).save_pretrained(folder / "lm")
    tokenizer().save_pretrained(folder / "lm")
    encoder().save_pretrained(folder / "vit")
    for split, sizes in (("train", (20, 24, 28)), ("dev", (22,))):
        lines = []
        for colour in COLOURS:
            for size in sizes:
                name = f"{split}-{colour}-{size}.png"
                Image.new("RGB", (size, 24), colour).save(folder / name)
                content = [{"type": "image", "image": name}, {"type": "text", "text": CAPTION}]
                for answer in (f"{colour}.", f"all {colour}."):
                    lines.append(
                        {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]}
                    )
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def recipe(world, out, **changes):
    fields = {
        "data": str(world / "train.jsonl"),
        "dev": str(world / "dev.jsonl"),
        "output": str(out),
        "features": str(world / "features"),
        "language_model": str(world / "lm"),
        "vision": str(world / "vit"),
        "weave": {"start": 2, "every": 1, "feed_forward": 32, "connector_layers": 0},
        "precision": "fp32",
        "batch_size": 4,
        "epochs": 4,
        "learning_rate": 1e-2,
        "warmup": 2,
        "sampled_vocabulary": None,
        "evaluate_every": 6,
    }
    return Recipe(**{**fields, **changes})


def log(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_weave_learns_what_is_on_pictures_it_has_not_seen(world, tmp_path):
    model = train(recipe(world, tmp_path, epochs=40, evaluate_every=40))
    figures = evaluate(model, world / "dev.jsonl", beams=1)
    assert figures["pictures"] == 4
    assert figures["bleu_1"] > 0.9
    said = [model.caption(str(world / f"dev-{colour}-22.png")).text for colour in COLOURS]
    assert all(colour in text for colour, text in zip(COLOURS, said, strict=True))
    losses = [line["dev_loss"] for line in log(tmp_path) if "dev_loss" in line]
    assert losses[-1] < losses[0]


def test_resumed_run_gives_the_same_weights(world, tmp_path):
    changes = {"average": 0.9, "label_smoothing": 0.1, "sampled_vocabulary": 8, "accumulate": 2, "precision": "bf16"}
    changes |= {"views": ["plain", "mirror"]}
    whole = Trainer(recipe(world, tmp_path / "whole", **changes))
    whole.run()

    class Interrupted(Exception): ...

    broken = Trainer(recipe(world, tmp_path / "broken", **changes))
    update, count = broken._update, 0

    def interrupt(*args):
        nonlocal count
        count += 1
        if count == 9:  # after the checkpoint of step 6
            raise Interrupted
        return update(*args)

    broken._update = interrupt
    with pytest.raises(Interrupted):
        broken.run()
    torch.manual_seed(99)
    resumed = Trainer(recipe(world, tmp_path / "broken", **changes))
    resumed.run(resume=True)
    assert resumed.step == whole.step
    for ours, theirs in zip(whole.averages, resumed.averages, strict=True):
        assert torch.equal(ours, theirs)


def test_run_that_is_out_of_time_stops_with_a_checkpoint_and_resumes_to_the_same_weights(world, tmp_path):
    train(recipe(world, tmp_path / "whole"))
    train(recipe(world, tmp_path / "parts"), minutes=0)
    last = log(tmp_path / "parts")[-1]
    assert (last["step"], last["stopped"]) == (1, True)
    assert not (tmp_path / "parts" / "best").exists()
    train(recipe(world, tmp_path / "parts"), resume=True)
    whole, parts = (load_file(tmp_path / name / "best" / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_share_of_the_initial_weights_is_kept(world, tmp_path, average):
    """What is kept lies on the line from the weights that a run began with to those that it learned."""
    Trainer(recipe(world, tmp_path / "first", epochs=1)).run()
    start = str(tmp_path / "first" / "best")
    kept = {}
    for share in (0.0, 0.5):
        changes = {"initial_weights": start, "initial_share": share, "average": average, "epochs": 8, "dev": None}
        Trainer(recipe(world, tmp_path / f"{share}", evaluate_every=1000, **changes)).run()
        kept[share] = load_file(tmp_path / f"{share}" / "best" / "model.safetensors")
    began = load_file(Path(start) / "model.safetensors")
    moved = 0.0
    for name, learned in kept[0.0].items():
        expected = learned.float().lerp(began[name].float(), 0.5)
        assert torch.allclose(kept[0.5][name].float(), expected, atol=1e-2)
        moved = max(moved, float((learned.float() - kept[0.5][name].float()).abs().max()))
    assert moved > 0.02


def test_fast_way_learns_what_the_plain_way_learns(world, tmp_path):
    """Stored hidden states and shared prompts change the cost of a run, not its result."""
    losses = {}
    for name, fast in (("fast", True), ("plain", False)):
        trainer = Trainer(recipe(world, tmp_path / name, store_hidden=fast, epochs=2))
        trainer.run()
        assert (trainer.step_module.hidden is not None) == fast
        losses[name] = [line["loss"] for line in log(tmp_path / name) if "loss" in line]
    assert losses["fast"] == pytest.approx(losses["plain"], rel=1e-4)


def test_woven_model_is_trained_on_a_file_of_conversations(world, tmp_path):
    model = weave(world / "lm", vision=world / "vit", start=2, every=1, feed_forward=32, connector_layers=0)
    before = perplexity(model, load_examples(world / "dev.jsonl"))
    model.processor.system_prompt = "Be brief."
    changes = {"epochs": 30, "batch_size": 4, "learning_rate": 1e-2, "warmup": 2, "precision": "fp32"}
    trained = train(model, world / "train.jsonl", output=tmp_path / "run", features=tmp_path, **changes)
    assert trained is model
    assert perplexity(model, load_examples(world / "dev.jsonl")) < 0.8 * before
    kept = load_recipe(tmp_path / "run" / "recipe.yaml")
    assert (kept.language_model, kept.system_prompt) == (str(world / "lm"), "Be brief.")
    assert kept.weave["layers"] == model.weave().config.layers
    with pytest.raises(RecipeError, match="give data"):
        train(model)
    with pytest.raises(RecipeError, match="did you mean 'epochs'"):
        train(model, world / "train.jsonl", epoch=3)


def test_two_processes_learn_what_one_does(world, tmp_path):
    """Each computes its share of the same steps, so that losses agree step by step up to rounding, whether the frozen
    layers are whole in both or spread over them; and each goes on from what the other wrote."""
    plain = recipe(world, tmp_path / "one", weave={"start": 2, "every": 1, "connector_layers": 0})
    train(plain)
    whole = replace(plain, output=str(tmp_path / "whole"))
    spread = replace(plain, output=str(tmp_path / "spread"), shard=True)
    longer = replace(plain, epochs=plain.epochs + 1)
    shutil.copytree(tmp_path / "one", tmp_path / "one, gone on by two")
    gone_on = replace(longer, output=str(tmp_path / "one, gone on by two"), shard=True)
    in_two_processes(tmp_path, [whole, spread], [gone_on])
    alone = losses(tmp_path / "one")
    for name in ("whole", "spread"):
        assert log(tmp_path / name)[0]["processes"] == 2
        assert losses(tmp_path / name) == [pytest.approx(each, abs=2e-3) for each in alone]
    shutil.copytree(tmp_path / "spread", tmp_path / "two, gone on by one")
    train(replace(longer, output=str(tmp_path / "two, gone on by one")), resume=True)
    by_one, by_two = (log(tmp_path / name)[-1] for name in ("two, gone on by one", "one, gone on by two"))
    assert by_one["step"] == by_two["step"] > log(tmp_path / "one")[-1]["step"]
    assert by_two["dev_loss"] == pytest.approx(by_one["dev_loss"], abs=4e-3)


def losses(out):
    """Each loss of a run and of its evaluations, in order."""
    return [{key: line[key] for key in ("loss", "dev_loss") if key in line} for line in log(out)]


def in_two_processes(folder, begin, go_on):
    """``weft train`` by some recipes from the start, then by others from where their runs are, in the same two
    processes."""
    files = []
    for number, chosen in enumerate([*begin, *go_on]):
        files.append(folder / f"recipe-{number}.yaml")
        files[-1].write_text(yaml.safe_dump(asdict(chosen)), encoding="utf-8")
    code = (
        "import sys\n"
        "from weft.cli import app\n"
        "for number, recipe in enumerate(sys.argv[1:]):\n"
        f"    resume = ['--resume'] if number >= {len(begin)} else []\n"
        "    app(['train', recipe, *resume], standalone_mode=False)\n"
    )
    (folder / "trainings.py").write_text(code, encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [*launch, folder / "trainings.py", *files]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def begun(world, tmp_path_factory):
    """A weave that has learned a little."""
    folder = tmp_path_factory.mktemp("begun")
    train(recipe(world, folder, epochs=8, optimizer="adamw"))
    return str(folder / "best")


def test_self_critical_training_raises_the_reward(world, begun, tmp_path):
    """Answers that people would prefer become likelier."""
    changes = {"reward": "cider", "samples": 4, "epochs": 12, "optimizer": "adamw", "learning_rate": 5e-3}
    changes |= {"metric": "cider", "sampled_vocabulary": 8, "initial_weights": begun}
    Trainer(recipe(world, tmp_path, **changes)).run()
    rewards = [line["reward"] for line in log(tmp_path) if "reward" in line]
    assert sum(rewards[-9:]) > 1.1 * sum(rewards[:9])


@pytest.mark.parametrize("family", ["gemma3_text", "bloom", "mamba"])
def test_language_model_that_can_not_take_the_fast_way_is_trained_the_plain_way(world, tmp_path, family):
    language_model(family).save_pretrained(tmp_path / "lm")
    tokenizer().save_pretrained(tmp_path / "lm")
    changes = {"language_model": str(tmp_path / "lm"), "weave": {"start": 1, "every": 1}, "epochs": 1}
    share = family == "gemma3_text"
    trainer = Trainer(recipe(world, tmp_path / "out", share_prompts=share, **changes))
    trainer.run()
    assert all(line["loss"] == line["loss"] for line in log(tmp_path / "out") if "loss" in line)


def test_answers_of_one_length_are_learned_from_what_stands_before_them_alone(world):
    """Rows that need no padding have no mask either, and must not see ahead for that."""
    model = language_model("llama")
    ids = torch.randint(3, 128, (2, 8), generator=torch.Generator().manual_seed(0))
    changed = torch.cat([ids[:, :-1], ids[:, -1:] % 100 + 3], 1)
    with torch.no_grad(), own_attention(model):
        assert model.config._attn_implementation == "weft"
        first, second = (
            model.model(one, attention_mask=torch.ones_like(one)).last_hidden_state for one in (ids, changed)
        )
    assert model.config._attn_implementation == "sdpa"
    assert torch.equal(first[:, :-1], second[:, :-1])
    with torch.no_grad():
        torch.testing.assert_close(first, model.model(ids).last_hidden_state)


def test_dev_pictures_are_shown_as_they_are_whatever_views_are_learned_from(world, tmp_path):
    features = str(tmp_path / "features")
    train(recipe(world, tmp_path / "out", views=["mirror"], features=features, epochs=2))
    assert any("dev_loss" in line for line in log(tmp_path / "out"))


def test_checkpoint_of_another_optimizer_is_refused(world, tmp_path):
    train(recipe(world, tmp_path / "out", epochs=2))
    with pytest.raises(DataError, match="another recipe"):
        train(recipe(world, tmp_path / "out", epochs=4, optimizer="adamw"), resume=True)


def test_encoder_runs_once_for_each_picture(world, tmp_path, monkeypatch):
    first = Trainer(recipe(world, tmp_path / "a", features=str(tmp_path / "features"), epochs=1))
    calls = []
    encode = first.feed.held.encode
    first.feed.held.encode = lambda some: calls.extend(some) or encode(some)
    first.run()
    assert len(calls) == len(set(calls)) == 16
    second = Trainer(recipe(world, tmp_path / "b", features=str(tmp_path / "features"), epochs=1))
    second.feed.held.encode = lambda some: pytest.fail("a picture was encoded again")
    second.run()


def test_run_stops_early_when_the_dev_loss_no_longer_falls(world, tmp_path):
    trainer = Trainer(recipe(world, tmp_path, learning_rate=1e-12, epochs=50, evaluate_every=3, patience=2))
    trainer.best = 0.0
    trainer.run()
    assert trainer.step == 6


def test_loss_that_is_not_a_number_stops_the_run_with_the_batch_named(world, tmp_path):
    trainer = Trainer(recipe(world, tmp_path))
    with torch.no_grad():
        trainer.weave.layers[0].q_proj.weight.fill_(float("nan"))
    trainer.step_module.hidden = None
    trainer.recipe.store_hidden = False
    with pytest.raises(WeftError, match=r"step 1 is nan; its batch was .*train\.jsonl:\d+"):
        trainer.run()


def test_checkpoint_of_another_recipe_is_refused(world, tmp_path):
    Trainer(recipe(world, tmp_path, epochs=2)).run()
    other = recipe(world, tmp_path, epochs=2, weave={"start": 3, "every": 1})
    with pytest.raises(DataError, match="another recipe"):
        Trainer(other).run(resume=True)


def test_sampled_vocabulary_estimates_the_whole(world):
    from weft.processing import WeftProcessor

    rows = rows_of(load_examples(world / "train.jsonl"), WeftProcessor(tokenizer(), encoder()))
    torch.manual_seed(0)
    head = torch.nn.Linear(16, 128)
    hidden, targets = torch.randn(6, 16), torch.tensor([ord(letter) for letter in "redblu"])
    whole = torch.nn.functional.cross_entropy(head(hidden), targets, reduction="sum")
    every = Vocabulary.of(rows, 128, 10_000)
    assert every.sample == len(every.rest)
    with torch.no_grad():
        sampled = Vocabulary.of(rows, 128, 40)
        draws = []
        for _ in range(300):
            words = sampled.draw(hidden.device)
            draws.append(sampled.losses(head(hidden)[:, words], targets, 0.0).sum())
    assert float(torch.stack(draws).mean()) == pytest.approx(float(whole), rel=0.03)


def test_perplexity_is_that_of_the_formula(world):
    model = weave(world / "lm", vision=world / "vit").eval()
    examples = load_examples(world / "dev.jsonl")[:3]
    total = tokens = 0.0
    for example in examples:
        text = model.processor.render(example.messages).text
        ids = model.processor.tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            chances = model.language_model(input_ids=ids).logits[0].log_softmax(-1)
        learned = len(model.processor.tokenizer(example.answer)["input_ids"]) + 1
        for place in range(ids.shape[1] - learned, ids.shape[1]):
            total -= float(chances[place - 1, ids[0, place]])
            tokens += 1
    assert perplexity(model, examples, batch_size=2) == pytest.approx(
        torch.tensor(total / tokens).exp().item(), rel=1e-4
    )


def test_recipe_is_read_and_paths_are_relative_to_it(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("data: a.jsonl\noutput: run\nlearning_rate: 1e-3\nepochs: 2\n")
    read = load_recipe(path)
    assert (read.data, read.output) == (str(tmp_path / "a.jsonl"), str(tmp_path / "run"))
    assert (read.learning_rate, read.epochs) == (0.001, 2.0)


@pytest.mark.parametrize(
    "name", ["photos", "photos-reward", "reader-stories", "reader", "reader-answers", "reader-research"]
)
def test_recipes_of_the_repository_can_be_read(name):
    read = load_recipe(Path(__file__).parents[1] / "recipes" / f"{name}.yaml")
    assert read.reward == ("cider" if name == "photos-reward" else None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("data: a\noutput: b\nlearningrate: 1", "unknown key 'learningrate'; did you mean 'learning_rate'"),
        ("data: a", "'output' is missing"),
        ("data: a\noutput: b\nepochs: many", "epochs: 'many' is not float"),
        ("data: a\noutput: b\nmetric: bleu", "metric: 'bleu' is not"),
        ("data: a\noutput: b\nbatch_size: 0", "batch_size: 0 is too small"),
        ("data: a\noutput: b\nmetric: cider", "give 'dev'"),
        ("- a", "no mapping"),
        ("a: [", "is not YAML"),
    ],
)
def test_recipe_that_can_not_be_used_is_refused(tmp_path, text, says):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=says):
        load_recipe(path)
