"""A journal of the first release: it is upgraded in place, and folding it gives the bits that it had then.

tests/golden/journal-1.sql is its dump: two sites, buffers of three updates, so that one site was often in one twice.
"""

import sqlite3
from pathlib import Path

import pytest

from aggregator.journal import Journal
from aggregator.opening import replay, restore, rule_of
from aggregator.settings import Aggregation, Folder
from broker.weights import Layout, save_model
from tests.aggregator.bench import floats

DUMP = Path(__file__).parents[1] / "golden" / "journal-1.sql"


@pytest.fixture
def place(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path)
    database = sqlite3.connect(folder.journal_file)
    database.executescript(DUMP.read_text())
    database.close()
    model = floats(1, 2, 3, 4)
    layout = Layout.of({"w": model})
    journal = Journal(folder.journal_file)
    save_model(folder.snapshot(journal.versions()[0].digest), layout, model)
    journal.close()
    return folder


def test_every_version_has_the_digest_that_it_had(place: Folder) -> None:
    journal = Journal(place.journal_file)
    assert [(one.row.version, one.same) for one in replay(journal, place)] == [(0, True), (1, True), (2, True)]
    _, fold = restore(journal, place, Aggregation())
    assert (fold.version, [one.ordinal for one in fold.buffer]) == (2, [7, 8])
    assert fold.memory["A"].gaps == (1,)
    journal.close()


def test_the_rule_of_its_newest_version_is_in_force_with_the_meaning_that_it_had(place: Folder) -> None:
    journal = Journal(place.journal_file)
    (rule,) = journal.rules()
    assert (rule.version, rule_of(rule)) == (
        2,
        Aggregation("fedbuff", buffer_size=3, one_place=False, staleness="polynomial"),
    )
    journal.close()
