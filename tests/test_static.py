"""Decoding in shapes that never change: the same words, compiled once, and a way back where it can't be."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings

import pytest
import torch
from devices import DEVICE
from woven import memory, reader, woven

from weft.errors import WeftError
from weft.memory import Placement
from weft.static import SMALLEST, bucket, empty_memory

TOKENS = 8


@pytest.fixture(autouse=True)
def nothing_compiled():
    """What is compiled for one test is not there for the next."""
    torch.compiler.reset()
    yield
    torch.compiler.set_stance("default")


def photo(model, seed: int, rows: int = 1):
    """Each row's own picture, new for each seed."""
    read = model.read(memory(rows, seed=seed))
    return [model.place(read, Placement.of([[(row, 2)] for row in range(rows)]))]


def texts(model, seed: int):
    """Two passages, longer with each seed."""
    return [model.place(model.read_texts(["abc", "defgh" * seed]), Placement.of([[(0, 2), (1, 2)]]))]


def say(model, ids, memories=(), **options):
    options = {"max_new_tokens": TOKENS, "do_sample": False, "eos_token_id": None, "pad_token_id": 0, **options}
    return model.generate(ids, attention_mask=torch.ones_like(ids), memories=memories, **options).tolist()


def question(tokens: int, rows: int = 1):
    return torch.randint(3, 90, (rows, tokens)).to(DEVICE)


@pytest.mark.parametrize("family, made, held", [("llama", woven, photo), ("gpt2", reader, texts)])
def test_the_same_words_and_no_compiling_from_one_question_to_the_next(family, made, held):
    model = made(family)
    asked = [(question(tokens), held(model, seed)) for seed, tokens in enumerate((6, 9, 5, 12), 1)]
    plain = [say(model, *one) for one in asked]
    model.compile_decoding(64, backend="eager")
    first, *others = asked
    compiled = [say(model, *first)]
    torch.compiler.set_stance("fail_on_recompile")
    compiled += [say(model, *one) for one in others]
    assert model.static.works
    assert compiled == plain


def test_rows_with_and_without_memory_and_beams():
    model = woven()
    ids = question(6, 3)
    held = [model.place(model.read(memory(2)), Placement.of([[(0, 2)], [], [(1, 2)]]))]
    plain = say(model, ids, held, num_beams=2), say(model, ids)
    model.compile_decoding(64, backend="eager")
    assert (say(model, ids, held, num_beams=2), say(model, ids)) == plain


def test_warming_up_compiles_what_a_question_needs():
    model = woven()
    model.compile_decoding(64, backend="eager")
    model.warm_up(rows=2, beams=3, memory={"photos": 9})
    torch.compiler.set_stance("fail_on_recompile")
    say(model, question(7, 2), photo(model, 1, 2), num_beams=3)
    with pytest.raises(RuntimeError, match="recompile"):
        say(model, question(7, 1), photo(model, 1))


def test_a_text_that_is_longer_than_the_cache():
    model = woven()
    asked = [question(tokens) for tokens in (30, 60, 100)]
    plain = [say(model, ids) for ids in asked]
    model.compile_decoding(32, backend="eager")
    assert say(model, asked[1]) == plain[1]
    torch.compiler.set_stance("fail_on_recompile")
    assert say(model, asked[0]) == plain[0]
    torch.compiler.set_stance("default")
    assert say(model, asked[2]) == plain[2]


@pytest.mark.parametrize("family", ["mamba", "gemma2"])
def test_models_that_can_not_be_compiled_go_on_as_before(family):
    model = woven(family)
    ids, held = question(6), photo(model, 1)
    plain = say(model, ids, held)
    model.compile_decoding(64, backend="eager")
    assert say(model, ids, held) == plain
    assert model.static.works is False


def test_a_machine_that_can_not_compile_goes_on_as_before():
    def broken(graph, inputs):
        raise OSError("no compiler")

    model = woven()
    ids, held = question(6), photo(model, 1)
    plain = say(model, ids, held)
    model.compile_decoding(64, backend=broken)
    with pytest.warns(UserWarning, match="no compiler"):
        assert say(model, ids, held) == plain
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert say(model, ids, held) == plain


def test_who_asks_for_another_cache_gets_it():
    model = woven()
    model.compile_decoding(64, backend="eager")
    ids = question(6)
    assert say(model, ids, use_cache=False) == say(model, ids, cache_implementation="dynamic")
    assert model.static.works is None


def test_warming_up_wants_something_to_compile():
    with pytest.raises(WeftError, match="compile_decoding"):
        woven().warm_up()


def test_buckets_are_few():
    assert [bucket(tokens) for tokens in (1, 64, 65, 81, 128, 10_000)] == [SMALLEST, 64, 128, 128, 128, 16_384]


def test_an_empty_memory_is_one_that_a_weave_would_read():
    model = reader()
    real, empty = model.read_texts(["abcdefg"]), empty_memory(model.weave(), 1, 8)
    assert [one.keys.shape for one in real.layers] == [one.keys.shape for one in empty.layers]
    assert real.copying.keys.shape == empty.copying.keys.shape and real.copying.ids.shape == empty.copying.ids.shape


PROCESS = """
import sys, torch, weft
sys.path.insert(0, sys.argv[1])
from test_static import photo, question, say
from families import language_model
from woven import woven
torch.manual_seed(0)
model = woven(language_model("llama", num_hidden_layers=1), layers=[0])
ids, held = question(6), photo(model, 1)
plain = say(model, ids, held)
model.compile_decoding(64)
model.static.works = True  # which spares trying it without a memory
assert say(model, ids, held) == plain, "other words"
print(torch._dynamo.utils.counters["inductor"]["fxgraph_cache_miss"])
"""


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler, which PyTorch needs")
def test_another_process_finds_what_was_compiled(tmp_path, monkeypatch):
    """With PyTorch's own compiler, in processes of their own; the second has nothing left to compile."""
    monkeypatch.setenv("WEFT_HOME", str(tmp_path))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    command = [sys.executable, "-c", PROCESS, str(__file__).rsplit("/", 1)[0]]
    missed = [
        int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]) for _ in range(2)
    ]
    assert missed[0] > 0 and missed[1] == 0
