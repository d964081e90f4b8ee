"""Which codec is chosen, for every branch of the rule; deltas are small enough to add up their energy by hand."""

from collections.abc import Sequence

import numpy as np
import pytest

from broker.codecs import AUTO, Form
from site_worker.choosing import FLAT, HEAVY, LADDER, SMALL, choose, share_of_largest
from site_worker.compression import Stretch
from site_worker.past import Past

MATRIX = Form(((200, 100),))  # 20,000 coordinates, a little above SMALL; int8-coarse takes about 8,000 bytes of it
SLOW = 1_000.0  # bytes a second


def stretch(values: Sequence[float]) -> Stretch:
    whole = np.array(values, dtype=np.float32)
    return lambda start, stop: whole[start:stop].copy()


def spiked(size: int, peaks: int, height: float) -> Stretch:
    """Ones, and so many coordinates of another height, evenly spread."""
    whole = np.ones(size, dtype=np.float32)
    whole[:: size // peaks][:peaks] = height
    return lambda start, stop: whole[start:stop].copy()


FLAT_DELTA, HEAVY_DELTA = spiked(20_000, 100, 1.0), spiked(20_000, 100, 10.0)  # 10,000 of 29,900 in half a hundredth


def chosen(
    past: Past | None = None,
    *,
    asked: str = AUTO,
    form: Form = MATRIX,
    delta: Stretch = FLAT_DELTA,
    private: bool = False,
) -> str:
    return choose(asked, delta, form, past, private=private)


def after(choice: str, backlog: float) -> Past:
    """An update over a slow line: 8,000 bytes would take 8 s, and the round took 10 s."""
    return Past(choice, backlog, 10.0, SLOW)


def test_what_is_asked_for_by_name_is_taken_whatever_else_holds() -> None:
    assert chosen(after("lowrank-330", 9.0), asked="top1", form=Form.of(10), private=True) == "top1"


def test_noise_is_not_chosen_from_by_its_size() -> None:
    assert chosen(after("lowrank-330", 9.0), private=True, delta=HEAVY_DELTA) == "int8"


def test_a_small_model_is_not_worth_the_trouble() -> None:
    assert chosen(form=Form(((128, 128),))) == "int8"  # 16,384 = SMALL
    assert Form(((128, 128),)).size == SMALL
    assert chosen(form=Form(((128, 128), (1,)))) != "int8"


@pytest.mark.parametrize(
    ("bytes_per_s", "choice"),
    [(8_000.0, "int8-coarse"), (7_900.0, "lowrank-100"), (None, "lowrank-100")],
    ids=["one of ten seconds", "more", "not known"],
)
def test_a_line_on_which_nearly_all_takes_a_tenth_of_a_round_gets_it(bytes_per_s: float | None, choice: str) -> None:
    assert chosen(Past("int8", 0.0, 10.0, bytes_per_s)) == choice


def test_without_a_matrix_the_largest_are_sent() -> None:
    assert chosen(form=Form(((15_000,), (5_000,)))) == "top5"
    assert chosen(form=Form(((15_000,), (50, 100)))) != "top5"


def test_the_first_update_goes_by_how_the_energy_is_spread() -> None:
    assert (chosen(delta=HEAVY_DELTA), chosen(delta=FLAT_DELTA)) == (f"lowrank-{HEAVY}", f"lowrank-{FLAT}")


@pytest.mark.parametrize("choice", ["int8-coarse", "lowrank", "lowrank-50"])
def test_after_what_is_no_rung_the_ladder_begins_anew(choice: str) -> None:
    assert chosen(after(choice, 9.0), delta=HEAVY_DELTA) == f"lowrank-{HEAVY}"


@pytest.mark.parametrize(
    ("before", "backlog", "then"),
    [
        (330, 3.1, 240),
        (330, 3.0, 330),
        (240, 1.5, 240),
        (240, 1.4, 330),
        (330, 0.0, 330),
        (40, 9.0, 40),
    ],
    ids=["finer", "not finer", "not coarser", "coarser", "the coarsest", "the finest"],
)
def test_the_backlog_leads_down_the_ladder_and_up_again(before: int, backlog: float, then: int) -> None:
    assert (LADDER[0], LADDER[-1]) == (330, 40)
    assert chosen(after(f"lowrank-{before}", backlog), delta=HEAVY_DELTA) == f"lowrank-{then}"


@pytest.mark.parametrize(("before", "backlog", "then"), [(80, 0.0, 100), (100, 0.0, 100), (330, 2.0, 100)])
def test_flat_deltas_are_never_sent_coarser_than_they_bear(before: int, backlog: float, then: int) -> None:
    assert chosen(after(f"lowrank-{before}", backlog)) == f"lowrank-{then}"


def test_the_share_of_the_largest_hundredth() -> None:
    # Of 200 coordinates two: 9 + 16 of 9 + 16 + 198 x 0.25.
    assert share_of_largest(stretch([0.5] * 99 + [3.0, -4.0] + [0.5] * 99), 200) == pytest.approx(25 / 74.5)
    assert share_of_largest(stretch([0.0] * 200), 200) == 0.0
    assert share_of_largest(stretch([3.0, 4.0]), 2) == 16 / 25  # one at least


def test_of_a_large_model_evenly_spread_stretches_are_looked_at() -> None:
    asked = list[tuple[int, int]]()

    def read(start: int, stop: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        asked.append((start, stop))
        return np.ones(stop - start, dtype=np.float32)

    assert share_of_largest(read, 1 << 20) == pytest.approx(0.01, abs=1e-4)
    assert len(asked) == 16
    assert (asked[0], asked[-1]) == ((0, 1 << 14), ((1 << 20) - (1 << 14), 1 << 20))
