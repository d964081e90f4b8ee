"""What `status` says of how sites compress: codec, how much smaller, and what is left out, of each site's newest."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from aggregator.__main__ import cli
from aggregator.status import read_status
from tests.aggregator.bench import Bench, bench, floats

SETTINGS = 'federation = "fed"\ntask = "sepsis"\n[aggregation]\nbuffer_size = 2\n'
RAMP = floats(*(0.1 * place for place in range(1000)))


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Bench]:
    """Site A has sent a small update after a large one, B nothing; the model has 1000 parameters."""
    made = bench(tmp_path, model=floats(*[0] * 1000))
    made.place.settings_file.write_text(SETTINGS)
    made.start()
    made.feed(made.sites["A"].update(1, RAMP))
    made.feed(made.sites["A"].update(2, RAMP, codec="top1", error=0.245))
    yield made
    made.close()


def payload_bytes(made: Bench) -> int:
    (row,) = made.journal.query("SELECT payload_bytes FROM updates WHERE sequence = 2")
    return int(row["payload_bytes"])


def test_of_each_sites_newest_update_codec_size_and_error_are_known(two: Bench) -> None:
    a, b = read_status(two.place).sites
    assert a.accepted == 2
    assert (a.codec, a.smaller, a.error) == ("top1", 4000 / payload_bytes(two), 0.245)
    assert (b.codec, b.smaller, b.error) == (None, None, None)


def test_they_are_shown_to_people_and_to_programs(two: Bench) -> None:
    def said(*more: str) -> str:
        return CliRunner().invoke(cli, ["status", str(two.place.path), *more], catch_exceptions=False).output

    a, b = (line for line in said().splitlines() if line.startswith(("A ", "B ")))
    assert a.split()[6:11] == ["top1", f"{4000 / payload_bytes(two):.4g}", "x", "24.5", "%"]
    assert b.split()[6:9] == ["-", "-", "-"]
    first, _ = json.loads(said("--json"))["sites"]
    assert (first["codec"], first["error"]) == ("top1", 0.245)


def test_without_a_snapshot_the_size_of_models_is_not_known(two: Bench) -> None:
    for path in two.place.models.iterdir():
        path.unlink()
    assert (read_status(two.place).sites[0].smaller, read_status(two.place).sites[0].codec) == (None, "top1")
