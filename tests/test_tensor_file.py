"""Tensors used where they lie in a file: those that the library reads, before and after they were let go of."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from weft.tensor_file import TensorFile, file_identity, widened


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("WEFT_HOME", str(tmp_path / "home"))
    tensors = {
        "matrix": torch.randn(300, 70).bfloat16(),
        "gate": torch.tensor(1.5).bfloat16(),
        "wide": torch.randn(3, 5),
        "places": torch.arange(7),
        "held": torch.tensor([True, False]),
    }
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    return tmp_path / "model.safetensors"


def test_holds_what_the_file_holds(file):
    found, expected = TensorFile(file), load_file(file)
    assert set(found) == set(expected) and len(found) == len(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)
        assert found.shape(name) == list(tensor.shape)


def test_what_was_let_go_of_is_read_again(file):
    stored = TensorFile(file)
    matrix = stored["matrix"]
    before = matrix.clone()
    stored.release()
    assert torch.equal(matrix, before)


def test_a_float32_copy_is_made_once_and_anew_when_damaged(file):
    def found():
        return widened(file, file_identity(file, "these"))

    expected = {name: tensor.float() for name, tensor in load_file(file).items()}
    assert found().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found().items())
    assert all(tensor.dtype == torch.float32 for tensor in found().values())
    (kept,) = (file.parent / "home" / "float32").iterdir()
    written = kept.stat().st_mtime_ns
    found()
    assert kept.stat().st_mtime_ns == written
    kept.write_bytes(kept.read_bytes()[:500])
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found().items())


def test_no_copy_where_nothing_can_be_written(file):
    (file.parent / "home").write_text("a file stands where the folder would be")
    assert widened(file, "these") is None


def test_a_file_that_was_written_anew_is_another(file):
    before = file_identity(file, "these")
    assert before == file_identity(file, "these") != file_identity(file, "those")
    save_file({"matrix": torch.zeros(3)}, file)
    assert file_identity(file, "these") != before
