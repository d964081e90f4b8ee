"""Strategies against literal vectors; powers of two are exact in float32."""

from collections.abc import Sequence

import numpy as np
import pytest

from aggregator.staleness import constant, polynomial
from aggregator.strategies import Buffer, Contribution, Strategy, Vector, fedasync, fedbuff, strategy_named
from broker.errors import UsageError
from tests.aggregator.bench import floats


def merged(strategy: Strategy, size: int, updates: Sequence[tuple[Contribution, Vector]]) -> Buffer:
    buffer = Buffer.empty(size)
    for contribution, delta in updates:
        buffer = strategy.merge(buffer, contribution, [(0, delta.copy())])
    return buffer


def test_fedbuff_is_the_weighted_mean_of_what_was_learned() -> None:
    # Shares 1 and 3; weights s(0) = 1 and s(3) = 1/2: (1*1*[8, 0] + 3*0.5*[0, 16]) / 4 = [2, 6].
    strategy = fedbuff(discount=polynomial(0.5), buffer_size=2)
    buffer = merged(strategy, 2, [(Contribution("A", 0, 1), floats(8, 0)), (Contribution("B", 3, 3), floats(0, 16))])
    model, buffer = strategy.step(floats(1, 1), buffer)
    assert model.tolist() == [3.0, 7.0]
    assert (buffer.total.tolist(), buffer.shares, buffer.count) == ([0.0, 0.0], 0.0, 0)


def test_equal_weighting_does_not_look_at_the_examples() -> None:
    strategy = fedbuff(discount=constant(), weighting="equal")
    buffer = merged(strategy, 1, [(Contribution("A", 0, 1), floats(2)), (Contribution("B", 0, 999), floats(6))])
    assert strategy.step(floats(0), buffer)[0].tolist() == [4.0]


def test_the_server_rate_scales_the_step() -> None:
    strategy = fedbuff(discount=constant(), server_rate=0.25)
    buffer = merged(strategy, 1, [(Contribution("A", 0, 5), floats(8))])
    assert strategy.step(floats(1), buffer)[0].tolist() == [3.0]


def test_fedasync_moves_by_alpha_times_the_discount() -> None:
    # alpha 1/2, s(3) = 1/2: 1 + 1/2 * 1/2 * 8 = 3; examples do not matter.
    strategy = fedasync(discount=polynomial(0.5), server_rate=0.5)
    assert strategy.buffer_size == 1
    buffer = merged(strategy, 1, [(Contribution("A", 3, 1000), floats(8))])
    assert strategy.step(floats(1), buffer)[0].tolist() == [3.0]


def test_fedasync_with_a_stale_site_that_learned_nothing_stays_at_three() -> None:
    strategy = fedasync(discount=constant(), server_rate=0.5)
    buffer = merged(strategy, 1, [(Contribution("A", 9, 10), floats(0))])
    assert strategy.step(floats(3.0), buffer)[0].tolist() == [3.0]


def test_with_everybody_fresh_and_a_buffer_of_all_sites_it_is_federated_averaging() -> None:
    base, trained, examples = floats(1, 2), [floats(5, 2), floats(1, 10), floats(-3, 6)], [1, 1, 2]
    strategy = fedbuff(discount=polynomial(), buffer_size=3)
    updates = [(Contribution(str(n), 0, n), one - base) for one, n in zip(trained, examples, strict=True)]
    model, _ = strategy.step(base.copy(), merged(strategy, 2, updates))
    # McMahan et al. 2017, of whole models: (1*[5,2] + 1*[1,10] + 2*[-3,6]) / 4 = [0, 6]
    average = np.average(trained, axis=0, weights=examples)
    assert average.tolist() == [0.0, 6.0]
    assert model.tolist() == average.tolist()


def test_averaging_of_drawn_models_agrees_too() -> None:
    random = np.random.default_rng(1)
    base = random.normal(size=200).astype(np.float32)
    trained = [base + random.normal(size=200).astype(np.float32) for _ in range(5)]
    examples = [3, 50, 7, 1, 200]
    strategy = fedbuff(discount=polynomial(), buffer_size=5)
    updates = [(Contribution("A", 0, n), one - base) for one, n in zip(trained, examples, strict=True)]
    model, _ = strategy.step(base.copy(), merged(strategy, 200, updates))
    expected = base + sum(n / 261 * (one.astype(np.float64) - base) for one, n in zip(trained, examples, strict=True))
    assert np.allclose(model, expected, atol=1e-5)


def test_chunks_land_where_they_start() -> None:
    strategy = fedbuff(discount=constant())
    chunks = [(2, floats(4)), (0, floats(1, 2))]
    buffer = strategy.merge(Buffer.empty(3), Contribution("A", 0, 1), chunks)
    assert buffer.total.tolist() == [1.0, 2.0, 4.0]


def test_an_empty_buffer_moves_nothing() -> None:
    for strategy in (fedbuff(discount=constant()), fedasync(discount=constant())):
        assert strategy.step(floats(3), Buffer.empty(1))[0].tolist() == [3.0]


def test_a_buffer_of_none_is_refused() -> None:
    with pytest.raises(UsageError, match="buffer_size is 0"):
        fedbuff(discount=constant(), buffer_size=0)


def test_unknown_names_are_refused_with_the_choices() -> None:
    with pytest.raises(UsageError, match="'fedprox'; choose one of fedbuff, fedasync"):
        strategy_named("fedprox", discount=constant())
    with pytest.raises(UsageError, match="'rows'; choose one of examples, equal"):
        strategy_named("fedbuff", discount=constant(), weighting="rows")
    with pytest.raises(UsageError, match="no such option among momentum"):
        strategy_named("fedasync", discount=constant(), momentum=1.0)
