"""What `status` says of transfers and of the disk."""

import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregator.status import read_status
from aggregator.transit import Transit
from broker.link import Confirmed, Consuming
from broker.progress import Progress, readable_bytes, readable_s
from broker.room import SHORT_BYTES, disk_trouble, full_disk, used_bytes
from tests.aggregator.bench import Bench, published
from tests.aggregator.conftest import MakeBench

BIG = np.random.default_rng(5).normal(size=64).astype(np.float32)
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def parted(make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr("broker.messages.PART_BYTES", 100)
    made = make_bench(model=BIG)
    made.place.settings_file.write_text('federation = "fed"\ntask = "sepsis"\n')
    made.start()
    return made


def test_an_update_that_is_half_here_is_shown_with_its_rate(parted: Bench) -> None:
    first, second, third = parted.sites["A"].parts(1, BIG)
    parted.feed(first)
    parted.now += 4
    parted.feed(second)
    (transit,) = read_status(parted.place).transfers
    assert transit == Transit("update 1", "A", 3, 2, 274, "72 % of 274 bytes, 25 bytes/s, 3 s left")
    parted.feed(third)
    assert read_status(parted.place).transfers == ()


def test_a_version_that_is_half_in_the_stream_is_shown(parted: Bench) -> None:
    (first,) = [one for one in published(parted.feed(Consuming("fq.fed.models"))) if one.routing_key == "fq.fed.models"]
    parted.feed(Confirmed(first.token))
    (transit,) = read_status(parted.place).transfers
    assert (transit.what, transit.site, transit.arrived, transit.parts) == ("version 0", None, 1, 3)
    assert transit.progress.startswith("36 % of ")


def test_the_disk_is_shown(parted: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    parted.feed(parted.sites["A"].hello())
    disk = read_status(parted.place).disk
    assert disk.used_bytes == used_bytes(parted.place.path) > 0
    assert (disk.payload_bytes, disk.most_payload_bytes, disk.anchor, disk.full) == (0, 50_000_000_000, 0, None)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1, 1, SHORT_BYTES - 1))
    full = read_status(parted.place).disk.full
    assert full is not None
    assert full.startswith("waiting: disk full on /")


def test_a_full_disk_is_named_and_other_trouble_is_told_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1, 1, SHORT_BYTES))
    assert full_disk(tmp_path / "not" / "there") is None
    assert disk_trouble(tmp_path, OSError("odd")) == "waiting for the disk: odd"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1, 1, 1000))
    assert "(1.0 kB free); make room, and it goes on by itself" in disk_trouble(tmp_path, OSError("odd"))


def test_what_vanishes_while_it_is_counted_takes_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stays", "goes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(bytes(5000))
    alone = used_bytes(tmp_path / "stays")
    honest = os.scandir

    def late(path: Any) -> Any:
        if isinstance(path, str) and Path(path) == tmp_path / "goes":
            monkeypatch.setattr(os, "scandir", honest)
            shutil.rmtree(path)
        return honest(path)

    monkeypatch.setattr(os, "scandir", late)
    assert used_bytes(tmp_path) == alone > 0
    assert not (tmp_path / "goes").exists()


# ---- progress


def test_progress_is_by_the_last_half_minute() -> None:
    progress = Progress(1000, 0.0)
    assert str(progress) == "0 % of 1.0 kB"
    progress.add(100, now=10.0)
    assert str(progress) == "10 % of 1.0 kB, 10 bytes/s, 90 s left"
    for second in range(11, 51):
        progress.add(20, now=float(second))
    assert progress.rate() == 20.0
    progress.add(100, now=51.0)
    assert str(progress) == "100 % of 1.0 kB"


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (123_456, "123 kB"), (3.1e9, "3.1 GB"), (5e12, "5000.0 GB")],
)
def test_sizes_for_people(size: float, text: str) -> None:
    assert readable_bytes(size) == text


@pytest.mark.parametrize(("seconds", "text"), [(40, "40 s"), (99, "99 s"), (720, "12 min"), (12_000, "3 h 20 min")])
def test_times_for_people(seconds: float, text: str) -> None:
    assert readable_s(seconds) == text
