"""A woven model wherever transformers expects one of its own: arguments, generation, trainers, Auto classes, copies."""

from __future__ import annotations

import copy
import inspect
import pickle
import warnings
from typing import Any

import pytest
import torch
from devices import DEVICE
from families import language_model
from PIL import Image
from torch.nn import functional as F
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)
from woven import begin_tokenizer, encoder, memory, naming, open_weave, reader, tokenizer, woven

import weft
from weft.errors import WeftError
from weft.making import weave
from weft.memory import Placement
from weft.processing import WeftProcessor

IDS = torch.randint(3, 90, (2, 9), generator=torch.Generator().manual_seed(1)).to(DEVICE)
MASK = torch.ones_like(IDS)
MASK[1, :4] = 0
OPTIONS = {"max_new_tokens": 5, "eos_token_id": None, "pad_token_id": 0, "do_sample": False}
KEPT = {**OPTIONS, "return_dict_in_generate": True, "output_logits": True}
BAMBA = {"num_hidden_layers": 3, "attn_layer_indices": [1], "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8}


def laid(model: Any, starts: tuple[int, int] = (4, 5)) -> list[Any]:
    """A picture in each row."""
    return [model.place(model.read(memory(2)), Placement.of([[(row, start)] for row, start in enumerate(starts)]))]


# Arguments


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "bloom", "mamba", "gemma3_text"])
def test_a_padded_batch_generates_what_the_language_model_does(family):
    model = woven(family)
    expected = model.language_model.generate(IDS, attention_mask=MASK, **KEPT)
    found = model.generate(IDS, attention_mask=MASK, **KEPT)
    assert torch.equal(found.sequences, expected.sequences)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found.logits, expected.logits, strict=True))


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_padding_on_the_left_changes_nothing(family):
    model = woven(family)
    padded = model.generate(IDS, attention_mask=MASK, memories=laid(model), **KEPT)
    alone = [model.place(model.read(memory(2)), Placement.of([[(1, 1)]]))]
    short = model.generate(IDS[1:, 4:], memories=alone, **KEPT)
    assert torch.equal(padded.sequences[1, 9:], short.sequences[0, 5:])
    torch.testing.assert_close(torch.stack(padded.logits)[:, 1], torch.stack(short.logits)[:, 0], rtol=1e-4, atol=1e-4)


def test_forward_names_what_trainers_and_generate_look_for():
    named = inspect.signature(weft.WeftModel.forward).parameters
    assert {"position_ids", "cache", "past_key_values", "inputs_embeds", "labels", "use_cache"} <= set(named)
    assert {"logits_to_keep", "output_hidden_states", "output_attentions", "return_dict", "pixel_values"} <= set(named)


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom", "mamba"])
def test_arguments_reach_the_language_model(family):
    model = woven(family)
    options: dict[str, Any] = {"input_ids": IDS, "output_hidden_states": True, "logits_to_keep": 2, "labels": None}
    if family != "mamba":
        options["output_attentions"] = False
    if family in ("llama", "gpt2"):
        options["position_ids"] = torch.arange(3, 12)[None]
    expected, found = model.language_model(**options), model(**options)
    assert torch.equal(found.logits, expected.logits)
    assert len(found.hidden_states) == len(expected.hidden_states)
    assert model(IDS, return_dict=False)[0].shape == (2, 9, 128)


@torch.no_grad()
@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_a_second_turn_over_the_cache_of_the_first(joint, whole):
    """The second turn is given as the whole text, or as what is new of it; words are those of a text computed anew."""
    model = woven("gpt2", joint=joint)
    placed, more = laid(model), IDS.flip(1)
    anew = torch.cat((IDS, more), 1)
    expected = model.generate(anew, memories=placed, **OPTIONS)[:, 18:]
    cache = DynamicCache(config=model.language_model.config)
    model(IDS, memories=placed, cache=cache)
    given = anew if whole else more
    options = {"attention_mask": torch.ones_like(anew), "memories": placed, **OPTIONS}
    assert torch.equal(model.generate(given, cache=cache, **options)[:, given.shape[1] :], expected)


@torch.no_grad()
def test_the_earlier_name_of_the_cache():
    model = woven("gpt2")
    placed = laid(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cache = DynamicCache(config=model.language_model.config)
        model(IDS[:, :6], memories=placed, past_key_values=cache)
        rest = model(IDS[:, 6:], memories=placed, past_key_values=cache).logits
        generated = model.generate(IDS, memories=placed, past_key_values=DynamicCache(), **OPTIONS)
    torch.testing.assert_close(rest, model(IDS, memories=placed).logits[:, 6:])
    assert torch.equal(generated, model.generate(IDS, memories=placed, **OPTIONS))


@torch.no_grad()
@pytest.mark.parametrize(("family", "joint"), [("llama", False), ("gpt2", True), ("mamba", False)])
def test_embeddings_in_place_of_tokens(family, joint):
    model = woven(family, joint=joint)
    placed, embeds = laid(model), model.get_input_embeddings()(IDS)
    torch.testing.assert_close(model(inputs_embeds=embeds, memories=placed).logits, model(IDS, memories=placed).logits)
    found = model.generate(inputs_embeds=embeds, memories=placed, **OPTIONS)
    assert torch.equal(found, model.generate(IDS, memories=placed, **OPTIONS)[:, 9:])


@pytest.mark.parametrize("woven_too", [False, True])
def test_an_assistant_drafts_and_the_words_stay_the_same(woven_too):
    model, assistant = woven("llama"), language_model("llama", seed=3)
    placed = [model.place(model.read(memory(1)), Placement.of([[(0, 4)]]))]
    expected = model.generate(IDS[:1], memories=placed, **OPTIONS)
    drafting = woven(assistant) if woven_too else assistant
    assert torch.equal(model.generate(IDS[:1], memories=placed, assistant_model=drafting, **OPTIONS), expected)
    assert torch.equal(model.generate(IDS[:1], memories=placed, prompt_lookup_num_tokens=2, **OPTIONS), expected)


def test_what_generate_can_not_do_is_refused():
    model = woven("llama")
    with pytest.raises(WeftError, match="assistant_early_exit"):
        model.generate(IDS[:1], memories=laid(model), assistant_early_exit=1, **OPTIONS)
    with pytest.raises(WeftError, match="paged"):
        model.generate(IDS, memories=laid(model), cache_implementation="paged", **OPTIONS)
    with pytest.raises(ValueError, match="max_new_token"):
        model.generate(IDS, max_new_token=3)


@pytest.mark.parametrize("made", [woven, naming])
def test_labels_give_the_loss(made):
    model = made("gpt2")
    labels = IDS.masked_fill(MASK == 0, -100)
    output = model(IDS, attention_mask=MASK, memories=laid(model), labels=labels)
    expected = F.cross_entropy(output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    torch.testing.assert_close(output.loss, expected)
    assert isinstance(model(IDS, memories=laid(model), labels=labels, return_dict=False), tuple)


@torch.no_grad()
def test_the_model_without_its_head():
    model = woven("llama")
    placed = laid(model)
    hidden = model.base_model(input_ids=IDS, memories=placed).last_hidden_state
    torch.testing.assert_close(model.get_output_embeddings()(hidden), model(IDS, memories=placed).logits)
    copying = naming("llama")
    with pytest.raises(WeftError, match="copies"):
        copying.base_model(input_ids=IDS, memories=laid(copying))


# Trainers


@pytest.fixture
def saved(tmp_path):
    """A woven model in a folder, on a language model in another."""
    base = language_model("llama")
    base.save_pretrained(tmp_path / "lm")
    tokenizer().save_pretrained(tmp_path / "lm")
    encoder().save_pretrained(tmp_path / "vit")
    model = weave(tmp_path / "lm", vision=tmp_path / "vit", start=1, every=1, feed_forward=16)
    return open_weave(model.eval().to(DEVICE)), tmp_path


def rows(model: Any, count: int = 4) -> list[dict[str, torch.Tensor]]:
    """Pictures with a word to learn, as dicts of tensors."""
    found = []
    for number in range(count):
        image = Image.new("RGB", (24, 24), (number * 60, 90, 200))
        content = [{"type": "image", "image": image}, {"type": "text", "text": "What?"}]
        messages = [{"role": "user", "content": content}, {"role": "assistant", "content": f"no {number}"}]
        one = {name: tensor[0] for name, tensor in model.processor.apply_chat_template(messages).items()}
        found.append({**one, "labels": one["input_ids"].clone(), "remark": torch.tensor(number)})
    return found


def seeing(family: str = "llama", **options: Any) -> Any:
    model = woven(family, **options)
    model.processor = WeftProcessor(tokenizer(), model.encoder())
    return model


def arguments(folder: Any, **options: Any) -> TrainingArguments:
    options = {"max_steps": 2, "per_device_train_batch_size": 2, "learning_rate": 0.01, **options}
    return TrainingArguments(str(folder), report_to=[], use_cpu=DEVICE.type == "cpu", disable_tqdm=True, **options)


def test_trainer_learns_evaluates_and_loads_the_best(saved, caplog):
    """Dicts of tensors, of which a column that the model does not take is left out."""
    model, tmp_path = saved
    data = rows(model)
    often = {"save_steps": 1, "eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": True}
    trainer = Trainer(model, arguments(tmp_path, **often), train_dataset=data, eval_dataset=data)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.state.best_metric < before
    assert not [record for record in caplog.records if "missing keys" in record.message]
    assert trainer.evaluate()["eval_loss"] == pytest.approx(trainer.state.best_metric, rel=1e-4)
    assert not any(parameter.grad is not None for parameter in model.language_model.parameters())


def test_trainer_evaluates_words(tmp_path):
    """What is gathered of the outputs is logits, not caches."""
    model = seeing("gpt2")
    seen = []

    def measure(found: Any) -> dict[str, float]:
        seen.append(found.predictions.shape)
        return {"right": float((found.predictions.argmax(-1) == found.label_ids).mean())}

    data = rows(model)
    out = Trainer(model, arguments(tmp_path), eval_dataset=data, compute_metrics=measure).evaluate()
    assert 0 <= out["eval_right"] <= 1
    assert seen == [(4, len(data[0]["input_ids"]), 128)]


def test_trainer_with_gradient_checkpointing_and_accumulation(tmp_path):
    learned = []
    for checkpointing in (False, True):
        model = seeing("gpt2", dropout=0.0)
        options = {"activation_checkpointing": checkpointing, "gradient_accumulation_steps": 2, "max_steps": 1}
        options["save_strategy"] = "no"
        torch.manual_seed(0)
        Trainer(model, arguments(tmp_path, **options), train_dataset=rows(model)).train()
        learned.append(torch.cat([parameter.detach().flatten() for parameter in model.weaves.parameters()]))
    torch.testing.assert_close(*learned)


def test_supervised_fine_tuning_by_trl(tmp_path):
    """Words alone, as TRL makes rows of them; and pictures, for which somebody has a collator."""
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    model = seeing()
    messages = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "Red."}]
    data = datasets.Dataset.from_list([{"messages": messages}] * 4)
    options = {"max_steps": 1, "report_to": [], "use_cpu": True, "bf16": False, "disable_tqdm": True}
    settings = trl.SFTConfig(str(tmp_path), save_strategy="no", **options)
    words = trl.SFTTrainer(model, args=settings, train_dataset=data, processing_class=model.processor.tokenizer)
    assert torch.isfinite(torch.tensor(words.train().training_loss))

    pictures = rows(model)
    inputs = {name: torch.stack([row[name] for row in pictures]) for name in pictures[0] if name != "remark"}
    with torch.no_grad():
        plain = model.eval()(**inputs).loss
    found = words.model.eval()(**inputs, fused_lm_head=True).loss
    torch.testing.assert_close(found, plain)


# Copies


@pytest.mark.parametrize("again", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_copy_is_a_model_of_its_own(family, again):
    model = seeing(family)
    weave(model, text="language-model", layers=[1, 2], copy_width=8)
    open_weave(model, "reader").eval()
    model.memory_cache.max_bytes = 12345
    image = Image.new("RGB", (24, 24), "teal")
    said = model.caption(image, max_new_tokens=6).text, model.answer("Who?", ["A fox."], max_new_tokens=6).text
    other = again(model)
    assert (
        other.caption(image, max_new_tokens=6).text,
        other.answer("Who?", ["A fox."], max_new_tokens=6).text,
    ) == said
    assert other.memory_cache.max_bytes == 12345
    assert other.processor.encoder is other.encoder("photos")
    assert other.processor.text_encoder.model is other.language_model
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert model.caption(image, max_new_tokens=6).text == said[0]
    other.remove_weave("photos")
    assert list(model.weaves) == ["photos", "reader"]
    assert model.caption(image, max_new_tokens=6).text == said[0]


@pytest.mark.parametrize("again", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_processor_is_copied(again):
    made = WeftProcessor(tokenizer(), encoder(), system_prompt="You see.")
    image = Image.linear_gradient("L").resize((30, 20)).convert("RGB")
    messages = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "What?"}]}]
    ours, theirs = made.apply_chat_template(messages), again(made).apply_chat_template(messages)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (again(made).encoder.rectangles((30, 20)) == made.encoder.rectangles((30, 20))).all()


# Saving, and what transformers' own models can be set to


@pytest.mark.parametrize("merge", [False, True])
def test_auto_classes_find_a_saved_model(saved, merge):
    model, folder = saved
    model.save_pretrained(folder / "woven", merge=merge)
    found = AutoTokenizer.from_pretrained(folder / "woven")
    assert found("What?")["input_ids"] == tokenizer()("What?")["input_ids"]
    again: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder / "woven").to(DEVICE)
    assert isinstance(again, weft.WeftModel)
    assert torch.equal(again.generate(IDS, **OPTIONS), model.generate(IDS, **OPTIONS))


def test_options_of_saving(saved):
    model, folder = saved
    with pytest.raises(WeftError, match="did you mean 'merge'"):
        model.save_pretrained(folder / "woven", mergee=True)
    model.save_pretrained(folder / "woven", is_main_process=False)
    assert not (folder / "woven").exists()
    state = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
    model.save_pretrained(folder / "woven", state_dict=state)
    assert not any(tensor.any() for tensor in weft.WeftModel.from_pretrained(folder / "woven").weaves.parameters())
    with pytest.raises(WeftError, match="lacks weaves"):
        model.save_pretrained(folder / "woven", state_dict={})


def test_a_larger_vocabulary():
    model = woven("llama")
    placed = laid(model)
    with torch.no_grad():
        before = model(IDS, memories=placed).logits
        assert model.resize_token_embeddings(140).num_embeddings == 140
        after = model(IDS, memories=placed).logits
    assert (
        after.shape[-1]
        == model.config.get_text_config().vocab_size
        == model.get_output_embeddings().out_features
        == 140
    )
    torch.testing.assert_close(after[..., :128], before)
    model.processor = WeftProcessor(tokenizer(), model.encoder())
    assert isinstance(model.caption(Image.new("RGB", (24, 24)), max_new_tokens=3).text, str)


def test_another_way_to_compute_attention():
    model = woven("llama")
    with torch.no_grad():
        expected = model(IDS, memories=laid(model)).logits
        for given in ("eager", {"text_config": "sdpa"}, {"": "eager"}):
            model.set_attn_implementation(given)
            torch.testing.assert_close(model(IDS, memories=laid(model)).logits, expected)
    assert model.language_model.config._attn_implementation == "eager"
    with pytest.raises(WeftError, match="text_config"):
        model.set_attn_implementation({"vision_config": "eager"})


@pytest.mark.parametrize(
    "options", [{"num_return_sequences": 2}, {"return_dict_in_generate": True}, {"memories": []}, {"inputs": IDS}]
)
def test_tasks_say_one_text_for_each_picture(options):
    with pytest.raises(WeftError, match=next(iter(options))):
        seeing("gpt2").caption(Image.new("RGB", (24, 24)), **options)


def test_reader_weaves_are_citizens_too():
    """A second model of another kind: passages in place of pictures, and a copy gate."""
    model = reader("gpt2", tokenizer=begin_tokenizer())
    placed = [model.place(model.read_texts(["abc", "defg"]), Placement.of([[(0, 4)], [(1, 5)]]))]
    padded = model.generate(IDS, attention_mask=MASK, memories=placed, **OPTIONS)
    alone = [model.place(model.read_texts(["defg"]), Placement.of([[(0, 1)]]))]
    assert torch.equal(padded[1, 9:], model.generate(IDS[1:, 4:], memories=alone, **OPTIONS)[0, 5:])
