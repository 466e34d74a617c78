"""Knowing when not to answer: figures of a model, its calibration, and what that changes."""

from __future__ import annotations

import json
import math

import pytest
from families import language_model
from typer.testing import CliRunner
from woven import open_weave, tokenizer

from weft import refusals
from weft.answering import log_odds, log_refusals, unanswerable_chance
from weft.cli import app
from weft.data import load_examples
from weft.errors import DataError
from weft.evaluation import evaluate
from weft.instructions import NOT_SAID
from weft.making import weave
from weft.model import WeftModel
from weft.reading_evaluation import batches, documents_of

FOX, TEA = "The fox sat in the snow.", "Tea is drunk hot."


def line(question, answer, text):
    content = [{"type": "document", "id": "a", "text": text}, {"type": "text", "text": question}]
    return {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]}


@pytest.fixture
def model():
    base = language_model("llama", max_position_embeddings=2048)
    options = {"layers": [1, 2], "initial": "self-attention", "copy_width": 8, "tokenizer": tokenizer()}
    return open_weave(weave(base, text="language-model", **options).eval(), "reader")


@pytest.fixture
def files(tmp_path):
    found = {}
    for name, text, answer in (("have", FOX, "The fox."), ("lack", TEA, NOT_SAID), ("swap", FOX, NOT_SAID)):
        found[name] = tmp_path / f"{name}.jsonl"
        found[name].write_text(
            "\n".join(json.dumps(line(f"{who} sat?", answer, text)) for who in ("Who", "What", "Why"))
        )
    return found


def scored(monkeypatch, *scores):
    """Have the model refuse with these log-odds, one file after the other."""
    left = [[-math.log1p(math.exp(-odds)) for odds in some] for some in scores]
    monkeypatch.setattr(refusals, "log_probabilities", lambda model, examples, **options: left.pop(0))


def test_log_odds_are_those_of_the_probability():
    for chance in (1e-12, 0.2, 0.5, 0.999):
        assert log_odds(math.log(chance)) == pytest.approx(math.log(chance / (1 - chance)))
    assert log_odds(-1e9) < -600 and 10 < log_odds(0.0) < 20


def test_uncalibrated_chance_is_what_the_model_says(model):
    config = model.weave("reader").config
    for chance in (1e-9, 0.3, 0.9):
        assert unanswerable_chance(math.log(chance), config) == pytest.approx(chance)
        assert unanswerable_chance(math.log(chance), None) == pytest.approx(chance)
    config.refusal_temperature, config.refusal_bias = 2.0, 1.0
    assert unanswerable_chance(math.log(0.5), config) == pytest.approx(1 / (1 + math.exp(-1)))
    assert unanswerable_chance(-1e9, config) < 1e-100


def test_scores_are_the_models_for_each_question_in_its_place(model, files):
    examples = load_examples(files["have"])
    found = refusals.log_probabilities(model, examples, batch_size=2)
    for example, value in zip(examples, found, strict=True):
        held = [documents_of(model, example, None, 5)]
        (_, read, prompts, items) = next(batches(model, [example], held, 1))
        assert value == pytest.approx(log_refusals(model, read, prompts, items)[0], abs=1e-4)
    assert len(set(found)) == 3


def test_calibration_sets_what_is_saved_and_refuses_the_share(model, files, monkeypatch, tmp_path):
    scored(monkeypatch, [-5.0, -4.0, -1.0], [-2.0, -1.5, 1.0], [0.0, 0.5, 2.0])
    figures = refusals.calibrate(model, [files["have"]], [files["lack"], files["swap"]], refused=0.4)
    config = model.weave("reader").config
    for name in ("refusal_temperature", "refusal_bias", "refuses_at"):
        assert getattr(config, name) == figures[name] == model.config.weaves["reader"][name]
    assert config.refusal_bias > 0  # the log-odds lie too low
    chance = [unanswerable_chance(-math.log1p(math.exp(-odds)), config) for odds in (-5.0, -4.0, -1.0)]
    assert [one >= config.refuses_at for one in chance] == [False, False, True]
    assert figures["refused_at_40"] == 1 and figures["refused_at_40_lack"] == 1
    assert figures["refusal_auc_swap"] == 1 and figures["refusal_auc_lack"] == pytest.approx(7 / 9)
    model.save_pretrained(tmp_path / "saved", merge=True)
    again = WeftModel.from_pretrained(tmp_path / "saved").weave("reader").config
    assert (again.refusal_temperature, again.refusal_bias) == (config.refusal_temperature, config.refusal_bias)


def test_calibrated_probabilities_are_truer(model, files, monkeypatch):
    have = [-6 + number / 10 for number in range(40)]
    lack = [-4 + number / 10 for number in range(40)]
    scored(monkeypatch, have, lack)
    before = refusals.judge_refusals(model, load_examples(files["have"]), [files["lack"]])
    scored(monkeypatch, have, lack)
    after = refusals.calibrate(model, [files["have"]], [files["lack"]])
    assert after["refusal_calibration_error"] < before["refusal_calibration_error"] / 2
    assert after["refusal_auc"] == pytest.approx(before["refusal_auc"])  # their order stays
    assert after["refused_at_5"] == pytest.approx(before["refused_at_5"])


def test_evaluation_tells_how_well_questions_without_an_answer_are_known(model, files, tmp_path):
    options = {"beams": 1, "max_new_tokens": 2, "reliability": tmp_path / "table.md"}
    figures = evaluate(model, files["have"], task="answer", unanswerable=[files["lack"], files["swap"]], **options)
    assert {"rouge_l", "refusal_auc", "refused_at_5", "refusal_calibration_error"} <= figures.keys()
    assert figures["refusal_auc"] == pytest.approx((figures["refusal_auc_lack"] + figures["refusal_auc_swap"]) / 2)
    assert figures["refusal_auc_swap"] == 0.5  # the very same questions
    assert "| probability of no answer |" in (tmp_path / "table.md").read_text()
    with pytest.raises(DataError, match="has no unanswerable questions"):
        evaluate(model, files["have"], task="title", unanswerable=[files["lack"]])
    with pytest.raises(DataError, match="needs unanswerable questions"):
        evaluate(model, files["have"], task="answer", reliability=tmp_path / "table.md")


def test_share_that_is_none_is_refused(model, files):
    with pytest.raises(DataError, match="refused: 1"):
        refusals.calibrate(model, [files["have"]], [files["lack"]], refused=1.0)


def test_command_writes_three_settings_and_nothing_else(model, files, monkeypatch, tmp_path):
    model.save_pretrained(tmp_path / "saved", merge=True)
    before = json.loads((tmp_path / "saved" / "config.json").read_text())
    monkeypatch.setattr("weft.cli_calibrate.load", lambda name: model)
    scored(monkeypatch, [-5.0, -4.0, -1.0], [-2.0, -1.5, 1.0])
    arguments = ["calibrate", str(tmp_path / "saved"), "--answerable", str(files["have"]), "--json"]
    result = CliRunner().invoke(app, [*arguments, "--unanswerable", str(files["lack"])])
    figures = json.loads(result.output)
    settings = {name: figures[name] for name in ("refusal_temperature", "refusal_bias", "refuses_at")}
    after = json.loads((tmp_path / "saved" / "config.json").read_text())
    before["weaves"]["reader"] |= settings
    assert after == before


def test_folder_without_a_model_is_refused(files, tmp_path):
    from weft.errors import PartError

    arguments = ["calibrate", str(tmp_path), "--answerable", str(files["have"]), "--unanswerable", str(files["lack"])]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, PartError)
