"""What staleness costs, by hand."""

import itertools

import pytest

from aggregator.fold import Fold
from aggregator.staleness import RULES, discount_named, hinge, polynomial
from aggregator.strategies import Contribution, fedbuff
from broker.codecs import encode
from broker.errors import UsageError
from tests.aggregator.bench import floats


@pytest.mark.parametrize("name", RULES)
def test_a_fresh_update_weighs_exactly_one_under_every_rule(name: str) -> None:
    assert discount_named(name)(0) == 1.0


@pytest.mark.parametrize("name", RULES)
def test_no_rule_ever_gives_more_to_the_staler_or_less_than_nothing(name: str) -> None:
    weights = [discount_named(name)(tau) for tau in range(50)]
    assert all(0 < later <= sooner <= 1 for sooner, later in itertools.pairwise(weights))


def test_the_polynomial_is_the_papers() -> None:
    # (1 + 3) ** -0.5 = 1/2 and (1 + 3) ** -1 = 1/4
    assert polynomial(0.5)(3) == 0.5
    assert polynomial(1.0)(3) == 0.25


def test_the_hinge_gives_grace_up_to_and_at_its_end() -> None:
    rule = hinge(slope=10.0, grace=4)
    # tau 5: 1 / (10 * (5 - 4) + 1) = 1/11
    assert [rule(tau) for tau in (0, 3, 4, 5)] == [1.0, 1.0, 1.0, 1 / 11]


def test_three_updates_by_hand() -> None:
    # Two versions of 4.0 and 8.0 are made by fresh updates of delta 4 (weight 1): 0 -> 4 -> 8.
    # Then, at version 2, with (1 + tau) ** -1 and equal shares in a buffer of three:
    #   base 2: tau 0, weight 1,   delta 6 -> 6
    #   base 1: tau 1, weight 1/2, delta 8 -> 4
    #   base 0: tau 2, weight 1/3, delta 6 -> 2
    # The mean is (6 + 4 + 2) / 3 = 4, so version 3 is 8 + 4 = 12.
    fold = Fold.at(fedbuff(discount=polynomial(1.0), buffer_size=3, weighting="equal"), bytes(32), floats(0), 0)
    for _ in range(2):
        fold.merge(Contribution("A", 0, 1), "float32", encode("float32", floats(4)))
        fold.step()
    assert (fold.version, fold.model.tolist()) == (2, [8.0])
    for base, delta in ((2, 6.0), (1, 8.0), (0, 6.0)):
        fold.merge(Contribution("B", fold.version - base, 1), "float32", encode("float32", floats(delta)))
    fold.step()
    assert fold.model.tolist() == pytest.approx([12.0], abs=1e-6)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("tau", [0, 1, 7, 1000])
def test_an_update_that_learned_nothing_moves_nothing_however_stale(name: str, tau: int) -> None:
    fold = Fold.at(fedbuff(discount=discount_named(name), buffer_size=1), bytes(32), floats(3.0, -1.5), 0)
    fold.merge(Contribution("A", tau, 7), "int8", encode("int8", floats(0, 0)))
    fold.step()
    assert fold.model.tolist() == [3.0, -1.5]


def test_an_unknown_rule_is_refused_with_the_choices() -> None:
    with pytest.raises(UsageError, match="'linear'; choose one of constant, polynomial, hinge"):
        discount_named("linear")


def test_an_unknown_option_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="no such option: slope"):
        discount_named("polynomial", slope=1.0)
