"""Tables and figures of runs, on numbers a reader can add up."""

import json
import math

import pytest

from deploy.history import Ledger
from deploy.results import Result, spread, spread_lines, tabulated, to_json
from deploy.scores import Scores

LEDGER = Ledger(sent=3, accepted=2, refused=1, waiting=0, lost=0, doubled=0)


def result(seed: int, federated: float, **alone: float) -> Result:
    compared = {f"{name} alone": {"rows": 10.0, "auc": value} for name, value in alone.items()}
    compared["federated"] = {"rows": 10.0, "auc": federated}
    scores = Scores(
        sites={"a": {"rows": 6.0, "auc": federated}, "b": {"rows": 4.0}},
        mean={"rows": 10.0, "auc": federated},
        pooled=compared["federated"],
        histograms={"auc": federated},
        compared=compared,
    )
    return Result(seed, None, "auc", 5, 12.5, scores, LEDGER, True, {"c": "c.csv: row 2"})


def test_the_spread_over_seeds_has_the_sites_alone_as_their_mean() -> None:
    found = spread([result(0, 0.8, a=0.5, b=0.7), result(1, 0.9, a=0.6, b=0.8)])
    assert found["federated"] == pytest.approx(
        {"mean": 0.85, "sd": 0.0707, "min": 0.8, "max": 0.9, "runs": 2}, abs=1e-4
    )
    assert found["alone (mean)"]["mean"] == pytest.approx(0.65)
    assert spread([result(0, 0.8)])["federated"]["sd"] == 0.0


def test_people_get_every_site_what_is_compared_and_what_the_histograms_say() -> None:
    lines = [" ".join(line.split()) for line in result(0, 0.8, a=0.5, b=0.7).lines()]
    for words in (
        "a 6 0.800",
        "b 4 -",
        "b alone 10 0.700",
    ):
        assert words in lines
    assert "From the sites' score histograms alone: auc 0.800." in lines
    assert "federated" in spread_lines([result(0, 0.8), result(1, 0.9)])[1]


def test_many_sites_are_summed_up() -> None:
    sites = {f"s{number}": {"rows": 2.0, "auc": number / 20} for number in range(21)}
    lines = tabulated(sites, {"mean by rows": {"rows": 42.0, "auc": 0.5}}, "")
    assert len(lines) == 5
    assert [line.split()[-1] for line in lines[1:]] == ["0.500", "0.000", "1.000", "0.500"]


def test_programs_get_every_figure_and_null_for_what_is_no_number() -> None:
    told = json.loads(to_json([result(0, math.nan)], name="heart", task="logistic"))
    (run,) = told["runs"]
    assert (run["seed"], run["versions"], run["replay_same"], run["refused"]) == (0, 5, True, {"c": "c.csv: row 2"})
    assert run["ledger"]["accepted"] == 2
    assert run["scores"]["sites"]["a"]["auc"] is None
    assert told["metric"] == "auc"
