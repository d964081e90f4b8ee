"""Dividing rows among sites: every row once, every site enough, and each kind of skew what it says."""

from collections.abc import Callable

import numpy as np
import pytest

from broker.errors import UsageError
from deploy.simulation import split
from deploy.simulation.split import LEAST, Numbers, Random

LABELS = np.repeat(np.arange(4), 100)
SPLITS: dict[str, Callable[[Random], list[Numbers]]] = {
    "even": lambda random: split.even(400, 10, random),
    "quantity": lambda random: split.quantity(400, 10, random, skew=2.0),
    "dirichlet": lambda random: split.dirichlet(LABELS, 10, random, alpha=0.1),
}


def random(seed: int = 0) -> Random:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", SPLITS)
@pytest.mark.parametrize("seed", range(5))
def test_every_row_goes_to_one_site_and_every_site_gets_enough(name: str, seed: int) -> None:
    parts = SPLITS[name](random(seed))
    assert sorted(np.concatenate(parts).tolist()) == list(range(400))
    assert len(parts) == 10
    assert min(map(len, parts)) >= LEAST


@pytest.mark.parametrize("name", SPLITS)
def test_a_seed_is_one_division(name: str) -> None:
    def drawn(seed: int) -> list[list[int]]:
        return [part.tolist() for part in SPLITS[name](random(seed))]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_even_parts_are_of_one_size() -> None:
    assert {len(part) for part in split.even(400, 10, random())} == {40}


def test_quantity_falls_with_the_rank() -> None:
    sizes = sorted((len(part) for part in split.quantity(600, 3, random(), skew=1.0)), reverse=True)
    assert sizes == [327, 164, 109]  # 1 : 1/2 : 1/3, as 600 * 6/11 = 327.3 and so on
    assert sorted(len(part) for part in split.quantity(600, 3, random(), skew=0.0)) == [200, 200, 200]


def test_a_small_alpha_gives_classes_to_few_sites_and_a_large_one_mixes() -> None:
    skewed, mixed = (split.dirichlet(LABELS, 4, random(), alpha=alpha) for alpha in (0.05, 1000.0))
    assert max(split.uniqueness(LABELS, skewed)) > 0.8
    assert max(split.uniqueness(LABELS, mixed)) < 0.3


def test_uniqueness_and_own_classes_of_a_division_made_by_hand() -> None:
    labels = np.array([0, 0, 1, 1, 1, 1, 2, 2])
    parts = [np.array([0, 2]), np.array([1, 3, 4, 5]), np.array([6, 7])]
    # Site 0: half of class 0 and a quarter of class 1; site 1: half and three quarters; site 2: all of class 2.
    assert split.uniqueness(labels, parts) == [0.375, (0.5 + 3 * 0.75) / 4, 1.0]
    assert [split.own_labels(labels, parts, site) for site in range(3)] == [[0], [0, 1], [2]]


def test_a_site_without_half_of_any_class_is_known_by_its_largest_share() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 1])
    parts = [np.array([0, 1, 3, 4, 5]), np.array([2, 6])]
    assert split.own_labels(labels, parts, 1) == [0]  # a third of class 0, a fifth of class 1


def test_shifts_move_each_site_another_way_and_nothing_at_amount_zero() -> None:
    scale, offset = split.shifts(2, 3, random(), amount=0.0)[0]
    assert scale.tolist() == [1.0, 1.0, 1.0]
    assert offset.tolist() == [0.0, 0.0, 0.0]
    one, other = split.shifts(2, 3, random(), amount=1.0)
    assert one[0].tolist() != other[0].tolist()


def test_too_few_rows_are_told() -> None:
    with pytest.raises(UsageError, match="79 rows are too few for 10 sites: each needs 8"):
        split.even(79, 10, random())
