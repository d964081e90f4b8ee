"""The quadratic surrogate against numbers worked out by hand."""

import hashlib

import msgspec
import numpy as np
import pytest

from broker.codecs import decoded
from broker.errors import FedqueueError
from broker.messages import Announcement
from deploy.simulation.surrogate import Surrogate
from tests.simulation.small import run
from tests.site_worker.drafts import done

PLAN = [("steps", 2.0), ("batch_size", 1.0), ("learning_rate", 0.5)]


def announced(learning: Surrogate) -> Announcement:
    zero = bytes(32)
    return Announcement("surrogate", 0, zero, zero, learning.layout.digest, 2, "float32", 8, 0, 1, "float32", PLAN, [], True, 0.0)  # fmt: skip  # noqa: E501


def test_two_steps_of_a_half_go_three_quarters_of_the_way() -> None:
    learning = Surrogate.drawn(["S1"], 2, spread=1.0, seed=0)
    optimum = learning.optima[0]
    model = np.array([1.0, -1.0], dtype=np.float32)
    residual = np.array([0.5, 0.0], dtype=np.float32)
    trained = done(learning.rounds("S1"), announced(learning), model, residual=residual)
    delta = decoded("float32", trained.payload, 2)
    assert delta == pytest.approx((optimum - model) * 0.75 + residual, rel=1e-6)
    assert trained.made.payload_digest == hashlib.sha256(trained.payload).digest()
    assert dict(trained.made.metrics)["loss"] == pytest.approx(float(np.dot(optimum - model, optimum - model)) / 2)


def test_a_proximal_term_ends_short_of_the_optimum() -> None:
    """mu = 1 halves the way; with a rate of a half one step goes all of that, and the second changes nothing."""
    learning = Surrogate.drawn(["S1"], 2, spread=1.0, seed=0)
    asked = msgspec.structs.replace(announced(learning), plan=[*PLAN, ("proximal", 1.0)])
    trained = done(learning.rounds("S1"), asked, learning.initial)
    assert decoded("float32", trained.payload, 2) == pytest.approx(learning.optima[0] * 0.5, rel=1e-6)


def test_a_round_of_which_nothing_is_kept_fails_in_a_sentence() -> None:
    learning = Surrogate.drawn(["S1"], 2, spread=1.0, seed=0)
    with pytest.raises(FedqueueError, match="Nothing of the round of version 0 is kept"):
        done(learning.rounds("S1"), announced(learning), None)


def test_the_error_is_the_distance_from_the_mean_in_units_of_the_spread() -> None:
    learning = Surrogate.drawn(["S1", "S2"], 2, spread=1.0, seed=0)
    middle, half = learning.optima.mean(axis=0), np.linalg.norm(learning.optima[0] - learning.optima[1]) / 2
    assert learning.measures(middle)["error"] == 0.0
    assert learning.measures(learning.optima[0])["error"] == pytest.approx(1.0, rel=1e-5)
    assert learning.own(learning.optima[0])["S2"] == pytest.approx(2.0, rel=1e-5)
    assert half > 0


def test_one_site_alone_ends_on_its_own_optimum() -> None:
    result = run(sites=1, seconds=2000.0)
    assert result.final["error"] < 1e-5
    assert result.updates > 100


def test_everybody_at_one_speed_ends_near_the_mean_of_all() -> None:
    result = run("[links]\nlatency_s = 0.0\n", sites=2, seconds=2000.0)
    assert result.final["error"] < 1e-5
