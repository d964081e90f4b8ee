"""What staleness costs, by hand."""

import itertools

import pytest

from aggregator.staleness import RULES, discount_named, hinge, polynomial
from broker.errors import UsageError
from tests.aggregator.folding import folding


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
    one = folding(0, staleness="polynomial", power=1.0)
    for _ in range(2):
        one.add("A", 4).step()
    assert (one.fold.version, one.fold.model.tolist()) == (2, [8.0])
    for site, base, delta in (("B", 2, 6.0), ("C", 1, 8.0), ("D", 0, 6.0)):
        one.add(site, delta, tau=one.fold.version - base)
    assert one.step() == pytest.approx([12.0], abs=1e-6)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("tau", [0, 1, 7, 1000])
def test_an_update_that_learned_nothing_moves_nothing_however_stale(name: str, tau: int) -> None:
    one = folding(3.0, -1.5, staleness=name)
    one.fold.version = tau
    assert one.add("A", 0, 0, tau=tau, examples=7).step() == [3.0, -1.5]


def test_an_unknown_rule_is_refused_with_the_choices() -> None:
    with pytest.raises(UsageError, match="'linear'; choose one of constant, polynomial, hinge"):
        discount_named("linear")


def test_an_unknown_option_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="no such option: slope"):
        discount_named("polynomial", slope=1.0)
