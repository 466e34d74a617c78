"""Settings for all tests: no network, one process thread pool of modest size, quiet transformers."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import pytest
from PIL import Image

from weft.parts import locate


@pytest.fixture
def photo(tmp_path):
    """A picture file with something in it."""
    image = Image.linear_gradient("L").resize((64, 48)).convert("RGB")
    image.paste((200, 30, 30), (8, 8, 24, 24))
    path = tmp_path / "photo.png"
    image.save(path)
    return path


@pytest.fixture(scope="session")
def shipped_model():
    """The model that ships with Weft; skipped where `weft pull` has not run."""
    if locate("smollm2-135m-instruct") is None or locate("efficientnet-lite2") is None:
        pytest.skip("the frozen parts are not here; run `weft pull`")
    import weft

    return weft.load()
