"""One model used by several threads and tasks at once: each gets what it would get alone."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Thread
from typing import Any

import pytest
import torch
from devices import DEVICE
from families import language_model
from PIL import Image
from woven import begin_tokenizer, memory, naming, open_weave, reader, woven

from weft.making import weave
from weft.memory import Placement
from weft.processing import WeftProcessor

THREADS = 3
IDS = torch.randint(3, 90, (THREADS, 2, 7), generator=torch.Generator().manual_seed(1)).to(DEVICE)
TEXTS = ["The fox sat in the snow. It saw a bird.", "Tea is hot. It is green.", "A dog ran off. Nobody saw it."]


def picture(seed: int) -> Image.Image:
    noise = torch.randint(0, 255, (24, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(noise.numpy())


def seeing_and_reading(family: str, **options: Any):
    """Eyes and a reader on one language model."""
    model = woven(language_model(family), **options)
    model.processor = WeftProcessor(begin_tokenizer(), model.encoder())
    weave(model, text="language-model", layers=[1, 2], copy_width=8)
    return open_weave(model, "reader").eval()


def in_threads(work: Callable[[int], Any], times: int = 2) -> list[Any]:
    """What each of several threads gets that all work at once, each several times, in many turns."""
    together, usual = Barrier(THREADS), sys.getswitchinterval()

    def go(number: int) -> list[Any]:
        together.wait()
        return [work(number) for _ in range(times)]

    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(THREADS) as threads:
            return list(threads.map(go, range(THREADS)))
    finally:
        sys.setswitchinterval(usual)


def check(work: Callable[[int], Any]) -> None:
    """Each thread gets, every time, what it gets alone; and the threads get different things."""
    alone = [work(number) for number in range(THREADS)]
    assert not all(alike(one, alone[0]) for one in alone)
    for found, right in zip(in_threads(work), alone, strict=True):
        assert all(alike(one, right) for one in found)


def alike(one: Any, other: Any) -> bool:
    """Whether two results are the same, numbers up to rounding."""
    if isinstance(one, torch.Tensor):
        return one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, atol=1e-5)
    return one == other


def chat_about(number: int) -> list[dict]:
    parts = [
        {"type": "image", "image": picture(number)},
        {"type": "document", "text": TEXTS[number]},
        {"type": "text", "text": "What?"},
    ]
    return [{"role": "user", "content": parts}]


TASKS: dict[str, Callable[[Any, int], Any]] = {
    "caption": lambda model, n: model.caption(picture(n), max_new_tokens=6),
    "sampling settings": lambda model, n: model.ask(picture(n), "What?", max_new_tokens=6, repetition_penalty=1.2),
    "chat": lambda model, n: model.chat(chat_about(n), max_new_tokens=6),
    "answer": lambda model, n: model.answer("Who?", [TEXTS[n]], max_new_tokens=6, beams=2),
    "answer from the prompt": lambda model, n: model.answer("Who?", [TEXTS[n]], reading="prompt", max_new_tokens=6),
    "summary": lambda model, n: model.summarize(TEXTS[n], max_new_tokens=6, explain=True).text,
    "careful title": lambda model, n: model.title(TEXTS[n], max_new_tokens=6, reading="careful"),
    "what words need": lambda model, n: torch.tensor(
        model.caption(picture(n), max_new_tokens=3, explain=True).seen.weights
    ),
    "sketch": lambda model, n: torch.tensor(model.caption(picture(n), max_new_tokens=3, explain="sketch").seen.weights),
}


@pytest.mark.parametrize(
    ("family", "task"),
    [("llama", "caption"), ("llama", "chat"), ("llama", "answer"), *(("gpt2", one) for one in TASKS)],
)
def test_every_task_in_threads(family, task):
    model = seeing_and_reading(family, every=2)
    model.memory_cache.max_bytes = 0  # every time is the first
    check(lambda number: TASKS[task](model, number))


def laid(model: Any, seed: int) -> list[Any]:
    """Two pictures, other ones for each seed, in two rows."""
    return [model.place(model.read(memory(2, seed=seed)), Placement.of([[(0, 1)], [(1, 2)]]))]


OPTIONS = {"max_new_tokens": 5, "eos_token_id": None, "pad_token_id": 0, "do_sample": False}


@pytest.mark.parametrize(("made", "options"), [(woven, {}), (naming, {}), (woven, {"joint": True})])
def test_forward_and_generate_in_threads(made, options):
    model = made("gpt2", **options)
    placed = [laid(model, number) for number in range(THREADS)]
    check(lambda n: model(input_ids=IDS[n], memories=placed[n]).logits)
    check(lambda n: model.generate(IDS[n], memories=placed[n], num_beams=2, **OPTIONS).tolist())


def test_a_thread_that_reads_passages_leaves_others_alone():
    """Passages are encoded by the language model itself, which stops at the last layer that is asked for."""
    model = reader("gpt2", layers=[0])
    model.memory_cache.max_bytes = 0
    with torch.no_grad():
        check(lambda n: model.read_texts([TEXTS[n]]).layers[0].keys if n else model(IDS[0]).logits)


def test_learning_in_one_thread_and_asking_in_others():
    model = woven("gpt2")
    placed = [laid(model, number) for number in range(THREADS)]

    def work(number: int) -> torch.Tensor:
        if number:
            with torch.no_grad():
                return model(input_ids=IDS[number], memories=placed[number]).logits
        loss = model(input_ids=IDS[0], memories=placed[0], labels=IDS[0]).loss
        return torch.autograd.grad(loss, model.weave().fusion(0).q_proj.weight)[0]

    for found, right in zip(in_threads(work), [work(number) for number in range(THREADS)], strict=True):
        for one in found:
            torch.testing.assert_close(one, right)


def test_replicas_look_through_weaves_of_their_own():
    """As nn.DataParallel makes them: modules that share hooks, each with weights of its own, in threads."""
    model = woven("gpt2")
    replicas = [_replica(model) for _ in range(THREADS)]
    for number, replica in enumerate(replicas):
        replica.weaves["photos"].layers[0].attention_gate = torch.nn.Parameter(torch.tensor(float(number)))
    placed = laid(model, 0)
    check(lambda n: replicas[n](input_ids=IDS[0], memories=placed).logits.detach())


def _replica(module: torch.nn.Module) -> Any:
    made = module._replicate_for_data_parallel()
    made._parameters = dict(module._parameters)
    made._modules = {name: child and _replica(child) for name, child in module._modules.items()}
    return made


def test_tasks_of_one_event_loop():
    model = woven("gpt2")
    model.processor = WeftProcessor(begin_tokenizer(), model.encoder())
    alone = [model.caption(picture(n), max_new_tokens=6).text for n in range(THREADS)]

    async def together() -> list[str]:
        asked = [asyncio.to_thread(model.caption, picture(n), max_new_tokens=6) for n in range(THREADS)]
        return [one.text for one in await asyncio.gather(*asked)]

    assert asyncio.run(together()) == alone


def test_a_stream_that_waits_while_another_is_asked():
    """Whoever takes the words of one generation asks for another in between, in the same thread."""
    model = woven("gpt2")
    placed = [laid(model, number) for number in range(2)]
    alone = [model.generate(IDS[n], memories=placed[n], **OPTIONS).tolist() for n in range(2)]
    between = []

    def ask(ids, scores, **_):
        between.append(model.generate(IDS[1], memories=placed[1], **OPTIONS).tolist())
        return False

    assert model.generate(IDS[0], memories=placed[0], stopping_criteria=[ask], **OPTIONS).tolist() == alone[0]
    assert between == [alone[1]] * 5


def test_a_call_within_a_call():
    """A hook of somebody's asks the model about something else while it computes."""
    model = woven("gpt2")
    placed = [laid(model, number) for number in range(2)]
    with torch.no_grad():
        alone = [model(input_ids=IDS[n], memories=placed[n]).logits for n in range(2)]
        within: list[torch.Tensor] = []

        def ask(*_: Any) -> None:
            if not within:
                within.append(torch.empty(0))
                within[0] = model(input_ids=IDS[1], memories=placed[1]).logits

        hook = model.language_model.transformer.h[1].register_forward_hook(ask)
        assert torch.equal(model(input_ids=IDS[0], memories=placed[0]).logits, alone[0])
        hook.remove()
    assert torch.equal(within[0], alone[1])


def test_one_compiled_model_for_all_threads():
    model = woven(language_model("llama", num_hidden_layers=1), layers=[0])
    placed = [laid(model, number) for number in range(THREADS)]
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        expected = [model(input_ids=IDS[n], memories=placed[n], use_cache=False).logits for n in range(THREADS)]
        compiled(input_ids=IDS[0], memories=placed[0], use_cache=False)
        found = in_threads(lambda n: compiled(input_ids=IDS[n], memories=placed[n], use_cache=False).logits)
    for each, right in zip(found, expected, strict=True):
        for one in each:
            torch.testing.assert_close(one, right)


def test_a_model_is_made_ready_once_for_all_threads(monkeypatch):
    model = seeing_and_reading("llama", every=2)
    made = []
    plain = model.plain._from_tensors
    monkeypatch.setattr(model.plain, "_from_tensors", lambda tensors: made.append(1) or plain(tensors))
    threads = [Thread(target=model.plain.get) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
