"""One process a folder; asking who holds it never keeps anybody from starting."""

import os
import threading
from pathlib import Path

import pytest

from broker.errors import UsageError
from broker.folderlock import running_process, sole_process


def test_the_second_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    assert running_process(tmp_path) is None
    with sole_process(tmp_path, "The worker"):
        assert running_process(tmp_path) == os.getpid()
        with pytest.raises(UsageError, match=f"process {os.getpid()}"), sole_process(tmp_path, "The worker"):
            pytest.fail("two processes on one folder")
    assert running_process(tmp_path) is None


def test_asking_all_the_time_keeps_nobody_from_starting(tmp_path: Path) -> None:
    stopping = threading.Event()

    def ask() -> None:
        while not stopping.is_set():
            running_process(tmp_path)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for _ in range(300):
            with sole_process(tmp_path, "The worker"):
                assert running_process(tmp_path) == os.getpid()
    finally:
        stopping.set()
        asking.join()
