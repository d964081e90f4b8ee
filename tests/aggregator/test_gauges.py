"""What the aggregator tells Prometheus: by a journal whose every number a reader can add up."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aggregator.gauges import MEASURES, Gauges
from aggregator.health import troubles
from aggregator.settings import Aggregation
from aggregator.status import read_status
from aggregator.tally import _METRICS, _NEWEST, _SINCE
from broker.database import open_readonly
from broker.measures import Spread
from broker.troubles import CAUSES, Trouble
from tests.aggregator.bench import Bench, bench, floats

Readings = dict[tuple[str, ...], Any]
SETTINGS = 'federation = "fed"\ntask = "sepsis"\n[aggregation]\nbuffer_size = 2\n'
DELTA = floats(1, 0, 0, 0)
BYTES = 33  # four numbers of 4 bytes in their frame


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Bench]:
    """A has sent two updates, at 100 s, of which version 1 is made; a third of it was refused, B has sent nothing."""
    made = bench(tmp_path, aggregation=Aggregation(strategy="fedbuff", buffer_size=2, one_place=False))
    made.place.settings_file.write_text(SETTINGS)
    made.start()
    made.present("A", "B")
    made.feed(made.sites["A"].update(1, DELTA, metrics=[("auc", 0.5), ("scores.p00", 3.0)]))
    made.feed(made.sites["A"].update(2, DELTA, metrics=[("auc", 0.75), ("loss", 0.3), ("scores.p00", 3.0)]))
    made.feed(made.sites["A"].update(3, floats(1e9, 0, 0, 0)))
    made.present("A")
    yield made
    made.close()


def read(gauges: Gauges) -> Readings:
    found = [((one.measure.name, *one.labels), one.value) for one in gauges.read()]
    assert len({name for name, _ in found}) == len(found)
    return dict(found)


def gauges(made: Bench, *wrong: Trouble, clock: Callable[[], float] = lambda: 0.0) -> Gauges:
    return Gauges(made.place, "fed", lambda: wrong, clock=clock)


def of_site(found: Readings, site: str) -> dict[str, Any]:
    """Those of a site, without their prefix and the federation; of a metric, its name."""
    return {
        (labels[2] if labels[2:] else name.removeprefix("fedqueue_site_")): value
        for (name, *labels), value in found.items()
        if name.startswith("fedqueue_site_") and labels[:2] == ["fed", site]
    }


def test_of_the_federation_version_buffer_and_connection_are_told(two: Bench) -> None:
    found = read(gauges(two))
    told = {name: value for (name, *labels), value in found.items() if labels == ["fed"] and "disk" not in name}
    assert told == {
        "fedqueue_connected": True,
        "fedqueue_model_version": 1,
        "fedqueue_model_version_timestamp_seconds": 100.0,
        "fedqueue_updates_buffered": 0,
    }


def test_of_each_site_what_it_sent_is_told(two: Bench) -> None:
    found = read(gauges(two))
    assert of_site(found, "A") == {
        "present": True, "base_version": 0, "staleness_versions": 0, "last_update_timestamp_seconds": 100.0,
        "updates_accepted_total": 2, "updates_refused_total": 1, "update_bytes_total": 2 * BYTES,
        "training_seconds_total": 1.0, "auc": 0.75, "loss": 0.3,
    }  # fmt: skip
    assert of_site(found, "B") == {
        "present": False, "updates_accepted_total": 0, "updates_refused_total": 0, "update_bytes_total": 0,
        "training_seconds_total": 0.0,
    }  # fmt: skip


def test_what_comes_later_is_added_and_payloads_that_were_removed_still_count(two: Bench) -> None:
    made = gauges(two)
    read(made)
    two.journal.begin()
    two.journal.remove_payloads(through=2, but=())
    two.journal.commit()
    two.now = 300.0
    two.feed(two.sites["A"].update(4, DELTA))  # from version 0, while version 1 is the newest
    two.feed(two.sites["B"].update(1, DELTA))
    two.feed(two.sites["B"].update(2, floats(1e9, 0, 0, 0)))
    for found in (read(made), read(gauges(two))):
        a, b = of_site(found, "A"), of_site(found, "B")
        assert (a["updates_accepted_total"], a["update_bytes_total"], a["training_seconds_total"]) == (
            3,
            3 * BYTES,
            1.5,
        )
        assert (a["staleness_versions"], a["last_update_timestamp_seconds"], a["auc"]) == (1, 300.0, 0.5)
        assert (b["updates_accepted_total"], b["updates_refused_total"]) == (1, 1)
        spread = found["fedqueue_update_staleness_versions", "fed", "A"]
        bounds = ((0, 2), (1, 3), (2, 3), (5, 3), (10, 3), (20, 3), (50, 3), (100, 3))
        assert spread == Spread(bounds, count=3, total=1)
        assert found["fedqueue_model_version", "fed"] == 2


def test_an_update_is_counted_once_however_often_one_asks(two: Bench) -> None:
    made = gauges(two)
    assert read(made) == read(made)


def test_counting_reads_the_index_and_never_goes_over_the_updates_again(two: Bench) -> None:
    database = open_readonly(two.place.journal_file)
    plans = [
        [row["detail"] for row in database.execute(f"EXPLAIN QUERY PLAN {query}", ("A", 1)[: query.count("?")])]
        for query in (_SINCE, _NEWEST, _METRICS)
    ]
    database.close()
    assert plans[0][0] == "SEARCH updates USING COVERING INDEX updates_of_sites (site=? AND ordinal>?)"
    assert plans[1] == ["SEARCH updates USING COVERING INDEX updates_of_sites (site=? AND ordinal=?)"]
    assert plans[2] == ["SEARCH updates USING INTEGER PRIMARY KEY (rowid=?)"]


def test_refusals_that_the_journal_forgets_still_count(two: Bench) -> None:
    made = gauges(two)
    read(made)
    two.journal.query("DELETE FROM refused")
    assert of_site(read(made), "A")["updates_refused_total"] == 1


def test_a_site_that_was_removed_is_no_longer_told(two: Bench) -> None:
    made = gauges(two)
    read(made)
    two.journal.begin()
    two.journal.remove("A")
    two.journal.commit()
    assert of_site(read(made), "A") == {}


def test_the_folder_is_gone_through_every_30_seconds_at_most(two: Bench) -> None:
    now = [0.0]
    made = gauges(two, clock=lambda: now[0])
    before = read(made)["fedqueue_disk_used_bytes", "fed"]
    (two.place.path / "large").write_bytes(bytes(1 << 20))
    now[0] = 29.0
    assert read(made)["fedqueue_disk_used_bytes", "fed"] == before
    now[0] = 30.0
    assert read(made)["fedqueue_disk_used_bytes", "fed"] >= before + (1 << 20)


def test_troubles_are_told_by_cause_and_site(two: Bench) -> None:
    found = read(gauges(two, Trouble(CAUSES["site-away"], "B"), Trouble(CAUSES["broker-down"])))
    assert [name for name in found if name[0] == "fedqueue_trouble"] == [
        ("fedqueue_trouble", "fed", "broker-down", ""),
        ("fedqueue_trouble", "fed", "site-away", "B"),
    ]


def test_every_measure_is_in_the_table(two: Bench) -> None:
    told = {one.measure for one in gauges(two, Trouble(CAUSES["site-away"], "B")).read()}
    assert told == set(MEASURES)


def test_a_status_that_is_not_counted_has_the_same_troubles(two: Bench) -> None:
    whole, light = read_status(two.place), read_status(two.place, counted=False)
    assert troubles(light, 200.0) == troubles(whole, 200.0) != []
    assert (light.accepted, light.refused, light.disk.used_bytes, light.disk.payload_bytes) == (0, 0, 0, 0)
    assert (whole.accepted, whole.refused, whole.disk.payload_bytes) == (2, 1, 2 * BYTES)
    assert [(one.accepted, one.bytes, one.refused) for one in whole.sites] == [(2, 2 * BYTES, 1), (0, 0, 0)]
    assert [one.refusal for one in light.sites] == [one.refusal for one in whole.sites]
    two.journal.begin()
    two.journal.remove("A")
    two.journal.commit()
    whole, light = read_status(two.place), read_status(two.place, counted=False)
    assert [(one.site, one.state) for one in whole.sites] == [("A", "removed"), ("B", "away")]
    assert [one.site for one in light.sites] == ["B"]
