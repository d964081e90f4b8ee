"""Each ready scenario in a shortened version: it runs, the books close, every strategy it names can be had."""

import msgspec
import pytest

from deploy.simulation.run import learning_of, simulate
from deploy.simulation.scenario import Scenario, load, ready


def shortened(name: str) -> Scenario:
    scenario = load(name)
    sites = min(scenario.sites.number, 60)
    changed = msgspec.structs.replace(scenario, sites=msgspec.structs.replace(scenario.sites, number=sites))
    return changed.lasting(min(scenario.stop.seconds, 400.0))


@pytest.mark.parametrize("name", ready())
def test_it_runs_and_the_books_close(name: str) -> None:
    scenario = shortened(name)
    for strategy in list(scenario.strategies)[:2]:
        result = simulate(scenario, name, strategy, 1)
        assert result.sound, result.ledger.line
        assert result.updates > 10
        assert set(result.own) == set(scenario.names)


def test_the_site_that_is_away_is_the_one_with_classes_of_its_own() -> None:
    scenario = load("label-unique-site-away").lasting(1000.0)  # away from 900 s on
    result, unique = simulate(scenario, "away", "fedbuff", 0), learning_of(scenario, 0).unique
    assert result.absent == (max(unique, key=lambda site: unique[site]),)
    assert result.away is not None


def test_real_training_too_is_the_same_every_time() -> None:
    scenario = load("hospitals-8").lasting(400.0)
    first, again = (simulate(scenario, "h", "fedbuff", 2) for _ in range(2))
    assert first == again
    assert first.journal != simulate(scenario, "h", "fedbuff", 3).journal
