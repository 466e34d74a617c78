"""Memory of a process at its peak."""

from __future__ import annotations

import re
import resource
from pathlib import Path


def peak(process: int | str = "self") -> float:
    """In MB. Where Linux tells it of a process alone that is taken: ``getrusage`` counts who started it as well."""
    file = Path(f"/proc/{process}/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", file.read_text()) if file.is_file() else None
    return (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1024
