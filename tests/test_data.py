"""Conversations in files, as rows of tokens that know what is to be learned."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from woven import encoder, tokenizer

from weft.data import collate, load_examples, plan_epoch, rows_of
from weft.errors import DataError
from weft.flickr8k import clean, flickr8k, title_of
from weft.processing import WeftProcessor
from weft.store import FeatureStore


@pytest.fixture
def processor():
    return WeftProcessor(tokenizer(), encoder())


def line(answer, picture="a.png", question="What?"):
    content = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
    return {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]}


def write(folder, *lines):
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    path = folder / "data.jsonl"
    path.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines))
    return path


def test_answers_of_one_picture_and_prompt_share_a_row(tmp_path, processor):
    examples = load_examples(write(tmp_path, line("cat"), line("a dog"), line("cat", question="Who?")))
    rows = rows_of(examples, processor)
    assert [len(row.answers) for row in rows] == [2, 1]
    assert processor.decode(list(rows[0].prompt)) == "u:What?</s>a:"
    said = [processor.decode([t for t, f in zip(*answer, strict=True) if f]) for answer in rows[0].answers]
    assert said == ["cat</s>", "a dog</s>"]
    assert len(rows_of(examples, processor, share_prompts=False)) == 3


def test_only_the_assistants_words_are_learned_in_every_turn(tmp_path, processor):
    turns = [("user", "hi"), ("assistant", "one"), ("user", "and?"), ("assistant", "two")]
    examples = load_examples(write(tmp_path, {"messages": [{"role": r, "content": c} for r, c in turns]}))
    (row,) = rows_of(examples, processor)
    ((tokens, flags),) = row.answers
    assert processor.decode([token for token, flag in zip(tokens, flags, strict=True) if flag]) == "one</s>two</s>"


def test_shared_row_gives_the_logits_of_its_answers_alone(tmp_path, processor):
    """Answers see the prompt and themselves, at positions that go on from the prompt."""
    from families import language_model

    rows = rows_of(load_examples(write(tmp_path, line("cat"), line("a dog"), line("bird"))), processor)
    model = language_model("llama")
    packed = collate(rows, pad=0)

    def logits(batch):
        mask, positions = batch.attention_mask, batch.position_ids
        with torch.no_grad():
            out = model(input_ids=batch.input_ids, attention_mask=mask, position_ids=positions).logits
        return out.flatten(0, 1)[batch.predicting]

    alone = rows_of(load_examples(tmp_path / "data.jsonl"), processor, share_prompts=False)
    expected = torch.cat([logits(collate([row], pad=0, multiple=1)) for row in alone])
    torch.testing.assert_close(logits(packed), expected)
    assert packed.targets.tolist() == [token for row in alone for token in row.answers[0][0]]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("{not json", r"data\.jsonl:2: not JSON"),
        ({"text": "x"}, r"data\.jsonl:2: 'messages'"),
        (line("x", picture="gone.png"), r"data\.jsonl:2: the picture .*gone\.png doesn't exist"),
        (line("  "), r"data\.jsonl:2: the assistant says nothing"),
        ({"messages": [{"role": "user", "content": "x"}]}, r"data\.jsonl:2: the assistant says nothing"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, r"data\.jsonl:2: a part is of type 'video'"),
    ],
)
def test_bad_line_is_refused_by_file_and_line(tmp_path, bad, says):
    with pytest.raises(DataError, match=says):
        load_examples(write(tmp_path, line("good"), bad))


def test_empty_and_missing_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="holds no examples"):
        load_examples(write(tmp_path, ""))
    with pytest.raises(DataError, match="not a file"):
        load_examples(tmp_path / "gone.jsonl")


def test_epoch_holds_every_row_once_with_like_lengths_together():
    lengths = [(index * 37) % 50 + 1 for index in range(100)]
    plan = plan_epoch(lengths, 8, seed=3)
    assert sorted(index for batch in plan for index in batch) == list(range(100))
    spread = [max(lengths[i] for i in batch) - min(lengths[i] for i in batch) for batch in plan]
    assert sum(spread) / len(spread) < 10
    assert plan == plan_epoch(lengths, 8, seed=3) != plan_epoch(lengths, 8, seed=4)


def test_feature_store_survives_interruption_and_damage(tmp_path):
    store = FeatureStore(tmp_path / "features", dtype=torch.float32)
    features = torch.randn(5, 7)
    store.put("abcd", features)
    assert torch.equal(FeatureStore(tmp_path / "features").get("abcd"), features)
    assert torch.equal(store.batch(["abcd", "abcd"]), torch.stack([features, features]))
    (store.folder / "ef").mkdir()
    (store.folder / "ef" / "ef01.123.partial").write_bytes(b"half")
    assert "ef01" not in store
    store.path("abcd").write_bytes(b"damaged")
    with pytest.raises(KeyError):
        store.get("abcd")
    assert "abcd" not in store


def test_flickr8k_becomes_conversations(tmp_path):
    import io

    import pyarrow as pa
    from pyarrow import parquet

    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "JPEG")
    captions = ["a dog runs , fast .", "Two dogs"]
    rows = [{"image": {"bytes": buffer.getvalue(), "path": f"{n}.jpg"}, "captions": captions} for n in range(5)]
    (tmp_path / "in").mkdir()
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "in" / "dev.parquet")
    assert flickr8k(tmp_path / "in", tmp_path / "out") == {"dev": 5}
    examples = load_examples(tmp_path / "out" / "dev.jsonl")
    assert [example.answer for example in examples][:3] == ["A dog runs, fast.", "Two dogs.", "Dog runs fast"]
    assert len(examples) == 5 * 2 + 2
    with pytest.raises(DataError, match="no Parquet"):
        flickr8k(tmp_path / "out", tmp_path / "again")


@pytest.mark.parametrize(
    ("captions", "title"),
    [
        (["A brown dog runs through the grass .", "a big brown dog that is running outside"], "Brown dog runs"),
        (["Two girls ."], "Two girls"),
        (["The man is on a red bike ."], "Man is on a red"),
        (["A child in the snow ."], "Child in the snow"),
    ],
)
def test_title_is_made_by_rule(captions, title):
    assert title_of(captions) == title


def test_caption_is_cleaned_of_tokenized_spacing():
    assert clean('a man says " hi " , and it \'s fine .') == "A man says hi, and it's fine."
