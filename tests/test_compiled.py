"""Steps of the plain decoder, compiled ahead of time: the same numbers, kept for the next process, left where they do
not fit."""

from __future__ import annotations

import shutil

import pytest
import torch
from families import language_model
from woven import memory, woven

from weft.compiled import CompiledSteps
from weft.memory import Placement
from weft.packed_weave import MANY_KEYS
from weft.plain import PlainDecoder
from weft.search import Prompt, search

pytestmark = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler, which PyTorch needs"
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """One cache folder for all tests, so that each step is compiled once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WEFT_HOME", str(tmp_path_factory.mktemp("home")))
        yield tmp_path_factory.getbasetemp()


def warmed(dtype):
    """A model whose steps about a memory have been compiled."""
    made = woven(language_model("llama", hidden_size=64, head_dim=16, num_hidden_layers=1), layers=[0])
    made = made.to(dtype).eval()
    made.plain = PlainDecoder(made, "int8", narrow=dtype == torch.float32)
    made.compile_decoding()
    made.warm_up(memory={"photos": 9})
    return made


@pytest.fixture(scope="module")
def model(home):
    made = warmed(torch.bfloat16)
    made.warm_up(beams=3)
    return made


def prompt(model, items: int = 1, tokens: int = 9, seed: int = 3):
    if not items:
        return Prompt([5, 6, 7, 8])
    read = model.read(memory(items, tokens, seed=seed))
    return Prompt([5, 6, 7, 8], (model.place(read, Placement.of([[(item, 1) for item in range(items)]])),))


class Counted:
    """What was compiled, and how often it answered."""

    def __init__(self, steps):
        self.steps, self.answered = steps, 0

    def __call__(self, *inputs):
        found = self.steps(*inputs)
        self.answered += found is not None
        return found


def scores(model, prompts, *, beams: int, compiled: bool):
    """Scores of the best continuations, and how many steps were compiled ones."""
    decoder = model.plain.get()
    steps = decoder.compiled
    decoder.compiled = Counted(steps) if compiled else None
    try:
        found = search(decoder, model.plain.weaves(), prompts, beams=beams, longest=6, ends=())
        return [one.total for one in found], decoder.compiled.answered if compiled else 0
    finally:
        decoder.compiled = steps


def test_a_step_has_the_numbers_of_the_decoder(model):
    for seed in (3, 4):
        asked = [prompt(model, seed=seed)]
        expected, _ = scores(model, asked, beams=1, compiled=False)
        found, answered = scores(model, asked, beams=1, compiled=True)
        assert answered == 5
        assert found == pytest.approx(expected, abs=0.05)


def test_a_memory_in_float32_where_the_decoder_computes_in_bfloat16(home):
    """As on processors that have to emulate bfloat16."""
    model = warmed(torch.float32)
    expected, _ = scores(model, [prompt(model)], beams=1, compiled=False)
    found, answered = scores(model, [prompt(model)], beams=1, compiled=True)
    assert answered == 5 and found == pytest.approx(expected, abs=0.05)


def test_several_rows_that_read_nothing(model):
    expected, _ = scores(model, [prompt(model, 0)], beams=3, compiled=False)
    found, answered = scores(model, [prompt(model, 0)], beams=3, compiled=True)
    assert answered == 5 and found == pytest.approx(expected, abs=0.05)


def test_what_was_not_compiled_is_computed_as_before(model):
    for asked, beams in (
        ([prompt(model), prompt(model, seed=4)], 1),  # memories of their own
        ([prompt(model), prompt(model, 0)], 1),  # a row without
        ([prompt(model)], 3),  # a shape for which nothing was compiled
        ([prompt(model, 0)] * 3, 4),  # more rows than are compiled for
    ):
        expected, _ = scores(model, asked, beams=beams, compiled=False)
        assert scores(model, asked, beams=beams, compiled=True) == (expected, 0)


def test_a_memory_that_is_longer_than_what_was_compiled_for(model):
    layers = prompt(model).memories[0].layers
    long = [torch.nn.functional.pad(layer.keys, (0, 0, 0, MANY_KEYS)) for layer in layers]
    assert long[0].shape[2] >= MANY_KEYS
    held = prompt(model).memories[0]
    object.__setattr__(held, "layers", tuple(type(layers[0])(keys, keys) for keys in long))
    object.__setattr__(held, "owners", torch.zeros(1, long[0].shape[2], dtype=torch.long))
    assert scores(model, [Prompt([5, 6, 7], (held,))], beams=1, compiled=True)[1] == 0


def test_what_a_weave_has_learned_since_is_not_passed_over(model):
    gate = model.weave().fusion(0).attention_gate
    with torch.no_grad():
        gate.mul_(3)
    try:
        expected, _ = scores(model, [prompt(model)], beams=1, compiled=False)
        assert scores(model, [prompt(model)], beams=1, compiled=True) == (expected, 0)
    finally:
        with torch.no_grad():
            gate.div_(3)


def test_what_was_compiled_is_kept_and_a_damaged_file_is_made_anew(model, monkeypatch):
    from weft.catalog import weft_home

    decoder, weaves = model.plain.get(), model.plain.weaves()
    kept = sorted((weft_home() / "compiled").glob("*.pt2"))
    assert len(kept) >= 2
    made = []
    monkeypatch.setattr(CompiledSteps, "_compile", lambda self, file, *a, **o: made.append(file))
    CompiledSteps(decoder, weaves).prepare(1, "photos")
    assert not made
    for file in kept:
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(Exception):  # noqa: B017 - nothing was written in its place
        CompiledSteps(decoder, weaves).prepare(1, "photos")
    assert len(made) == 1 and made[0] in kept
