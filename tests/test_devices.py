"""What tensors of two devices would break, found without a second device: tests that run on one that is pretended."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from devices import DEVICE, NAME
from woven import memory, reader, woven

from weft.data import Row, RowPassage, collate
from weft.fastpath import HiddenStore, UpperStack, Vocabulary
from weft.losses import StepLoss
from weft.memory import Placement
from weft.store import FeatureStore

TESTS = Path(__file__).parent
SOURCES = os.environ.get("PYTHONPATH", "")
FILES = ("devices", "model", "sampling")
CHOSEN = "losses_agree or batch_generates or interleaved or pixel_values or disturb or training_set_are_said"
PROGRAM = """
import pretended, torch
here, there = torch.ones(2), torch.ones(2, device="pretended")
print(there.device, float((there + 1).sum()), (there * torch.tensor(2.0)).tolist())
for mixed in (lambda: there + here, lambda: there.numpy(), lambda: here.index_copy(0, here.long(), there)):
    try:
        mixed()
    except (RuntimeError, TypeError):
        print("refused")
"""


@torch.no_grad()
@pytest.mark.parametrize("reads", ["pictures", "texts"])
def test_fast_and_plain_losses_agree(reads, tmp_path):
    """Of rows with one answer or two, with something to read or nothing, in shuffled order."""
    model = woven() if reads == "pictures" else reader()
    passages = (RowPassage("abc", 1, True), RowPassage("defgh", 2, False)) if reads == "texts" else ()
    said = (((5, 9, 2), (True, True, True)), ((7, 2), (True, True)))
    rows = [
        Row((5, 6, 7), said[:1], ("b",), (1,), "1", passages),
        Row((5, 6), said, (), (), "2"),
        Row((8, 9, 10), said, ("a",), (0,), "3", passages[:1]),
    ]
    if reads == "pictures":
        held, placement = memory(2), Placement.of([[(1, 1)], [], [(0, 0)]])
    else:
        held = model.encode_texts(["abc", "defgh"])
        placement = Placement.of([[(0, 1), (1, 2)], [], [(0, 1)]])
    step = StepLoss(model, model.weave().name, citing=0.5)
    single = [Row(row.prompt, (answer,), (), (), row.where, row.passages) for row in rows for answer in row.answers]
    again = Placement(*(table[[0, 1, 1, 2, 2]] for table in (placement.items, placement.starts)))
    plain = step(collate(single, 0).to(DEVICE), held, again, full=True)
    hidden = HiddenStore(FeatureStore(tmp_path, torch.float32), UpperStack(model.language_model, 1), "test")
    batch = collate(rows, 0).to(DEVICE)
    hidden.fill(batch)
    step.hidden = hidden
    torch.testing.assert_close(step(batch, held, placement, full=True), plain)
    step.vocabulary = Vocabulary.of(rows, 128, 200)  # all words that are left
    sampled = step(batch, held, placement)
    assert sampled.device.type == DEVICE.type and torch.isfinite(sampled)


def run(*command: str) -> str:
    """What a process says that has the pretended device."""
    environment = {**os.environ, "WEFT_TEST_DEVICE": "pretended", "PYTHONPATH": f"{TESTS}{os.pathsep}{SOURCES}"}
    done = subprocess.run([sys.executable, *command], env=environment, cwd=TESTS, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_pretended_device_computes_and_refuses_what_a_gpu_refuses():
    assert run("-c", PROGRAM).splitlines() == ["pretended:0 4.0 [2.0, 2.0]", "refused", "refused", "refused"]


@pytest.mark.skipif(NAME != "cpu", reason="which runs these tests itself")
def test_nothing_of_the_cpu_meets_a_model_elsewhere():
    files = [f"test_{name}.py" for name in FILES]
    said = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", CHOSEN, *files)
    assert " failed" not in said and int(said.split(" passed")[0].split()[-1]) > 8
