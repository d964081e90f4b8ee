"""Strategies against literal vectors; powers of two are exact in float32."""

import numpy as np
import pytest

from aggregator.memory import Contribution, Remembered
from aggregator.settings import Aggregation
from aggregator.strategies import STRATEGIES, Situation, Source, strategy_named, usual
from broker.errors import UsageError
from tests.aggregator.bench import floats
from tests.aggregator.folding import Folding, folding


def test_fedbuff_is_the_weighted_mean_of_what_was_learned() -> None:
    # Shares 1 and 3; weights s(0) = 1 and s(3) = 1/2: (1*1*[8, 0] + 3*0.5*[0, 16]) / 4 = [2, 6].
    one = folding(1, 1, weighting="examples", staleness="polynomial")
    one.fold.version = 3
    assert one.add("A", 8, 0).add("B", 0, 16, tau=3, examples=3).step() == [3.0, 7.0]
    assert one.fold.buffer == []


def test_normalised_it_divides_by_the_weights_that_are_left() -> None:
    # (8 + 1/2 * 16) / (1 + 1/2) = 32/3, where without it is (8 + 8) / 2.
    one = folding(0, staleness="polynomial", normalised=True)
    one.fold.version = 3
    assert one.add("A", 8).add("B", 16, tau=3).step() == [pytest.approx(32 / 3)]


def test_equal_weighting_does_not_look_at_the_examples() -> None:
    assert folding(0).add("A", 2, examples=1).add("B", 6, examples=999).step() == [4.0]


def test_a_capped_site_weighs_its_part_of_all_rows_at_most() -> None:
    # 10 and 30 rows, at most a quarter of 40: (10 * 4 + 10 * 8) / 20.
    one = folding(0, weighting="capped", max_share=0.25)
    assert one.add("A", 4, examples=10).add("B", 8, examples=30).step() == [6.0]


def test_the_updates_of_one_site_share_its_place() -> None:
    # A's mean is 4; with B's 8 the mean of the sites is 6, of the updates it would be 16/3.
    assert folding(0).add("A", 2).add("A", 6).add("B", 8).step() == [6.0]
    assert folding(0, one_place=False).add("A", 2).add("A", 6).add("B", 8).step() == [pytest.approx(16 / 3)]


def test_the_server_rate_scales_the_step() -> None:
    assert folding(1, server_rate=0.25).add("A", 8, examples=5).step() == [3.0]


def test_fedasync_moves_by_alpha_times_the_discount() -> None:
    # alpha 1/2, s(3) = 1/2: 1 + 1/2 * 1/2 * 8 = 3; examples do not matter.
    one = folding(1, strategy="fedasync", staleness="polynomial", server_rate=0.5)
    one.fold.version = 3
    assert one.fold.strategy.places_wanted(10) == 1
    assert one.add("A", 8, tau=3, examples=1000).step() == [3.0]


def test_fedasync_with_a_stale_site_that_learned_nothing_stays_at_three() -> None:
    one = folding(3, strategy="fedasync", server_rate=0.5)
    one.fold.version = 9
    assert one.add("A", 0, tau=9).step() == [3.0]


def test_mixing_pulls_it_back_to_the_stale_base_as_the_paper_says() -> None:
    # Versions 1 -> 3; then a site that trained from version 0 and learned nothing: (1 - 1/2) * 3 + 1/2 * (1 + 0) = 2.
    one = folding(1, strategy="fedasync-mixing", server_rate=1.0)
    assert one.add("A", 2).step() == [3.0]
    one.fold.strategy = Aggregation(strategy="fedasync-mixing", server_rate=0.5, staleness="constant").build()
    assert one.add("B", 0, tau=1).step() == [2.0]


def test_mixing_a_fresh_update_is_a_step_of_its_delta() -> None:
    assert folding(1, strategy="fedasync-mixing", server_rate=0.5).add("A", 8).step() == [5.0]


def test_with_everybody_fresh_and_a_buffer_of_all_sites_it_is_federated_averaging() -> None:
    base, trained, examples = floats(1, 2), [floats(5, 2), floats(1, 10), floats(-3, 6)], [1, 1, 2]
    for strategy in ("fedavg", "fedbuff", "ca2fl", "calibrated", "patient"):
        one = folding(1, 2, strategy=strategy, weighting="examples")
        for n, (weights, rows) in enumerate(zip(trained, examples, strict=True)):
            one.add(str(n), *(weights - base), examples=rows)
        # McMahan et al. 2017, of whole models: (1*[5,2] + 1*[1,10] + 2*[-3,6]) / 4 = [0, 6]
        assert one.step() == [0.0, 6.0], strategy


def test_averaging_of_drawn_models_agrees_too() -> None:
    random = np.random.default_rng(1)
    base = random.normal(size=200).astype(np.float32)
    trained = [base + random.normal(size=200).astype(np.float32) for _ in range(5)]
    examples = [3, 50, 7, 1, 200]
    one = Folding(base, Aggregation(strategy="fedavg", weighting="examples"))
    for n, (weights, rows) in enumerate(zip(trained, examples, strict=True)):
        one.add(str(n), *(weights - base), examples=rows)
    one.step()
    expected = base + sum(n / 261 * (w.astype(np.float64) - base) for w, n in zip(trained, examples, strict=True))
    assert np.allclose(one.fold.model, expected, atol=1e-5)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_empty_buffer_moves_nothing(strategy: str) -> None:
    assert folding(3, strategy=strategy).step() == [3.0]


# ---- strategies that remember


def test_ca2fl_by_hand() -> None:
    # First A = 4 and B = 8: h = 6, a step of 6. Then A = 0 alone: eta (h + (0 - h_A)) = 6 - 4 = 2, and
    # h is (0 + 8) / 2 = 4. Then B = 4: 4 + (4 - 8) = 0, so nothing moves.
    one = folding(0, strategy="ca2fl")
    assert one.add("A", 4).add("B", 8).step() == [6.0]
    assert one.add("A", 0).step() == [8.0]
    assert one.add("B", 4).step() == [8.0]


def test_a_site_that_comes_later_counts_from_its_first_update() -> None:
    # h of A alone is 4. With B new, q = 1/2 each and B alone in the buffer: 1/2 * 4 + 1 * 8 = 10.
    one = folding(0, strategy="ca2fl")
    assert one.add("A", 4).step() == [4.0]
    assert one.add("B", 8).step() == [4.0 + 2.0 + 8.0]


def test_calibrated_lets_what_it_remembers_fade_with_age() -> None:
    # A = B = 8 at version 1. At version 4 A counts (1 + 3)^-1/2 = 1/2, B is in the buffer:
    # q = 1/1.5 and 1/1.5, kept (1/2 * 8 + 4) / 1.5; correction (1 - 1/1.5) (4 - 1/2 * 8) = 0. So it moves by 16/3.
    one = folding(0, strategy="calibrated")
    one.add("A", 8).add("B", 8).step()
    one.fold.version = 3
    before = float(one.fold.model[0])
    assert one.add("B", 4).step() == [pytest.approx(before + 16 / 3)]


def test_only_what_changes_in_the_kept_sum_is_fetched() -> None:
    one = folding(0, strategy="patient")
    for site in "ABCDE":
        one.add(site, 1)
    one.step()
    assert one.add("A", 2).step() == [pytest.approx(1 + 1 + 1)]
    # A's new update and its former one; B to E are in the sum as they are
    assert one.deltas.fetched == [Source("update", 1), Source("update", 6)]


def test_the_kept_sum_is_made_anew_now_and_then() -> None:
    one = folding(0, strategy="patient")
    one.add("A", 1).add("B", 1).step()
    one.fold.version = 63
    one.add("A", 1).add("B", 1).step()
    assert one.deltas.fetched == [Source("update", number) for number in (3, 4)]
    assert one.fold.state.held == {Source("update", 3): 1.0, Source("update", 4): 1.0}


def test_a_site_fades_when_it_is_later_than_it_usually_is() -> None:
    rarely = Remembered("A", (7,), 10, version=100, gaps=(5, 20, 8))
    # one and a half times twenty versions are usual; then half for every thirty more
    weights = [usual(rarely, 100 + age, expected=1.0) for age in (0, 30, 31, 60, 61, 210)]
    assert weights == [1.0, 1.0, 0.5, 0.5, 0.25, 0.5**6]
    once = Remembered("B", (8,), 10, version=100)
    assert [usual(once, 100 + age, expected=4.0) for age in (6, 7)] == [1.0, 0.5]


def test_patient_takes_smaller_steps_for_stale_updates() -> None:
    # both fresh: the mean, 6; then tau 0 and 3: 5/8 of kept (4 + 8) / 2 plus nothing, as what came is what was there
    one = folding(0, strategy="patient")
    assert one.add("A", 4).add("B", 8).step() == [6.0]
    one.fold.version = 3
    assert one.add("A", 4).add("B", 8, tau=3).step() == [6.0 + 5 / 8 * 6]


def test_patient_lets_an_update_speak_until_it_is_used_up() -> None:
    one = folding(0, strategy="patient")
    one.add("A", 4).add("B", 8).step()
    used, weights = [], []
    for _ in range(3):
        one.add("A", 0).step()  # B is away
        used.append(one.fold.state.used["B"])
        weights.append(one.fold.state.held.get(Source("update", 2)))
    # two sites that come one by one have two versions between their turns: a half is the limit, and the first of these
    # steps uses half of it (p / sum of p w)
    assert weights == [1.0, None, None]
    assert used == [0.5, 1.5, 2.5]
    assert one.fold.state.used["A"] == 0.0


def test_a_strategy_is_told_numbers_alone() -> None:
    buffer = (Contribution("A", 5, 0, 3, 0), Contribution("B", 6, 0, 1, 0))
    situation = Situation(1, buffer, {"A": Remembered("A", (5,), 3, 1), "B": Remembered("B", (6,), 1, 1)}, {})
    strategy = Aggregation(strategy="fedbuff", weighting="examples").build()
    direction = strategy.direct(situation, strategy.worth)
    assert (direction.once.terms, direction.once.divisor) == (
        {Source("update", 5): 3.0, Source("update", 6): 1.0},
        4.0,
    )


# ---- how many sites make a version


def test_how_many_sites_a_version_is_made_of() -> None:
    def wanted(enrolled: int, **options: object) -> int:
        return Aggregation(**options).build().places_wanted(enrolled)  # type: ignore[arg-type]

    assert [wanted(n, buffer_size=0) for n in (1, 4, 10, 11, 1000)] == [1, 2, 2, 3, 200]
    assert [wanted(n, buffer_size=3) for n in (2, 10)] == [2, 3]
    assert wanted(10, strategy="fedasync", buffer_size=3) == 1
    assert wanted(10, strategy="fedavg", buffer_size=3) == 10
    assert [wanted(n, strategy="fedavg", quorum=6) for n in (4, 10)] == [4, 6]


def test_unknown_names_are_refused_with_the_choices() -> None:
    with pytest.raises(UsageError, match="'fedprox'; choose one of fedavg, fedasync"):
        strategy_named("fedprox")
    with pytest.raises(UsageError, match="'rows'; choose one of examples, equal, capped"):
        Aggregation(weighting="rows").build()
    with pytest.raises(UsageError, match="'lion'; choose one of none, momentum, fedadam, fedyogi, fadas"):
        Aggregation(server_optimizer="lion").build()
