"""What `status` says of a site's newest update: by which choice it was written, how small, and what is left out."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from site_worker.__main__ import cli
from site_worker.outbox import Outbox
from site_worker.settings import Folder
from site_worker.status import Newest, read_status
from tests.site_worker.bench import made
from tests.site_worker.drafts import drafted


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    (tmp_path / "site.toml").write_text('site = "A"\ntask = "x:y"\n')
    box = Outbox(Folder(tmp_path).outbox_file)
    yield box
    box.close()


def newest(outbox: Outbox) -> Newest | None:
    return read_status(Folder(Path(outbox.path).parent)).newest


def test_choice_size_and_what_is_left_out_are_of_the_newest_update(outbox: Outbox) -> None:
    assert newest(outbox) is None
    drafted(outbox, residual=[0.0] * 7)
    outbox.store(made(1))
    assert newest(outbox) == Newest("float32", 4.0, None, 0.0)
    drafted(outbox, residual=[0.0] * 700)
    outbox.store(replace(made(2), codec="lowrank", choice="lowrank-330", error=0.245, backlog=1.25))
    assert newest(outbox) == Newest("lowrank-330", 400.0, 0.245, 1.25)  # 4 x 700 bytes over the 7 of b"payload"


def test_it_is_shown_to_people_and_to_programs(outbox: Outbox) -> None:
    def said(*more: str) -> str:
        words = ["status", str(Path(outbox.path).parent), *more]
        return CliRunner().invoke(cli, words, catch_exceptions=False).output

    assert "newest update" not in said()
    drafted(outbox, residual=[0.0] * 700)
    outbox.store(replace(made(1), codec="lowrank", choice="lowrank-330", error=0.245, backlog=1.25))
    line = said().splitlines()[2]
    assert line == (
        "newest update: lowrank-330, 400 times smaller than float32, 24.5 % left out, 1.2 rounds' worth for the next"
    )
    assert json.loads(said("--json"))["newest"]["choice"] == "lowrank-330"


def test_an_update_of_an_older_release_says_its_codec(outbox: Outbox) -> None:
    drafted(outbox)
    outbox.store(made(1))
    outbox._database.execute("UPDATE updates SET choice = NULL, error = NULL, backlog = NULL")
    outbox._database.execute("DELETE FROM facts WHERE name = 'parameters'")
    assert newest(outbox) == Newest("float32", None, None, None)
