"""How small, how near and how fast each codec is: `python -m tests.benchmarks.codecs --params 25000000 --json FILE`.

One thread; the seconds are its processor time, medians, so that neighbours on a busy machine disturb less. All rates
are GB of float32 a second, zstd included. `merge` is from a payload's frames into a sum, `add` the part of it that is
left once the pieces are open. They are held against copying and `torch.add_` of as many float32 in the same run.
"""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, Final

import click
import msgspec
import numpy as np
import torch

from broker.codecs import CHOICES, CHUNK, Dense, Form, Piece, Vector, chosen, decode, decoded, encode, encoder
from broker.weights import Layout
from site_worker.model import initial_weights
from site_worker.plan import Plan
from site_worker.tasks.synthetic import synthetic
from site_worker.training import Trainer

ROW: Final = 1024
FACTOR: Final = 0.3
ROUNDS: Final = {"sgd": Plan(50, 32, 0.1), "adam": Plan(50, 32, 0.001, optimizer="adam")}
Work = Callable[[], object]


def delta(params: int, kind: str) -> tuple[Vector, Form]:
    """What 50 steps on `synthetic` change, or drawn numbers, which take less long but are of no low rank."""
    if kind in ROUNDS:
        return trained(params, ROUNDS[kind])
    squares, rest = divmod(params, ROW * ROW)
    form = Form((*((ROW, ROW),) * squares, (rest // ROW, ROW), (rest % ROW,)))
    return drawn(params, heavy=kind == "heavy"), form


def drawn(params: int, *, heavy: bool) -> Vector:
    """Normal numbers whose size differs a little between rows and layers, or very much and between columns too."""
    random = np.random.default_rng(0)
    rows = -(-params // ROW)
    spread, layers = (1.0, 1.0) if heavy else (0.3, 0.2)
    sizes = np.exp(random.normal(0, spread, rows) + np.repeat(random.normal(0, layers, -(-rows // 256)), 256)[:rows])
    vector = random.standard_normal((rows, ROW), dtype=np.float32)
    vector *= (1e-3 * sizes).astype(np.float32)[:, None]
    if heavy:
        vector *= np.exp(random.standard_normal((1, ROW), dtype=np.float32))
    return vector.reshape(-1)[:params]


def trained(params: int, plan: Plan) -> tuple[Vector, Form]:
    """The first delta of a site of the task `synthetic`."""
    task = synthetic(params)
    weights = initial_weights(task)
    layout = Layout.of(weights)
    outcome = Trainer(task, None, seed=0).train(weights, plan, threading.Event())
    return layout.flatten(outcome.weights) - layout.flatten(weights), layout.form


class Bench:
    """One vector, a sum to merge into, and how long things take."""

    def __init__(self, vector: Vector, form: Form, times: int) -> None:
        self._vector, self._form, self._times = vector, form, times
        self._sum = np.zeros_like(vector)
        self._gigabytes = vector.nbytes / 1e9

    def baselines(self) -> dict[str, float]:
        """Rates of what cannot be beaten: a copy, a sum by torch, and our own sum of float32."""
        values, total = torch.from_numpy(self._vector), torch.from_numpy(self._sum)
        dense = [(start, Dense(self._vector[start : start + CHUNK])) for start in range(0, len(self._vector), CHUNK)]
        return {
            "memcpy": self._rate(lambda: np.copyto(self._sum, self._vector)),
            "torch_add": self._rate(lambda: total.add_(values, alpha=FACTOR)),
            "dense_add": self._rate(lambda: self._add(iter(dense))),
        }

    def of(self, codec: str) -> dict[str, float]:
        """One row of the table."""
        vector, payload = self._vector, encode(codec, self._vector, self._form)
        error = decoded(chosen(codec).name, payload, self._form)
        error -= vector
        opened = list(self._opened(codec, payload))
        return {
            "bytes_a_parameter": round(len(payload) / len(vector), 5),
            "smaller_by": round(vector.nbytes / len(payload), 2),
            "relative_error": round(float(np.linalg.norm(error) / np.linalg.norm(vector)), 4),
            "encode": self._rate(lambda: self._encode(codec)),
            "decode": self._rate(lambda: self._copy(codec, payload)),
            "merge": self._rate(lambda: self._add(self._opened(codec, payload))),
            "add": self._rate(lambda: self._add(iter(opened))),
        }

    def _opened(self, codec: str, payload: bytes) -> Iterator[tuple[int, Piece]]:
        return decode(chosen(codec).name, payload, self._form)

    def _encode(self, codec: str) -> None:
        """Segment by segment, as an outbox takes it."""
        writer = encoder(codec, self._form)
        for segment in writer.segments() if writer.passes > 1 else ():
            writer.look(segment, self._vector[segment.start : segment.end])
        for segment in writer.segments():
            writer.encode(segment, self._vector[segment.start : segment.end])

    def _copy(self, codec: str, payload: bytes) -> None:
        for start, piece in self._opened(codec, payload):
            piece.copy_to(self._sum[start : start + piece.count])

    def _add(self, pieces: Iterator[tuple[int, Piece]]) -> None:
        for start, piece in pieces:
            piece.add_to(self._sum[start : start + piece.count], FACTOR)

    def _rate(self, work: Work) -> float:
        work()
        self._sum[:] = 0
        seconds = []
        for _ in range(self._times):
            started = time.thread_time()
            work()
            seconds.append(time.thread_time() - started)
        return round(self._gigabytes / median(seconds), 3)


def promises(codecs: dict[str, dict[str, float]], base: dict[str, float]) -> dict[str, tuple[float, str]]:
    """What is wanted of the speed, as (found, wanted)."""
    dense = base["dense_add"]
    return {
        "int8 encode, GB/s": (codecs["int8"]["encode"], ">= 1"),
        "int8 decode, GB/s": (codecs["int8"]["decode"], ">= 1"),
        "top1 encode, GB/s": (codecs["top1"]["encode"], ">= 0.5"),
        "top1 merge, times a dense add": (round(dense / codecs["top1"]["merge"], 3), "<= 0.25"),
        "top1 merge, times an int8 merge": (round(codecs["int8"]["merge"] / codecs["top1"]["merge"], 3), "<= 0.25"),
        "int8 add, rate of torch.add_": (round(codecs["int8"]["add"] / base["torch_add"], 3), ">= 0.5"),
        "int8 merge, rate of torch.add_": (round(codecs["int8"]["merge"] / base["torch_add"], 3), ">= 0.5"),
        "float32 add, times a copy": (round(base["memcpy"] / dense, 3), "<= 2"),
    }


def table(figures: dict[str, Any]) -> str:
    """The figures to read."""
    columns = ("bytes_a_parameter", "smaller_by", "relative_error", "encode", "decode", "merge", "add")
    lines = ["".join([f"{'codec':12}", *(f"{name:>19}" for name in columns)])]
    for codec, row in figures["codecs"].items():
        lines.append("".join([f"{codec:12}", *(f"{row[name]:19}" for name in columns)]))
    lines += ["", "  ".join(f"{name} {rate}" for name, rate in figures["baselines"].items())]
    return "\n".join(lines + [f"{name:34}{found:8}  {wanted}" for name, (found, wanted) in figures["wanted"].items()])


@click.command()
@click.option("--params", default=25_000_000, show_default=True, type=click.IntRange(1))
@click.option("--delta", "kind", default="flat", show_default=True, type=click.Choice(["flat", "heavy", *ROUNDS]))
@click.option("--times", default=5, show_default=True, type=click.IntRange(1), help="Of these the median counts.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures to this file.")
def main(params: int, kind: str, times: int, json_file: Path | None) -> None:
    """Size, error and speed of every codec on one drawn vector."""
    torch.set_num_threads(1)
    vector, form = delta(params, kind)
    bench = Bench(vector, form, times)
    baselines, codecs = bench.baselines(), {codec: bench.of(codec) for codec in (*CHOICES, "lowrank-330")}
    figures = {"parameters": len(vector), "delta": kind, "times": times, "baselines": baselines, "codecs": codecs}
    figures["wanted"] = promises(codecs, baselines)
    click.echo(table(figures))
    if json_file is not None:
        json_file.write_text(msgspec.json.format(msgspec.json.encode(figures)).decode() + "\n")


if __name__ == "__main__":
    main()
