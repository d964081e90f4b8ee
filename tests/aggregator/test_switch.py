"""`fedqueue aggregator switch`, from the file to the running loop."""

from pathlib import Path

import pytest

from aggregator.__main__ import cli
from aggregator.opening import rule_of
from aggregator.service import _decisions
from aggregator.settings import Aggregation
from aggregator.status import read_status
from broker.commands import run_cli
from tests.aggregator.bench import Bench, floats
from tests.aggregator.conftest import MakeBench

FILE = 'federation = "fed"\ntask = "sepsis"\n[aggregation]\nstrategy = "{}"\nbuffer_size = 2\n'


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    made = make_bench(aggregation=Aggregation(strategy="fedbuff", buffer_size=2))
    made.start()
    write(made, "fedbuff")
    return made


def write(bench: Bench, strategy: str) -> None:
    bench.place.settings_file.write_text(FILE.format(strategy))


def said(bench: Bench, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert run_cli(cli, ["switch", str(bench.place.path), *words]) == 0
    return capsys.readouterr().out


def test_it_says_what_changes_and_the_service_sees_it(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.feed(bench.sites["A"].update(1, floats(1, 1, 1, 1)))
    write(bench, "ca2fl")
    assert "strategy: fedbuff -> ca2fl\nNothing has been changed." in said(bench, capsys, "--dry-run")
    assert rule_of(bench.journal.rules()[-1]).strategy == "fedbuff"
    assert (read_status(bench.place).strategy, read_status(bench.place).switch_pending) == ("fedbuff", True)
    assert run_cli(cli, ["status", str(bench.place.path)]) == 0
    assert "see 'fedqueue aggregator switch'" in capsys.readouterr().out

    assert "strategy: fedbuff -> ca2fl\nIn force for the versions after 0." in said(bench, capsys)
    assert (read_status(bench.place).strategy, read_status(bench.place).switch_pending) == ("ca2fl", False)
    ruled = _decisions(bench.journal)[-1]
    assert ruled.aggregation == Aggregation(strategy="ca2fl", buffer_size=2)
    bench.feed(ruled)
    bench.feed(bench.sites["B"].update(1, floats(1, 1, 1, 1)))
    assert '"strategy":"ca2fl"' in bench.journal.versions()[-1].rule
    assert "in force already" in said(bench, capsys)


def test_before_the_first_update_the_file_is_what_is_in_force(bench: Bench) -> None:
    write(bench, "calibrated")
    assert (read_status(bench.place).strategy, read_status(bench.place).switch_pending) == ("calibrated", False)


def test_a_mistake_in_the_file_is_told_and_nothing_changes(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    write(bench, "fedmax")
    assert run_cli(cli, ["switch", str(bench.place.path)]) == 2
    assert "There is no strategy 'fedmax'" in capsys.readouterr().err
    assert len(bench.journal.rules()) == 1


def test_a_folder_without_a_federation_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(cli, ["switch", str(tmp_path)]) == 2
    assert "no settings file" in capsys.readouterr().err
