"""Which codec is chosen, for every branch of the rule; what a low rank leaves out of the deltas is known by hand."""

import numpy as np
import pytest
from numpy.typing import NDArray

from broker.codecs import AUTO, Form
from site_worker.choosing import LADDER, SMALL, STARTS, choose
from site_worker.compression import Stretch
from site_worker.past import Past

ROWS, COLUMNS = 1024, 512
MATRIX = Form(((ROWS, COLUMNS),))  # int8-coarse takes about 209,715 bytes of it; 330 times smaller are 6,355
SLOW = 1_000.0  # bytes a second


def unread(_start: int, _stop: int) -> NDArray[np.float32]:
    raise AssertionError("what was learned has no part in it")


def blocks(count: int) -> Stretch:
    """A matrix with so many blocks of ones along its diagonal: as many components, all of the same energy.

    At 330 times smaller there is room for 9 of 654 bytes, at 100 for 32.
    """
    whole = np.kron(np.eye(count), np.ones((ROWS // count, COLUMNS // count))).astype(np.float32).reshape(-1)
    return lambda start, stop: whole[start:stop].copy()


def chosen(
    past: Past | None = None,
    *,
    asked: str = AUTO,
    form: Form = MATRIX,
    delta: Stretch = unread,
    private: bool = False,
) -> str:
    return choose(asked, delta, form, past, private=private)


def after(choice: str, backlog: float) -> Past:
    """An update over a slow line: int8-coarse would take 210 s, and the round took 10 s."""
    return Past(choice, backlog, 10.0, SLOW)


def test_what_is_asked_for_by_name_is_taken_whatever_else_holds() -> None:
    assert chosen(after("lowrank-330", 9.0), asked="top1", form=Form.of(10), private=True) == "top1"


def test_noise_is_not_chosen_from_by_its_size() -> None:
    assert chosen(after("lowrank-330", 9.0), private=True) == "int8"


def test_a_small_model_is_not_worth_the_trouble() -> None:
    small, larger = Form(((128, 128),)), Form(((128, 128), (1,)))
    assert small.size == SMALL
    assert chosen(after("lowrank-100", 2.0), form=small) == "int8"
    assert chosen(after("lowrank-100", 2.0), form=larger) == "lowrank-100"


@pytest.mark.parametrize(
    ("bytes_per_s", "choice"),
    [(209_716.0, "int8-coarse"), (209_000.0, "lowrank-100"), (None, "lowrank-100")],
    ids=["a tenth of the round", "more", "not known"],
)
def test_a_line_on_which_nearly_all_takes_a_tenth_of_a_round_gets_it(bytes_per_s: float | None, choice: str) -> None:
    assert chosen(Past("lowrank-100", 2.0, 10.0, bytes_per_s)) == choice


def test_without_a_matrix_the_largest_are_sent() -> None:
    assert chosen(form=Form(((15_000,), (5_000,)))) == "top5"
    assert chosen(after("lowrank-100", 2.0), form=Form(((15_000,), (50, 100)))) == "lowrank-100"


@pytest.mark.parametrize(
    ("components", "ratio"),
    [(8, 330), (16, 100), (512, 40)],
    ids=["all fit", "9 of 16: .66 is left out", "32 of 512: .97 is left out"],
)
def test_the_first_update_is_as_coarse_as_what_was_learned_bears(components: int, ratio: int) -> None:
    assert chosen(delta=blocks(components)) == f"lowrank-{ratio}"


@pytest.mark.parametrize("choice", ["int8-coarse", "lowrank", "lowrank-50"])
def test_after_what_is_no_rung_it_begins_anew(choice: str) -> None:
    assert chosen(after(choice, 9.0), delta=blocks(8)) == "lowrank-330"


@pytest.mark.parametrize(
    ("before", "backlog", "then"),
    [(330, 3.1, 240), (330, 3.0, 330), (240, 1.5, 240), (240, 1.4, 330), (60, 1.4, 80), (100, 3.1, 80), (20, 9.0, 20)],
    ids=["finer", "not finer", "not coarser", "coarser", "coarser below", "finer below", "the finest"],
)
def test_the_backlog_leads_down_the_ladder_and_up_again(before: int, backlog: float, then: int) -> None:
    assert LADDER[-1] == 20
    assert chosen(after(f"lowrank-{before}", backlog)) == f"lowrank-{then}"


@pytest.mark.parametrize("start", STARTS)
def test_none_is_sent_coarser_than_it_began(start: int) -> None:
    assert chosen(after(f"lowrank-{start}", 0.0)) == f"lowrank-{start}"
