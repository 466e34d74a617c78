"""Memory of processes that load the model which ships with Weft and look at a photo."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from weft.parts import locate

EXAMPLES = Path(__file__).parents[1] / "examples"
MOST = 750
"""Megabytes that a process may take; about 350 of them are what PyTorch and transformers take to be imported."""
PEAK = "print(next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM')) // 1024)"
LOOK = f"weft.load().caption({str(EXAMPLES / 'cat.jpg')!r})"

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="/proc tells a process's own peak"),
    pytest.mark.skipif(locate("smollm2-135m-instruct") is None, reason="the frozen parts are not here"),
]


def run(code: str) -> str:
    """What a process prints that runs some code."""
    settings = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", f"import weft\n{code}"], capture_output=True, text=True, env=settings)
    assert done.returncode == 0, done.stderr
    return done.stdout


def peak(code: str) -> int:
    """Megabytes that a process took which ran some code."""
    return int(run(f"{code}\n{PEAK}").split()[-1])


@pytest.fixture(scope="module")
def kept() -> None:
    """What the first process makes and keeps on disk is there."""
    run(LOOK)


def test_a_loaded_model_and_a_photo(kept):
    assert peak(LOOK) < MOST


def test_an_engine_that_is_asked_about_a_photo(kept):
    message = [{"type": "image", "image": str(EXAMPLES / "cat.jpg")}, {"type": "text", "text": "What is this?"}]
    code = (
        "import weft.server\n"
        "with weft.Engine(weft.load) as engine:\n"
        f"    engine.generate_batch([[{{'role': 'user', 'content': {message!r}}}]], max_tokens=8)"
    )
    assert peak(code) < MOST
