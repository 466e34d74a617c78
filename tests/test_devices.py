"""What tensors of two devices would break, found without a second device: tests that run on one that is pretended."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SOURCES = os.environ.get("PYTHONPATH", "")
CHOSEN = [
    "test_families.py -k llama",
    "test_model.py -k interleaved or pixel_values or bfloat16 or disturb",
    "test_text_weaves.py -k bit_identical or cached or sees_only or last",
    "test_engine.py -k gpt2",
    "test_explain.py -k faithfulness_is",
    "test_top_memory.py -k bit_identical or forward",
]
PROGRAM = """
import pretended, torch
there = torch.ones(2, device="pretended")
print(there.device, float((there + 1).sum()), (there * torch.tensor(2.0)).tolist())
here = torch.ones(2)
for mixed in (lambda: there + here, lambda: there.numpy(), lambda: here.index_copy(0, here.long(), there)):
    try:
        mixed()
    except (RuntimeError, TypeError):
        print("refused")
"""


def run(*command: str) -> str:
    """What a process says that has the pretended device."""
    environment = {**os.environ, "WEFT_TEST_DEVICE": "pretended", "PYTHONPATH": f"{TESTS}{os.pathsep}{SOURCES}"}
    done = subprocess.run([sys.executable, *command], env=environment, cwd=TESTS, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_pretended_device_computes_and_refuses_what_a_gpu_refuses():
    assert run("-c", PROGRAM).splitlines() == ["pretended:0 4.0 [2.0, 2.0]", "refused", "refused", "refused"]


@pytest.mark.parametrize("chosen", CHOSEN)
def test_nothing_of_the_cpu_meets_a_model_elsewhere(chosen):
    file, _, words = chosen.partition(" -k ")
    said = run("-m", "pytest", "-q", "-p", "no:cacheprovider", file, "-k", words)
    assert " passed" in said and " failed" not in said
