"""Whether a large update delays a small one: `python -m tests.benchmarks.fairness --params 270000000 --json FILE`.

A private broker, the real aggregator process, and two sites that are played by publishers. One sends small updates, the
next when it has the receipt of the last, first alone, then while the other sends one of about 4 bytes a parameter,
1 GB unless told otherwise, and the version that both make is moved, saved and published. Both are of the same model, so
a small one is nearly all zeros. Delays are from publish to receipt; `part_s` is how long a part of the large update
took on the average, from its first byte to its receipt, which does not wait for the version.
"""

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Final

import click
import msgspec
import numpy as np

from broker.codecs import encode
from broker.errors import FedqueueError
from broker.messages import part_count
from broker.processes import wait_until
from tests.benchmarks.publisher import Published
from tests.benchmarks.stage import Stage, peak_mb

PATIENCE_S: Final = 600.0
AFTER_S: Final = 10.0  # in which it is saved and published
SMALL, LARGE = "small", "large"
Waits = list[tuple[float, float]]


def measure(folder: Path, *, params: int, alone_s: float) -> dict[str, Any]:
    """One run in a new folder."""
    stage = Stage(folder, np.zeros(params, dtype=np.float32))
    parts = _prepare(stage)
    try:
        stage.set_up(codec="float32", strategy="patient", buffer_size=2, min_sites=1)
        stage.assign(SMALL, payloads=[str(folder / SMALL) + ".bin"])
        stage.assign(LARGE, payloads=[str(folder / LARGE) + ".bin"], updates=1)
        stage.local.start_aggregator()
        stage.play(SMALL, "publisher")
        _until(stage, 2)
        time.sleep(alone_s)
        stage.play(LARGE, "publisher")
        _until_from(stage, LARGE)
        _until_made(stage, 1)
        peak = peak_mb(stage.aggregator_pid())
    finally:
        stage.local.close()
    small, large = (_published(folder / site) for site in (SMALL, LARGE))
    return {**_figures(small.receipts, large.receipts[0], parts), "aggregator_peak_mb": peak}


def _prepare(stage: Stage) -> int:
    """Write both payloads; how many parts the large one has."""
    size = len(stage.vector)
    drawn = np.random.default_rng(1).standard_normal(size, dtype=np.float32)
    drawn *= np.float32(0.1)  # a norm that may be accepted, however many there are
    payload = encode("float32", drawn)
    Path(f"{stage.path / LARGE}.bin").write_bytes(payload)
    drawn[1:] = 0
    Path(f"{stage.path / SMALL}.bin").write_bytes(encode("float32", drawn))
    return part_count(len(payload))


def _until(stage: Stage, updates: int) -> None:
    def accepted() -> bool:
        stage.local.check()
        return stage.accepted() >= updates

    if not wait_until(accepted, PATIENCE_S):
        raise FedqueueError(f"There were no {updates} updates in {PATIENCE_S:.0f} s; look at the logs.")


def _until_from(stage: Stage, site: str) -> None:
    def accepted() -> bool:
        stage.local.check()
        return stage.asked(f"SELECT count(*) FROM updates WHERE site = '{site}'") > 0

    if not wait_until(accepted, PATIENCE_S):
        raise FedqueueError(f"The update of {site} was not accepted in {PATIENCE_S:.0f} s; look at the logs.")
    time.sleep(1.0)  # its receipt, too


def _until_made(stage: Stage, version: int) -> None:
    def made() -> bool:
        stage.local.check()
        return stage.asked(f"SELECT count(*) FROM versions WHERE version = {version} AND digest != x''") > 0

    if not wait_until(made, PATIENCE_S):
        raise FedqueueError(f"Version {version} was not made in {PATIENCE_S:.0f} s; look at the logs.")
    time.sleep(AFTER_S)


def _published(folder: Path) -> Published:
    return msgspec.json.decode((folder / "published.json").read_bytes(), type=Published)


def _figures(small: Waits, large: tuple[float, float], parts: int) -> dict[str, float]:
    begun, took = large
    alone = [wait for sent, wait in small if sent + wait < begun]
    beside = [wait for sent, wait in small if sent < begun + took and sent + wait > begun]
    after = [wait for sent, wait in small if sent >= begun + took]
    part_s = took / parts
    return {
        "parts": parts,
        "large_s": round(took, 2),
        "part_s": round(part_s, 4),
        "alone_s": round(median(alone), 4),
        "alone_worst_s": round(max(alone), 4),
        "beside_s": round(median(beside), 4),
        "beside_worst_s": round(max(beside), 4),
        "delay_parts": round((median(beside) - median(alone)) / part_s, 2),
        "delay_worst_parts": round((max(beside) - median(alone)) / part_s, 2),
        "small_updates_beside": len(beside),
        "after_s": round(median(after), 4),
        "after_worst_s": round(max(after), 4),
        "delay_after_worst_parts": round((max(after) - median(alone)) / part_s, 2),
        "small_updates_after": len(after),
    }


@click.command()
@click.option("--params", default=270_000_000, show_default=True, type=click.IntRange(1000))
@click.option("--alone", "alone_s", default=10.0, show_default=True, help="Seconds before the large update is sent.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures to this file.")
def main(*, params: int, alone_s: float, json_file: Path | None) -> None:
    """Measure how much longer a small update takes while another site sends a large one."""
    with tempfile.TemporaryDirectory(prefix="fedqueue-fairness-") as folder:
        found = measure(Path(folder), params=params, alone_s=alone_s)
    text = msgspec.json.format(msgspec.json.encode(found)).decode()
    click.echo(text)
    if json_file is not None:
        json_file.write_text(text + "\n")


if __name__ == "__main__":
    main()
