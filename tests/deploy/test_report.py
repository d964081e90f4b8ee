"""The report of a small run that a reader can add up by hand, and of one as large as they come."""

import math
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from broker.errors import StorageError, UsageError
from deploy import drawing, figures
from deploy.history import (
    Absence,
    Evaluated,
    History,
    Ledger,
    Merged,
    Published,
    Refusal,
    SiteRow,
    mean_by_version,
    printable,
)
from deploy.report import render, span, write
from deploy.tables import Contribution, compared, contributions, refusals

EMPTY = History("lung", 0.0, 0.0, (), (), (), (), (), (), Ledger(0, 0, 0, 0, 0, 0), ())

SMALL = History(
    federation="lung",
    started=1000.0,
    seconds=60.0,
    sites=(SiteRow("NY", "idle", 2, 0, 2, 0, 0), SiteRow("M&N", "away", None, 1, 1, 1, 1)),
    merged=(
        Merged("NY", 1, base_version=0, version=1, staleness=0, weight=1.0, examples=100, accepted_at=1010.0),
        Merged("NY", 2, base_version=1, version=2, staleness=0, weight=1.0, examples=100, accepted_at=1030.0),
        Merged("M&N", 1, base_version=0, version=2, staleness=1, weight=0.5, examples=300, accepted_at=1031.0),
    ),
    published=(Published(1, 1010.0, "all present contributed", 1), Published(2, 1031.0, "buffer full", 2)),
    evaluated=(
        Evaluated("NY", 0, {"auc": 0.5}, 100, 1001.0),
        Evaluated("M&N", 0, {"auc": 0.6}, 300, 1002.0),
        Evaluated("NY", 2, {"auc": 0.9}, 100, 1040.0),
    ),
    refusals=(
        Refusal("M&N", 2, "<script>alert('x')</script>", 1020.0),
        Refusal(None, None, "not signed by a known site", 1021.0),
    ),
    absences=(Absence("M&N", 1035.0, 1055.0, "killed <b>hard</b>"),),
    ledger=Ledger(sent=5, accepted=3, refused=1, waiting=1, lost=0, doubled=0),
    table=(("NY alone", 0.79), ("M&N alone", 0.81), ("federated", 0.864), ("pooled", 0.869)),
    notes=("a drill",),
)


def words(page: str) -> str:
    """What a reader sees; fails if the page is not well-formed."""
    return " ".join(" ".join(ET.fromstring(page).itertext()).split())


def test_the_account_is_there_with_its_verdict() -> None:
    seen = words(render(SMALL))
    assert "sent 5 = accepted 3 + refused 1 + waiting 1; lost 0, counted twice 0" in seen
    assert "✓ OK." in seen
    assert "NOT OK" not in seen


@pytest.mark.parametrize(
    "ledger",
    [Ledger(5, 3, 1, 1, 1, 0), Ledger(5, 3, 1, 1, 0, 1), Ledger(5, 3, 1, 0, 0, 0)],
    ids=["lost", "doubled", "sum"],
)
def test_an_account_that_does_not_close_is_not_ok(ledger: Ledger) -> None:
    assert "✗ NOT OK." in words(render(replace(SMALL, ledger=ledger)))


def test_sites_reasons_and_values_are_all_shown() -> None:
    seen = words(render(SMALL))
    for text in ("NY", "M&N", "<script>alert('x')</script>", "not signed by a known site", "killed <b>hard</b>"):
        assert text in seen
    for text in ("0.790", "0.810", "0.864", "0.869", "a drill", "0.064 above the average site alone", "0.005 below"):
        assert text in seen


def test_what_sites_wrote_is_escaped_and_nothing_is_loaded_from_outside() -> None:
    page = render(SMALL)
    assert "&lt;script&gt;" in page
    for unwanted in ("<script", "<b>hard", "http://", "https://", "<link", "<img", "@import", "xmlns"):
        assert unwanted not in page


def test_every_reference_in_the_drawings_has_one_target() -> None:
    elements = list(ET.fromstring(render(SMALL)).iter())
    ids = [one.attrib["id"] for one in elements if "id" in one.attrib]
    wanted = {one.attrib["href"] for one in elements if "href" in one.attrib}
    wanted |= {one.attrib["clip-path"][4:-1] for one in elements if "clip-path" in one.attrib}
    assert len(ids) == len(set(ids))
    assert wanted == {f"#{one}" for one in ids}


@pytest.mark.parametrize(
    "name", [r"$\frac$", "\x00\x1b[2J\ud800\u202e", "病院", "]]>--&lt;", 'a" onload="x', "x" * 300]
)
def test_no_name_breaks_the_page(name: str) -> None:
    named = replace(SMALL, federation=name, sites=(replace(SMALL.sites[0], site=name),), metric="auc")
    page = render(replace(named, merged=(replace(SMALL.merged[0], site=name),), notes=(name,)))
    page.encode()
    assert printable(name)[:20] in words(page)
    assert all("onload" not in one.attrib for one in ET.fromstring(page).iter())


def test_a_run_in_which_nothing_happened_has_a_report() -> None:
    seen = words(render(EMPTY))
    for text in ("No comparison", "No site has evaluated", "No site has joined", "No update", "Nothing was refused"):
        assert text in seen


def test_sites_that_never_sent_and_values_that_are_not_numbers_are_shown_as_such() -> None:
    idle = replace(
        SMALL, merged=(), evaluated=(Evaluated("NY", 0, {"auc": math.nan}, 9, 1001.0),), table=(("NY alone", math.nan),)
    )
    seen = words(render(idle))
    assert "No site has evaluated" in seen
    assert "not known" in seen


def test_the_mean_is_weighted_by_rows_and_keeps_the_last_score_of_a_site_that_skipped() -> None:
    assert dict(mean_by_version(SMALL.scores)) == pytest.approx({0: 0.575, 2: 0.675})


def test_contributions_add_up() -> None:
    assert contributions(SMALL) == [Contribution("NY", 2, 200, 0.0, 80.0), Contribution("M&N", 1, 300, 1.0, 20.0)]


def test_how_the_newest_update_of_a_site_was_compressed_is_shown() -> None:
    small, whole = replace(SMALL.sites[0], codec="lowrank", smaller=331.04, error=0.245), SMALL.sites[1]
    seen = words(render(replace(SMALL, sites=(small, whole))))
    assert "smaller newest smaller newest left out" in seen
    assert "331 \N{MULTIPLICATION SIGN} 24.5 %" in seen


def test_refusals_of_one_kind_are_one_row() -> None:
    again = replace(SMALL, refusals=(*SMALL.refusals, replace(SMALL.refusals[1], at=1005.0)))
    assert [(row.site, row.times, row.first, row.last) for row in refusals(again)] == [
        ("unknown sender", 2, 1005.0, 1021.0),
        ("M&N", 1, 1020.0, 1020.0),
    ]


def test_a_long_comparison_begins_with_the_federation() -> None:
    alone = tuple((f"H{number} alone", 0.7) for number in range(20))
    assert [row.name for row in compared((*alone, *SMALL.table[2:]))][:3] == ["federated", "pooled", "H0 alone"]
    assert compared(SMALL.table)[0].name == "NY alone"


@pytest.mark.parametrize(
    ("largest", "labels"),
    [
        (4, ["0 (fresh)", "1", "2", "3 to 5", "6 or more"]),
        (60, ["0 (fresh)", "1 to 3", "4 to 7", "8 to 15", "16 or more"]),
        (900, ["0 (fresh)", "1 to 9", "10 to 29", "30 to 99", "100 or more"]),
    ],
)
def test_classes_of_staleness_follow_the_run(largest: int, labels: list[str]) -> None:
    stale = replace(SMALL, merged=(replace(SMALL.merged[0], staleness=largest),))
    assert [band.label for band in figures.bands(stale)] == labels


def test_labels_are_apart_and_stay_inside() -> None:
    assert drawing.spread([1.0, 5.0, 5.5, 9.5], gap=2.0, high=10.0) == [1.0, 5.0, 7.0, 9.5]
    assert drawing.spread([9.0, 9.5, 10.0], gap=2.0, high=10.0) == [6.0, 8.0, 10.0]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (61.2, "61.2 s"), (723, "12 min 3 s"), (54_120, "15 h 2 min"), (273_600, "3 d 4 h")],
)
def test_durations_read_as_one_would_say_them(seconds: float, text: str) -> None:
    assert span(seconds) == text


def large(*, sites: int, updates: int) -> History:
    names = [f"hospital-{number:03d}" for number in range(sites)]
    return replace(
        SMALL,
        seconds=50_000.0,
        sites=tuple(SiteRow(name, "idle", 1, 0, 1, 0, 0) for name in names),
        merged=tuple(
            Merged(names[n * 7 % sites], n, 0, 1, n * n % 11, 0.5, 300, 1000.0 + n * 50_000 / updates)
            for n in range(updates)
        ),
        published=tuple(Published(version, 1000.0 + version * 50, "buffer full", 50) for version in range(1000)),
        evaluated=tuple(
            Evaluated(name, version, {"auc": 0.5 + (version * 13 + lane * 7) % 101 / 300}, 100, 1000.0 + version)
            for lane, name in enumerate(names)
            for version in range(0, 1000, 5)
        ),
        refusals=tuple(Refusal(names[0], n, f"reason {n} " + "long " * 99, 1000.0 + n) for n in range(5000)),
        absences=tuple(Absence(names[n % sites], 1000.0 + n, 3000.0 + n, "network") for n in range(2000)),
        table=tuple((f"{name} alone", 0.7) for name in names),
    )


def test_fifty_thousand_updates_of_180_sites_stay_a_small_page() -> None:
    page = render(large(sites=180, updates=50_000))
    assert len(page.encode()) < 500_000
    assert "one in 10 of a site" in words(page)
    assert "and 4 900 more for other reasons" in words(page)


def test_it_replaces_the_old_report_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    write(SMALL, path)
    assert path.read_text("utf-8") == render(SMALL)
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written"):
        write(EMPTY, tmp_path / "missing" / "report.html")


@pytest.mark.parametrize("library", ["jinja2", "matplotlib"])
def test_without_the_drawing_libraries_it_says_what_to_install(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    for module in ("deploy.figures", "deploy.drawing"):
        monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.delattr(module)
    with pytest.raises(UsageError, match=rf"{library}.*pip install 'fedqueue\[report\]'"):
        render(EMPTY)
