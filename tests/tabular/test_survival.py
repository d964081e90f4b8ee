"""Cox's partial likelihood by hand, against published values, and against the formula written out in loops."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from site_worker.tabular.survival import partial_likelihood_loss

# Test data 1 of Therneau, "Software Validation" (vignette of R's package survival): time, status and x of six patients.
TIMES, STATUS, X = [1.0, 1.0, 6.0, 6.0, 8.0, 9.0], [1.0, 0.0, 1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]


def tensors(times: list[float], status: list[float], risks: list[float]) -> tuple[Tensor, Tensor]:
    scores = torch.tensor(risks, dtype=torch.float64)[:, None].requires_grad_()
    return scores, torch.tensor([times, status], dtype=torch.float64).T


def gradient(scores: Tensor, labels: Tensor) -> list[float]:
    (found,) = torch.autograd.grad(partial_likelihood_loss(scores, labels), scores)
    return [float(one) for one in found.flatten()]


def test_four_patients_by_hand() -> None:
    """Relative risks 2, 1, 3, 1. The first dies of all (2/7); then two at once of the other three (1/5 * 3/3)."""
    scores, labels = tensors([1.0, 2.0, 2.0, 3.0], [1.0, 1.0, 1.0, 0.0], [math.log(2), 0.0, math.log(3), 0.0])
    assert partial_likelihood_loss(scores, labels).item() == pytest.approx(math.log(7 / 2 * 5) / 4)
    # Expected less observed share of each patient in each death; half of the tied risk is left for the second of them.
    assert gradient(scores, labels) == pytest.approx(
        [
            (2 / 7 - 1) / 4,
            (1 / 7 + 1 / 5 + 0.5 / 3 - 1) / 4,
            (3 / 7 + 3 / 5 + 1.5 / 3 - 1) / 4,
            (1 / 7 + 1 / 5 + 1 / 3) / 4,
        ]
    )


def test_whoever_is_last_seen_when_another_dies_is_at_risk() -> None:
    scores, labels = tensors([5.0, 5.0], [1.0, 0.0], [0.0, 0.0])
    assert partial_likelihood_loss(scores, labels).item() == pytest.approx(math.log(2) / 2)


@pytest.mark.parametrize("beta", [-1.0, 0.0, 0.7, 1.676857])
def test_published_values_with_ties_after_efron(beta: float) -> None:
    risk = math.exp(beta)
    expected = 2 * beta - math.log(3 * risk + 3) - math.log((risk + 5) / 2) - math.log(risk + 3)
    scores, labels = tensors(TIMES, STATUS, [beta * x for x in X])
    assert -6 * partial_likelihood_loss(scores, labels).item() == pytest.approx(expected)


def test_the_published_maximum_is_one() -> None:
    scores, labels = tensors(TIMES, STATUS, [1.676857 * x for x in X])
    slope = sum(one * x for one, x in zip(gradient(scores, labels), X, strict=True))
    assert slope == pytest.approx(0, abs=1e-6)
    assert -6 * partial_likelihood_loss(scores, labels).item() == pytest.approx(-3.358975, abs=1e-6)


def written_out(times: list[float], status: list[float], risks: list[float]) -> float:
    """Efron's formula in loops."""
    total = 0.0
    for moment in {time for time, event in zip(times, status, strict=True) if event}:
        tied = [risk for time, event, risk in zip(times, status, risks, strict=True) if event and time == moment]
        at_risk = sum(math.exp(risk) for time, risk in zip(times, risks, strict=True) if time >= moment)
        total += sum(tied)
        for place in range(len(tied)):
            total -= math.log(at_risk - place / len(tied) * sum(map(math.exp, tied)))
    return -total / len(times)


PATIENTS = st.lists(
    st.tuples(st.integers(0, 4).map(float), st.sampled_from([0.0, 1.0]), st.floats(-3, 3)), min_size=1, max_size=12
)


@given(PATIENTS)
def test_it_is_the_formula_written_out(patients: list[tuple[float, float, float]]) -> None:
    times, status, risks = map(list, zip(*patients, strict=True))
    scores, labels = tensors(times, status, risks)
    assert partial_likelihood_loss(scores, labels).item() == pytest.approx(written_out(times, status, risks), abs=1e-9)


@given(PATIENTS, st.sampled_from([1.0, 300.0]))
def test_loss_and_gradient_are_finite_and_a_common_shift_changes_nothing(
    patients: list[tuple[float, float, float]], stretch: float
) -> None:
    """Risks of 300 apart are ratios of 1e130 and more, which a plain exp would have made 0 or infinite in float32."""
    times, status, risks = map(list, zip(*patients, strict=True))
    scores, labels = tensors(times, status, [stretch * risk for risk in risks])
    found = gradient(scores, labels)
    assert all(map(math.isfinite, found))
    assert sum(found) == pytest.approx(0, abs=1e-9)


def test_without_an_event_nothing_is_learned() -> None:
    scores, labels = tensors([1.0, 2.0], [0.0, 0.0], [0.5, -1.0])
    assert partial_likelihood_loss(scores, labels).item() == 0.0
    assert gradient(scores, labels) == [0.0, 0.0]


def test_without_a_row_there_is_no_loss() -> None:
    assert math.isnan(partial_likelihood_loss(torch.empty(0, 1), torch.empty(0, 2)).item())


def test_one_patient_who_died_teaches_nothing() -> None:
    scores, labels = tensors([1.0], [1.0], [2.0])
    assert partial_likelihood_loss(scores, labels).item() == 0.0
    assert gradient(scores, labels) == [0.0]


def test_two_times_that_differ_little_are_no_tie() -> None:
    near = tensors([1e9, 1e9 + 1, 1e9 + 2], [1.0, 1.0, 0.0], [0.0, 1.0, 0.0])
    tied = tensors([1e9, 1e9, 1e9 + 2], [1.0, 1.0, 0.0], [0.0, 1.0, 0.0])
    assert partial_likelihood_loss(*near).item() != partial_likelihood_loss(*tied).item()
