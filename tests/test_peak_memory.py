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

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="/proc tells a process's own peak"),
    pytest.mark.skipif(locate("smollm2-135m-instruct") is None, reason="the frozen parts are not here"),
]


def peak(code: str) -> int:
    """Megabytes that a process took which ran some code; the second, since the first makes what is kept on disk."""
    command = [sys.executable, "-c", f"{code}\n{PEAK}"]
    settings = {**os.environ, "OMP_NUM_THREADS": "2"}
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, env=settings)
        assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


def test_a_loaded_model_and_a_photo():
    assert peak(f"import weft\nweft.load().caption({str(EXAMPLES / 'cat.jpg')!r})") < MOST


def test_an_engine_that_is_asked_about_a_photo():
    message = [{"type": "image", "image": str(EXAMPLES / "cat.jpg")}, {"type": "text", "text": "What is this?"}]
    code = (
        "import weft, weft.server\n"
        "with weft.Engine(weft.load) as engine:\n"
        f"    engine.generate_batch([[{{'role': 'user', 'content': {message!r}}}]], max_tokens=8)"
    )
    assert peak(code) < MOST
