"""The kit for a machine with a GPU and without a network, in miniature and on a CPU: what goes there and comes back."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from families import language_model
from PIL import Image
from safetensors.torch import load_file
from woven import encoder, tokenizer

from weft.tasks import CAPTION
from weft.training import train

ROOT = Path(__file__).parents[1]


def module(name):
    """A script of ``tools/`` as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


pieces = module("pieces")


def machine(folder):
    """A checkout on a machine of its own, without data and results."""
    folder.mkdir()
    shutil.copytree(ROOT / "tools", folder / "tools")
    for name in ("src", "benchmarks"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def gpu(where, *arguments, out=None):
    """Run ``tools/gpu.sh`` on a machine, on its CPU."""
    environment = {**os.environ, "PYTHON": sys.executable, "WEFT_TEST_DEVICE": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    environment |= {"OMP_NUM_THREADS": "1"} | ({} if out is None else {"OUT": str(out)})
    if out is not None:
        out.mkdir()
    command = [str(where / "tools" / "gpu.sh"), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def lay_in(where, *found):
    """Carry pieces to a machine."""
    (where / "gpu-kit").mkdir(exist_ok=True)
    for piece in found:
        shutil.copy(piece, where / "gpu-kit")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Data and a recipe, as they lie in a checkout."""
    folder = tmp_path_factory.mktemp("data")
    language_model("llama", num_hidden_layers=2).cpu().save_pretrained(folder / "parts" / "lm")
    tokenizer().save_pretrained(folder / "parts" / "lm")
    encoder().save_pretrained(folder / "parts" / "vit")
    lines = []
    for colour in ("red", "lime", "blue", "white"):
        Image.new("RGB", (24, 24), colour).save(folder / f"{colour}.png")
        shown = [{"type": "image", "image": f"{colour}.png"}, {"type": "text", "text": CAPTION}]
        lines.append({"messages": [{"role": "user", "content": shown}, {"role": "assistant", "content": f"{colour}."}]})
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    return folder


RECIPE = {
    "data": "train.jsonl",
    "dev": "train.jsonl",
    "output": "runs/tiny",
    "features": "runs/features",
    "language_model": "./parts/lm",
    "vision": "./parts/vit",
    "weave": {"start": 1, "every": 1, "connector_layers": 0, "dropout": 0.1},
    "precision": "fp32",
    "batch_size": 2,
    "epochs": 3,
    "average": 0.9,
    "warmup": 2,
    "evaluate_every": 4,
}


def test_archive_in_pieces_is_what_was_packed_in_whatever_order_pieces_come(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "folder" / "deep").mkdir(parents=True)
    there.mkdir()
    contents = {"folder/deep/a": os.urandom(50_000), "folder/b": b"", "c": b"words"}
    for name, content in contents.items():
        (here / name).write_bytes(content)
    made = pieces.cut("some", tmp_path / "kit", [Path("folder"), Path("c")], here, size=20_000)
    assert [piece.name for piece in made] == [f"some.{number}-of-{len(made)}" for number in range(1, len(made) + 1)]
    assert all(piece.stat().st_size <= 20_000 for piece in made)
    (tmp_path / "carried").mkdir()
    for number, piece in list(enumerate(made, 1))[::-1]:
        shutil.move(piece, tmp_path / "carried")
        lacks = list(range(1, number))
        assert pieces.join(tmp_path / "carried", there) == {"some": lacks}
    assert {name: (there / name).read_bytes() for name in contents} == contents
    assert not any((tmp_path / "carried").iterdir())


def test_damaged_piece_and_pieces_of_two_archives_are_refused(tmp_path):
    (tmp_path / "a").write_bytes(os.urandom(30_000))
    first, *_ = pieces.cut("some", tmp_path / "kit", [Path("a")], tmp_path, size=20_000)
    first.write_bytes(first.read_bytes().replace(b"\0", b"\1", 1))
    with pytest.raises(pieces.PiecesError, match="'some' is damaged"):
        pieces.join(tmp_path / "kit", tmp_path)
    (tmp_path / "kit" / "some.1-of-7").write_bytes(b"")
    with pytest.raises(pieces.PiecesError, match="two archives 'some'"):
        pieces.join(tmp_path / "kit", tmp_path)


def test_run_goes_on_on_another_machine_from_what_came_back(data, tmp_path):
    kit = pieces.cut("data-tiny", tmp_path / "kit", sorted(one.relative_to(data) for one in data.iterdir()), data)
    first, second = machine(tmp_path / "first"), machine(tmp_path / "second")
    for one in (first, second):
        lay_in(one, *kit)
    gpu(first, "train", "recipe.yaml", 0, out=tmp_path / "out-1")
    back = sorted((tmp_path / "out-1").iterdir())
    assert [one.name for one in back] == ["0-tiny.jsonl", "0-tiny.log", "tiny-run.1-of-1"]
    lay_in(second, *(one for one in back if "-of-" in one.name))
    gpu(second, "train", "recipe.yaml", out=tmp_path / "out-2")
    assert {one.name for one in (tmp_path / "out-2").iterdir()} == {"0-tiny.jsonl", "0-tiny.log", "tiny-best.1-of-1"}
    steps = [json.loads(line) for line in (tmp_path / "out-2" / "0-tiny.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps if "loss" in line] == [1, 2, 3, 4, 5, 6]
    train(shutil.copytree(data, tmp_path / "whole") / "recipe.yaml")
    pieces.join(tmp_path / "out-2", tmp_path / "home")
    resumed, whole = (load_file(tmp_path / one / "runs/tiny/best/model.safetensors") for one in ("home", "whole"))
    assert resumed.keys() == whole.keys() and all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_wheels_of_the_kit_are_installed_and_results_leave_as_many_at_once_as_may(tmp_path):
    where, wheels = machine(tmp_path / "machine"), tmp_path / "wheels" / ".gpu" / "wheels"
    wheels.mkdir(parents=True)
    with zipfile.ZipFile(wheels / "thing-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("thing.py", "")
        wheel.writestr("thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
        wheel.writestr("thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("thing-1.0.dist-info/RECORD", "")
    lay_in(where, *pieces.cut("wheels", tmp_path / "kit", [Path(".gpu/wheels")], tmp_path / "wheels"))
    gpu(where, "unpack")
    assert (where / ".gpu" / "site" / "thing.py").is_file()
    for number in range(1, 11):
        (where / "gpu-out" / f"some.{number}-of-10").write_bytes(b"1")
    assert "2 files are left" in gpu(where, "results", out=tmp_path / "out-1")
    assert {one.name for one in (tmp_path / "out-1").iterdir()} == {f"some.{number}-of-10" for number in range(1, 9)}
    gpu(where, "results", out=tmp_path / "out-2")
    assert {one.name for one in (tmp_path / "out-2").iterdir()} == {"some.9-of-10", "some.10-of-10"}


def test_benchmark_has_a_row_for_each_side(tmp_path):
    where = machine(tmp_path / "machine")
    small = ["--repeats", 1, "--tokens", 3, "--layers", 3, "--rows", "1,2", "--memories", 81, "--learned", 2]
    gpu(where, "benchmark", *small, out=tmp_path / "out")
    found = json.loads((tmp_path / "out" / "0-benchmark.json").read_text())
    assert found["setting"].startswith(f"cpu, torch {torch.__version__}")
    rows = {result["title"]: set(result["rows"]) for result in found["results"]}
    assert rows["A token with a memory, by generate"] == {"bare", "memory of 81 tokens"}
    assert set(rows) >= {"Tokens of one row", "Tokens of 2 rows", "Training"}
    assert {"Weft generate, a photo each", "Weft engine, a photo each"} <= rows["Tokens of 2 rows"]
    assert all(row["median"] > 0 for result in found["results"] for row in result["rows"].values())


def test_suite_is_run_on_the_device_that_is_asked_for(tmp_path):
    where = machine(tmp_path / "machine")
    (where / "tests").mkdir()
    for name in ("conftest.py", "devices.py", "pretended.py"):
        shutil.copy(ROOT / "tests" / name, where / "tests")
    test = "from devices import DEVICE\n\n\ndef test_device():\n    assert DEVICE.type == 'cpu'\n"
    (where / "tests" / "test_one.py").write_text(test)
    gpu(where, "suite", "-n", 0, "tests", out=tmp_path / "out")
    assert 'failures="0" skipped="0" tests="1"' in (tmp_path / "out" / "0-suite.xml").read_text()
