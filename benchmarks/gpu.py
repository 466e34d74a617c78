"""Weft on a GPU beside transformers: tokens of 1, 8 and 64 rows, what a memory costs, and how fast a weave learns.

    python benchmarks/gpu.py [--device cuda] [--output FILE] [--repeats 5] [--rows 1,8,64] [--memories 81,1000,10000]
        [--learned 32]

All sides have the default language model's geometry and random weights in bfloat16, on which no time depends, so that
nothing has to be fetched. Sides take turns after a round of warming up. Prints the table and, with ``--output``, writes
the figures as JSON, with the device's name in their ``setting``.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from measuring import QUICK, alternate, compare, table
from peers import PROMPT, TOKENS, text_geometry
from transformers import (
    ContinuousBatchingConfig,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)
from transformers.utils import logging

from weft.batching import texts_of
from weft.data import Row, collate
from weft.encoders import encoder_from_model
from weft.fastpath import HiddenStore, UpperStack, Vocabulary
from weft.losses import StepLoss
from weft.making import weave
from weft.memory import KeyValues, Memory, Placement, ReadMemory
from weft.model import WeftModel
from weft.optimizers import make_optimizer
from weft.search import Prompt
from weft.store import FeatureStore

PATCHES = 81
"""Tokens of a photo."""
CAPTIONS = 5
"""Answers of a row that is learned, of :data:`WORDS` tokens each, to one prompt about one photo."""
WORDS = 12
PAGE = 256
"""Tokens of a page of continuous batching's cache: its default."""


@dataclass(frozen=True)
class Bench:
    """What all measurements share.

    Attributes:
        model: a woven model with the photos weave's geometry.
        plain: its language model, with nothing woven in.
        repeats: rounds that count.
        tokens: tokens that each row says.
    """

    model: WeftModel
    plain: PreTrainedModel
    repeats: int
    tokens: int

    @property
    def device(self) -> torch.device:
        """Where everything runs."""
        return self.model.device

    def seconds(self, work: Callable[[], Any]) -> float:
        """How long something takes until the device has done it."""
        self._wait()
        started = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def memory(self, items: int, tokens: int) -> ReadMemory:
        """Random memories, as the weave reads them."""
        weave = self.model.weave()
        shape = (items, weave.config.kv_heads, tokens, weave.config.head_dim)

        def some() -> torch.Tensor:
            return torch.randn(shape, dtype=weave.dtype, device=self.device)

        return ReadMemory(weave.name, tuple(KeyValues(some(), some()) for _ in weave.config.layers))


def bench(device: torch.device, repeats: int, tokens: int, layers: int) -> Bench:
    """A language model with the default one's geometry and so many layers, and a weave in front of five of them."""
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device.type == "cuda" else QUICK
    geometry = text_geometry(num_hidden_layers=layers)
    language_model = LlamaForCausalLM(LlamaConfig(**geometry)).to(device, dtype).eval()
    plain = copy.deepcopy(language_model)
    vision = ViTConfig(image_size=36, patch_size=4, hidden_size=1280, num_hidden_layers=1, intermediate_size=64)
    size = {"height": 36, "width": 36}
    encoder = encoder_from_model(ViTModel(vision, add_pooling_layer=False), ViTImageProcessorPil(size=size))
    chosen = range(layers * 2 // 3, layers, 2)
    model = weave(language_model, vision=encoder, layers=list(chosen), feed_forward=288, connector_feed_forward=384)
    return Bench(model.to(device).eval(), plain, repeats, tokens)


# Tokens


def generating(bench: Bench, model: PreTrainedModel, rows: int, **inputs: Any) -> Callable[[], float]:
    """Tokens a second that ``generate`` says of some rows, prompts counted."""
    ids = torch.arange(100, 100 + PROMPT, device=bench.device).expand(rows, -1).contiguous()
    options = {"attention_mask": torch.ones_like(ids), "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    options |= {"max_new_tokens": bench.tokens, **inputs}
    return lambda: rows * bench.tokens / bench.seconds(lambda: model.generate(ids, **options))


def in_the_engine(bench: Bench, rows: int) -> Callable[[], float]:
    """The same of what decodes in an engine: each row with a photo of its own."""
    each = bench.memory(rows, PATCHES).apart()
    placement = Placement.of([[(0, 0)]])

    @torch.inference_mode()
    def say() -> None:
        texts = texts_of(bench.model)
        chosen = []
        for read in each:
            placed = bench.model.place(read, placement)
            assert placed is not None
            begun, logits = texts.read(Prompt(list(range(100, 100 + PROMPT)), (placed,)))
            texts.join(begun)
            chosen.append(int(logits.argmax()))
        for _ in range(bench.tokens - 1):
            chosen = texts.step(chosen).argmax(-1).tolist()

    return lambda: rows * bench.tokens / bench.seconds(say)


def continuous(bench: Bench, rows: int) -> Callable[[], float]:
    """The same of transformers' continuous batching, whose cache is as large as these rows need."""
    prompts = [list(range(100, 100 + PROMPT))] * rows
    config = GenerationConfig(max_new_tokens=bench.tokens, do_sample=False, eos_token_id=-1, pad_token_id=0)
    blocks = -(-(PROMPT + bench.tokens) // PAGE) * rows
    room = ContinuousBatchingConfig(page_size=PAGE, num_blocks=blocks + 1, max_batch_tokens=PROMPT * rows)

    def say() -> None:
        found = bench.plain.generate_batch(prompts, config, room, persistent_manager=True)
        lengths = {len(one.generated_tokens) for one in found.values()}
        if len(found) != rows or lengths != {bench.tokens}:
            raise RuntimeError(f"{len(found)} of {rows} rows came back, of {sorted(lengths)} tokens")

    return lambda: rows * bench.tokens / bench.seconds(say)


def tokens(bench: Bench, counts: list[int]) -> list[dict[str, Any]]:
    """Tokens a second of some rows, each of Weft's with a photo of its own to look at, which the others have not."""
    found = []
    for rows in counts:
        read = bench.memory(rows, PATCHES)
        placed = bench.model.place(read, Placement.of([[(row, 0)] for row in range(rows)]))
        sides = {
            "Weft generate, a photo each": generating(bench, bench.model, rows, memories=[placed]),
            "Weft engine, a photo each": in_the_engine(bench, rows),
            "transformers generate, no photo": generating(bench, bench.plain, rows),
        }
        times = alternate(sides, bench.repeats)
        # By itself, since its thread and its cache outlive a round.
        peer = {"transformers continuous batching, no photo": continuous(bench, rows)}
        times |= alternate({}, bench.repeats, peer)
        bench.plain.destroy_cached_continuous_batching_manager()
        title = f"Tokens of {rows} rows" if rows > 1 else "Tokens of one row"
        found.append(compare(title, "tokens/s", times, rate=True))
    return found


def memories(bench: Bench, sizes: list[int]) -> dict[str, Any]:
    """What a token of one row takes that looks at memories of several sizes."""
    sides: dict[str, Callable[[], float]] = {}
    for size in (0, *sizes):
        held = [] if not size else [bench.model.place(bench.memory(1, size), Placement.of([[(0, 0)]]))]
        rate = generating(bench, bench.model, 1, memories=held)
        title = f"memory of {size:,} tokens" if size else "bare"
        sides[title] = lambda rate=rate: 1000 / rate()
    return compare("A token with a memory, by generate", "ms", alternate(sides, bench.repeats))


# Training


def training(bench: Bench, folder: Path, photos: int) -> dict[str, Any]:
    """Captions a second that a weave learns, five to each photo of a step: the fast way, and the plain one."""
    model = bench.model
    draw = torch.Generator().manual_seed(0)

    def words(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(100, 4_000, (count,), generator=draw).tolist())

    answers = [tuple((words(WORDS), (True,) * WORDS) for _ in range(CAPTIONS)) for _ in range(photos)]
    rows = [Row(words(PROMPT), one, ("a photo",), (0,), "here") for one in answers]
    apart = [Row(row.prompt, (answer,), row.pictures, row.columns, row.where) for row in rows for answer in row.answers]
    width = model.encoder().width
    features = torch.randn(photos, model.encoder().tokens, width, generator=draw)
    step, weave = StepLoss(model, model.weave().name), model.weave()
    model.weaves.requires_grad_(False)
    weave.float().requires_grad_(True)
    optimizer = make_optimizer(weave, "muon", rate=1e-3, weight_decay=0.05)
    first = min(weave.config.layers)
    hidden = HiddenStore(
        FeatureStore(folder, model.language_model.dtype), UpperStack(model.language_model, first), "random"
    )
    hidden.fill(collate(rows, 0).to(bench.device))
    vocabulary = Vocabulary.of(rows, step.head.weight.shape[0], 1024)

    def learn(learned: list[Row], fast: bool) -> None:
        step.hidden, step.vocabulary = (hidden, vocabulary) if fast else (None, None)
        each = len(learned) // photos
        placement = Placement.of([[(number // each, 0)] for number in range(len(learned))])
        memory = Memory(features, ()).to(bench.device)
        with torch.autocast(bench.device.type, torch.bfloat16, enabled=model.language_model.dtype == torch.bfloat16):
            loss = step(collate(learned, 0).to(bench.device), memory, placement) / (len(apart) * WORDS)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    model.train()
    sides = {
        "with everything": lambda: len(apart) / bench.seconds(lambda: learn(rows, True)),
        "the plain loop": lambda: len(apart) / bench.seconds(lambda: learn(apart, False)),
    }
    return compare("Training", "captions/s", alternate(sides, bench.repeats), rate=True)


def machine(device: torch.device) -> str:
    """The device's name and the versions."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"{name}, torch {torch.__version__}, transformers {transformers.__version__}"


def numbers(text: str) -> list[int]:
    """Whole numbers with commas between them."""
    return [int(one) for one in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default="cuda")
    parser.add_argument("--output", type=Path, help="file for the figures")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=TOKENS, help="tokens that each row says")
    parser.add_argument("--rows", type=numbers, default=[1, 8, 64])
    parser.add_argument("--memories", type=numbers, default=[81, 1_000, 10_000])
    parser.add_argument("--learned", type=int, default=32, help="photos of a step of training")
    parser.add_argument("--layers", type=int, default=30, help="decoder layers of the language model")
    options = parser.parse_args()
    logging.set_verbosity_error()
    made = bench(options.device, options.repeats, options.tokens, options.layers)
    with tempfile.TemporaryDirectory() as folder:
        parts: list[Callable[[], list[dict[str, Any]]]] = [
            lambda: [memories(made, options.memories)],
            lambda: tokens(made, options.rows),
            lambda: [training(made, Path(folder), options.learned)],
        ]
        found: dict[str, Any] = {"setting": f"{machine(options.device)}, {options.repeats} rounds", "results": []}
        for part in parts:
            found["results"] += part()
            if options.output is not None:  # what has been measured is there whatever becomes of the rest
                options.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(table([found]))


if __name__ == "__main__":
    main()
