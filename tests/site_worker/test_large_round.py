"""A round needs the memory of model and gradients, and little else: a model of 25 million parameters, measured.

The peaks are those of a process of its own, in the pages that were in memory; those of a mapped file count, although
the system may take them back. What the C library keeps of what was freed is not ours to promise and differs from run
to run, up to another model's worth here, so it is told to return large pieces at once.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.site_worker.large_round import PARAMETERS

ROOT = Path(__file__).parents[2]
MODEL, LITTLE = 4 * PARAMETERS, 20 << 20
AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": str(4 << 20)}


def measured(folder: Path, *how: str) -> dict[str, int]:
    command = [sys.executable, "-m", "tests.site_worker.large_round", str(folder), *how]
    ran = subprocess.run(command, cwd=ROOT, env=os.environ | AT_ONCE, capture_output=True, text=True, check=True)
    numbers: dict[str, int] = json.loads(ran.stdout)
    return numbers


@pytest.mark.parametrize("codec", ["int8", "float32"])
def test_rounds_of_a_large_model_hold_it_once_beside_its_gradients(tmp_path: Path, codec: str) -> None:
    added = measured(tmp_path, codec, "0", "first")
    assert added["start"] < MODEL + LITTLE
    assert added["greeting"] < LITTLE
    assert added["save"] < MODEL + LITTLE  # the vector that this test makes of it
    for step in ("round 1", "round 2", "stop"):
        assert added[step] < MODEL + LITTLE, step
    for step in ("store 1", "store 2", "after round 1", "after round 2", "after stop"):
        assert added[step] < LITTLE, step
    again = measured(tmp_path, codec, "0", "again")
    assert again["go on"] < MODEL + MODEL + LITTLE  # the kept base is another mapping of the file
    assert again["after go on"] < LITTLE


def test_what_adam_remembers_is_all_that_it_adds(tmp_path: Path) -> None:
    added = measured(tmp_path, "int8", "1", "first")
    for step in ("round 1", "round 2", "stop"):
        assert added[step] < MODEL + 2 * MODEL + MODEL // 2, step  # its arithmetic takes a tensor or two
    assert added["after stop"] < LITTLE
