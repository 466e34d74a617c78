"""llama.cpp decoding some rows side by side, by its own batches; run by an interpreter that has llama-cpp-python.

    python benchmarks/llama_steps.py FILE --rows 8 --threads 2 --prompt 16 --steps 64

Prints a JSON object: milliseconds for the prompt, and a step, and the process's memory at its peak in MB.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import time

import llama_cpp
from memory_peak import peak


class Rows:
    """Rows of tokens in one context, each a sequence of its own."""

    def __init__(self, file: str, rows: int, threads: int, longest: int) -> None:
        llama_cpp.llama_backend_init()
        self.rows, self.length = rows, 0
        self.model = llama_cpp.llama_model_load_from_file(file.encode(), llama_cpp.llama_model_default_params())
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_seq_max = rows * longest, rows * longest, rows
        settings.n_threads = settings.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, settings)
        if not self.context:
            raise RuntimeError("llama.cpp could not make a context")
        self.batch = llama_cpp.llama_batch_init(rows * longest, 0, 1)

    def add(self, tokens: list[int]) -> None:
        """Compute these tokens at the end of every row, with the logits of the last."""
        batch, place = self.batch, 0
        for row in range(self.rows):
            for offset, token in enumerate(tokens):
                batch.token[place], batch.pos[place] = token, self.length + offset
                batch.n_seq_id[place], batch.seq_id[place][0] = 1, row
                batch.logits[place] = offset == len(tokens) - 1
                place += 1
        batch.n_tokens = place
        if llama_cpp.llama_decode(self.context, batch):
            raise RuntimeError("llama.cpp could not decode a batch")
        llama_cpp.llama_synchronize(self.context)
        self.length += len(tokens)

    def forget(self) -> None:
        """Begin all rows anew."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        self.length = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    for name in ("rows", "threads", "prompt", "steps"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    rows = Rows(options.file, options.rows, options.threads, options.prompt + options.steps)
    for _ in range(2):  # the first warms up
        rows.forget()
        started = time.perf_counter()
        rows.add(list(range(100, 100 + options.prompt)))
        prompt = 1000 * (time.perf_counter() - started)
    started = time.perf_counter()
    for number in range(options.steps):
        rows.add([200 + number])
    step = 1000 * (time.perf_counter() - started) / options.steps
    print(json.dumps({"prompt": prompt, "step": step, "peak": peak()}))


if __name__ == "__main__":
    main()
