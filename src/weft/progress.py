"""What a long run tells: a progress bar or lines for people, and a JSONL log for programs."""

from __future__ import annotations

import json
import time
from collections import deque
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from weft.whole_files import writing

SECONDS_A_LINE = 30.0


class Reporter:
    """A progress bar on standard error, and a log.

    A bar can't be drawn into a file; where standard error is one, a line is written every half a minute instead.

    Args:
        log: file to which figures are added, one JSON object a line.
        enabled: whether this process tells anything.
    """

    def __init__(self, log: Path | None = None, *, enabled: bool = True) -> None:
        self.log_file = log if enabled else None
        self.enabled = enabled
        self.console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not enabled,
        )
        self.recent: deque[tuple[float, float]] = deque(maxlen=50)
        self.told = time.monotonic()

    def __enter__(self) -> Reporter:
        self.bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.bar.stop()

    def start(self, what: str, total: int, done: int = 0) -> None:
        """Begin a stage of so many steps."""
        for task in self.bar.tasks:
            self.bar.remove_task(task.id)
        if total:
            self.task = self.bar.add_task(what, total=total, completed=done, figures="")

    def advance(self, done: int, **figures: float) -> None:
        """Tell how many steps are done, and what the last one gave."""
        text = ""
        if figures:
            self.recent.append((figures["tokens"], figures["seconds"]))
            speed = sum(tokens for tokens, _ in self.recent) / sum(seconds for _, seconds in self.recent)
            text = f"loss {figures['loss']:.3f}, {speed:,.0f} tokens/s"
            self.log(step=done, **figures)
        self.bar.update(self.task, completed=done, figures=text)
        self._line()

    def count(self, done: int, total: int) -> None:
        """Tell how much is done of a stage whose size shows as it goes."""
        self.bar.update(self.task, completed=done, total=total)
        self._line()

    def _line(self) -> None:
        """What a bar would show, as a line, where none can be drawn."""
        drawn = self.console.is_terminal or self.console.is_jupyter
        if drawn or not self.enabled or time.monotonic() - self.told < SECONDS_A_LINE:
            return
        self.told = time.monotonic()
        (task,) = self.bar.tasks
        left = task.time_remaining
        figures = [task.fields["figures"], "" if left is None else f"{timedelta(seconds=round(left))} left"]
        about = ", ".join([f"{task.completed:,.0f} of {task.total or 0:,.0f}", *filter(None, figures)])
        self.console.print(f"{task.description}: {about}")

    def say(self, *sentences: str) -> None:
        """Sentences for people, a line each."""
        if self.enabled:
            for sentence in sentences:
                self.bar.console.print(sentence, markup=False, highlight=False, soft_wrap=True)

    def log(self, **figures: Any) -> None:
        """Add an object to the log."""
        if self.log_file is not None:
            with writing(self.log_file), self.log_file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"time": round(time.time(), 1), **figures}) + "\n")
