"""Read memories that are kept for the next question: in memory up to a limit, and on disk where a folder is given.

:class:`MemoryCache` is given a key and a way to read, and hands on what has been read under that key before. It is safe
to use from several threads; those that ask for the same new memory at once wait for one of them to read it.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from weft.keeping import entry, load_read, save_read
from weft.memory import ReadMemory

MEGABYTE = 2**20


class MemoryCache:
    """Keeps the memories that were used last.

    Args:
        max_bytes: bytes of keys and values that are kept in memory; 0 to keep none.
        folder: where memories are kept beyond the process; None for nowhere.
        max_disk_bytes: bytes that the folder's files may take.

    Attributes:
        hits: how often a memory was there, in memory or on disk.
        misses: how often one had to be read.
        evictions: how often one had to make room in memory.
    """

    def __init__(
        self,
        max_bytes: int = 256 * MEGABYTE,
        *,
        folder: str | Path | None = None,
        max_disk_bytes: int = 4096 * MEGABYTE,
    ) -> None:
        self.max_bytes, self.max_disk_bytes = max_bytes, max_disk_bytes
        self.folder = None if folder is None else Path(folder)
        self.hits = self.misses = self.evictions = 0
        self._kept: OrderedDict[str, ReadMemory] = OrderedDict()
        self._bytes = 0
        self._coming: dict[str, Future[ReadMemory]] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: its settings. What it keeps is read again, or found in its folder."""
        return {name: getattr(self, name) for name in ("max_bytes", "folder", "max_disk_bytes")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __contains__(self, key: str) -> bool:
        """Whether the memory under a key need not be read: it is there, or somebody is reading it."""
        path = self._path(key)
        with self._lock:
            return key in self._kept or key in self._coming or (path is not None and path.exists())

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def bytes(self) -> int:
        """Bytes of keys and values that are kept in memory."""
        return self._bytes

    def get(self, key: str, read: Callable[[], ReadMemory]) -> ReadMemory:
        """The memory under a key; read, and kept, where there is none. See :meth:`get_all`."""
        return self.get_all([key], lambda _: [read()])[0]

    def get_all(
        self,
        keys: Sequence[str],
        read: Callable[[list[int]], Sequence[ReadMemory]],
        place: Callable[[ReadMemory], ReadMemory] = lambda memory: memory,
    ) -> list[ReadMemory]:
        """The memories under some keys; those that are not there are read together, and kept.

        Args:
            keys: each names what is read and what reads it.
            read: is given places in ``keys`` and reads what belongs there. What it raises reaches everyone who waits
                for one of these memories, and nothing is kept.
            place: brings a memory to the devices on which it is wanted; one from disk is kept as this leaves it.
        """
        found: dict[str, ReadMemory | Future[ReadMemory]] = {}
        mine: dict[str, Future[ReadMemory]] = {}
        with self._lock:
            for key in dict.fromkeys(keys):
                if key in self._kept:
                    self._kept.move_to_end(key)
                    found[key] = self._kept[key]
                elif key in self._coming:
                    found[key] = self._coming[key]
                else:
                    mine[key] = self._coming[key] = Future()
            self.hits += len(found)
        try:
            fresh = self._read(list(mine), keys, read, place)
        except BaseException as error:
            with self._lock:
                for key, future in mine.items():
                    del self._coming[key]
                    future.set_exception(error)
            raise
        with self._lock:
            for key, memory in fresh.items():
                del self._coming[key]
                self._keep(key, memory)
        for key, future in mine.items():
            future.set_result(fresh[key])
        found |= fresh
        waited = {key: one.result() if isinstance(one, Future) else one for key, one in found.items()}
        return [place(waited[key]) for key in keys]

    def _read(
        self,
        wanted: list[str],
        keys: Sequence[str],
        read: Callable[[list[int]], Sequence[ReadMemory]],
        place: Callable[[ReadMemory], ReadMemory],
    ) -> dict[str, ReadMemory]:
        """Memories that nobody else is reading: from disk where they are there, else anew."""
        from_disk = {key: self._from_disk(key) for key in wanted}
        there = {key: place(memory) for key, memory in from_disk.items() if memory is not None}
        missing = [key for key in wanted if key not in there]
        anew = read([list(keys).index(key) for key in missing]) if missing else []
        for key, memory in zip(missing, anew, strict=True):
            self._to_disk(key, memory)
        with self._lock:
            self.hits, self.misses = self.hits + len(there), self.misses + len(missing)
        return there | dict(zip(missing, anew, strict=True))

    def clear(self) -> None:
        """Forget what is kept in memory."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0

    def _keep(self, key: str, memory: ReadMemory) -> None:
        self._kept[key] = memory
        self._bytes += memory.bytes
        while self._bytes > self.max_bytes:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= dropped.bytes
            self.evictions += 1

    def _path(self, key: str) -> Path | None:
        return None if self.folder is None else entry(self.folder, key)

    def _from_disk(self, key: str) -> ReadMemory | None:
        path = self._path(key)
        memory = None if path is None else load_read(path, key)
        if path is not None and memory is not None:
            os.utime(path)  # what was used last is dropped last
        return memory

    def _to_disk(self, key: str, memory: ReadMemory) -> None:
        path = self._path(key)
        if path is None or self.folder is None:
            return
        save_read(memory, path)
        files = sorted(self.folder.glob("*/*.safetensors"), key=lambda file: file.stat().st_mtime_ns)
        total = sum(file.stat().st_size for file in files)
        for file in files:
            if total <= self.max_disk_bytes:
                break
            total -= file.stat().st_size
            file.unlink(missing_ok=True)
