"""Folders to start from: what is written can be drafted from and run."""

from pathlib import Path

import pytest

from broker.errors import UsageError
from deploy.cohort import Cohort
from deploy.example import EXAMPLES, MODELS, write_example
from site_worker.tabular.declaration import load_declaration
from site_worker.tabular.drafting import draft


@pytest.mark.parametrize("name", MODELS)
def test_an_own_model_and_its_hospitals(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    assert {path.name for path in write_example(name, folder)} == {f"{name}.py", "federation.toml"}
    cohort = Cohort.load(folder, seed=0)
    fit, refused = cohort.tasks(cohort.sites)
    assert (sorted(fit), refused) == (["a", "b", "c"], {})
    cohort.settings(federation="f", task="t", versions=1, sites=3)


def test_four_clinics_as_tables(tmp_path: Path) -> None:
    folder = tmp_path / "clinics"
    assert [path.name for path in write_example("clinics", folder)] == ["NY.csv", "MN.csv", "KY.csv", "MS.csv"]
    assert sum(len(path.read_text().splitlines()) - 1 for path in folder.glob("*.csv")) == 659
    text, _ = draft(folder, label="Bleeds")
    (folder / "federation.toml").write_text(text)
    declaration = load_declaration(folder / "federation.toml")
    assert (declaration.label.column, declaration.label.positive) == ("Bleeds", ("yes",))
    cohort = Cohort.load(folder, seed=0)
    fit, refused = cohort.tasks(cohort.sites)
    assert (sorted(fit), refused) == (["KY", "MN", "MS", "NY"], {})


@pytest.mark.parametrize("name", EXAMPLES)
def test_nothing_is_written_over(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("a\n1\n")
    with pytest.raises(UsageError, match="is not empty; name a new folder"):
        write_example(name, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.csv"]
