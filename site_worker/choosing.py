"""Which codec, where the coordinator leaves it open (`auto`): by what was learned, the line, and the backlog.

* What carries the noise of differential privacy is flat, and choosing what to send by its size would choose noise.
* A line on which an update hardly costs anything gets nearly all of it.
* Else low rank, as coarse as the deltas bear: local SGD's are heavy-tailed (the largest hundredth of the coordinates
  has half of the energy), local Adam's flat (a tenth), and flat ones need three times the bytes. If more than three
  rounds' worth of learning is left out, the next updates are finer, until it is half of that.

Measured with tests/benchmarks/compression.py; docs/algorithms.md has the figures.
"""

from typing import Final

import numpy as np

from broker.codecs import AUTO, Form
from site_worker.compression import Stretch
from site_worker.past import Past

SMALL: Final = 1 << 14  # coordinates: below that, the message around an update is what costs
LADDER: Final = (330, 240, 160, 100, 80, 60, 40)
HEAVY, FLAT = 330, 100
HEAVY_SHARE: Final = 0.2  # of the energy, in the largest hundredth
TOO_MUCH, TOO_LITTLE = 3.0, 1.5
FINE: Final = "int8-coarse"
FINE_BYTES: Final = 0.4  # a coordinate, about
WORTH: Final = 0.1  # of the training time: what sending may take without anybody minding
SAMPLES, SAMPLE = 16, 1 << 14


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
    coarsest = HEAVY if share_of_largest(delta, form.size) > HEAVY_SHARE else FLAT
    known = None if past is None or not past.choice.startswith("lowrank-") else int(past.choice.partition("-")[2])
    if past is None or known not in LADDER:
        return coarsest
    rung = LADDER.index(known)
    if past.backlog > TOO_MUCH:
        rung = min(rung + 1, len(LADDER) - 1)
    elif past.backlog < TOO_LITTLE:
        rung = max(rung - 1, 0)
    return min(LADDER[rung], coarsest)


def share_of_largest(delta: Stretch, size: int) -> float:
    """Which part of the energy the largest hundredth of the coordinates has, by a sample of evenly spread stretches."""
    starts = np.linspace(0, max(0, size - SAMPLE), SAMPLES, dtype=np.int64)
    stretches = [delta(start, min(start + SAMPLE, size)) for start in map(int, np.unique(starts))]
    squares = np.square(np.concatenate(stretches), dtype=np.float64)
    total, many = float(squares.sum()), max(1, len(squares) // 100)
    return float(np.partition(squares, -many)[-many:].sum()) / total if total else 0.0
