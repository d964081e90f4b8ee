"""Giving freed memory back to the system, for a process that needs gigabytes now and then and rests in between."""

import ctypes
from functools import cache
from typing import Any


def give_back() -> None:
    """Return what is freed and not yet returned, where the C library can (glibc); a few milliseconds."""
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # another C library, or another system
        return None
