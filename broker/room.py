"""Room on the disk: how much a folder takes, and what is said when there is none left."""

import math
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from broker.progress import readable_bytes

SHORT_BYTES: Final = 32 << 20  # what one commit may need
WALK_S: Final = 30.0


def full_disk(path: Path) -> str | None:
    """One sentence if the disk of `path` is full, None if it is not or cannot be asked."""
    try:
        free = shutil.disk_usage(_existing(path)).free
    except OSError:
        return None
    if free >= SHORT_BYTES:
        return None
    return f"waiting: disk full on {_mount(path)} ({readable_bytes(free)} free); make room, and it goes on by itself"


def disk_trouble(path: Path, error: Exception) -> str:
    """What to tell people while a write is tried again and again."""
    return full_disk(path) or f"waiting for the disk: {error}"


def used_bytes(folder: Path) -> int:
    """What the files of a folder take on its disk."""
    total = 0
    for place, _, names in os.walk(folder):  # passes over what is gone by now, as its owner goes on working
        for name in names:
            with suppress(OSError):
                total += (Path(place) / name).lstat().st_blocks * 512
    return total


def free_bytes(path: Path) -> int:
    """What is free on the disk of `path`."""
    return shutil.disk_usage(_existing(path)).free


class DiskUse:
    """What a folder takes and what is free, for who asks often: its files are gone through every WALK_S at most."""

    def __init__(self, folder: Path, *, clock: Callable[[], float]) -> None:
        self._folder, self._clock = folder, clock
        self._used_bytes, self._walked_at = 0, -math.inf

    def used_bytes(self) -> int:
        """As of the last walk."""
        now = self._clock()
        if now - self._walked_at >= WALK_S:
            self._used_bytes, self._walked_at = used_bytes(self._folder), now
        return self._used_bytes

    def free_bytes(self) -> int:
        """As of now."""
        return free_bytes(self._folder)


def _mount(path: Path) -> Path:
    path = _existing(path).resolve()
    while not os.path.ismount(path):
        path = path.parent
    return path


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
