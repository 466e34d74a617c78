"""The bAbI example: its parser, that it learns, that a resumed run is the same run, and what it shows."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

EXAMPLE = Path(__file__).parent.parent / "examples" / "babi"
TWO_STORIES = """\
1 Mary moved to the bathroom.
2 John went to the hallway.
3 Where is Mary? \tbathroom\t1
4 Mary went to the garden.
5 Where is Mary? \tgarden\t4
1 The kitchen is north of the office.
2 The office is west of the garden.
3 How do you go from the kitchen to the garden?\ts,e\t1 2
"""


@pytest.fixture(scope="module")
def babi() -> ModuleType:
    spec = importlib.util.spec_from_file_location("babi", EXAMPLE / "babi.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["babi"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small task 1: who is where, of four people in four places."""
    folder = tmp_path_factory.mktemp("babi")
    rng = np.random.default_rng(0)
    people, places = ["Mary", "John", "Sandra", "Daniel"], ["garden", "office", "kitchen", "hallway"]
    for split, stories in (("train", 60), ("valid", 10)):
        lines = []
        for _ in range(stories):
            where: dict[str, tuple[str, int]] = {}
            for number in range(1, 9, 2):
                person, place = rng.choice(people), rng.choice(places)
                where[person] = (place, number)
                asked = rng.choice(sorted(where))
                place_then, fact = where[asked]
                lines.append(f"{number} {person} went to the {place}.")
                lines.append(f"{number + 1} Where is {asked}? \t{place_then}\t{fact}")
        (folder / f"qa1_{split}.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def small(babi: ModuleType):
    return babi.Recipe(
        width=32,
        decoder_layers=3,
        story_layers=1,
        feed_forward=32,
        steps=40,
        batch_size=32,
        warmup=5,
        evaluate_every=20,
    )


@pytest.fixture(scope="module")
def trained(babi: ModuleType, data: Path, small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    babi.train(small, data, folder, tasks=[1])
    return folder


def test_a_line_with_number_one_begins_a_new_story(babi):
    first, second, third = babi.parse(TWO_STORIES.splitlines(), task=1)
    assert first.facts == ("Mary moved to the bathroom.", "John went to the hallway.")
    assert second.facts == (*first.facts, "Mary went to the garden.")
    assert third.facts == ("The kitchen is north of the office.", "The office is west of the garden.")


def test_supporting_numbers_are_places_among_the_facts_and_skip_questions(babi):
    first, second, third = babi.parse(TWO_STORIES.splitlines(), task=1)
    assert (first.text, first.answer, first.supporting) == ("Where is Mary?", "bathroom", (0,))
    assert (second.answer, second.supporting) == ("garden", (2,))
    assert (third.answer, third.supporting) == ("s,e", (0, 1))


def test_a_line_that_is_neither_fact_nor_question_is_refused(babi):
    with pytest.raises(ValueError, match="task 4 is neither a fact nor a question: 'nonsense'"):
        list(babi.parse(["nonsense"], task=4))


def test_an_answer_of_two_words_is_one_entry_and_a_question_mark_a_word(babi):
    vocabulary = babi.Vocabulary.of(babi.parse(TWO_STORIES.splitlines(), task=1))
    assert {"s,e", "?", "kitchen"} <= set(vocabulary.entries)
    assert vocabulary.ids(["never seen"]) == [1]


def test_a_batch_holds_the_last_facts_and_how_long_ago_each_was_said(babi):
    questions = list(babi.parse(TWO_STORIES.splitlines(), task=1))
    rows = babi.Rows(questions, babi.Vocabulary.of(questions), facts=2)
    batch = rows.batch([1, 0])
    said = [[babi.words(fact) for fact in question.facts[-2:]] for question in (questions[1], questions[0])]
    entries = babi.Vocabulary.of(questions).entries
    shown = [[[entries[word] for word in batch.sentences[fact] if word] for fact in story] for story in batch.facts]
    assert shown == said
    assert batch.ago.tolist() == [[1, 0], [1, 0]]


def test_gaps_only_ever_move_facts_further_back_and_keep_their_order(babi):
    questions = list(babi.parse(TWO_STORIES.splitlines(), task=1))
    rows = babi.Rows(questions, babi.Vocabulary.of(questions), facts=3)
    plain, moved = rows.batch([1]).ago, rows.batch([1], gap=0.9, rng=np.random.default_rng(0)).ago
    assert (moved >= plain).all() and (moved != plain).any()
    assert (moved.diff(dim=1) < 0).all()


def test_an_epoch_has_every_question_as_often_as_the_recipe_says(babi, data, small):
    questions = babi.load(data, "train", [1])
    rows = babi.Rows(questions, babi.Vocabulary.of(questions), facts=130)
    for times in (1, 3):
        batches = list(rows.epoch(replace(small, repeat={1: times}), np.random.default_rng(0)))
        assert sorted(np.concatenate(batches)) == sorted(times * list(range(len(rows))))


def test_an_answer_does_not_depend_on_the_other_questions_of_its_batch(babi, data, small):
    questions = [*babi.load(data, "valid", [1]), *babi.parse(TWO_STORIES.splitlines(), task=1)]
    vocabulary = babi.Vocabulary.of(questions)
    rows = babi.Rows(questions, vocabulary, facts=130)
    model = babi.build(small, len(vocabulary), rows.sentences.shape[1]).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        together = babi.answer_logits(model, rows.batch(range(len(rows))))
        alone = torch.cat([babi.answer_logits(model, rows.batch([row])) for row in range(len(rows))])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_forty_steps_lower_the_loss(trained):
    first, last = (json.loads(line)["loss"] for line in (trained / "log.jsonl").read_text().splitlines())
    assert last < 0.7 * first


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(babi, data, small, trained, tmp_path, monkeypatch):
    class Interrupted(Exception):
        pass

    def stop_at_once(*args, **kwargs):
        save(*args, **kwargs)
        raise Interrupted

    save = babi.save_run
    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        patched.setattr(babi, "save_run", stop_at_once)
        babi.train(small, data, tmp_path, tasks=[1])
    babi.train(small, data, tmp_path, tasks=[1], resume=True)
    whole, parts = (load_file(folder / "state.safetensors") for folder in (trained, tmp_path))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_trained_model_is_measured_and_explained(babi, data, trained, capsys):
    babi.main(["evaluate", str(trained), "--data", str(data), "--json"])
    result = json.loads(capsys.readouterr().out)
    assert 0 <= result["mean_error"] <= 1 and 0 <= result["mean_found"] <= 1
    babi.main(["explain", str(trained), "--data", str(data), "--task", "1", "--number", "3"])
    shown = capsys.readouterr().out.splitlines()
    question = babi.load(data, "valid", [1])[3]
    assert [line.endswith(fact) for line, fact in zip(shown[1:], question.facts, strict=False)] == [True] * 4
    assert [" * " in line for line in shown[1:-1]] == [place in question.supporting for place in range(4)]
    assert f"right is {question.answer}" in shown[-1]


def test_weights_of_looking_sum_to_one_over_a_storys_own_facts(babi, data, small):
    questions = babi.load(data, "valid", [1])
    vocabulary = babi.Vocabulary.of(questions)
    rows = babi.Rows(questions, vocabulary, facts=130)
    model = babi.build(small, len(vocabulary), rows.sentences.shape[1]).eval()
    batch = rows.batch(range(8))
    _, weights = babi.looks(model, batch)
    assert weights.shape == (8, small.decoder_layers - 1, batch.facts.shape[1])
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:2]))
    assert (weights.masked_select((batch.facts < 0)[:, None]) == 0).all()


def test_the_recipe_in_the_folder_can_be_read_and_another_key_is_refused(babi, tmp_path):
    assert babi.Recipe.read(EXAMPLE / "recipe.yaml").facts == 130
    (tmp_path / "recipe.yaml").write_text("depth: 3\n")
    with pytest.raises(ValueError, match="a recipe has no depth"):
        babi.Recipe.read(tmp_path / "recipe.yaml")
