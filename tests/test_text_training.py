"""Training a weave that reads texts: it learns what passages say, by either way, and goes on where it was stopped."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from families import language_model
from transformers import AutoModelForCausalLM, BertConfig, BertModel
from woven import begin_tokenizer, tokenizer

from weft.data import load_examples
from weft.making import weave
from weft.memory import Placement
from weft.model import WeftModel
from weft.recipe import Recipe, load_recipe
from weft.trainer import Trainer
from weft.training import train

COLOURS = ("red", "lime", "blue", "white")
ANIMALS = ("fox", "cat", "yak", "emu", "ant")
READER = {"start": 2, "every": 1, "initial": "self-attention", "copy_width": 16}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A small world: animals of some colour, each in a document of its own, and questions about one of them."""
    folder = tmp_path_factory.mktemp("world")
    for seed in (0, 9):
        base = language_model("llama", seed, hidden_size=64, num_hidden_layers=4, initializer_range=0.2)
        base.save_pretrained(folder / f"lm-{seed}")
        begin_tokenizer().save_pretrained(folder / f"lm-{seed}")
    for split, moves in (("train", (0, 1, 2)), ("dev", (3,))):
        lines = []
        for move in moves:
            for at, animal in enumerate(ANIMALS):
                colours = {a: COLOURS[(place + move) % 4] for place, a in enumerate(ANIMALS)}
                others = [ANIMALS[(at + step) % 5] for step in range(1, 1 + (at + move) % 3)]
                held = sorted([animal, *others])
                content = [{"type": "document", "id": a, "text": f"The {a} is {colours[a]}."} for a in held]
                content.append({"type": "text", "text": f"{animal}?"})
                for answer in (f"{colours[animal]}.", f"It is {colours[animal]}."):
                    said = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
                    lines.append({"messages": said, "supporting": [animal]})
            alone = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Ask me."}]
            lines.append({"messages": alone})
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def recipe(world, out, **changes):
    fields = {
        "data": str(world / "train.jsonl"),
        "dev": str(world / "dev.jsonl"),
        "output": str(out),
        "features": str(world / "features"),
        "language_model": str(world / "lm-0"),
        "text": "language-model",
        "name": "reader",
        "weave": READER,
        "precision": "fp32",
        "batch_size": 4,
        "epochs": 2,
        "learning_rate": 1e-2,
        "warmup": 2,
        "citing": 0.5,
        "sampled_vocabulary": None,
        "evaluate_every": 4,
    }
    return Recipe(**{**fields, **changes})


def log(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def losses(out, name="loss"):
    return [line[name] for line in log(out) if name in line]


def test_loss_falls_and_what_is_learned_is_what_passages_say(world, tmp_path):
    """On passages that put the same words together in another way; a passage that says otherwise is believed."""
    model = train(recipe(world, tmp_path, epochs=30, evaluate_every=30))
    found, dev = losses(tmp_path), losses(tmp_path, "dev_loss")
    assert sum(found[-4:]) < 0.5 * sum(found[:4])
    assert dev[-1] < 0.8 * dev[0]

    def chance(passage, answer):
        content = [{"type": "document", "text": passage}, {"type": "text", "text": "fox?"}]
        said = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
        return -loss_of(model, said)

    assert chance("The fox is red.", "red.") > chance("The fox is blue.", "red.")
    assert chance("The fox is blue.", "blue.") > chance("The fox is red.", "blue.")


@torch.no_grad()
def loss_of(model, messages):
    """What a woven model loses on an answer, by its processor and ``forward`` alone."""
    text = model.processor.apply_chat_template(messages, tokenize=False)
    before = model.processor.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
    inputs = model.processor.apply_chat_template(messages)
    chances = model(**inputs).logits[0].double().log_softmax(-1)
    end = len(begin_tokenizer()(text)["input_ids"])
    start = len(begin_tokenizer()(before)["input_ids"])
    return -sum(float(chances[at - 1, inputs["input_ids"][0, at]]) for at in range(start, end))


@pytest.mark.parametrize("fast", [True, False])
def test_loss_of_a_step_is_that_of_its_conversations_one_by_one(world, tmp_path, fast):
    """Shared prompts, stored hidden states and passages that rows share change nothing of it."""
    trainer = Trainer(recipe(world, tmp_path, store_hidden=fast, share_prompts=fast, citing=0.0, epochs=1))
    trainer.run()
    assert (trainer.step_module.hidden is not None) == fast
    trainer.model.eval()
    examples = load_examples(world / "train.jsonl")
    rows = [row for row in trainer.feed.rows if any(row.where == example.where for example in examples[6:14])]
    assert len(rows) > 3
    memory, placement = trainer.feed.memory(rows, 0)
    assert len(memory) < sum(len(row.passages) for row in rows)
    with torch.no_grad():
        found = float(trainer.step_module(trainer.feed.batch(rows), memory, placement))
    answers = {(example.messages[0]["role"], str(example.messages[0]["content"])): [] for example in examples}
    for example in examples:
        answers[(example.messages[0]["role"], str(example.messages[0]["content"]))].append(example)
    by_place = {example.where: example for example in examples}
    expected = 0.0
    for row in rows:
        first = by_place[row.where]
        shared = answers[(first.messages[0]["role"], str(first.messages[0]["content"]))] if fast else [first]
        asked = [one for one in shared if one.documents == first.documents]
        if not first.documents:
            asked = asked[: len(row.answers)]
        assert len(asked) == len(row.answers)
        expected += sum(loss_of(trainer.model, list(one.messages)) for one in asked)
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("changes", [{}, {"weave": {**READER, "copy_width": 0}}])
def test_fast_way_learns_what_the_plain_way_learns(world, tmp_path, changes):
    for name, fast in (("fast", True), ("plain", False)):
        trainer = Trainer(recipe(world, tmp_path / name, store_hidden=fast, **changes))
        trainer.run()
        assert (trainer.step_module.hidden is not None) == fast
    fast, plain = (losses(tmp_path / name) for name in ("fast", "plain"))
    assert fast == pytest.approx(plain, rel=1e-3)
    dev = [losses(tmp_path / name, "dev_loss") for name in ("fast", "plain")]
    assert dev[0] == pytest.approx(dev[1], rel=1e-3)


def test_resumed_run_gives_the_same_weights(world, tmp_path):
    changes = {"average": 0.9, "sampled_vocabulary": 8, "accumulate": 2, "precision": "bf16", "epochs": 4}
    changes |= {"weave": {**READER, "dropout": 0.1}}
    whole = Trainer(recipe(world, tmp_path / "whole", **changes))
    whole.run()

    class Interrupted(Exception): ...

    broken = Trainer(recipe(world, tmp_path / "broken", **changes))
    update, count = broken._update, 0

    def interrupt(*args):
        nonlocal count
        count += 1
        if count == 7:  # after the checkpoint of step 4
            raise Interrupted
        return update(*args)

    broken._update = interrupt
    with pytest.raises(Interrupted):
        broken.run()
    torch.manual_seed(99)
    resumed = Trainer(recipe(world, tmp_path / "broken", **changes))
    resumed.run(resume=True)
    assert resumed.step == whole.step > 7
    for ours, theirs in zip(whole.averages, resumed.averages, strict=True):
        assert torch.equal(ours, theirs)
    assert all(math.isfinite(loss) for loss in losses(tmp_path / "whole"))


def test_citing_counts_what_is_copied_from_elsewhere(world, tmp_path):
    """Against the share of each passage, row by row and token by token; rows of one passage alone count nothing."""
    trainer = Trainer(recipe(world, tmp_path, epochs=1, share_prompts=False))
    trainer.run()
    model, module = trainer.model.eval(), trainer.step_module
    gate, rows = model.weave().copy_gate, trainer.feed.rows[:12]
    memory, placement = trainer.feed.memory(rows, 0)

    @torch.no_grad()
    def loss(citing, rows=rows, **options):
        module.citing = citing
        return float(module(trainer.feed.batch(rows), memory, placement, **options))

    without = loss(0.0)
    assert loss(0.7, full=True) == pytest.approx(without, rel=1e-5)
    telling = [row for row in rows if len(row.passages) > 1]
    assert len(telling) >= 3
    expected = sum(missed(model, gate, row) for row in telling)
    assert loss(0.7) - without == pytest.approx(0.7 * expected, rel=1e-3)
    for supports in (True, False):  # nothing tells one passage from another
        alike = [replace(row, passages=tuple(replace(p, supports=supports) for p in row.passages)) for row in rows]
        assert loss(0.7, alike) == pytest.approx(without, rel=1e-5)


@torch.no_grad()
def missed(model, gate, row):
    """-log of the share of what is copied that comes from passages that support the answer, over a row's tokens."""
    (tokens, flags), prompt, states = row.answers[0], list(row.prompt), []
    read = model.read_texts([passage.text for passage in row.passages])
    held = Placement.of([[(at, passage.column) for at, passage in enumerate(row.passages)]])
    hook = model.language_model.lm_head.register_forward_pre_hook(lambda _, args: states.append(args[0]))
    model(input_ids=torch.tensor([prompt + list(tokens[:-1])]), memories=[model.place(read, held)])
    hook.remove()
    total = 0.0
    for at, learned in enumerate(flags):
        if learned:
            query = gate.q_proj(gate.hidden_norm(states[0][0, len(prompt) - 1 + at])).double()
            copied = {True: 0.0, False: 0.0}
            for item, passage in enumerate(row.passages):
                copying = read.item(item).copying
                scores = (copying.keys[0].double() @ query / len(query) ** 0.5).exp()
                copied[passage.supports] += float(scores[copying.ids[0] >= 0].sum())
            total -= math.log(copied[True] / (copied[True] + copied[False]))
    return total


def test_passage_is_encoded_once_for_all_rows_and_runs(world, tmp_path):
    first = Trainer(recipe(world, tmp_path / "a", features=str(tmp_path / "features"), epochs=1))
    run, encoded = first.feed.held.encoder.run, []
    first.feed.held.encoder.run = lambda tokens, _: encoded.extend(map(tuple, tokens)) or run(tokens)
    first.run()
    texts = {p.text for row in (*first.feed.rows, *first.feed.dev_rows) for p in row.passages}
    assert len(encoded) == len(set(encoded)) == len(texts) == 20
    second = Trainer(recipe(world, tmp_path / "b", features=str(tmp_path / "features"), epochs=1))
    second.feed.held.encoder.run = lambda *_: pytest.fail("a passage was encoded again")
    second.run()
    assert losses(tmp_path / "b") == losses(tmp_path / "a")


@pytest.mark.parametrize("loaded", [False, True])
def test_kept_features_are_those_of_the_language_model_that_is_trained_on(world, tmp_path, loaded):
    """Runs on two language models share a folder, also where these came loaded."""
    for seed in (0, 9):
        name = world / f"lm-{seed}"
        base = AutoModelForCausalLM.from_pretrained(name) if loaded else name
        model = weave(base, text="language-model", tokenizer=begin_tokenizer(), **READER)
        changes = {"features": str(tmp_path / "features"), "language_model": str(name), "epochs": 1}
        trainer = Trainer(recipe(world, tmp_path / f"run-{seed}", **changes), model)
        trainer.run()
        row = next(row for row in trainer.feed.rows if row.passages)
        memory, _ = trainer.feed.memory([row], 0)
        expected = model.encode_texts([passage.text for passage in row.passages])
        torch.testing.assert_close(memory.features, expected.features, rtol=1e-4, atol=1e-4)
        assert torch.equal(memory.ids, expected.ids)


def test_no_more_passages_are_read_than_the_recipe_says(world, tmp_path):
    trainer = Trainer(recipe(world, tmp_path, passages=2))
    assert max(len(row.passages) for row in trainer.feed.rows) == 2
    whole = Trainer(recipe(world, tmp_path))
    longest = max(whole.feed.rows, key=lambda row: len(row.passages))
    assert len(longest.passages) == 3
    assert [p.supports for p in longest.passages].count(True) == 1
    assert len({p.column for p in longest.passages}) == 1


def test_rows_longer_than_the_recipe_says_are_not_learned_from(world, tmp_path):
    lengths = sorted(len(row) for row in Trainer(recipe(world, tmp_path / "all")).feed.rows)
    bound = lengths[len(lengths) // 2]
    some = Trainer(recipe(world, tmp_path / "some", longest=bound)).feed
    assert sorted(len(row) for row in some.rows) == [length for length in lengths if length <= bound]
    assert len(some.dev_rows) > 0


def test_limits_draw_the_same_conversations_again(world, tmp_path):
    files, alone = [str(world / "train.jsonl"), str(world / "dev.jsonl")], {"share_prompts": False}
    drawn = [Trainer(recipe(world, tmp_path, data=files, limits=[3, 0], **alone)).feed for _ in range(2)]
    assert [row.where for row in drawn[0].rows] == [row.where for row in drawn[1].rows]
    whole = Trainer(recipe(world, tmp_path, data=files, **alone)).feed.rows
    assert {row.where for row in drawn[0].rows} < {row.where for row in whole}
    assert drawn[0].tally.rows == 3 + len(load_examples(files[1]))
    left = sum(map(len, drawn[0].tally.left_out.values()))  # which have no document
    assert 0 < left == drawn[0].tally.rows - len(drawn[0].rows)


def test_conversations_without_documents_teach_the_weave_nothing_and_are_counted(world, tmp_path):
    feed = Trainer(recipe(world, tmp_path, share_prompts=False)).feed
    examples = load_examples(world / "train.jsonl")
    assert [row.where for row in feed.rows] == [one.where for one in examples if one.documents]
    (why, left), *others = feed.tally.left_out.items()
    assert why.startswith("without documents") and not others
    assert left == [one.where for one in examples if not one.documents] != []


def test_batch_without_any_document_is_learned_as_well(world, tmp_path):
    """An adapter learns from what is only said, too, and rows are put together by length."""
    pytest.importorskip("peft")
    said = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Ask me."}]
    lines = (world / "train.jsonl").read_text().splitlines()
    alone = [json.dumps({"messages": [{**said[0], "content": f"Hello {n}"}, said[1]]}) for n in range(8)]
    (tmp_path / "mixed.jsonl").write_text("\n".join([*alone, *lines[:8]]))
    lora = {"lora": {"rank": 2, "target_modules": ["q_proj", "v_proj"]}, "store_features": False}
    for name, fast in (("fast", True), ("plain", False)):
        changes = {"data": str(tmp_path / "mixed.jsonl"), "batch_size": 2, "store_hidden": fast, **lora}
        trainer = Trainer(recipe(world, tmp_path / name, **changes))
        assert any(not any(row.passages for row in part) for step in trainer.feed.plan(0) for part in step)
        trainer.run()
    assert losses(tmp_path / "fast") == pytest.approx(losses(tmp_path / "plain"), rel=1e-3)


def test_encoder_of_another_kind_is_learned_from(world, tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=128, **sizes)).save_pretrained(tmp_path / "bert")
    tokenizer().save_pretrained(tmp_path / "bert")
    changes = {"text": str(tmp_path / "bert"), "weave": {"start": 2, "every": 1}}
    for name, fast in (("fast", True), ("plain", False)):
        train(recipe(world, tmp_path / name, store_hidden=fast, epochs=4, **changes))
    found = losses(tmp_path / "fast")
    assert sum(found[-4:]) < sum(found[:4])
    assert found == pytest.approx(losses(tmp_path / "plain"), rel=1e-3)


def test_woven_model_is_trained_as_it_is_and_its_recipe_makes_it_again(world, tmp_path):
    model = weave(world / "lm-0", text="language-model", **READER)
    changes = {"epochs": 1, "batch_size": 4, "warmup": 2, "precision": "fp32", "citing": 0.5}
    trained = train(model, world / "train.jsonl", output=tmp_path / "run", features=tmp_path, **changes)
    assert trained is model
    kept = load_recipe(tmp_path / "run" / "recipe.yaml")
    assert (kept.text, kept.name, kept.citing) == ("language-model", "reader", 0.5)
    train(tmp_path / "run" / "recipe.yaml", output=tmp_path / "again")
    again, first = (losses(tmp_path / name) for name in ("again", "run"))
    assert len(again) == len(first)


def test_trained_weave_is_loaded_and_gone_on_with(world, tmp_path):
    train(recipe(world, tmp_path / "first", epochs=10))
    train(recipe(world, tmp_path / "second", initial_weights=str(tmp_path / "first" / "best"), epochs=2))
    assert losses(tmp_path / "second")[0] < 0.9 * losses(tmp_path / "first")[0]


def test_two_answers_may_be_tried_and_rewarded(world, tmp_path):
    """Self-critical training takes weaves that read texts, though samples are not copied."""
    train(recipe(world, tmp_path / "start", epochs=6))
    changes = {"reward": "cider", "samples": 3, "epochs": 1, "optimizer": "adamw", "learning_rate": 1e-3}
    train(recipe(world, tmp_path / "reward", initial_weights=str(tmp_path / "start" / "best"), **changes))
    assert all(
        math.isfinite(line["loss"]) and line["reward"] >= 0 for line in log(tmp_path / "reward") if "reward" in line
    )


@pytest.mark.parametrize("stored", [True, False])
def test_weave_learns_from_passages_in_the_sight_of_their_questions(world, tmp_path, stored):
    """One passage has features for each question that is asked of it, and the weave says how it learned to read."""
    features = tmp_path / "features"
    changes = {"reading": "careful", "store_features": stored, "features": str(features), "epochs": 1}
    trainer = Trainer(recipe(world, tmp_path / "run", **changes))
    model = trainer.run()
    rows = [row for row in trainer.feed.rows if row.passages]
    assert {passage.question for row in rows for passage in row.passages} == {f"{animal}?" for animal in ANIMALS}
    asked = {passage.piece for row in (*rows, *trainer.feed.dev_rows) for passage in row.passages}
    assert len({piece.text for piece in asked}) == 20 < len(asked)
    assert len(list((features / "fp32" / "texts").rglob("*.safetensors"))) == (len(asked) if stored else 0)
    held = rows[0].passages + rows[-1].passages
    memory, _ = trainer.feed.memory([rows[0], rows[-1]], 0)
    expected = model.encode_texts(list(dict.fromkeys(passage.piece for passage in held)))
    torch.testing.assert_close(memory.features, expected.features, rtol=1e-4, atol=1e-4)
    assert torch.equal(memory.ids, expected.ids)
    again = WeftModel.from_pretrained(tmp_path / "run" / "best")
    assert again.weave("reader").config.reading == "careful"
