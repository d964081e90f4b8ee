"""Which codec, where the coordinator leaves it open (`auto`): by what was learned, the line, and the backlog.

* What carries the noise of differential privacy is flat, and choosing what to send by its size would choose noise.
* A line on which an update hardly costs anything gets nearly all of it.
* Else low rank. The first delta is tried at 330, then at 100 times smaller than float32: the first of these that leaves
  out at most .35 of it is taken, else 40. Local SGD leaves out .2 at 330 where the task is of low rank, .4 where it is
  not; local Adam .3 to .5 at 100. Later deltas are no better: if more than three rounds' worth of learning is left
  out, the next updates are finer, until it is half of that, but never coarser than where it began.

Measured with tests/benchmarks/compression.py; docs/algorithms.md has the figures.
"""

from typing import Final

from broker.codecs import AUTO, Form
from site_worker.compression import Stretch, left_out
from site_worker.past import Past

SMALL: Final = 1 << 14  # coordinates: below that, the message around an update is what costs
STARTS: Final = (330, 100, 40)
LADDER: Final = (330, 240, 160, 100, 80, 60, 40, 30, 20)
BEARABLE: Final = 0.35  # of the first delta
TOO_MUCH, TOO_LITTLE = 3.0, 1.5
FINE: Final = "int8-coarse"
FINE_BYTES: Final = 0.4  # a coordinate, about
WORTH: Final = 0.1  # of the training time: what sending may take without anybody minding


def choose(asked: str, delta: Stretch, form: Form, past: Past | None, *, private: bool) -> str:
    """What `asked` comes to for a round that has learned `delta`; `past` is of the rounds before it."""
    if asked != AUTO:
        return asked
    if private or form.size <= SMALL:
        return "int8"
    if past is not None and past.bytes_per_s and FINE_BYTES * form.size / past.bytes_per_s <= WORTH * past.training_s:
        return FINE
    if all(len(shape) < 2 for shape in form.shapes):
        return "top5"
    return f"lowrank-{_ratio(delta, form, past)}"


def _ratio(delta: Stretch, form: Form, past: Past | None) -> int:
    known = None if past is None or not past.choice.startswith("lowrank-") else int(past.choice.partition("-")[2])
    if past is None or known not in LADDER:
        return _start(delta, form)
    rung = LADDER.index(known)
    if past.backlog > TOO_MUCH:
        return LADDER[min(rung + 1, len(LADDER) - 1)]
    if past.backlog < TOO_LITTLE and known not in STARTS:
        return LADDER[rung - 1]
    return known


def _start(delta: Stretch, form: Form) -> int:
    *tried, last = STARTS
    return next((ratio for ratio in tried if left_out(f"lowrank-{ratio}", delta, form) <= BEARABLE), last)
