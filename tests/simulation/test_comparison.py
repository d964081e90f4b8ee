"""Medians, spreads, the table and the JSON of a comparison, on results made by hand."""

import io
import json
from dataclasses import replace

import msgspec
import pytest
from rich.console import Console

from broker.errors import UsageError
from deploy.history import Ledger
from deploy.simulation.comparison import figures, sentences, strategies_of, table, to_json
from deploy.simulation.result import Point, Result, median, spread, staleness_at
from deploy.simulation.scenario import Scenario
from tests.simulation.small import quadratics

LEDGER = Ledger(sent=10, accepted=9, refused=0, waiting=1, lost=0, doubled=0)
ONE = Result(
    scenario="small", strategy="one", seed=0, metric="accuracy", seconds=100.0, reached_s=50.0,
    final={"accuracy": 0.5}, own={"S1": 0.25, "S2": 0.75}, worst="S1", away=None, absent=(), versions=4, updates=9,
    reasons={}, participation={"S1": 3, "S2": 6}, staleness={0: 5, 1: 2, 4: 2}, bytes_up=2_000_000, bytes_down=0,
    kills=0, ledger=LEDGER, replayed=True, journal="", curve=(Point(10.0, 1, 2, 0.25), Point(50.0, 4, 9, 0.5)),
)  # fmt: skip


def changed(**fields: object) -> Result:
    return msgspec.structs.replace(ONE, **fields)


RESULTS = [
    ONE,
    changed(seed=1, final={"accuracy": 0.7}, reached_s=None),
    changed(seed=2, final={"accuracy": 0.6}, reached_s=400.0),
    changed(strategy="two", away=0.125),
]


def scenario() -> Scenario:
    return quadratics("[target]\nvalue = 0.5\n[strategies.one]\n[strategies.two]\n")


@pytest.mark.parametrize(
    ("values", "middle", "ends"),
    [
        ([1.0, 3.0, 2.0], 2.0, (1.0, 3.0)),
        ([1.0, None, 2.0], 2.0, (1.0, None)),
        ([None, None, 2.0], None, (2.0, None)),
        ([4.0], 4.0, (4.0, 4.0)),
    ],
)
def test_what_was_not_reached_is_more_than_everything(
    values: list[float | None], middle: float | None, ends: tuple[float | None, float | None]
) -> None:
    assert median(values) == middle
    assert spread(values) == ends


def test_the_staleness_that_a_share_does_not_exceed() -> None:
    assert [staleness_at({0: 5, 1: 2, 4: 2, 9: 1}, share) for share in (0.5, 0.7, 0.9, 1.0)] == [0, 1, 4, 9]
    assert staleness_at({}, 0.5) == 0


def test_figures_of_one_strategy() -> None:
    known = {one.name: (one.middle, one.ends) for one in figures(RESULTS[:3])}
    assert known["accuracy"] == ("0.600", "0.500-0.700")
    assert known["to target"] == ("6.67 min", "50 s-never")
    assert known["worst site"] == ("0.250", "0.250")
    assert known["stale"] == ("1.1", "1.1")  # (2 * 1 + 2 * 4) / 9
    assert known["updates"] == ("9", "9")
    assert known["MB up"] == ("2", "2")
    assert "the absent" not in known


def printed() -> str:
    out = io.StringIO()
    Console(file=out, width=100).print(table(scenario(), RESULTS))
    return out.getvalue()


def test_the_table_has_a_row_a_strategy() -> None:
    lines = [line.split() for line in printed().splitlines()]
    assert lines[0][0] == "strategy"
    assert [line[0] for line in lines if line[0] in {"one", "two"}] == ["one", "two"]
    row = next(line for line in lines if line[0] == "two")
    assert row == ["two", "0.500", "50", "s", "0.250", "0.125", "1.1", "9", "2"]


def test_sentences_name_the_worst_site_and_what_is_good() -> None:
    said = " ".join(sentences(scenario(), [*RESULTS, changed(worst="S2")]))
    assert "accuracy (high is good)" in said
    assert "most often it was S1." in said
    assert "error (low is good)" in " ".join(sentences(scenario(), [changed(metric="error")]))


def test_sentences_say_whether_the_books_close() -> None:
    assert sentences(scenario(), RESULTS)[-1].startswith("Of 40 updates none was lost or counted twice")
    lost = changed(ledger=replace(LEDGER, waiting=0, lost=1))
    assert sentences(scenario(), [ONE, lost])[-1].startswith("NOT OK: one, seed 0: sent 10")
    assert sentences(scenario(), [changed(replayed=False)])[-1].startswith("NOT OK")


def test_everything_is_in_the_json() -> None:
    values = json.loads(to_json(scenario(), "small", RESULTS))
    assert values["strategies"]["one"]["accuracy"] == {"median": 0.6, "values": [0.5, 0.7, 0.6]}
    assert values["strategies"]["one"]["to target"]["values"] == [50.0, None, 400.0]
    assert values["target"] == 0.5
    run = values["runs"][3]
    assert run["staleness"] == {"0": 5, "1": 2, "4": 2}
    assert run["curve"] == [[10.0, 1, 2, 0.25], [50.0, 4, 9, 0.5]]
    assert run["ledger"]["waiting"] == 1


def test_strategies_that_are_asked_for() -> None:
    assert strategies_of(scenario(), "") == [""]
    assert strategies_of(scenario(), "all") == ["one", "two"]
    assert strategies_of(scenario(), "two, fedasync") == ["two", "fedasync"]
    with pytest.raises(UsageError, match="There is no strategy 'three'"):
        strategies_of(scenario(), "three")
    for text in ("one,one", "one,"):
        with pytest.raises(UsageError, match="name each strategy once"):
            strategies_of(scenario(), text)
