"""Memories that are kept: used last, kept longest; read once however many ask; on disk beyond the process."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from woven import open_weave, tokenizer, woven

from weft.errors import PictureError
from weft.keeping import load_read, save_read
from weft.making import weave
from weft.memory import KeyValues, Picture, ReadMemory
from weft.memory_cache import MemoryCache
from weft.processing import WeftProcessor
from weft.responding import respond


def memory(number: int = 0, tokens: int = 4) -> ReadMemory:
    keys = torch.full((1, 2, tokens, 8), float(number))
    rectangles = torch.arange(4 * tokens, dtype=torch.float64).view(tokens, 4).numpy()
    return ReadMemory("photos", (KeyValues(keys, keys + 1),), (Picture((30, 20), rectangles, "a.jpg"),))


SIZE = memory().bytes


def numbers(cache: MemoryCache, keys: list[int]) -> list[float]:
    return [float(cache.get(str(key), lambda key=key: memory(key)).layers[0].keys[0, 0, 0, 0]) for key in keys]


def test_what_was_used_last_is_kept_within_the_limit():
    cache = MemoryCache(2 * SIZE)
    assert numbers(cache, [1, 2, 1, 3, 1, 2]) == [1, 2, 1, 3, 1, 2]
    assert (cache.hits, cache.misses, len(cache), cache.bytes) == (2, 4, 2, 2 * SIZE)  # 3 put 2 out, not 1
    cache.clear()
    assert (len(cache), cache.bytes) == (0, 0)
    assert numbers(MemoryCache(0), [1, 1]) == [1, 1]


def test_those_that_are_missing_are_read_together():
    cache, asked = MemoryCache(), []

    def read(missing):
        asked.append(missing)
        return [memory(number) for number in missing]

    cache.get("b", lambda: memory(1))
    found = cache.get_all(["a", "b", "c", "a"], read)
    assert [float(one.layers[0].keys[0, 0, 0, 0]) for one in found] == [0, 1, 2, 0]
    assert asked == [[0, 2]]
    assert (cache.hits, cache.misses) == (1, 3)


def test_readers_of_one_new_memory_wait_for_the_first():
    cache, reads, found = MemoryCache(), [], []

    def slow():
        reads.append(1)
        time.sleep(0.1)
        return memory(5)

    threads = [threading.Thread(target=lambda: found.append(cache.get("a", slow))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reads) == 1 and len({id(one) for one in found}) == 1
    assert (cache.hits, cache.misses) == (7, 1)


def test_failure_reaches_all_who_wait_and_nothing_is_kept():
    cache, failed = MemoryCache(), []

    def broken():
        time.sleep(0.1)
        raise PictureError("it is broken")

    def ask():
        with pytest.raises(PictureError):
            cache.get("a", broken)
        failed.append(1)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failed) == 3
    assert numbers(cache, [1]) == [1] and cache.get("a", lambda: memory(2)) is not None


def test_folder_outlives_the_process_and_has_a_limit(tmp_path):
    first = MemoryCache(folder=tmp_path)
    numbers(first, [1, 2])
    again = MemoryCache(folder=tmp_path)
    assert numbers(again, [1, 2]) == [1, 2] and (again.hits, again.misses) == (2, 0)
    file_size = next(tmp_path.rglob("*.safetensors")).stat().st_size
    small = MemoryCache(folder=tmp_path, max_disk_bytes=2 * file_size)
    time.sleep(0.02)
    numbers(small, [1, 3])  # 1 is used again, so that 2 is the one to go
    kept = MemoryCache(folder=tmp_path)
    numbers(kept, [1, 3, 2])
    assert (kept.hits, kept.misses) == (2, 1)


@pytest.mark.parametrize("damage", [b"", b"not what it was", None])
def test_damaged_file_is_dropped_and_read_anew(tmp_path, damage):
    numbers(MemoryCache(folder=tmp_path), [1])
    (file,) = tmp_path.rglob("*.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    cache = MemoryCache(folder=tmp_path)
    assert numbers(cache, [1]) == [1] and cache.misses == 1
    assert numbers(MemoryCache(folder=tmp_path), [1]) == [1] and len(file.read_bytes()) == len(whole)


def test_file_gives_back_what_was_written(tmp_path):
    path = tmp_path / "a" / "b.safetensors"
    save_read(memory(3), path)
    found = load_read(path)
    assert found is not None
    assert torch.equal(found.layers[0].values, memory(3).layers[0].values)
    assert (found.sources[0].size, found.sources[0].name) == ((30, 20), "a.jpg")
    assert (found.sources[0].rectangles == memory().sources[0].rectangles).all()
    assert not list(tmp_path.rglob("*.partial"))
    assert load_read(tmp_path / "none.safetensors") is None


@pytest.fixture
def model():
    model = woven("llama")
    model.processor = WeftProcessor(tokenizer(), model.encoder(), system_prompt="")
    return model


@pytest.fixture
def photo(tmp_path) -> Path:
    Image.effect_noise((48, 32), 90).convert("RGB").save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_known_picture_is_neither_decoded_nor_encoded(model, photo, monkeypatch):
    said = model.caption(photo).text
    monkeypatch.setattr("weft.encoders.decode", lambda *a: pytest.fail("the picture is known"))
    monkeypatch.setattr(model.encoder(), "forward", lambda *a: pytest.fail("the picture is known"))
    copy = shutil.copy(photo, photo.with_name("copy.png"))
    for same in (photo, str(photo), Path(copy), photo.read_bytes()):
        assert model.caption(same).text == said
    assert model.read(copy).sources[0].name == str(copy)
    assert (model.memory_cache.hits, model.memory_cache.misses) == (5, 1)


@pytest.mark.parametrize("kept", ["in memory", "on disk"])
def test_what_was_read_on_another_device_is_moved_to_the_weaves_own(model, photo, tmp_path, kept):
    """A device without values stands for one that differs from where memories were read, or from that of a file."""
    model.memory_cache = MemoryCache(folder=tmp_path / "kept")
    model.read(photo)
    key = model.reader_key("photos")
    if kept == "on disk":
        model.memory_cache = MemoryCache(folder=tmp_path / "kept")
    model.weave().layers.to("meta")
    model.reader_key = lambda weave: key
    moved = model.read(photo)
    assert {layer.keys.device.type for layer in moved.layers} == {"meta"}
    assert model.memory_cache.hits == 1


def test_beams_samples_and_questions_share_one_copy(model, photo):
    read = model.read(photo)
    places = {layer.keys.data_ptr() for layer in read.layers}
    assert {layer.keys.data_ptr() for layer in model.read(photo).layers} == places
    assert model.memory_cache.bytes == read.bytes
    model.caption(photo, beams=4)
    model.ask(photo, "What is it?", do_sample=True, num_return_sequences=1)
    assert model.memory_cache.bytes == read.bytes and model.memory_cache.misses == 1


def test_pictures_of_a_list_are_kept_one_by_one(model, photo, tmp_path):
    Image.new("RGB", (30, 30), "red").save(tmp_path / "red.png")
    model.caption([photo, tmp_path / "red.png"])
    read = model.read(tmp_path / "red.png")
    assert model.memory_cache.misses == 2
    assert read.layers[0].keys.untyped_storage().nbytes() == read.layers[0].keys.nbytes


def test_weave_that_learned_since_reads_anew(model, photo):
    before = model.read(photo)
    with torch.no_grad():
        for parameter in model.weave().parameters():
            parameter.mul_(1.5)
    after = model.read(photo)
    assert model.memory_cache.misses == 2
    assert not torch.equal(before.layers[0].values, after.layers[0].values)


def test_nothing_is_kept_while_a_weave_learns(model, photo):
    model.train()
    assert model.read(photo).layers[0].keys.requires_grad
    assert len(model.memory_cache) == 0


def test_unreadable_picture_is_refused_and_not_kept(model, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    for name in ("text.jpg", "missing.jpg"):
        with pytest.raises(PictureError, match=name):
            model.caption(tmp_path / name)
    assert len(model.memory_cache) == 0


def test_passages_are_read_once_and_keep_their_places():
    options = {"layers": [1, 2], "copy_width": 8, "tokenizer": tokenizer()}
    model = open_weave(weave(woven("llama").language_model, text="language-model", **options).eval(), "reader")
    alone = [model.read_texts([text]) for text in ("Tea is hot.", "The fox sat in the snow.")]
    both = model.read_texts(["The fox sat in the snow.", "Tea is hot."])
    assert (model.memory_cache.hits, model.memory_cache.misses) == (2, 2)
    for index, one in enumerate(reversed(alone)):
        assert torch.equal(both.item(index).layers[1].keys, one.layers[1].keys)
        assert both.sources[index].text == one.sources[0].text


def test_long_memories_are_read_in_parts_and_decoded_over(monkeypatch):
    """Features of a few passages at once; what is read, and what is said about it, is the same."""
    options = {"layers": [1, 2], "copy_width": 8, "tokenizer": tokenizer()}
    model = open_weave(weave(woven("llama").language_model, text="language-model", **options).eval(), "reader")
    passages = [f"{number} foxes sat in the snow." for number in range(12)]
    whole = model.read_texts(passages)
    sizes, encode = [], model.encode_texts
    monkeypatch.setattr("weft.model.AT_ONCE", 5)
    monkeypatch.setattr(model, "encode_texts", lambda what, weave: sizes.append(len(what)) or encode(what, weave))
    model.memory_cache.clear()
    parts = model.read_texts(passages)
    assert sizes == [5, 5, 2]
    torch.testing.assert_close(parts.layers[1].values, whole.layers[1].values)


def test_text_is_decoded_over_a_memory_of_100_000_tokens():
    model = woven("llama")
    kv, width = model.weave().config.kv_heads, model.weave().config.head_dim

    def random(seed):
        return torch.randn(1, kv, 100_000, width, generator=torch.Generator().manual_seed(seed))

    layers = tuple(KeyValues(random(2 * n), random(2 * n + 1)) for n in range(len(model.weave().layers)))
    model.processor = WeftProcessor(tokenizer(), model.encoder(), system_prompt="")
    (said,) = respond(model, ReadMemory("photos", layers), [[5, 6, 7]], [[(0, 1)]], beams=2, longest=4)
    model.plain.get = lambda: None
    (expected,) = respond(model, ReadMemory("photos", layers), [[5, 6, 7]], [[(0, 1)]], beams=2, longest=4)
    assert said.tokens == expected.tokens
