"""Cox regression: the loss of a batch of patients who died, or were last seen alive, at some time."""

import torch
from torch import Tensor


def partial_likelihood_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Negative log partial likelihood of the batch (Cox 1975) over its number of rows, ties after Efron (1977).

    `scores` are the log risks, shape (rows, 1). `labels`, shape (rows, 2), are time and whether the event came (1) or
    observation ended (0). Of d rows with an event at one time, which is first is not known, so the l-th of them
    (l = 0 .. d - 1) leaves those at risk with l / d of the whole risk of the d taken off:

        log L  =  sum over events i of  s_i - log(sum exp(s_j) over t_j >= t_i  -  l / d * sum exp(s_j) over the d)

    A row whose observation ends at the time of an event is still at risk. Without an event the loss is 0, and so is its
    gradient; without a row it is NaN. Divided by the rows and not by the events, a batch with few events weighs little.
    """
    risks, times, events = scores.flatten().double(), labels[:, 0], labels[:, 1] > 0.5
    order = torch.argsort(times, stable=True)
    at_risk = torch.logcumsumexp(risks[order].flip(0), 0).flip(0)  # of a row and all behind it
    own, when = risks[events], times[events]
    log_all = at_risk[torch.searchsorted(times[order].contiguous(), when.contiguous())]
    moments, moment = torch.unique(when, return_inverse=True)
    log_tied, size = _log_sums(own, moment, len(moments))
    share = _places(moment).double() / size[moment]
    left = log_all + torch.log1p(-share * torch.exp(log_tied[moment] - log_all))
    return (left - own).sum() / len(risks)


def _log_sums(values: Tensor, group: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Per group log(sum(exp(values))) and how many there are; every group has one at least."""
    largest = torch.full((groups,), -torch.inf, dtype=values.dtype).scatter_reduce(0, group, values.detach(), "amax")
    sums = torch.zeros_like(largest).scatter_add(0, group, torch.exp(values - largest[group]))
    return torch.log(sums) + largest, torch.bincount(group, minlength=groups)


def _places(group: Tensor) -> Tensor:
    """Of each entry how many of its group come before it."""
    order = torch.argsort(group, stable=True)
    sizes = torch.bincount(group)
    first = torch.cumsum(sizes, 0) - sizes
    places = torch.empty_like(group)
    places[order] = torch.arange(len(group)) - first[group[order]]
    return places
