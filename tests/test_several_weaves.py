"""Several weaves on one model: taken off, switched off for a while, and chosen for a question."""

from __future__ import annotations

import asyncio
from threading import Event, Thread
from typing import Any

import pytest
import torch
from devices import DEVICE
from families import language_model
from PIL import Image
from woven import begin_tokenizer, encoder, memory, open_weave, woven

import weft
from weft.errors import WeftError
from weft.making import weave
from weft.memory import Placement
from weft.processing import WeftProcessor

IDS = torch.randint(3, 90, (2, 7), generator=torch.Generator().manual_seed(1)).to(DEVICE)
PICTURE = Image.linear_gradient("L").resize((24, 24)).convert("RGB")
OPTIONS = {"max_new_tokens": 5, "eos_token_id": None, "pad_token_id": 0, "do_sample": False}


@pytest.fixture(params=["llama", "gpt2"])
def model(request):
    """Two weaves that read pictures, and one that reads texts."""
    model = woven(request.param)
    model.processor = WeftProcessor(begin_tokenizer(), model.encoder())
    weave(model, vision=encoder(width=32, seed=5), name="maps", start=0, every=2).to(DEVICE)
    weave(model, text="language-model", layers=[1, 2], copy_width=8)
    open_weave(model, "maps", seed=9)
    return open_weave(model, "reader").eval()


def laid(model: Any, name: str = "photos") -> Any:
    read = model.read(memory(2, width=model.encoder(name).width), name)
    return model.place(read, Placement.of([[(0, 1)], [(1, 2)]]))


@torch.no_grad()
def test_a_weave_is_taken_off(model):
    maps, bare = laid(model, "maps"), model.language_model(IDS).logits
    with_maps, caption = model(IDS, memories=[maps]).logits, model.caption(PICTURE, weave="maps", max_new_tokens=5).text
    model.remove_weave("photos")
    assert list(model.weaves) == ["maps", "reader"] == list(model.config.weaves)
    assert torch.equal(model(IDS, memories=[maps]).logits, with_maps)
    assert model.caption(PICTURE, max_new_tokens=5).text == caption
    assert model.processor.encoder is model.encoder("maps")
    with pytest.raises(WeftError, match="photos"):
        model.weave("photos")
    weave(model, vision=encoder(), name="photos")  # its name is free again
    for name in ("photos", "maps", "reader"):
        model.remove_weave(name)
    assert torch.equal(model(IDS).logits, bare)
    assert not any(module._forward_pre_hooks for module in model.language_model.modules())
    assert model.processor.encoder is None and model.processor.text_encoder is None
    with pytest.raises(WeftError, match="nothing to save"):
        model.save_pretrained("nowhere")


def test_what_is_saved_without_a_weave_has_it_no_more(model, tmp_path):
    model.remove_weave("maps")
    model.remove_weave("reader")
    model.save_pretrained(tmp_path, merge=True)
    assert list(weft.WeftModel.from_pretrained(tmp_path).weaves) == ["photos"]


@torch.no_grad()
def test_a_disabled_weave_is_not_looked_at(model):
    photos, maps = laid(model), laid(model, "maps")
    bare, with_maps = model.language_model(IDS).logits, model(IDS, memories=[maps]).logits
    with_both = model(IDS, memories=[photos, maps]).logits
    words = model.generate(IDS, memories=[photos], **OPTIONS)
    with model.disable_weave("photos"):
        assert torch.equal(model(IDS, memories=[photos, maps]).logits, with_maps)
        assert torch.equal(
            model.generate(IDS, memories=[photos], **OPTIONS), model.language_model.generate(IDS, **OPTIONS)
        )
        with model.disable_weave():
            assert torch.equal(model(IDS, memories=[photos, maps]).logits, bare)
        assert torch.equal(model(IDS, memories=[photos, maps]).logits, with_maps)
    assert torch.equal(model(IDS, memories=[photos, maps]).logits, with_both)
    assert torch.equal(model.generate(IDS, memories=[photos], **OPTIONS), words)
    with pytest.raises(WeftError, match="photos, maps, reader"), model.disable_weave("charts"):
        pass


def test_tasks_use_another_weave_while_one_is_disabled(model):
    by_maps = model.caption(PICTURE, weave="maps", max_new_tokens=5).text
    unseen = Image.new("RGB", (24, 24), "red")
    with model.disable_weave("photos"):
        assert model.caption(PICTURE, max_new_tokens=5).text == by_maps
    with model.disable_weave("photos"), model.disable_weave("maps"):
        blind = model.caption(PICTURE, max_new_tokens=5).text
        assert model.caption(unseen, max_new_tokens=5).text == blind
        with pytest.raises(WeftError, match="disabled"):
            model.caption(PICTURE, max_new_tokens=5, explain=True)
    with model.disable_weave():
        assert model.answer("Who?", ["A fox."], max_new_tokens=5).log_probability == pytest.approx(
            model.answer("Who?", ["Some tea."], max_new_tokens=5).log_probability
        )


@torch.no_grad()
def test_other_threads_and_tasks_do_not_notice(model):
    photos, bare = laid(model), model.language_model(IDS).logits
    usual = model(IDS, memories=[photos]).logits
    within, done, seen = Event(), Event(), []

    @torch.no_grad()
    def other() -> None:
        within.wait()
        seen.append(model(IDS, memories=[photos]).logits)
        done.set()

    thread = Thread(target=other)
    thread.start()
    with model.disable_weave("photos"):
        within.set()
        done.wait()
        assert torch.equal(model(IDS, memories=[photos]).logits, bare)
    thread.join()
    torch.testing.assert_close(seen[0], usual)

    async def without() -> torch.Tensor:
        with model.disable_weave("photos"):
            await asyncio.sleep(0.01)
            return model(IDS, memories=[photos]).logits

    async def with_it() -> torch.Tensor:
        await asyncio.sleep(0)
        return model(IDS, memories=[photos]).logits

    async def both() -> list[torch.Tensor]:
        return await asyncio.gather(without(), with_it())

    ours, theirs = asyncio.run(both())
    assert torch.equal(ours, bare)
    assert torch.equal(theirs, usual)


@torch.no_grad()
def test_compiled_models_notice():
    model = woven(language_model("llama", num_hidden_layers=1), layers=[0])
    photos = laid(model)
    compiled = torch.compile(model, backend="eager")
    usual = compiled(IDS, memories=[photos], use_cache=False).logits
    with model.disable_weave():
        torch.testing.assert_close(
            compiled(IDS, memories=[photos], use_cache=False).logits, model.language_model(IDS).logits
        )
    torch.testing.assert_close(compiled(IDS, memories=[photos], use_cache=False).logits, usual)


def test_a_question_chooses_its_weave(model):
    first, by_maps = (
        model.ask(PICTURE, "What?", max_new_tokens=5),
        model.ask(PICTURE, "What?", weave="maps", max_new_tokens=5),
    )
    assert (first.text, first.log_probability) != (by_maps.text, by_maps.log_probability)
    assert model.ask(PICTURE, "What?", weave="photos", max_new_tokens=5) == first
    assert model.ask(model.read(PICTURE, "maps"), "What?", max_new_tokens=5).text == by_maps.text
    explained = model.caption(PICTURE, weave="maps", max_new_tokens=2, explain="sketch")
    assert explained.seen.weights.shape[1] == model.encoder("maps").tokens
    assert model.title([PICTURE], weave="maps", max_new_tokens=5)[0].text


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (lambda model: model.caption(PICTURE, weave="charts"), "photos, maps, reader"),
        (lambda model: model.caption(PICTURE, weave="reader"), "reads texts"),
        (lambda model: model.caption(model.read(PICTURE), weave="maps"), "'photos' has read"),
        (lambda model: model.title("A long text about tea.", weave="maps"), "this is a text"),
    ],
)
def test_weaves_that_can_not_be_chosen(model, asked, says):
    with pytest.raises(WeftError, match=says):
        asked(model)
