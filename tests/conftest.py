"""Settings for all tests: no network, one process thread pool of modest size, quiet transformers; and the device."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from collections.abc import Iterator
from contextlib import nullcontext
from importlib.util import find_spec

import pytest
import torch
from devices import DEVICE
from PIL import Image

from weft.parts import locate

if DEVICE.type != "cpu" and find_spec("playwright") is None:  # a machine with a GPU and without a browser
    collect_ignore = ["test_page.py"]


LONGEST = (
    *("training", "static", "page", "readme", "compiled", "server_limits", "gpu_kit", "peak_memory", "alternatives"),
    *("text_training", "quick", "engine", "devices", "joint", "text_weaves", "cli", "server_schema"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest go first, so that no process is left alone with one of them at the end."""
    places = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(scope="module")
def on_device() -> Iterator[None]:
    """What a module makes without saying where, it makes on the device of the tests."""
    with nullcontext() if DEVICE.type == "cpu" else torch.device(DEVICE):
        yield


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
