"""Room on the disk: how much a folder takes, and what is said when there is none left."""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from broker.progress import readable_bytes

SHORT_BYTES: Final = 32 << 20  # what one commit may need


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


def _mount(path: Path) -> Path:
    path = _existing(path).resolve()
    while not os.path.ismount(path):
        path = path.parent
    return path


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
