"""That memory of parts is used again instead of being fetched from the system for each."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
from broker.allocation import keep_freed_memory
from broker.messages import PART_BYTES

{call}
faults = []
for _ in range(20):
    held = [b"x" * PART_BYTES for _ in range(3)]
    del held
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[9])
"""
PAGES_OF_TEN = 10 * 3 * 1024  # of 4 KiB


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has rules of its own")
def test_ten_times_three_parts_use_the_same_pages() -> None:
    """What the call changes is seen too: without it, every page comes anew."""
    assert new_pages("keep_freed_memory()") < PAGES_OF_TEN / 10
    assert new_pages("pass") > PAGES_OF_TEN / 2


def new_pages(call: str) -> int:
    """Pages that ten rounds with three parts each take from the system."""
    program = PROGRAM.format(call=call)
    return int(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stdout)
