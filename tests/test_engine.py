"""Many conversations in one batch: each says what it says alone, whoever comes and goes beside it."""

from __future__ import annotations

import asyncio
import gc
import io
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from devices import DEVICE
from families import language_model
from PIL import Image
from woven import begin_tokenizer, open_weave, tokenizer, woven

from weft.batching import SideBySide
from weft.decoder import TextCache
from weft.engine import Engine, EngineFull, Limits
from weft.errors import DataError, PictureError, WeftError
from weft.images import decode
from weft.making import weave
from weft.pieces import Pieces, Said
from weft.plain import PlainDecoder
from weft.processing import WeftProcessor
from weft.responding import prompt_of
from weft.rows import Reading, Rows
from weft.search import read_prompt


@pytest.fixture(scope="module")
def model():
    """Eyes and a reader with a copy gate on one language model."""
    base = language_model("llama", max_position_embeddings=512)
    model = woven(base)
    model.processor = WeftProcessor(tokenizer(), model.encoder(), system_prompt="You help.")
    weave(model, text="language-model", layers=[1, 2], copy_width=8)
    return open_weave(model, "reader").eval()


def picture(seed: int) -> Image.Image:
    torch.manual_seed(seed)
    return Image.fromarray(torch.randint(0, 255, (24, 24, 3), dtype=torch.uint8).numpy())


def asked(text: str, *parts: dict) -> list[dict]:
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def image(seed: int) -> dict:
    return {"type": "image", "image": picture(seed)}


DOCUMENT = {"type": "document", "text": "The fox sat in the snow. It saw a bird."}
CONVERSATIONS = [
    asked("What is it?", image(0)),
    asked("Hello"),
    asked("Who sat?", DOCUMENT),
    asked("Which?", image(1), image(2)),
    asked("Both?", image(0), DOCUMENT, {"type": "document", "text": "Tea."}),
    asked("A much longer question than the others, to be sure"),
]


def alone(model, messages, longest: int = 12) -> str:
    model_input = model.processor.apply_chat_template(messages, add_generation_prompt=True)
    out = model.generate(**model_input, max_new_tokens=longest, do_sample=False)[0, model_input["input_ids"].shape[1] :]
    return model.processor.decode(out, skip_special_tokens=True).strip()


@pytest.mark.parametrize("rows", [1, 3, 16])
def test_replies_are_those_of_generate(model, rows):
    with Engine(model, Limits(rows=rows)) as engine:
        assert engine.generate_batch(CONVERSATIONS, max_tokens=12) == [alone(model, one) for one in CONVERSATIONS]
        assert engine.load == {"running": 0, "waiting": 0, "memory_bytes": 0}


def test_prompts_that_begin_alike_compute_their_beginning_once(model, monkeypatch):
    with Engine(model) as engine:
        first = engine.generate_batch([CONVERSATIONS[0]], max_tokens=12)
        computed, decoder = [], engine._worker._texts._decoder

        class Counted:
            def __getattr__(self, name):
                return getattr(decoder, name)

            def __call__(self, ids, cache, reader=None):
                computed.append(ids.shape[1])
                return decoder(ids, cache, reader)

        engine._worker._texts._decoder = Counted()
        assert engine.generate_batch([CONVERSATIONS[0]], max_tokens=12) == first
        assert computed[0] == len(prompt_of(model, CONVERSATIONS[0]).tokens) - 8
        computed.clear()
        engine.generate_batch([asked("y" * 100)], max_tokens=2)
        assert computed[:4] == [8, 16, 32, 53]  # up to 16, 32 and 64 tokens, and the rest of 117


def test_reply_does_not_depend_on_what_was_asked_before():
    """Bit for bit, also where a short text is multiplied by other weights than a long one."""
    made = packed()
    prompts = [prompt_of(made, asked(text)) for text in ("x" * 40, "x" * 60, "x" * 60 + "y" * 9)]

    def logits(texts: SideBySide, prompt) -> torch.Tensor:
        return texts.read(prompt)[1]

    with torch.inference_mode():
        warm = SideBySide(made, made.plain.get())
        for prompt in [*prompts, *reversed(prompts)]:
            assert torch.equal(logits(warm, prompt), logits(SideBySide(made, made.plain.get()), prompt))


@torch.inference_mode()
def test_row_without_memory_is_the_language_model_bit_for_bit(model):
    """Served beside rows with memory, or beside the same rows without any: not one bit of its logits differs."""
    decoder, weaves = model.plain.get(), {name: model.weave(name) for name in model.weaves}
    prompts = [prompt_of(model, one) for one in CONVERSATIONS[:3]]
    logits = []
    for with_memory in (True, False):
        cache = TextCache(decoder)
        for prompt in prompts:
            own = TextCache(decoder, 1)
            read_prompt(decoder, weaves, prompt, own)
            cache.append(own)
        held = [prompt.memories if with_memory else () for prompt in prompts]
        rows = Rows(weaves, [Reading(one).after_prompt(1) for one in held], torch.zeros(1, dtype=torch.long))
        written = torch.tensor([40, 41, 42])
        hidden = decoder(written[:, None], cache, rows)
        logits.append(rows.copied(hidden, decoder.logits(hidden), written))
    assert torch.equal(logits[0][1], logits[1][1])
    assert not torch.equal(logits[0][0], logits[1][0]) and not torch.equal(logits[0][2], logits[1][2])


def test_memories_are_looked_at_where_they_are(model):
    """Two conversations about one picture, and the cache, hold one copy of its keys and values."""
    model.memory_cache.clear()
    places = set()
    for text in ("What?", "Where is it?"):
        (memory,) = prompt_of(model, asked(text, image(3))).memories
        places |= {layer.keys.data_ptr() for layer in memory.layers}
    assert len(places) == len(model.weave("photos").layers)
    assert places == {layer.keys.data_ptr() for layer in model.read(picture(3)).layers}


def test_reply_comes_in_pieces_and_leaving_cancels(model):
    async def run():
        with Engine(model) as engine:
            pieces = [piece async for piece in engine.generate(CONVERSATIONS[0], max_tokens=12)]
            assert "".join(pieces) == alone(model, CONVERSATIONS[0]) and len(pieces) > 3
            endless = engine.generate(CONVERSATIONS[1], max_tokens=400)
            await anext(endless)
            await endless.aclose()
            for _ in range(200):
                await asyncio.sleep(0.01)
                if not engine.load["running"]:
                    return
            pytest.fail("the cancelled conversation still runs")

    asyncio.run(run())


def test_sampling_follows_its_seed(model):
    with Engine(model) as engine:

        def draw(seed, **options):
            return engine.generate_batch([CONVERSATIONS[1]], max_tokens=12, temperature=1.5, seed=seed, **options)[0]

        assert draw(1) == draw(1)
        assert len({draw(seed) for seed in range(5)}) > 1
        assert draw(None, top_p=1e-6) == alone(model, CONVERSATIONS[1])


def test_reply_ends_in_front_of_a_stop(model):
    whole = alone(model, CONVERSATIONS[0])
    stop = whole[3:6]
    with Engine(model) as engine:
        assert engine.generate_batch([CONVERSATIONS[0]], max_tokens=12, stop=(stop,)) == [whole[: whole.index(stop)]]
        streamed = list(engine.stream(CONVERSATIONS[0], max_tokens=12, stop=(stop,)))
        assert "".join(streamed) == whole[: whole.index(stop)]


def test_text_comes_only_when_it_is_sure(model):
    class Bytes:
        def decode(self, tokens, **_):
            return bytes(tokens).decode(errors="replace")

    class Stub:
        processor = Bytes()

    pieces = Pieces(Stub(), ["END"])
    sent = [pieces.take(Said(token)).text for token in "né EN ENTER END more".encode()]
    assert "".join(sent) == "né EN ENTER "
    assert all("\ufffd" not in piece for piece in sent) and pieces.done


@pytest.mark.parametrize("end", ["length", "stop"])
def test_reply_that_ends_inside_a_character_ends_in_front_of_it(end):
    processor = SimpleNamespace(decode=lambda tokens, **_: bytes(tokens).decode(errors="replace"))
    pieces = Pieces(SimpleNamespace(processor=processor), [])
    sent = [pieces.take(item).text for item in [*map(Said, "né 猫".encode()[:-1]), end]]
    assert "".join(sent) == "né"


def test_words_that_were_cut_off_inside_a_character_are_whole(model, monkeypatch):
    monkeypatch.setattr(model.processor, "decode", lambda *a, **_: " a caf\ufffd")
    assert model.caption(picture(0)).text == "a caf"
    assert model.chat(CONVERSATIONS[1], max_new_tokens=2)["content"] == "a caf"
    assert "".join(model.chat(CONVERSATIONS[1], max_new_tokens=2, stream=True)) == "a caf"


def test_others_are_served_while_a_large_picture_is_decoded(model, monkeypatch):
    allowed = threading.Event()
    monkeypatch.setattr("weft.picture_thread.SMALL", 24 * 24 - 1)
    monkeypatch.setattr("weft.picture_thread.decode", lambda given: (allowed.wait(60), decode(given))[1])
    file = io.BytesIO()
    picture(77).save(file, "PNG")
    large = asked("What is it?", {"type": "image", "image": file.getvalue()})
    with Engine(model) as engine:
        pieces = engine.stream(large, max_tokens=12)
        waiting = ThreadPoolExecutor(1).submit("".join, pieces)
        assert engine.generate_batch([CONVERSATIONS[1]] * 3, max_tokens=12) == [alone(model, CONVERSATIONS[1])] * 3
        assert not waiting.done()
        allowed.set()
        assert waiting.result(60) == alone(model, large)
        monkeypatch.setattr("weft.picture_thread.decode", lambda given: pytest.fail("the picture is known"))
        assert engine.generate_batch([large], max_tokens=12) == [alone(model, large)]


def test_large_picture_that_is_broken_fails_alone(model, monkeypatch):
    monkeypatch.setattr("weft.picture_thread.SMALL", 1)
    file = io.BytesIO()
    picture(78).save(file, "PNG")
    broken = asked("What is it?", {"type": "image", "image": file.getvalue()[:-500]})
    with Engine(model) as engine:
        with pytest.raises(PictureError, match="truncated"):
            engine.generate_batch([broken])
        assert engine.generate_batch([CONVERSATIONS[1]], max_tokens=12) == [alone(model, CONVERSATIONS[1])]


@pytest.mark.parametrize(
    ("messages", "options", "error"),
    [
        ([{"role": "assistant", "content": "Hi"}], {}, DataError),
        (asked("What?", {"type": "image", "image": "missing.jpg"}), {}, PictureError),
        (asked("x" * 600), {}, WeftError),
        (CONVERSATIONS[1], {"max_tokens": 0}, WeftError),
        (CONVERSATIONS[1], {"top_p": 0.0}, WeftError),
    ],
)
def test_wrong_input_is_refused_and_the_engine_goes_on(model, messages, options, error):
    with Engine(model) as engine:
        with pytest.raises(error):
            engine.generate_batch([messages], **options)
        assert engine.generate_batch([CONVERSATIONS[1]], max_tokens=12) == [alone(model, CONVERSATIONS[1])]


def test_failure_while_decoding_reaches_those_who_decode_and_no_others(model, monkeypatch):
    with Engine(model) as engine:
        choose, count = engine._worker._choose, 0

        def broken(jobs, logits):
            nonlocal count
            count += 1
            if count == 3:
                raise ValueError("broken")
            return choose(jobs, logits)

        monkeypatch.setattr(engine._worker, "_choose", broken)
        with pytest.raises(ValueError, match="broken"):
            engine.generate_batch([CONVERSATIONS[0]], max_tokens=12)
        assert engine.generate_batch([CONVERSATIONS[1]], max_tokens=12) == [alone(model, CONVERSATIONS[1])]


def test_full_engine_says_so_and_a_closed_one_too(model):
    engine = Engine(model, Limits(rows=1, waiting=1))
    held = engine.stream(CONVERSATIONS[1], max_tokens=400)
    next(held)
    waits = threading.Thread(target=lambda: list(engine.stream(CONVERSATIONS[1], max_tokens=1)))
    waits.start()
    while not engine.load["waiting"]:
        pass
    with pytest.raises(EngineFull, match="wait"):
        list(engine.stream(CONVERSATIONS[1]))
    held.close()
    waits.join()
    engine.close()
    with pytest.raises(WeftError, match="closed"):
        list(engine.stream(CONVERSATIONS[1]))


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "mamba"])
def test_models_that_the_decoder_does_not_know_compute_words_in_turn(family):
    made = woven(family)
    made.processor = WeftProcessor(tokenizer(), made.encoder(), system_prompt="")
    conversations = [asked("Hi?", image(0)), asked("Hello"), asked("Two", image(1), image(2)), asked("And you")]
    with Engine(made, Limits(rows=3)) as engine:
        assert engine.generate_batch(conversations, max_tokens=6) == [alone(made, one, 6) for one in conversations]
        assert next(engine.stream(conversations[0], max_tokens=6))
        assert engine.load["waiting"] == 0


def test_texts_are_read_while_another_model_speaks():
    """The encoder of texts looks into the very layers that compute the words of others."""
    made = weave(language_model("gpt2"), text="language-model", copy_width=8, tokenizer=begin_tokenizer())
    made = open_weave(made, "reader").eval()
    documents = [asked("Who?", {"type": "document", "text": f"The {animal} sat."}) for animal in ("fox", "cat", "dog")]
    with Engine(made) as engine:
        found = [""] * len(documents)

        def say(index):
            found[index] = "".join(engine.stream(documents[index], max_tokens=10))

        threads = [threading.Thread(target=say, args=(index,)) for index in range(len(documents))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [one.strip() for one in found] == [alone(made, one, 10) for one in documents]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_all_ways_to_words_find_the_same(family):
    """Greedy, in float32: ``generate`` alone, in a batch and compiled; the model's own ways; and the engine."""
    made = woven(family)
    made.processor = WeftProcessor(tokenizer(), made.encoder(), system_prompt="")
    conversations = [asked("What is it?", image(seed)) for seed in range(3)]
    plain = [alone(made, one) for one in conversations]
    batch = made.processor.apply_chat_template(conversations, add_generation_prompt=True)
    width = batch["input_ids"].shape[1]
    batch = {name: one.to(DEVICE) for name, one in batch.items()}
    together = made.generate(**batch, max_new_tokens=12, do_sample=False)[:, width:]
    assert [made.processor.decode(row, skip_special_tokens=True).strip() for row in together] == plain
    assert [made.chat(one, beams=1, max_new_tokens=12)["content"] for one in conversations] == plain
    with Engine(made) as engine:
        assert engine.generate_batch(conversations, max_tokens=12) == plain
    made.compile_decoding(64, backend="eager")
    assert [alone(made, one) for one in conversations] == plain
    assert made.static.works
    torch.compiler.reset()


def test_five_hundred_requests_come_and_go_and_leave_nothing(model):
    """Replies are not mixed up, cancelled ones go away, and no text, memory or thread is left."""
    expected = [alone(model, one, 6) for one in CONVERSATIONS]
    rng, threads = random.Random(0), threading.active_count()

    async def client(engine, number):
        which = number % len(CONVERSATIONS)
        await asyncio.sleep(rng.random())
        reply = engine.generate(CONVERSATIONS[which], max_tokens=6)
        if number % 3 == 0:
            async for _ in reply:
                break
            await reply.aclose()
            return
        assert "".join([piece async for piece in reply]) == expected[which]

    async def run():
        with Engine(model, Limits(rows=8, waiting=1000)) as engine:
            await asyncio.gather(*(client(engine, number) for number in range(500)))
            for _ in range(100):
                if not engine.load["running"]:
                    break
                await asyncio.sleep(0.01)
            assert engine.load == {"running": 0, "waiting": 0, "memory_bytes": 0}

    asyncio.run(run())
    gc.collect()
    assert threading.active_count() <= threads + 40  # the pool of asyncio.to_thread
    assert not [one for one in gc.get_objects() if type(one) is TextCache and len(one.lengths) > 1]


def packed():
    """A model in bfloat16 over packed weights, where a word may hang on the last bit."""
    base = language_model("llama", hidden_size=64, intermediate_size=128, head_dim=16, max_position_embeddings=512)
    made = woven(base.bfloat16(), dtype=torch.bfloat16)
    made.processor = WeftProcessor(tokenizer(), made.encoder(), system_prompt="")
    made.plain = PlainDecoder(made, "int8")
    return made


def test_reply_is_the_same_bit_for_bit_whoever_else_is_in_the_batch():
    made = packed()
    decoder, weaves = made.plain.get(), made.plain.weaves()
    texts = [asked("Hi?", image(0)), asked("a" * 150), asked("And you", image(1), image(2)), asked("b" * 70)]
    prompts = [prompt_of(made, one) for one in texts]

    def logits(which: list[int]) -> torch.Tensor:
        cache = TextCache(decoder)
        for one in which:
            own = TextCache(decoder, 1)
            read_prompt(decoder, weaves, prompts[one], own)
            cache.append(own)
        rows = Rows(weaves, [Reading(prompts[one].memories).after_prompt(1) for one in which], torch.zeros(1).long())
        return decoder.logits(decoder(torch.full((len(which), 1), 5), cache, rows))

    with torch.inference_mode():
        together = logits([0, 1, 2, 3, 0])
        for place, one in enumerate([0, 1, 2, 3, 0]):
            assert torch.equal(logits([one])[0], together[place])


@pytest.mark.parametrize(("family", "why"), [("gpt2", "GPT2LMHeadModel"), ("llama", None)])
def test_engine_says_once_in_its_log_why_it_does_not_take_the_short_way(family, why, caplog):
    made = woven(family)
    made.processor = WeftProcessor(tokenizer(), made.encoder(), system_prompt="")
    with Engine(made) as engine:
        engine.generate_batch([asked("a"), asked("b")], max_tokens=2)
    said = [record.getMessage() for record in caplog.records if record.name == "weft.engine"]
    assert len(said) == (why is not None) and all(why in one for one in said)
