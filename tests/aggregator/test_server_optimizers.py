"""Server optimizers against the papers' recursions, worked by hand or in float64."""

import numpy as np
import pytest

from aggregator.optimizers import OPTIMIZERS, fadas, fedadam, fedyogi, momentum
from aggregator.settings import Aggregation
from tests.aggregator.bench import floats
from tests.aggregator.folding import folding


def test_momentum_adds_up_directions() -> None:
    # m: 4, then 1/2 * 4 + 4 = 6
    one = folding(0, server_optimizer="momentum", beta1=0.5)
    assert one.add("A", 4).step() == [4.0]
    assert one.add("A", 4).step() == [10.0]
    assert set(one.fold.state.vectors) == {"moment"}


def test_fedadam_divides_by_the_root_of_the_second_moment() -> None:
    # m = 1/2 * 4 = 2, v = 1/4 * 16 = 4: 2 / (2 + 2) = 1/2; then m = 1, v = 3: 1 / (sqrt 3 + 2)
    one = folding(0, server_optimizer="fedadam", beta1=0.5, beta2=0.75, epsilon=2.0)
    assert one.add("A", 4).step() == [0.5]
    assert one.add("A", 0).step() == [pytest.approx(0.5 + 1 / (3**0.5 + 2))]


def test_fedyogi_moves_the_second_moment_by_its_sign_alone() -> None:
    # v = 0 + 1/4 * 16 = 4 (v < d^2), then with d = 1: v = 4 - 1/4 * 1 = 3.75, where FedAdam has 3.25
    vectors = {"moment": floats(0), "second": floats(0)}
    turn = fedyogi(beta1=0.5, beta2=0.75).turn
    turn(floats(4), vectors)
    assert vectors["second"].tolist() == [4.0]
    turn(floats(1), vectors)
    assert vectors["second"].tolist() == [3.75]


def test_fadas_never_forgets_the_largest_and_slows_down_for_the_stale() -> None:
    vectors = {name: floats(0) for name in ("moment", "second", "largest")}
    optimizer = fadas(beta1=0.5, beta2=0.75, most=5)
    optimizer.turn(floats(4), vectors)
    optimizer.turn(floats(0), vectors)
    assert (vectors["second"].tolist(), vectors["largest"].tolist()) == ([3.0], [4.0])
    assert [optimizer.rate(0.5, tau) for tau in (0, 5, 6, 1)] == [0.5, 0.5, 1 / 6, 0.5]
    assert optimizer.rate(0.01, 50) == 0.01


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_direction_of_nothing_moves_nothing_at_first(name: str) -> None:
    assert folding(3, 0, server_optimizer=name).add("A", 0, 0).step() == [3.0, 0.0]


def test_a_stretch_at_a_time_gives_what_the_whole_gives() -> None:
    size = (1 << 16) + 3
    random = np.random.default_rng(0)
    deltas = random.normal(size=(2, size)).astype(np.float32)
    one = folding(*np.zeros(size), server_optimizer="fedadam")
    for delta in deltas:
        one.add("A", *delta).step()
    whole = {"moment": np.zeros(size, np.float32), "second": np.zeros(size, np.float32)}
    model = np.zeros(size, np.float32)
    for delta in deltas:
        direction = delta.copy()
        fedadam().turn(direction, whole)
        model += direction
    assert one.fold.model.tobytes() == model.tobytes()


def test_options_that_an_optimizer_does_not_have_do_not_disturb_it() -> None:
    assert Aggregation(server_optimizer="momentum", beta1=0.25, beta2=0.1).stepping().vectors == momentum().vectors
