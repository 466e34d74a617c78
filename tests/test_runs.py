"""Runs: what learns, what is kept, what goes on, and what is refused; data and settings as people have them."""

from __future__ import annotations

import base64
import json

import pytest
import torch
from coloured import COLOURS, SMALL, conversation, paint
from families import language_model
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, EarlyStoppingCallback, TrainerCallback
from woven import encoder, tokenizer

from weft.errors import DataError, RecipeError, WeftError
from weft.making import load, weave
from weft.model import WeftModel
from weft.precision import settled
from weft.recipe import Recipe, load_recipe
from weft.trainer import Trainer
from weft.training import train


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A language model, an encoder, and pictures of one colour each, with two captions."""
    folder = tmp_path_factory.mktemp("world")
    for family in ("llama", "qwen3"):
        language_model(family, num_hidden_layers=3, initializer_range=0.2).save_pretrained(folder / family)
        tokenizer().save_pretrained(folder / family)
    encoder().save_pretrained(folder / "vit")
    lines = paint(folder)
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def recipe(world, out, **changes):
    fields = {
        "data": str(world / "data.jsonl"),
        "dev": str(world / "data.jsonl"),
        "output": str(out),
        "features": str(world / "features"),
        "language_model": str(world / "llama"),
        "vision": str(world / "vit"),
    }
    return Recipe(**{**SMALL, **fields, **changes})


def log(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def learned_in(out):
    """All that a run's best weights hold."""
    files = [out / "best" / "model.safetensors", *(out / "best").glob("adapters/*/adapter_model.safetensors")]
    return {f"{file.parent.name}.{name}": tensor for file in files for name, tensor in load_file(file).items()}


LORA = {"rank": 2, "target_modules": ["q_proj", "v_proj"]}


def test_adapter_of_a_recipe_learns_with_the_weave_is_kept_with_it_and_resumes_to_the_same_weights(world, tmp_path):
    pytest.importorskip("peft")
    changes = {"lora": LORA, "average": 0.5}
    model = train(recipe(world, tmp_path / "whole", **changes))
    kept = learned_in(tmp_path / "whole")
    adapted = {name: tensor for name, tensor in kept.items() if name.endswith("lora_B.weight")}
    assert len(adapted) == 6 and all(float(tensor.abs().max()) > 0 for tensor in adapted.values())
    loaded = load(tmp_path / "whole" / "best")
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=ids).logits, model(input_ids=ids).logits)
        bare = AutoModelForCausalLM.from_pretrained(world / "llama")
        assert not torch.allclose(bare(input_ids=ids).logits, model(input_ids=ids).logits)
    train(recipe(world, tmp_path / "parts", **changes), minutes=0)
    train(recipe(world, tmp_path / "parts", **changes), resume=True)
    parts = learned_in(tmp_path / "parts")
    assert all(torch.equal(parts[name], tensor) for name, tensor in kept.items())


def test_adapter_above_the_stored_layers_learns_the_same_the_quick_way_and_the_plain_way(world, tmp_path):
    pytest.importorskip("peft")
    losses = {}
    for name, fast in (("fast", True), ("plain", False)):
        targets = ["layers.1.self_attn.q_proj", "layers.2.self_attn.v_proj"]
        lora = {"rank": 2, "alpha": 8, "target_modules": targets}
        trainer = Trainer(recipe(world, tmp_path / name, lora=lora, store_hidden=fast))
        trainer.run()
        assert (trainer.step_module.hidden is not None) == fast
        if fast:
            assert trainer.step_module.hidden.stack.first == 1
        losses[name] = [line["loss"] for line in log(tmp_path / name) if "loss" in line]
    assert losses["fast"] == pytest.approx(losses["plain"], rel=1e-4)


def test_adapter_that_is_in_place_learns_if_it_wants_to_and_weights_that_would_not_learn_are_refused(world, tmp_path):
    peft = pytest.importorskip("peft")
    options = {
        "output": tmp_path / "run",
        "features": tmp_path / "f",
        "precision": "fp32",
        "epochs": 1,
        "batch_size": 2,
    }
    data = world / "data.jsonl"
    for wants in (True, False):
        model = weave(world / "llama", vision=world / "vit")
        peft.get_peft_model(model.language_model, peft.LoraConfig(r=2, target_modules=["q_proj"]))
        adapters = {name: p for name, p in model.language_model.named_parameters() if "lora_B" in name}
        for parameter in adapters.values():
            parameter.requires_grad_(wants)
        train(model, data, **options)
        assert all(bool(parameter.any()) == wants for parameter in adapters.values())
    model = weave(world / "llama", vision=world / "vit")
    model.language_model.requires_grad_(True)
    with pytest.raises(WeftError, match="weaves and adapters alone"):
        train(model, data, **options)


def test_language_model_that_has_changed_is_refused_before_a_run_and_not_after_it(world, tmp_path):
    model = weave(world / "llama", vision=world / "vit")
    with torch.no_grad():
        model.language_model.model.norm.weight.mul_(2)
    with pytest.raises(WeftError, match="no longer the one"):
        train(model, world / "data.jsonl", output=tmp_path)


def test_adapter_that_learns_beside_stored_passages_of_the_same_language_model_is_refused(world, tmp_path):
    pytest.importorskip("peft")
    with pytest.raises(RecipeError, match="store_features: false"):
        Trainer(recipe(world, tmp_path, text="language-model", name="reader", lora=LORA, weave={"start": 2}))


def test_folder_that_holds_a_run_is_left_alone(world, tmp_path):
    train(recipe(world, tmp_path / "run", epochs=1))
    first = (tmp_path / "run" / "best" / "model.safetensors").read_bytes()
    train(recipe(world, tmp_path / "run", epochs=1, seed=5))
    assert (tmp_path / "run" / "best" / "model.safetensors").read_bytes() == first
    assert [sum("processes" in line for line in log(tmp_path / name)) for name in ("run", "run-2")] == [1, 1]
    assert load_recipe(tmp_path / "run-2" / "recipe.yaml").seed == 5


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"language_model": "qwen3"}, "another language model"),
        ({"weave": {"layers": [1], "feed_forward": 16, "connector_layers": 0}}, r"layers: \[2\] -> \[1\]"),
        ({"data": "fewer.jsonl"}, "another data"),
        ({"precision": "bf16"}, "precision .fp32 -> bf16"),
    ],
)
def test_run_goes_on_with_nothing_else_than_it_began_with(world, tmp_path, changes, says):
    lines = (world / "data.jsonl").read_text().splitlines()
    (world / "fewer.jsonl").write_text("\n".join(lines[:-1]))
    train(recipe(world, tmp_path), minutes=0)
    named = {
        name: str(world / value) if name in ("language_model", "data") else value for name, value in changes.items()
    }
    with pytest.raises(DataError, match=says):
        train(recipe(world, tmp_path, **named), resume=True)


def test_run_in_float32_is_loaded_in_float32_and_its_precision_is_kept(world, tmp_path):
    train(recipe(world, tmp_path), minutes=0)
    train(recipe(world, tmp_path, precision="auto"), resume=True)  # as it was, whatever the machine would take
    loaded = load(tmp_path / "best")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    bare, ids = AutoModelForCausalLM.from_pretrained(world / "llama"), torch.arange(3, 20)[None]
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids).logits, bare(input_ids=ids).logits)
    assert {line["precision"] for line in log(tmp_path) if "processes" in line} == {"fp32"}


def test_precision_is_that_of_the_machine_unless_it_is_named(monkeypatch):
    device, plain = torch.device("cpu"), Recipe(data="a", output="b")
    for native, found in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr("weft.precision.has_bfloat16", lambda device, native=native: native)
        assert settled(plain, device).precision == found
        assert settled(plain, device, "bf16").precision == "bf16"
        assert settled(Recipe(data="a", output="b", precision="fp32"), device).precision == "fp32"


def test_share_of_the_initial_weights_leaves_alone_what_they_had_not(world, tmp_path):
    """A copy gate that is added to a weave begins at random, which is nothing to remember."""
    parts = [{"type": "document", "text": "A cat."}, {"type": "text", "text": "Who?"}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": "cat."}]
    rows = [{"messages": messages}] * 4
    options = {"dev": None, "evaluate_every": 100, "text": "language-model", "name": "reader"}
    begun = recipe(world, tmp_path / "first", weave={"start": 2}, **options)
    Trainer(begun, data=rows).run()
    kept = {}
    for share in (0.0, 0.5):
        changes = {"initial_weights": str(tmp_path / "first" / "best"), "initial_share": share}
        more = recipe(world, tmp_path / f"{share}", weave={"copy_width": 8}, **changes, **options)
        Trainer(more, data=rows).run()
        kept[share] = load_file(tmp_path / f"{share}" / "best" / "model.safetensors")
    same = {name: torch.equal(tensor, kept[0.5][name]) for name, tensor in kept[0.0].items() if tensor.ndim == 2}
    assert all(unmixed == ("copy_gate" in name) for name, unmixed in same.items())
    assert any("copy_gate" in name for name in same)


class Watching(TrainerCallback):
    """Counts what it is told, and stops after three steps."""

    def __init__(self):
        self.told = []

    def on_step_end(self, args, state, control, **held):
        assert isinstance(held["model"], WeftModel)
        self.told.append("step")
        control.should_training_stop = state.global_step >= 3

    def on_evaluate(self, args, state, control, metrics, **held):
        self.told.append(round(metrics["eval_loss"], 3))


def test_callbacks_of_transformers_are_told_and_may_stop_a_run(world, tmp_path):
    watching = Watching()
    train(recipe(world, tmp_path, epochs=9), callbacks=[watching])
    losses = [round(line["dev_loss"], 3) for line in log(tmp_path) if "dev_loss" in line]
    assert watching.told == ["step", "step", losses[0], "step", losses[1]]
    train(recipe(world, tmp_path / "early", epochs=9, learning_rate=1e-12), callbacks=[EarlyStoppingCallback(2, 1.0)])
    assert [line["step"] for line in log(tmp_path / "early") if "dev_loss" in line] == [2, 4, 6]
    with pytest.raises(WeftError, match=r"no transformers\.TrainerCallback"):
        train(recipe(world, tmp_path / "other"), callbacks=[print])


def test_steps_are_as_many_as_are_asked_for(world, tmp_path):
    train(recipe(world, tmp_path, max_steps=5, epochs=1))
    assert [line["step"] for line in log(tmp_path) if "loss" in line] == [1, 2, 3, 4, 5]


def test_figures_go_to_a_tracker_and_one_that_is_not_there_is_refused(world, tmp_path, monkeypatch):
    told = []

    class Accelerators:
        log_with, trackers = ["tensorboard"], ()

        def log(self, values, step):
            told.append((step, sorted(values)))

    from weft.tracking import check_trackers, track

    track(Accelerators(), 3, {"loss": 1.0, "note": "words"})
    assert told == [(3, ["loss"])]
    monkeypatch.setattr("weft.tracking.get_available_trackers", lambda: [])
    with pytest.raises(RecipeError, match="pip install tensorboard"):
        check_trackers(["tensorboard"])


def test_conversations_are_trained_on_as_files_or_as_they_are_in_memory(world, tmp_path):
    """Pictures as files, Pillow images, bytes, data URLs and as a data set has them are the same pictures."""
    kinds = {
        "path": lambda file: str(file),
        "pillow": Image.open,
        "bytes": lambda file: file.read_bytes(),
        "url": lambda file: "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode(),
        "dataset": lambda file: {"bytes": file.read_bytes(), "path": file.name},
    }
    losses = {}
    for kind, made in kinds.items():
        rows = [conversation(made(world / f"{colour}.png"), f"{colour}.") for colour in COLOURS]
        model = weave(world / "llama", vision=world / "vit", start=2, every=1)
        with torch.no_grad():
            for parameter in model.weaves.parameters():
                parameter.fill_(0.02)
        options = {"precision": "fp32", "epochs": 1, "batch_size": 4, "features": tmp_path / kind}
        train(model, rows, dev=rows[:2], output=tmp_path / f"run-{kind}", **options)
        losses[kind] = [line["loss"] for line in log(tmp_path / f"run-{kind}") if "loss" in line]
    assert len({tuple(found) for found in losses.values()}) == 1
    model = weave(world / "llama", vision=world / "vit", start=2, every=1)
    trained = train(model, [world / "data.jsonl", str(world / "data.jsonl")], output=tmp_path / "files", **options)
    assert trained is model


def test_rows_are_read_from_disk_when_they_are_wanted(world, tmp_path):
    rows = Trainer(recipe(world, tmp_path)).feed.rows
    assert len(rows) == 4 and rows[1] is not rows[1]
    assert [rows.length(number) for number in range(4)] == [len(row) for row in rows]
    assert rows[1].answers == rows[1].answers and len(rows[1].answers) == 2


@pytest.mark.parametrize(
    ("setting", "name", "value"),
    [
        ("epochs=3", "epochs", 3.0),
        ("weave.dropout=1e-1", "weave", {"dropout": 0.1, "start": 2}),
        ("dev=null", "dev", None),
    ],
)
def test_fields_of_a_recipe_are_set_one_by_one(tmp_path, setting, name, value):
    (tmp_path / "recipe.yaml").write_text("data: a.jsonl\noutput: b\ndev: c.jsonl\nweave: {start: 2}\n")
    found = load_recipe(tmp_path / "recipe.yaml", [setting])
    assert getattr(found, name) == value
    assert found.data == str(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ("epoch=3", "did you mean 'epochs'"),
        ("epochs", "key=value"),
        ("metric=rogue", "did you mean 'rouge'"),
        ("precision=bfloat", "known are|did you mean"),
        ("weave.feedforward=3", "did you mean 'feed_forward'"),
        ("weave.initial=identty", "did you mean 'identity'"),
        ("weave.joint=often", "weave.joint: 'often' is not bool"),
        ("lora.rnk=3", "did you mean 'rank'"),
        ("lora={alpha: 3}", "needs a 'rank'"),
        ("trackers=[tensorbord]", "did you mean 'tensorboard'"),
        ("max_steps=0", "max_steps: 0 is too small"),
        ("views=[miror]", "did you mean 'mirror'"),
    ],
)
def test_settings_that_are_not_known_are_refused_with_the_near_one(tmp_path, changes, says):
    (tmp_path / "recipe.yaml").write_text("data: a.jsonl\noutput: b\n")
    with pytest.raises(RecipeError, match=says):
        load_recipe(tmp_path / "recipe.yaml", [changes])


def test_state_of_a_run_says_what_it_is_of(world, tmp_path):
    train(recipe(world, tmp_path), minutes=0)
    with safe_open(tmp_path / "checkpoint.safetensors", framework="pt") as file:
        state = json.loads(file.metadata()["state"])
    assert state["identity"]["weave"]["layers"] == [2] and state["precision"] == "fp32"
