"""What a folder declares: its sites, their options, and the aggregator's settings."""

import tomllib
from pathlib import Path

import pytest

from broker.errors import UsageError
from deploy.cohort import TABULAR, Cohort
from tests.deploy.folders import LOGISTIC, heart, own


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return heart(tmp_path / "heart")


def test_every_file_is_a_site_of_the_tabular_task(folder: Path) -> None:
    cohort = Cohort.load(folder, seed=7)
    assert cohort.task == TABULAR
    assert list(cohort.sites) == ["north", "south", "tiny", "wrong"]
    assert cohort.sites["north"] == {
        "declaration": str(folder / "federation.toml"), "data": str(folder / "north.csv"), "seed": 7,
    }  # fmt: skip


def test_an_own_task_runs_at_the_sites_that_are_named(tmp_path: Path) -> None:
    cohort = Cohort.load(own(tmp_path / "own"), seed=7)
    assert cohort.task == f"{tmp_path / 'own' / 'model.py'}:task"
    assert cohort.sites == {"a": {"site": 1}, "b": {"site": 2}}
    fit, refused = cohort.tasks(cohort.sites)
    assert ({name: task.name for name, task in fit.items()}, refused) == ({"a": "larger", "b": "larger"}, {})


def test_a_file_that_does_not_fit_is_refused_with_file_row_and_column_and_the_others_are_not(folder: Path) -> None:
    cohort = Cohort.load(folder, seed=0)
    fit, refused = cohort.tasks(cohort.sites)
    assert list(fit) == ["north", "south", "tiny"]
    assert list(refused) == ["wrong"]
    for named in ("wrong.csv", "row 21", "'age'", "correct it"):
        assert named in refused["wrong"]
    assert "sixty" not in refused["wrong"]


def test_settings_have_what_is_declared_and_suit_a_machine_of_ones_own(folder: Path) -> None:
    cohort = Cohort.load(folder, seed=0)
    read = tomllib.loads(cohort.settings(federation="heart-0", task="t", versions=3, sites=20))
    assert (read["federation"], read["task"], read["versions"]) == ("heart-0", "t", 3)
    assert read["plan"] == {"steps": 10}
    assert read["aggregation"] == {"max_wait_s": 5.0}
    assert read["start"]["min_sites"] == 20


def test_what_is_declared_of_the_aggregation_goes_before(folder: Path) -> None:
    (folder / "federation.toml").write_text(LOGISTIC + "[aggregation]\nstrategy = 'fedbuff'\nbuffer_size = 2\n")
    read = tomllib.loads(Cohort.load(folder, seed=0).settings(federation="h", task="t", versions=3, sites=20))
    assert read["aggregation"] == {"max_wait_s": 5.0, "strategy": "fedbuff", "buffer_size": 2}


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("[aggregation]\nbuffer_sise = 2\n", "`aggregation`"),
        ("[aggregation]\nstrategy = 'fedfoo'\n", "choose one of fedavg, fedasync"),
        ("[aggregation]\nbuffer_size = -1\n", "aggregation.buffer_size"),
    ],
)
def test_a_mistake_in_plan_or_aggregation_names_the_declaration_and_the_field(
    folder: Path, more: str, told: str
) -> None:
    (folder / "federation.toml").write_text(LOGISTIC + more)
    with pytest.raises(UsageError, match=r"federation\.toml: ") as error:
        Cohort.load(folder, seed=0).settings(federation="h", task="t", versions=3, sites=2)
    assert told in str(error.value)


def test_a_folder_without_files_says_what_to_put_there(tmp_path: Path) -> None:
    (tmp_path / "federation.toml").write_text(LOGISTIC)
    with pytest.raises(UsageError, match=r"has no site: put a \.csv or \.parquet file for each hospital"):
        Cohort.load(tmp_path, seed=0)


def test_a_hospital_that_is_not_there_cannot_be_left_out(folder: Path) -> None:
    with pytest.raises(UsageError, match="choose one of north, south, tiny, wrong"):
        Cohort.load(folder, seed=0).without("east")
