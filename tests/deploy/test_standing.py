"""The report of a federation that goes on, from journals that a reader can add up by hand."""

import sqlite3
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner

from broker.commands import run_cli
from broker.errors import StorageError, UsageError
from broker.troubles import CAUSES, Trouble
from deploy.cli import cli
from deploy.events import events_in, read_events, reading
from deploy.history import Absence
from deploy.report import render
from deploy.standing import read_standing
from deploy.tables import Measured, by_version, measures, received
from tests.deploy.journals import FOUNDED, found, many, small, writing
from tests.deploy.test_report import words

NOW = FOUNDED + 3600.0


def report(*arguments: object) -> tuple[int, str]:
    """Exit code and what the command said."""
    ran = CliRunner().invoke(cli, ["report", *map(str, arguments)])
    return ran.exit_code, ran.output


def test_it_ends_with_the_last_event_of_an_aggregator_that_does_not_run(tmp_path: Path) -> None:
    history = read_standing(small(tmp_path), now=NOW)
    assert (history.started, history.seconds) == (FOUNDED, 40.0)
    assert history.standing is not None
    assert history.standing.service == "not running"


def test_updates_know_their_version_and_an_open_one_counts_for_the_next(tmp_path: Path) -> None:
    merged = read_standing(small(tmp_path), now=NOW).merged
    assert [(one.site, one.version, one.staleness, one.payload_bytes) for one in merged] == [
        ("NY", 1, 0, 100),
        ("NY", 2, 0, 100),
        ("MN", 3, 2, 500),
        ("NY", 3, 0, 100),
        ("NY", 4, 0, 100),
    ]


def test_absences_are_from_the_first_time_a_site_was_gone_to_the_next_that_it_was_there(tmp_path: Path) -> None:
    folder = small(tmp_path)
    with writing(folder) as rows:
        rows.presence("KY", at=35, present=False)  # the aggregator looked again: nothing new
        rows.presence("gone", at=36, present=False)  # removed since
    assert read_standing(folder, now=NOW).absences == (
        Absence("KY", FOUNDED + 1, FOUNDED + 40, "still away"),
        Absence("MN", FOUNDED + 12, FOUNDED + 20, ""),
        Absence("gone", FOUNDED + 36, FOUNDED + 40, "removed since"),
    )


def test_bytes_add_up_by_site_and_by_version(tmp_path: Path) -> None:
    history = read_standing(small(tmp_path), now=NOW)
    assert history.parameters == 250
    rows = [(one.site, one.updates, one.bytes, one.smaller, one.codecs, one.refused_bytes) for one in received(history)]
    assert rows == [
        ("KY", 0, 0, None, "", 2048),
        ("MN", 1, 500, 2.0, "lowrank", 0),
        ("NY", 4, 400, 10.0, "int8", 0),
        ("all", 5, 900, 5000 / 900, "int8 (4), lowrank (1)", 2048),
    ]
    assert by_version(history) == [(0, 0, 1000), (1, 100, 10), (2, 100, 10), (3, 600, 0), (4, 100, 0)]


def test_each_sites_first_and_newest_measures_are_told_and_nan_is_no_number(tmp_path: Path) -> None:
    history = read_standing(small(tmp_path), now=NOW)
    assert history.metrics == ("auc", "brier")
    assert measures(history, history.metrics) == [
        Measured("MN", 1, 300, 0, (0, 0.6), (0.6, 0.24)),
        Measured("NY", 4, 100, 3, (0, 0.5), (0.8, 0.15)),
    ]
    assert history.scores["NY"] == {0: (0.5, 100), 1: (0.7, 100), 3: (0.8, 100)}


def test_a_site_whose_newest_measure_is_nan_shows_a_dash(tmp_path: Path) -> None:
    folder = small(tmp_path)
    with closing(sqlite3.connect(folder.journal_file)) as database:
        database.execute("UPDATE updates SET metrics = ? WHERE site = 'MN'", ('{"auc": NaN, "brier": 0.24}',))
        database.commit()
    history = read_standing(folder, now=NOW)
    assert measures(history, ("auc",))[0].values == (None,)
    assert "MN" not in history.scores
    assert "MN 1 300 0 \N{EN DASH} 0 \N{EN DASH} 0.24" in words(render(history))


def test_the_page_tells_all_of_it(tmp_path: Path) -> None:
    seen = words(render(read_standing(small(tmp_path), now=NOW)))
    for text in (
        "founded 14 Nov 2023, 22:13:20 UTC; as of 14 Nov 2023, 22:14:00 UTC",
        "The aggregator was not running.",
        "In the open buffer, for the next version: 1 update.",
        "the mean auc went from 0.575 to 0.650",
        "KY away from 14 Nov 2023, 22:13:21 UTC",
        "All accepted updates together took 900 bytes, 5.556 times less than float32.",
        "In full, 1 model was sent out, 1.0 kB; as differences 2, 20 bytes.",
        "In force: fedbuff, switched 1 time",
        "3 14 Nov 2023, 22:13:44 UTC fedbuff buffer_size = 2",
        "its delta's norm is too large 1 14 Nov 2023, 22:13:45 UTC",
    ):
        assert text in seen
    assert "Together or alone" not in seen
    assert "What is wrong now" not in seen


def test_troubles_have_a_place_of_their_own(tmp_path: Path) -> None:
    trouble = Trouble(CAUSES["site-away"], "KY", "<i>power</i> cut", FOUNDED + 1)
    page = render(read_standing(small(tmp_path), now=NOW), troubles=(trouble, Trouble(CAUSES["site-slow"], "MN")))
    seen = words(page)
    assert "Act: site-away, KY since 14 Nov 2023, 22:13:21 UTC" in seen
    assert "(<i>power</i> cut)" in seen
    assert "<i>power" not in page
    assert "Know: site-slow, MN ." in seen
    assert CAUSES["site-away"].remedy in seen


def test_the_command_tells_what_is_wrong_now(tmp_path: Path) -> None:
    report(small(tmp_path / "agg").path, "--out", tmp_path / "report.html")
    assert CAUSES["aggregator-down"].remedy in words((tmp_path / "report.html").read_text("utf-8"))


def test_a_federation_in_which_nothing_was_accepted_says_so(tmp_path: Path) -> None:
    seen = words(render(read_standing(found(tmp_path), now=NOW)))
    for text in (
        "No update has been accepted yet",
        "No site has evaluated",
        "No site has joined",
        "Nothing was refused",
    ):
        assert text in seen
    assert "Not started" in seen


def test_one_site_is_a_report_without_a_sum_of_all(tmp_path: Path) -> None:
    folder = many(tmp_path, sites=1, each=40)
    history = read_standing(folder, now=NOW)
    assert [one.site for one in received(history)] == ["hospital-000"]
    ET.fromstring(render(history))


def test_more_metrics_than_are_drawn_are_named(tmp_path: Path) -> None:
    page = render(read_standing(many(tmp_path, sites=3, each=20, metrics=6), now=NOW))
    assert "Not shown: metric4, metric5" in words(page)
    assert page.count("by model version, of each site and their mean</title>") == 4


def test_thousands_of_updates_stay_a_small_page(tmp_path: Path) -> None:
    page = render(read_standing(many(tmp_path, sites=100, each=100, metrics=4), now=NOW))
    assert len(page.encode()) < 900_000


def test_reading_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    folder = small(tmp_path / "agg")
    before = {path.name: path.read_bytes() for path in folder.path.iterdir() if path.is_file()}
    code, said = report(folder.path, "--out", tmp_path / "report.html")
    assert (code, "5 updates accepted so far" in said) == (0, True)
    after = {path.name: path.read_bytes() for path in folder.path.iterdir() if path.is_file()}
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        ("DROP TABLE versions", "cannot be read"),
        ("PRAGMA user_version = 2", "schema version 2"),
    ],
)
def test_a_journal_that_cannot_be_read_is_one_sentence(tmp_path: Path, spoil: str, error: str) -> None:
    folder = small(tmp_path)
    with closing(sqlite3.connect(folder.journal_file)) as database:
        database.execute(spoil)
        database.commit()
    with pytest.raises(StorageError, match=error):
        read_standing(folder, now=NOW)


def test_no_journal_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run_cli(cli, ["report", str(tmp_path / "nothing"), "--out", str(tmp_path / "report.html")])
    assert code == UsageError.exit_code
    assert capsys.readouterr().err.startswith("error: ")
    folder = found(tmp_path / "agg")
    folder.journal_file.unlink()
    assert run_cli(cli, ["report", str(folder.path), "--out", str(tmp_path / "report.html")]) == UsageError.exit_code
    assert "There is no" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_a_place_that_is_not_there_is_told_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run_cli(cli, ["report", str(tmp_path / "agg"), "--out", str(tmp_path / "no" / "report.html")])
    assert code == UsageError.exit_code
    assert "cannot be written" in capsys.readouterr().err


def test_what_is_added_while_it_is_read_is_for_the_next_report(tmp_path: Path) -> None:
    folder = small(tmp_path)
    with reading(folder) as journal:
        before = events_in(journal, folder)
        with writing(folder) as rows:
            rows.refusal("NY", "too late", at=50)
        assert events_in(journal, folder) == before
    assert len(read_events(folder).refusals) == 2
