"""Evaluation of what is read: which conversations belong to a task, what is read for each, and what the figures say."""

from __future__ import annotations

import json

import pytest
from families import language_model
from PIL import Image
from woven import encoder, open_weave, tokenizer

from weft import answering, reading_evaluation
from weft.data import load_examples
from weft.errors import DataError
from weft.evaluation import evaluate
from weft.instructions import HEADLINE, NOT_SAID, SUMMARIES
from weft.knowledge import KnowledgeBase
from weft.making import weave
from weft.responding import Response
from weft.text_encoders import Piece

FOX, TEA = "The fox sat in the snow.", "Tea is drunk hot."


def line(question, answer, documents=(("a", FOX),), **more):
    parts = [{"type": "document", "id": name, "text": text} for name, text in documents]
    content = [*parts, {"type": "text", "text": question}]
    return {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": answer}], **more}


@pytest.fixture
def data(tmp_path):
    lines = [
        line("Who sat?", "The fox.", references=["A fox."], supporting=["a"]),
        line("What is hot?", "Tea.", [("a", FOX), ("b", TEA)], supporting=["b"]),
        line("Who sings?", NOT_SAID, [("b", TEA)]),
        line(HEADLINE, "A fox in snow"),
        line(SUMMARIES["long"], "A fox sat."),
    ]
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(json.dumps(one) for one in lines))
    return path


@pytest.fixture(scope="module")
def model():
    base = language_model("llama", max_position_embeddings=2048)
    options = {"layers": [1, 2], "initial": "self-attention", "copy_width": 8, "tokenizer": tokenizer()}
    return open_weave(weave(base, text="language-model", **options).eval(), "reader")


def saying(monkeypatch, *texts):
    """Have the model say these texts, one after the other."""
    left = list(texts)

    def respond(model, read, prompts, held, **options):
        return [Response((5, 6), left.pop(0), -1.0) for _ in prompts]

    monkeypatch.setattr(answering, "respond", respond)


def test_each_task_takes_its_own_conversations(data):
    examples = load_examples(data)
    counts = {task: sum(reading_evaluation.belongs(one, task) for one in examples) for task in ("answer", "title")}
    assert counts == {"answer": 3, "title": 1}
    assert [reading_evaluation.belongs(one, "summary") for one in examples] == [False] * 4 + [True]
    assert all(reading_evaluation.belongs(one, "read") for one in examples)


def test_figures_are_those_of_what_was_said(data, model, monkeypatch):
    saying(monkeypatch, NOT_SAID, "A fox.", "Hot tea.")  # those with little to read come first
    figures = evaluate(model, data, task="answer", batch_size=1)
    assert figures["conversations"] == 3
    assert figures["exact_match"] == pytest.approx(2 / 3)
    assert figures["f1"] == pytest.approx((1 + 2 / 3 + 1) / 3)
    assert figures["not_said"] == pytest.approx(1 / 3)
    assert 0 <= figures["top_citation"] <= 1


def test_citations_are_the_documents_leaned_on_most(data, model):
    examples = [one for one in load_examples(data) if reading_evaluation.belongs(one, "answer")]
    held = [reading_evaluation.documents_of(model, one, None, 5) for one in examples]
    options = {"batch_size": 3, "beams": 1, "longest": 4}
    said = reading_evaluation.readings(model, examples, held, cites=True, **options)
    alone = [
        reading_evaluation.readings(model, [one], [passages], cites=True, **options)[0]
        for one, passages in zip(examples, held, strict=True)
    ]
    assert [one.prediction for one in said] == [one.prediction for one in alone]
    assert [one.cited for one in said] == [one.cited for one in alone]
    assert set(said[1].cited) == {"a", "b"}


def test_controls_read_something_else_or_only_the_prompt(data, model, monkeypatch):
    seen = []
    real = reading_evaluation.respond

    def respond(model, read, prompts, held, **options):
        texts = [{read.sources[item].text for item, _ in own} for own in held]
        seen.append((texts, [model.processor.decode(list(prompt)) for prompt in prompts]))
        return real(model, read, prompts, held, **options)

    for module in (answering, reading_evaluation):
        monkeypatch.setattr(module, "respond", respond)
    figures = evaluate(model, data, task="answer", controls=True, beams=1, max_new_tokens=3)
    assert {"rouge_l", "wrong_memory_rouge_l", "bare_rouge_l"} <= figures.keys()
    own, wrong, bare = seen
    assert own[0] == [{TEA}, {FOX}, {FOX, TEA}]
    assert all(FOX not in prompt for prompt in own[1] + wrong[1])
    asked = {prompt: texts for texts, prompt in zip(*wrong, strict=True)}
    assert next(texts for prompt, texts in asked.items() if "Who sat?" in prompt) == {TEA}
    assert not any(bare[0]) and any(FOX in prompt for prompt in bare[1])


def test_wrong_memory_shares_no_document(data):
    examples = [one for one in load_examples(data) if reading_evaluation.belongs(one, "answer")]
    held = [[Piece(one["text"], "") for one in example.documents] for example in examples]
    for index, example in enumerate(examples):
        other = reading_evaluation._other(held, index)
        shared = {one["text"] for one in example.documents} & {one["text"] for one in examples[other].documents}
        assert other == index or not shared


def test_documents_come_from_a_knowledge_base(tmp_path, data, model):
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "a").with_suffix(".txt").write_text(FOX)
    (folder / "b.txt").write_text(TEA)
    KnowledgeBase(folder).update()
    asked = tmp_path / "asked.jsonl"
    lines = [
        line("Who is the fox?", "Snow.", [], supporting=["a.txt"]),
        line("hot tea", "Hot.", [], supporting=["b.txt"]),
    ]
    asked.write_text("\n".join(json.dumps(one) for one in lines))
    figures = evaluate(model, asked, task="answer", knowledge=folder, passages=2, beams=1, max_new_tokens=3)
    assert figures["recall_at_2"] == 1
    with pytest.raises(DataError, match="holds no documents"):
        evaluate(model, asked, task="answer")


def test_responses_are_written(data, model, tmp_path):
    evaluate(model, data, task="title", output=tmp_path / "said.jsonl", beams=1, max_new_tokens=3)
    (said,) = [json.loads(one) for one in (tmp_path / "said.jsonl").read_text().splitlines()]
    assert said["question"] == HEADLINE and said["references"] == ["A fox in snow"]


def test_data_without_the_task_is_refused(tmp_path, model):
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(line("Who?", "Me.")))
    for task in ("summary", "vqa"):
        with pytest.raises(DataError, match="No conversation"):
            evaluate(model, path, task=task)


def test_questions_about_pictures_and_their_control(tmp_path, monkeypatch):
    for number, name in enumerate(("a", "b")):
        Image.new("RGB", (24, 24), (200 * number, 50, 90)).save(tmp_path / f"{name}.png")
    lines = []
    for name, answer in (("a", "red"), ("a", "dark"), ("b", "blue")):
        content = [{"type": "image", "image": f"{name}.png"}, {"type": "text", "text": "What colour?"}]
        lines.append({"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]})
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(json.dumps(one) for one in lines))
    model = open_weave(weave(language_model("llama"), vision=encoder(), layers=[1], tokenizer=tokenizer()).eval())
    from weft import evaluation

    monkeypatch.setattr(
        evaluation, "respond", lambda m, r, prompts, held, **o: [Response((1,), "red", 0.0) for _ in prompts]
    )
    figures = evaluate(model, path, task="vqa", controls=True, output=tmp_path / "said.jsonl")
    assert figures["questions"] == 3
    assert figures["exact_match"] == figures["wrong_memory_exact_match"] == pytest.approx(1 / 3)
    first = json.loads((tmp_path / "said.jsonl").read_text().splitlines()[0])
    assert first["question"] == "What colour?" and first["prediction"] == "red"
