"""`fedqueue status` of folders that lie there: what it finds, what it says, and how it ends."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.commands import run_cli
from broker.identity import PrivateKey
from broker.node import Node
from deploy.cli import cli
from site_worker.outbox import Outbox
from site_worker.settings import Folder
from tests.aggregator.bench import Bench, bench, floats

AGGREGATOR = 'federation = "fed"\ntask = "sepsis"\n[aggregation]\nbuffer_size = 2\n'


@pytest.fixture
def aggregator(tmp_path: Path) -> Iterator[Bench]:
    """A federation whose service does not run; A has sent an update."""
    made = bench(tmp_path, model=floats(0, 0))
    made.place.settings_file.write_text(AGGREGATOR)
    made.start()
    made.feed(made.sites["A"].update(1, floats(1, 1)))
    yield made
    made.close()


@pytest.fixture
def site(tmp_path: Path) -> Folder:
    """A hospital that has never run."""
    folder = Folder(tmp_path / "ny")
    folder.path.mkdir()
    folder.settings_file.write_text('site = "NY"\ntask = "module:function"\n')
    PrivateKey.load_or_make(folder.key_file)
    return folder


Say = Callable[..., tuple[int, str]]


@pytest.fixture
def status(capsys: pytest.CaptureFixture[str]) -> Say:
    """Run the command: its exit code and what it said."""

    def run(*arguments: object) -> tuple[int, str]:
        code = run_cli(cli, ["status", *map(str, arguments)])
        return code, "".join(capsys.readouterr())

    return run


def test_an_aggregator_that_does_not_run_has_failed_and_somebody_must_act(status: Say, aggregator: Bench) -> None:
    code, said = status(aggregator.place.path)
    assert code == 1
    assert "\nfailed: it stands still (aggregator-down); version 0 was made" in said
    assert "\nwaits for: somebody to start it\n" in said
    assert "\nACT   aggregator-down: The aggregator does not run" in said


def test_for_programs_it_is_a_list_of_folders_with_their_troubles(status: Say, aggregator: Bench) -> None:
    (seen,) = json.loads(status(aggregator.place.path, "--json")[1])
    assert (seen["kind"], seen["federation"], seen["accepted"]) == ("aggregator", "fed", 1)
    assert [one["cause"] for one in seen["troubles"]] == ["aggregator-down"]


def test_a_site_that_never_ran_is_told_how_to_start(status: Say, site: Folder) -> None:
    assert status(site.path) == (0, f"site NY: it has never run; start it with 'fedqueue site run {site.path}'\n")


def test_a_site_tells_what_its_worker_noted(status: Say, site: Folder) -> None:
    outbox = Outbox(site.outbox_file)
    outbox.note_activity("failed", None, "The broker refuses the login.", at=1.0)
    outbox.note_end(denied=True)
    outbox.close()
    (seen,) = json.loads(status(site.path, "--json")[1])
    assert [(one["cause"], one["detail"]) for one in seen["troubles"]] == [
        ("login-refused", "The broker refuses the login.")
    ]


def test_a_broker_that_does_not_run_is_down(status: Say, tmp_path: Path) -> None:
    Node.create(tmp_path / "broker")
    code, said = status(tmp_path / "broker")
    assert code == 1
    assert "ACT   broker-down" in said


def test_all_folders_below_are_shown_broker_first(status: Say, aggregator: Bench, site: Folder, tmp_path: Path) -> None:
    Node.create(tmp_path / "zz")
    seen = json.loads(status(tmp_path, "--json")[1])
    assert [one["kind"] for one in seen] == ["broker", "aggregator", "site"]


def test_what_cannot_be_read_hides_no_other(status: Say, aggregator: Bench, site: Folder, tmp_path: Path) -> None:
    site.settings_file.write_text("no TOML")
    first, second = json.loads(status(tmp_path, "--json")[1])
    assert (first["kind"], second["kind"]) == ("aggregator", "unreadable")
    assert "site.toml is not a readable TOML file" in second["error"]


def test_a_journal_that_cannot_be_read_does_not_pass_for_well(status: Say, aggregator: Bench) -> None:
    aggregator.close()
    aggregator.place.journal_file.write_bytes(b"no database" * 1000)
    code, said = status(aggregator.place.path)
    assert code == 1
    assert "ACT   aggregator-down: " in said
    assert "file is not a database" in said


@pytest.mark.parametrize("place", ["nowhere", "empty"])
def test_a_folder_that_is_none_of_ours_is_one_sentence(status: Say, tmp_path: Path, place: str) -> None:
    (tmp_path / "empty").mkdir()
    code, said = status(tmp_path / place)
    assert code == 2
    assert said.startswith("error: ")
    assert said.count("\n") == 1
