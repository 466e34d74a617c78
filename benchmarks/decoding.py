"""What a token costs: of one row and of several, with memories of several sizes, beside transformers and llama.cpp."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from measuring import QUICK, QUICK_NAME, alternate, compare, seconds
from peers import PROMPT, TOKENS, LlamaCpp
from transformers import AutoModelForCausalLM, CompileConfig

import weft
from weft.decoder import TextCache
from weft.memory import KeyValues, Placement, ReadMemory
from weft.model import WeftModel
from weft.parts import resolve
from weft.plain import PlainDecoder
from weft.search import Prompt, search


def random_memory(model: WeftModel, tokens: int) -> ReadMemory:
    """A memory of so many random tokens, as the photos weave reads them."""
    config = model.weave("photos").config

    def one() -> torch.Tensor:
        return torch.randn(1, config.kv_heads, tokens, config.head_dim, dtype=model.weave("photos").dtype)

    return ReadMemory("photos", tuple(KeyValues(one(), one()) for _ in config.layers))


def speaker(
    model: WeftModel, quantize: Any = "auto", rows: int = 1, tokens: int = 0, *, compiled: bool = False
) -> Callable[[], float]:
    """Milliseconds that Weft's own decoder takes for a step of some rows, each with a memory of so many tokens."""
    plain = PlainDecoder(model, quantize, narrow=model.plain.narrow, file=model.plain.file)
    if compiled:
        plain.warm_up(rows, ["photos" if tokens else ""])
    decoder, weaves = plain.get(), plain.weaves()
    assert decoder is not None
    memories = () if not tokens else (model.place(random_memory(model, tokens), Placement.of([[(0, 0)]])),)
    prompts = [Prompt(list(range(100, 100 + PROMPT)), memories) for _ in range(rows)]

    def say(longest: int) -> float:
        return seconds(lambda: search(decoder, weaves, prompts, beams=1, longest=longest, ends=()))

    return lambda: 1000 * (say(1 + TOKENS) - say(1)) / TOKENS


def prompts(model: WeftModel, llama: LlamaCpp | None, repeats: int) -> list[dict[str, Any]]:
    """Milliseconds to the logits behind a prompt of one row: a short one, and one of some pages."""
    decoder = model.plain.get()
    assert decoder is not None
    found = []
    for tokens in (18, 495):
        ids = torch.arange(100, 100 + tokens)[None]
        sides = {
            "Weft, as it loads": lambda ids=ids: (
                1000 * seconds(lambda: decoder.logits(decoder(ids, TextCache(decoder, 1))))
            )
        }
        peers = {} if llama is None else {"llama.cpp, four bits (Q4_1)": llama.prompt(tokens)}
        found.append(compare(f"A prompt of {tokens} tokens", "ms", alternate(sides, repeats, peers)))
    return found


def generating(language_model: Any, rows: int = 1, **options: Any) -> Callable[[], float]:
    """Milliseconds that transformers' ``generate`` takes for a step of some rows."""
    ids = torch.arange(100, 100 + PROMPT).expand(rows, -1).contiguous()
    options = {"attention_mask": torch.ones_like(ids), "do_sample": False, "eos_token_id": None, **options}

    def say(tokens: int) -> float:
        return seconds(lambda: language_model.generate(ids, max_new_tokens=tokens, **options))

    return lambda: 1000 * (say(1 + TOKENS) - say(1)) / TOKENS


def compiled(language_model: Any) -> Callable[[], float]:
    """The same of one row, with a static cache and the step compiled, which transformers does on a GPU only."""
    config = CompileConfig()
    config._compile_all_devices = True
    return generating(language_model, cache_implementation="static", compile_config=config)


def decoding(llama: LlamaCpp | None, repeats: int) -> list[dict[str, Any]]:
    """A token of one row, a step of eight, prompts, Weft's steps of some rows, and what a memory costs.

    Where bfloat16 is emulated nobody would run transformers in it, and it has no row there.
    """
    model, part = weft.load(), resolve("smollm2-135m-instruct").path
    name = f"Weft, {kind_of(model)}"
    wide = AutoModelForCausalLM.from_pretrained(part, dtype=torch.float32).eval()
    one = {
        f"Weft, as it loads ({kind_of(model)})": speaker(model),
        f"Weft, {kind_of(model)}, compiled": speaker(model, compiled=True),
        f"Weft, {QUICK_NAME}": speaker(weft.load(dtype=QUICK), None),
        "transformers generate, float32": generating(wide),
    }
    one_peers = {"transformers generate, float32, static cache, compiled": compiled(wide)}
    eight = {name: speaker(model, rows=8), "transformers generate, float32": generating(wide, 8)}
    if torch.bfloat16 == QUICK:
        narrow = AutoModelForCausalLM.from_pretrained(part, dtype=torch.bfloat16).eval()
        one["transformers generate, bfloat16"] = generating(narrow)
        eight["transformers generate, bfloat16"] = generating(narrow, 8)
    eight_peers = {}
    if llama is not None:
        one_peers["llama.cpp, four bits (Q4_1)"] = llama.step(1)
        eight_peers["llama.cpp, four bits (Q4_1)"] = llama.step(8)
    batches = {rows: speaker(model, rows=rows) for rows in (1, 4, 16)}
    steps = alternate({f"{rows} rows" if rows > 1 else "1 row": side for rows, side in batches.items()}, repeats)
    rates = {
        title: [1000 * rows / taken for taken in times]
        for rows, (title, times) in zip(batches, steps.items(), strict=True)
    }
    sizes = {0: "bare", **{size: f"memory of {size:,} tokens" for size in (81, 1_000, 10_000)}}
    memories = {title: speaker(model, tokens=size) for size, title in sizes.items()}
    quick = {title: speaker(model, tokens=size, compiled=True) for size, title in sizes.items() if size < 2_000}
    return [
        compare("A token of one row", "ms", alternate(one, repeats, one_peers)),
        compare("A step of eight rows", "ms", alternate(eight, repeats, eight_peers)),
        *prompts(model, llama, repeats),
        compare(f"A step of {name}", "ms", steps),
        compare(f"Tokens of {name}", "tokens/s", rates, rate=True),
        compare(f"A token with a memory, {name}", "ms", alternate(memories, repeats)),
        compare(f"A token with a memory, {name}, compiled", "ms", alternate(quick, repeats)),
    ]


def kind_of(model: WeftModel) -> str:
    """In how many bits a model's decoder keeps its matrices, or their type."""
    decoder = model.plain.get()
    assert decoder is not None
    return {"int4": "four bits", "int8": "eight bits"}.get(decoder.quantize or "", str(model.dtype))
