"""What a long run tells where no bar can be drawn."""

from __future__ import annotations

import time

from weft import progress
from weft.progress import Reporter


def test_a_file_gets_lines_in_place_of_a_bar(monkeypatch, capsys):
    now = iter(range(0, 1000, 10))
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    with Reporter() as reporter:
        reporter.start("encoding passages", 8)
        for done in range(1, 9):
            reporter.advance(done)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("encoding passages: ")]
    assert lines[0].startswith("encoding passages: 3 of 8")
    assert len(lines) < 8


def test_a_line_tells_how_the_training_goes(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS_A_LINE", 0)
    with Reporter() as reporter:
        reporter.start("training", 2)
        reporter.advance(1, loss=1.5, tokens=100, seconds=0.5)
    assert "training: 1 of 2, loss 1.500, 200 tokens/s" in capsys.readouterr().err


def test_who_is_not_to_tell_anything_is_silent(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS_A_LINE", 0)
    with Reporter(enabled=False) as reporter:
        reporter.start("training", 2)
        reporter.advance(1)
    assert capsys.readouterr().err == ""
